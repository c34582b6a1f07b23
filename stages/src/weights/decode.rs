//! Stored values to floats, for the few that are wanted one row at a time.

use std::borrow::Cow;

use candle_core::quantized::{GgmlDType, QStorage, QTensor};
use candle_core::{Device, Result};
use half::{bf16, f16};

use crate::kernels::Format;

/// Decodes `bytes`, which hold as many values as `values` has room for.
pub(super) fn decode(format: Format, bytes: &[u8], values: &mut [f32]) -> Result<()> {
    match format {
        Format::F32 => each(bytes, values, f32::from_le_bytes),
        Format::F16 => each(bytes, values, |pair| f16::from_le_bytes(pair).to_f32()),
        Format::BF16 => each(bytes, values, |pair| bf16::from_le_bytes(pair).to_f32()),
        Format::Q4_0 => blocks(GgmlDType::Q4_0, bytes, values)?,
        Format::Q4_1 => blocks(GgmlDType::Q4_1, bytes, values)?,
        Format::Q5_0 => blocks(GgmlDType::Q5_0, bytes, values)?,
        Format::Q5_1 => blocks(GgmlDType::Q5_1, bytes, values)?,
        Format::Q8_0 => blocks(GgmlDType::Q8_0, bytes, values)?,
        Format::Q2K => blocks(GgmlDType::Q2K, bytes, values)?,
        Format::Q3K => blocks(GgmlDType::Q3K, bytes, values)?,
        Format::Q4K => blocks(GgmlDType::Q4K, bytes, values)?,
        Format::Q5K => blocks(GgmlDType::Q5K, bytes, values)?,
        Format::Q6K => blocks(GgmlDType::Q6K, bytes, values)?,
    }
    Ok(())
}

fn each<const N: usize>(bytes: &[u8], values: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (value, chunk) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = decode(*chunk);
    }
}

fn blocks(format: GgmlDType, bytes: &[u8], values: &mut [f32]) -> Result<()> {
    let storage = QStorage::from_data(Cow::Borrowed(bytes), &Device::Cpu, format)?;
    let decoded = QTensor::new(storage, values.len())?.dequantize(&Device::Cpu)?;
    values.copy_from_slice(&decoded.to_vec1::<f32>()?);
    Ok(())
}
