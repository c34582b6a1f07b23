//! The one list of weight formats that each device computes, and of their form there. Pure: it is tested without the
//! devices.

use schema::record::DeviceKind;

use crate::format::Format;
use crate::model::UnsupportedModel;
use crate::weights::ModelFile;

/// Form of a matrix on its device. It decides which kernels multiply with the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// The file's blocks, multiplied with activations in 32 bits by candle's quantised kernels.
    Quantised,
    /// The file's floats as a dense matrix. Activations are converted to its type for the product.
    Dense,
    /// Expanded to a dense matrix of 32-bit floats, because candle's kernels for the file's own form are not usable.
    Dequantised,
}

/// The formats that candle 0.11.1 does not know.
pub(super) const WITHOUT_CANDLE: &[Format] = &[
    Format::Iq4Nl,
    Format::Iq4Xs,
    Format::Mxfp4,
    Format::Tq1_0,
    Format::Tq2_0,
    Format::Iq2Xxs,
    Format::Iq2Xs,
    Format::Iq2S,
    Format::Iq3Xxs,
    Format::Iq3S,
    Format::Iq1S,
    Format::Iq1M,
    Format::Affine4G32,
    Format::Affine4G64,
    Format::Affine4G128,
    Format::Affine8G32,
    Format::Affine8G64,
    Format::F8E4M3,
];

/// Reason why a device does not compute a format.
type UnsupportedReason = &'static str;

/// Form of a format's matrices on a device. For Metal it follows from the sources of candle 0.11.1, whose kernels were
/// run one by one on a machine other than a Mac:
/// - F16: `call_quantized_matmul_mv_t` passes strides of zero to `kernel_mul_mv_f16_f32`, which uses them. So one row
///   of activations is multiplied with the first row of weights alone.
/// - BF16: for one row the same function requests `kernel_mul_mv_bf16_f32`, which `quantized.metal` does not define.
/// - Q2_K: the same function starts a group of threads for every 4 outputs, and `kernel_mul_mv_q2_K_f32` writes 8 with
///   each.
pub(super) fn storage(device: DeviceKind, format: Format) -> Result<Storage, UnsupportedReason> {
    match (device, format) {
        (DeviceKind::Sim, _) => Err("candle does not compute there"),
        (_, Format::F32) => Ok(Storage::Dense),
        // On CUDA, candle has only the dense products for these formats.
        (DeviceKind::Cuda, Format::F16 | Format::BF16) => Ok(Storage::Dense),
        (DeviceKind::Metal, Format::F16 | Format::BF16) => Ok(Storage::Dequantised),
        (DeviceKind::Metal, Format::Q2K) => Err("candle 0.11.1's kernel for one row writes past its output"),
        // Off a GPU, candle is the reference of the tests, which may take memory.
        (DeviceKind::Cpu, format) if WITHOUT_CANDLE.contains(&format) => Ok(Storage::Dequantised),
        (_, format) if WITHOUT_CANDLE.contains(&format) => Err("candle 0.11.1 has no kernel for it"),
        (DeviceKind::Cpu | DeviceKind::Metal | DeviceKind::Cuda, _) => Ok(Storage::Quantised),
    }
}

/// Checks that `device` computes the format of every matrix of `file` that tokens are multiplied with.
///
/// # Errors
/// [`UnsupportedModel::Tensor`] names the first matrix whose format it does not compute, the fault, and the formats
/// that would have been accepted.
pub(super) fn check(file: &ModelFile, device: DeviceKind) -> Result<(), UnsupportedModel> {
    for tensor in file.matrices() {
        if tensor.is_repacked() && device != DeviceKind::Cpu {
            let found = format!("{}, copied in another order than the file's", tensor.format.name());
            let expected = "a GGUF file, or the device cpu (`--device cpu`), which computes every format".to_owned();
            return Err(UnsupportedModel::Tensor { name: tensor.name.clone(), expected, found });
        }
        if let Err(fault) = storage(device, tensor.format) {
            let (name, found) = (tensor.name.clone(), format!("{}: {fault}", tensor.format.name()));
            return Err(UnsupportedModel::Tensor { name, expected: supported_formats(device), found });
        }
    }
    Ok(())
}

/// Names the formats that `device` computes, and a device that computes all.
fn supported_formats(device: DeviceKind) -> String {
    let formats = Format::ALL.into_iter().filter(|format| storage(device, *format).is_ok());
    let names = formats.map(Format::name).collect::<Vec<_>>().join(", ");
    let device = format!("{device:?}").to_lowercase();
    format!("one of {names} on the device {device}, or the device cpu (`--device cpu`), which computes every format")
}

// === impl Storage ===

impl Storage {
    /// Bytes that a matrix of `values` values, `stored_bytes` in the file, takes on the device.
    pub(super) fn bytes(self, values: u64, stored_bytes: u64) -> u64 {
        match self {
            Self::Quantised | Self::Dense => stored_bytes,
            Self::Dequantised => values.saturating_mul(size_of::<f32>() as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [DeviceKind; 3] = [DeviceKind::Cpu, DeviceKind::Metal, DeviceKind::Cuda];

    fn refused(device: DeviceKind) -> Vec<Format> {
        Format::ALL.into_iter().filter(|format| storage(device, *format).is_err()).collect()
    }

    #[test]
    fn gpus_refuse_formats_without_a_sound_kernel_and_the_processor_refuses_none() {
        assert_eq!(refused(DeviceKind::Metal), [&[Format::Q2K][..], WITHOUT_CANDLE].concat());
        assert_eq!(refused(DeviceKind::Cuda), WITHOUT_CANDLE);
        assert_eq!(refused(DeviceKind::Cpu), []);
    }

    #[test]
    fn gpus_expand_matrices_of_16_bits_on_metal_and_no_others() {
        for device in DEVICES {
            let expands = |format: &Format| storage(device, *format) == Ok(Storage::Dequantised);
            let found: Vec<_> = Format::ALL.into_iter().filter(expands).collect();
            let expected: &[Format] = match device {
                DeviceKind::Metal => &[Format::F16, Format::BF16],
                DeviceKind::Cuda | DeviceKind::Sim => &[],
                DeviceKind::Cpu => WITHOUT_CANDLE,
            };
            assert_eq!(found, expected, "{device:?}");
        }
    }

    #[test]
    fn no_16_bit_matrix_uses_a_quantised_kernel_on_a_gpu() {
        for device in [DeviceKind::Metal, DeviceKind::Cuda] {
            for format in [Format::F32, Format::F16, Format::BF16] {
                assert_ne!(storage(device, format), Ok(Storage::Quantised), "{} on {device:?}", format.name());
            }
        }
    }

    #[test]
    fn an_expanded_matrix_takes_four_bytes_a_value_and_any_other_its_stored_bytes() {
        assert_eq!(Storage::Dequantised.bytes(96, 192), 384);
        assert_eq!(Storage::Dense.bytes(96, 192), 192);
        assert_eq!(Storage::Quantised.bytes(64, 40), 40);
    }
}
