//! One weight matrix on the device, in the form that `support` selects.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Module, Result, Tensor};

use super::hardware::Hardware;
use super::support::{Storage, storage};
use crate::format::Format;
use crate::kernels::dequantise_block_bytes;
use crate::weights;

/// A matrix to multiply rows of activations with.
#[derive(Debug)]
pub(super) enum DeviceMatrix {
    /// Multiplied as stored, with activations in 32 bits.
    Quantised(QMatMul),
    /// A plain tensor, `[out][in]`. Activations are converted to its type for the product.
    Dense(Tensor),
}

// === impl DeviceMatrix ===

impl DeviceMatrix {
    /// Copies a mapped tensor to the device.
    pub(super) fn upload(tensor: &weights::Tensor, hardware: &Hardware) -> Result<Self> {
        let (shape, device, format) = ((tensor.rows(), tensor.cols()), &hardware.device, tensor.format());
        match storage(hardware.kind, format).map_err(candle_core::Error::msg)? {
            Storage::Quantised => {
                let blocks = QStorage::from_data(tensor.bytes().into(), device, ggml_dtype(format)?)?;
                // Built by hand, because the constructor expands 16-bit floats to 32 bits.
                Ok(Self::Quantised(QMatMul::QTensor(Arc::new(QTensor::new(blocks, shape)?))))
            }
            Storage::Dense => {
                let dense = Tensor::from_raw_buffer(tensor.bytes(), dense_dtype(format)?, &[shape.0, shape.1], device)?;
                Ok(Self::Dense(dense))
            }
            Storage::Dequantised => {
                let mut values = vec![0.0; shape.0 * shape.1];
                dequantise_block_bytes(format, tensor.bytes(), &mut values);
                // Copied from the host in one piece, because candle's own Metal allocator rounds its buffers up to a
                // power of two.
                Ok(Self::Dense(Tensor::from_vec(values, shape, device)?))
            }
        }
    }

    /// Multiplies `rows × in` activations to `rows × out`, both in 32 bits.
    pub(super) fn multiply(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Quantised(matrix) => matrix.forward(rows),
            Self::Dense(matrix) => rows.to_dtype(matrix.dtype())?.matmul(&matrix.t()?)?.to_dtype(DType::F32),
        }
    }
}

/// Type of a dense matrix that has the file's own bytes.
fn dense_dtype(format: Format) -> Result<DType> {
    match format {
        Format::F32 => Ok(DType::F32),
        Format::F16 => Ok(DType::F16),
        Format::BF16 => Ok(DType::BF16),
        blocks => candle_core::bail!("blocks of {} are no dense matrix: expected F32, F16 or BF16", blocks.name()),
    }
}

/// Candle's name of a format.
fn ggml_dtype(format: Format) -> Result<GgmlDType> {
    Ok(match format {
        Format::F32 => GgmlDType::F32,
        Format::F16 => GgmlDType::F16,
        Format::BF16 => GgmlDType::BF16,
        Format::Q4_0 => GgmlDType::Q4_0,
        Format::Q4_1 => GgmlDType::Q4_1,
        Format::Q5_0 => GgmlDType::Q5_0,
        Format::Q5_1 => GgmlDType::Q5_1,
        Format::Q8_0 => GgmlDType::Q8_0,
        Format::Q2K => GgmlDType::Q2K,
        Format::Q3K => GgmlDType::Q3K,
        Format::Q4K => GgmlDType::Q4K,
        Format::Q5K => GgmlDType::Q5K,
        Format::Q6K => GgmlDType::Q6K,
        Format::Iq4Nl
        | Format::Iq4Xs
        | Format::Mxfp4
        | Format::Tq1_0
        | Format::Tq2_0
        | Format::Iq2Xxs
        | Format::Iq2Xs
        | Format::Iq2S
        | Format::Iq3Xxs
        | Format::Iq3S
        | Format::Iq1S
        | Format::Iq1M
        | Format::Affine4G32
        | Format::Affine4G64
        | Format::Affine4G128
        | Format::Affine8G32
        | Format::Affine8G64
        | Format::F8E4M3 => {
            candle_core::bail!("{} has no name in candle", format.name())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::super::support::WITHOUT_CANDLE;
    use super::*;

    #[test]
    fn formats_that_candle_does_not_know_are_listed() {
        for format in Format::ALL {
            assert_eq!(ggml_dtype(format).is_err(), WITHOUT_CANDLE.contains(&format), "{}", format.name());
        }
    }

    #[test]
    fn candle_and_the_kernels_agree_on_block_sizes() {
        for format in Format::ALL.into_iter().filter(|format| !WITHOUT_CANDLE.contains(format)) {
            let theirs = ggml_dtype(format).expect("candle has it");
            let found = (theirs.block_size(), theirs.type_size());
            assert_eq!(found, (format.block_values(), format.block_bytes()), "{}", format.name());
        }
    }
}
