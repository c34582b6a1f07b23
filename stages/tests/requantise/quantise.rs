//! Quantises a row of floats in any format. Does not depend on models.

use half::{bf16, f16};
use stages::format::Format;

use super::{codebook, grid, k, own, small, ternary};

/// Writes `values` to `out` in `format`.
///
/// # Panics
/// If the length of `out` is not exactly that of the values' blocks.
pub fn row(format: Format, values: &[f32], out: &mut [u8]) {
    assert_eq!(format.row_bytes(values.len()), Some(out.len()), "{} values in {}", values.len(), format.name());
    let blocks = values.chunks_exact(format.block_values()).zip(out.chunks_exact_mut(format.block_bytes()));
    blocks.for_each(|(values, out)| block(format, values, out));
}

fn block(format: Format, values: &[f32], out: &mut [u8]) {
    match format {
        Format::F32 => out.copy_from_slice(&values[0].to_le_bytes()),
        Format::F16 => out.copy_from_slice(&f16::from_f32(values[0]).to_le_bytes()),
        Format::BF16 => out.copy_from_slice(&bf16::from_f32(values[0]).to_le_bytes()),
        Format::Q4_0 => small::scaled(values, 4, out),
        Format::Q5_0 => small::scaled(values, 5, out),
        Format::Q8_0 => small::scaled(values, 8, out),
        Format::Q4_1 => small::shifted(values, 4, out),
        Format::Q5_1 => small::shifted(values, 5, out),
        Format::Q2K => k::q2(values, out),
        Format::Q3K => k::q3(values, out),
        Format::Q4K => k::q4(values, out),
        Format::Q5K => k::q5(values, out),
        Format::Q6K => k::q6(values, out),
        Format::Iq4Nl => codebook::iq4_nl(values, out),
        Format::Iq4Xs => codebook::iq4_xs(values, out),
        Format::Mxfp4 => codebook::mxfp4(values, out),
        Format::Tq1_0 => ternary::tq1(values, out),
        Format::Tq2_0 => ternary::tq2(values, out),
        Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S | Format::Iq3Xxs | Format::Iq3S | Format::Iq1S | Format::Iq1M => {
            grid::block(format, values, out);
        }
        Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => own::affine(values, 4, out),
        Format::Affine8G32 | Format::Affine8G64 => own::affine(values, 8, out),
        Format::F8E4M3 => own::fp8(values, out),
    }
}

/// The integer from `low` to `high` that is nearest to `value / step`. Zero if `step` is zero.
pub fn nearest(value: f32, step: f32, low: i32, high: i32) -> i32 {
    if step == 0.0 { 0 } else { rounded(value / step, low as f32, high as f32) as i32 }
}

/// The integer from `low` to `high` that is nearest to `value`, and of two equally near ones the even one. A float must
/// hold the integers exactly.
#[inline(always)]
pub fn rounded(value: f32, low: f32, high: f32) -> f32 {
    /// 1.5 * 2^23: a sum with it has no bits for a fraction.
    const NO_FRACTION: f32 = 12_582_912.0;
    let limited = if value > high { high } else { value };
    let limited = if limited < low { low } else { limited };
    limited + NO_FRACTION - NO_FRACTION
}

/// Writes `value` as a 16-bit float to the front of `out` and returns the value of that float.
pub fn put_half(out: &mut [u8], value: f32) -> f32 {
    let half = f16::from_f32(value);
    out[..2].copy_from_slice(&half.to_le_bytes());
    half.to_f32()
}

#[cfg(test)]
mod tests {
    use stages::kernels::dequantise_block_bytes;

    use super::*;

    #[test]
    fn a_quantised_row_is_close_to_its_source_values() {
        let values: Vec<f32> =
            (0..512).map(|at| ((at * 7919 % 1009) as f32 / 504.5 - 1.0) * (1.0 + at as f32 / 256.0)).collect();
        for (format, error_max) in [
            (Format::F16, 0.001),
            (Format::BF16, 0.005),
            (Format::Q4_0, 0.13),
            (Format::Q4_1, 0.12),
            (Format::Q5_0, 0.065),
            (Format::Q5_1, 0.06),
            (Format::Q8_0, 0.008),
            (Format::Q2K, 0.5),
            (Format::Q3K, 0.25),
            (Format::Q4K, 0.12),
            (Format::Q5K, 0.06),
            (Format::Q6K, 0.035),
            (Format::Iq4Nl, 0.12),
            (Format::Iq4Xs, 0.12),
            (Format::Mxfp4, 0.16),
            (Format::Tq1_0, 0.6),
            (Format::Tq2_0, 0.6),
            (Format::Iq2Xxs, 0.5),
            (Format::Iq2Xs, 0.5),
            (Format::Iq2S, 0.5),
            (Format::Iq3Xxs, 0.3),
            (Format::Iq3S, 0.3),
            (Format::Iq1S, 0.7),
            (Format::Iq1M, 0.7),
            (Format::Affine4G32, 0.12),
            (Format::Affine4G64, 0.13),
            (Format::Affine4G128, 0.14),
            (Format::Affine8G32, 0.007),
            (Format::Affine8G64, 0.008),
            (Format::F8E4M3, 0.04),
        ] {
            let mut blocks = vec![0; format.row_bytes(values.len()).unwrap()];
            row(format, &values, &mut blocks);
            let mut back = vec![0.0; values.len()];
            dequantise_block_bytes(format, &blocks, &mut back);
            let square = |of: &mut dyn Iterator<Item = f32>| of.map(|x| f64::from(x * x)).sum::<f64>();
            let error = square(&mut values.iter().zip(&back).map(|(a, b)| a - b)) / square(&mut values.iter().copied());
            assert!(error.sqrt() < error_max, "{}: {}", format.name(), error.sqrt());
        }
    }
}
