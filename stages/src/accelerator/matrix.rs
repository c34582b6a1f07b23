//! One weight matrix on the device, in the format of the file.

use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{DType, Device, Module, Result, Tensor};

use crate::kernels::Format;
use crate::weights;

/// A matrix that rows of activations are multiplied with.
#[derive(Debug)]
pub(super) enum Matrix {
    /// Multiplied as stored, with activations in 32 bits.
    Stored(QMatMul),
    /// A plain tensor, `[out][in]`; activations take its type for the product.
    Plain(Tensor),
}

// === impl Matrix ===

impl Matrix {
    /// Copies a mapped tensor to the device.
    pub(super) fn upload(tensor: &weights::Tensor, device: &Device) -> Result<Self> {
        let shape = (tensor.rows(), tensor.cols());
        let plain = |dtype| Tensor::from_raw_buffer(tensor.bytes(), dtype, &[shape.0, shape.1], device);
        match tensor.format() {
            Format::F32 => Ok(Self::Plain(plain(DType::F32)?)),
            // CUDA has no kernels of candle's for these but the plain products; elsewhere activations keep their 32 bits.
            Format::F16 if device.is_cuda() => Ok(Self::Plain(plain(DType::F16)?)),
            Format::BF16 if device.is_cuda() => Ok(Self::Plain(plain(DType::BF16)?)),
            format => {
                let storage = QStorage::from_data(tensor.bytes().into(), device, stored(format))?;
                // Made by hand, as the constructor expands 16-bit floats to 32.
                Ok(Self::Stored(QMatMul::QTensor(Arc::new(QTensor::new(storage, shape)?))))
            }
        }
    }

    /// `rows × in` activations to `rows × out`, both in 32 bits.
    pub(super) fn multiply(&self, rows: &Tensor) -> Result<Tensor> {
        match self {
            Self::Stored(matrix) => matrix.forward(rows),
            Self::Plain(matrix) => rows.to_dtype(matrix.dtype())?.matmul(&matrix.t()?)?.to_dtype(DType::F32),
        }
    }
}

/// What candle calls a format.
fn stored(format: Format) -> GgmlDType {
    match format {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_as_long_to_candle_as_to_the_kernels_here() {
        for format in Format::ALL {
            let theirs = stored(format);
            let found = (theirs.block_size(), theirs.type_size());
            assert_eq!(found, (format.block_values(), format.block_bytes()), "{}", format.name());
        }
    }
}
