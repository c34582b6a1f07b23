//! Tests of the kernels as a whole: against a double-precision reference, against candle's reading of the layouts, and
//! against themselves in other batches.

use std::num::NonZeroUsize;

use half::{bf16, f16};

use super::rows::Quantised;
use super::*;

/// A counter-based generator: small, seedable, good enough to draw blocks.
struct TestRng(u64);

impl TestRng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Roughly normal, mean zero, deviation one.
    fn value(&mut self) -> f32 {
        (0..4).map(|_| (self.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>() * 1.7
    }

    /// A scale as in real files, and sometimes one that no file should have.
    fn scale(&mut self) -> f16 {
        match self.below(16) {
            0 => f16::ZERO,
            1 => f16::from_bits(self.below(0x400) as u16),
            2 => f16::from_f32(60000.0),
            3 => f16::from_f32(-0.03),
            _ => f16::from_f32(self.value().abs() * 0.02 + 0.001),
        }
    }

    /// As `scale`, a power of two: `2^(exponent - 128)`.
    fn exponent(&mut self) -> u8 {
        match self.below(16) {
            0 => self.below(3) as u8,
            1 => 144,
            _ => 117 + self.below(6) as u8,
        }
    }

    fn values(&mut self, len: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..len).map(|_| self.value()).collect();
        // Outliers, and whole blocks of zeros and of tiny values.
        for block in values.chunks_mut(32) {
            match self.below(12) {
                0 => block.fill(0.0),
                1 => block.iter_mut().for_each(|value| *value *= 1e-39),
                2 => block[0] *= 1e4,
                3 => block.iter_mut().for_each(|value| *value *= 1e-20),
                _ => {}
            }
        }
        values
    }

    /// Writes a scale and a minimum in single precision.
    fn factors(&mut self, block: &mut [u8]) {
        for bytes in block[..8].as_chunks_mut().0 {
            *bytes = self.scale().to_f32().to_le_bytes();
        }
    }

    /// Bytes of a matrix with random bits and sound scales.
    fn weights(&mut self, format: Format, rows: usize, cols: usize) -> Vec<u8> {
        let len = format.row_bytes(cols).expect("whole blocks") * rows;
        let mut bytes: Vec<u8> = (0..len).map(|_| self.next() as u8).collect();
        for block in bytes.chunks_mut(format.block_bytes()) {
            match format {
                Format::F32 => block.copy_from_slice(&self.value().to_le_bytes()),
                Format::F16 => block.copy_from_slice(&f16::from_f32(self.value()).to_le_bytes()),
                Format::BF16 => block.copy_from_slice(&bf16::from_f32(self.value()).to_le_bytes()),
                Format::Mxfp4 => block[0] = self.exponent(),
                Format::Iq1M => scatter(self.scale(), block),
                Format::F8E4M3 => block[..4].copy_from_slice(&self.scale().to_f32().to_le_bytes()),
                Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => self.factors(block),
                Format::Affine8G32 | Format::Affine8G64 => self.factors(block),
                _ => {
                    for at in scales_at(format) {
                        block[*at..at + 2].copy_from_slice(&self.scale().to_le_bytes());
                    }
                }
            }
        }
        bytes
    }
}

/// Writes the scale of IQ1_M, whose 16 bits are the upper halves of four bytes.
fn scatter(scale: f16, block: &mut [u8]) {
    for (at, byte) in [49, 51, 53, 55].into_iter().enumerate() {
        block[byte] = block[byte] & 15 | ((scale.to_bits() >> (4 * at)) as u8) << 4;
    }
}

/// Byte offsets of a block's 16-bit floats.
fn scales_at(format: Format) -> &'static [usize] {
    match format {
        Format::Q4_0 | Format::Q5_0 | Format::Q8_0 | Format::Iq4Nl | Format::Iq4Xs => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
        Format::Tq1_0 => &[52],
        Format::Tq2_0 => &[64],
        Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S | Format::Iq3Xxs | Format::Iq3S | Format::Iq1S => &[0],
        Format::F32 | Format::F16 | Format::BF16 | Format::Mxfp4 | Format::Iq1M | Format::F8E4M3 => &[],
        Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => &[],
        Format::Affine8G32 | Format::Affine8G64 => &[],
    }
}

fn pool(threads: usize) -> ThreadPool {
    ThreadPool::new(NonZeroUsize::new(threads).expect("not zero"))
}

fn multiply(isa: Isa, pool: &ThreadPool, weights: Matrix<'_>, values: &[f32]) -> Vec<f32> {
    let rows = values.len() / weights.cols();
    let mut x = Rows::new();
    x.load(values, rows, weights.cols());
    let mut out = vec![f32::NAN; rows * weights.rows()];
    matmul_on(isa, pool, &mut [MatmulJob { weights, out: &mut out }], &mut x);
    out
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The activations as the product uses them: rounded to their 8-bit form if the format is quantised.
fn as_multiplied(format: Format, values: &[f32]) -> Vec<f64> {
    if !format.has_integers() {
        return values.iter().copied().map(f64::from).collect();
    }
    let blocks = values.as_chunks::<32>().0.iter().map(Quantised::of);
    blocks.flat_map(|block| block.bytes.map(|integer| f64::from(integer) * f64::from(block.scale))).collect()
}

#[test]
fn products_agree_with_double_precision() {
    let mut rng = TestRng(1);
    for format in Format::ALL {
        let cols = if format.block_values() > 32 { 768 } else { 288 };
        for outputs in [1, 16, 37] {
            let bytes = rng.weights(format, outputs, cols);
            let weights = Matrix::new(format, outputs, cols, &bytes).expect("sound");
            let values = rng.values(3 * cols);
            let found = multiply(Isa::best(), &pool(2), weights, &values);
            for (row, x) in as_multiplied(format, &values).chunks(cols).enumerate() {
                for output in 0..outputs {
                    let mut w = vec![0.0; cols];
                    dequantise_row(&weights, output, &mut w);
                    let products = w.iter().zip(x).map(|(w, x)| f64::from(*w) * x);
                    let (sum, size) = products.fold((0.0, 0.0), |(sum, size), one| (sum + one, size + one.abs()));
                    // With a minimum, a value is the difference of two larger numbers. The error is measured by those.
                    let offset = if block::minimums(format) { 40.0 } else { 1.0 };
                    let error = (f64::from(found[row * outputs + output]) - sum).abs();
                    assert!(
                        error <= 2e-6 * offset * size + 1e-30,
                        "{} {row} {output}: {error} of {size}",
                        format.name()
                    );
                }
            }
        }
    }
}

#[test]
fn the_eight_bit_form_of_activations_costs_under_a_percent() {
    let mut rng = TestRng(2);
    for format in Format::ALL {
        let cols = 1024;
        let bytes = rng.weights(format, 1, cols);
        let weights = Matrix::new(format, 1, cols, &bytes).expect("sound");
        let values: Vec<f32> = (0..cols).map(|_| rng.value()).collect();
        let mut w = vec![0.0; cols];
        dequantise_row(&weights, 0, &mut w);
        let found = multiply(Isa::best(), &pool(1), weights, &values)[0];
        let products = w.iter().zip(&values).map(|(w, x)| f64::from(*w) * f64::from(*x));
        let (sum, squares) = products.fold((0.0, 0.0), |(sum, squares), one| (sum + one, squares + one * one));
        assert!((f64::from(found) - sum).abs() < 0.03 * squares.sqrt(), "{}: {found} for {sum}", format.name());
    }
}

#[cfg(feature = "accelerator")]
#[test]
fn dequantised_values_agree_with_candle() {
    use candle_core::Device;
    use candle_core::quantized::{GgmlDType, ggml_file::qtensor_from_ggml};
    let mut rng = TestRng(3);
    for format in Format::ALL {
        let dtype = match format {
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
            // Candle does not know the others.
            Format::Iq4Nl | Format::Iq4Xs | Format::Mxfp4 | Format::Tq1_0 | Format::Tq2_0 => continue,
            Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S | Format::Iq3Xxs | Format::Iq3S => continue,
            Format::Iq1S | Format::Iq1M => continue,
            Format::Affine4G32 | Format::Affine4G64 | Format::Affine4G128 => continue,
            Format::Affine8G32 | Format::Affine8G64 | Format::F8E4M3 => continue,
        };
        let (rows, cols) = (5, 512);
        let bytes = rng.weights(format, rows, cols);
        let weights = Matrix::new(format, rows, cols, &bytes).expect("sound");
        let theirs = qtensor_from_ggml(dtype, &bytes, vec![rows, cols], &Device::Cpu).expect("candle takes it");
        let theirs =
            theirs.dequantize(&Device::Cpu).expect("candle reads it").to_vec2::<f32>().expect("two dimensions");
        for (row, theirs) in theirs.iter().enumerate() {
            let mut ours = vec![f32::NAN; cols];
            dequantise_row(&weights, row, &mut ours);
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() <= 1e-6 * theirs.abs().max(1e-3), "{}: {ours} {theirs}", format.name());
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_bits_of_the_reference() {
    let mut rng = TestRng(4);
    for format in Format::ALL {
        let unit = format.block_values().max(32);
        for (cols, outputs) in [(unit, 1), (unit, 16), (3 * unit, 15), (2 * unit, 33), (unit, 100)] {
            let bytes = rng.weights(format, outputs, cols);
            let weights = Matrix::new(format, outputs, cols, &bytes).expect("sound");
            for rows in [5, 12, 21, 40] {
                let values = rng.values(rows * cols);
                let expected = bits(&multiply(Isa::SCALAR, &pool(1), weights, &values));
                for isa in Isa::all() {
                    let found = bits(&multiply(isa, &pool(2), weights, &values));
                    assert_eq!(found, expected, "{isa:?} {} {rows} of {outputs} x {cols}", format.name());
                }
            }
        }
    }
}

#[test]
fn any_bytes_are_weights_and_every_instruction_set_reads_them_alike() {
    let mut rng = TestRng(13);
    let (cols, outputs) = (512, 35);
    // The bits of a value that is no number may differ.
    let bits = |values: &[f32]| -> Vec<Option<u32>> {
        values.iter().map(|value| (!value.is_nan()).then(|| value.to_bits())).collect()
    };
    for format in Format::ALL {
        let len = format.row_bytes(cols).expect("whole blocks") * outputs;
        let bytes: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        let weights = Matrix::new(format, outputs, cols, &bytes).expect("sound");
        for rows in [1, 17] {
            let values = rng.values(rows * cols);
            let expected = bits(&multiply(Isa::SCALAR, &pool(1), weights, &values));
            for isa in Isa::all() {
                let found = bits(&multiply(isa, &pool(2), weights, &values));
                assert_eq!(found, expected, "{isa:?} {} {rows}", format.name());
            }
        }
    }
}

/// The expected instruction set must come from outside the test: `etc/check-neon` sets the one that it emulates.
#[cfg(target_arch = "aarch64")]
#[test]
#[ignore = "needs EXPECTED_ISA to name the best instruction set of this processor"]
#[expect(clippy::disallowed_methods, reason = "the expected value comes from outside the test")]
fn the_best_instruction_set_of_the_processor_is_taken() {
    let expected = std::env::var("EXPECTED_ISA").expect("EXPECTED_ISA names an instruction set, such as NeonDot");
    assert_eq!(format!("{:?}", Isa::best()), expected);
}

#[test]
fn float_rows_of_any_length_give_the_bits_of_the_reference() {
    let mut rng = TestRng(5);
    for format in [Format::F32, Format::F16, Format::BF16] {
        for cols in [1, 2, 7, 16, 31, 33, 100] {
            let bytes = rng.weights(format, 35, cols);
            let weights = Matrix::new(format, 35, cols, &bytes).expect("sound");
            let values = rng.values(4 * cols);
            let expected = bits(&multiply(Isa::SCALAR, &pool(1), weights, &values));
            for isa in Isa::all() {
                assert_eq!(
                    bits(&multiply(isa, &pool(2), weights, &values)),
                    expected,
                    "{isa:?} {} {cols}",
                    format.name()
                );
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_its_batch() {
    let mut rng = TestRng(6);
    let pools = [pool(1), pool(2), pool(3)];
    for format in Format::ALL {
        let (cols, outputs, rows) = (512, 50, 300);
        let bytes = rng.weights(format, outputs, cols);
        let weights = Matrix::new(format, outputs, cols, &bytes).expect("sound");
        let values = rng.values(rows * cols);
        for isa in Isa::all() {
            // The scalar kernel has a single code path, so a few rows are enough.
            let rows = if isa == Isa::SCALAR { 9 } else { rows };
            let values = &values[..rows * cols];
            let all = bits(&multiply(isa, &pools[1], weights, values));
            for _ in 0..6 {
                let start = rng.below(rows as u64) as usize;
                let len = [1, 2, 3, 7, 16, 130][rng.below(6) as usize].min(rows - start);
                let pool = &pools[rng.below(3) as usize];
                let some = bits(&multiply(isa, pool, weights, &values[start * cols..(start + len) * cols]));
                assert!(
                    some == all[start * outputs..(start + len) * outputs],
                    "{isa:?} {} {start} {len}",
                    format.name()
                );
            }
        }
    }
}

#[test]
fn long_rows_in_several_chunks_do_not_depend_on_their_batch() {
    let mut rng = TestRng(10);
    let (cols, outputs, rows) = (8192, 19, 70);
    let values = rng.values(rows * cols);
    for format in [Format::Q4_1, Format::Q8_0, Format::Q6K, Format::BF16] {
        let bytes = rng.weights(format, outputs, cols);
        let weights = Matrix::new(format, outputs, cols, &bytes).expect("sound");
        let all = bits(&multiply(Isa::best(), &pool(2), weights, &values));
        for row in [0, 15, 16, 31, 32, 33, 63, 64, 69] {
            let one = bits(&multiply(Isa::SCALAR, &pool(1), weights, &values[row * cols..(row + 1) * cols]));
            assert!(one == all[row * outputs..(row + 1) * outputs], "{} {row}", format.name());
        }
    }
}

#[test]
fn weights_may_start_at_any_address() {
    let mut rng = TestRng(11);
    for format in Format::ALL {
        let (cols, outputs) = (256, 40);
        let bytes = rng.weights(format, outputs, cols);
        let values = rng.values(2 * cols);
        let expected =
            multiply(Isa::SCALAR, &pool(1), Matrix::new(format, outputs, cols, &bytes).expect("sound"), &values);
        for offset in 1..4 {
            let moved = [vec![0xff; offset], bytes.clone()].concat();
            let weights = Matrix::new(format, outputs, cols, &moved[offset..]).expect("sound");
            for isa in Isa::all() {
                assert_eq!(
                    bits(&multiply(isa, &pool(2), weights, &values)),
                    bits(&expected),
                    "{isa:?} {}",
                    format.name()
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_quantises_a_row_alike() {
    let mut rng = TestRng(12);
    let weights = Matrix::new(Format::Q4_0, 0, 256, &[]).expect("sound");
    let mut values = rng.values(200 * 256);
    for value in &mut values {
        // Ties, and magnitudes whose squares overflow a float.
        match rng.below(8) {
            0 => *value = value.signum() * 0.5,
            1 => *value *= 1e30,
            _ => {}
        }
    }
    for isa in Isa::all() {
        let mut x = Rows::new();
        x.load(&values, 200, 256);
        matmul_on(isa, &pool(2), &mut [MatmulJob { weights, out: &mut [] }], &mut x);
        for chunk in x.chunks() {
            for (row, values) in chunk.clone().zip(values[chunk.start * 256..].chunks(256)) {
                let found = x.quantised(&chunk)[row - chunk.start..].iter().step_by(chunk.len());
                assert!(found.copied().eq(values.as_chunks::<32>().0.iter().map(Quantised::of)), "{isa:?} {row}");
            }
        }
    }
}

#[test]
fn jobs_in_one_region_have_the_bits_of_single_jobs() {
    let mut rng = TestRng(7);
    let (cols, rows) = (256, 3);
    let shapes = [(Format::Q4_1, 64), (Format::Q8_0, 17), (Format::F16, 20), (Format::Q6K, 1), (Format::Q4K, 200)];
    let bytes = shapes.map(|(format, outputs)| rng.weights(format, outputs, cols));
    let matrices: Vec<Matrix<'_>> = shapes
        .iter()
        .zip(&bytes)
        .cycle()
        .take(11)
        .map(|((format, outputs), bytes)| Matrix::new(*format, *outputs, cols, bytes).expect("sound"))
        .collect();
    let values = rng.values(rows * cols);
    let mut out: Vec<Vec<f32>> = matrices.iter().map(|matrix| vec![f32::NAN; rows * matrix.rows()]).collect();
    let mut jobs: Vec<MatmulJob<'_>> =
        matrices.iter().zip(&mut out).map(|(weights, out)| MatmulJob { weights: *weights, out }).collect();
    let mut x = Rows::new();
    x.load(&values, rows, cols);
    matmul(&pool(2), &mut jobs, &mut x);
    for (matrix, out) in matrices.iter().zip(&out) {
        assert_eq!(bits(out), bits(&multiply(Isa::best(), &pool(1), *matrix, &values)));
    }
}

#[test]
fn reused_scratch_keeps_no_old_values() {
    let mut rng = TestRng(8);
    let bytes = rng.weights(Format::Q4_0, 32, 64);
    let weights = Matrix::new(Format::Q4_0, 32, 64, &bytes).expect("sound");
    let (long, short) = (rng.values(40 * 64), rng.values(2 * 64));
    let mut x = Rows::new();
    x.load(&long, 40, 64);
    let mut out = vec![0.0; 40 * 32];
    matmul(&pool(1), &mut [MatmulJob { weights, out: &mut out }], &mut x);
    x.load(&short, 2, 64);
    let mut out = vec![0.0; 2 * 32];
    matmul(&pool(1), &mut [MatmulJob { weights, out: &mut out }], &mut x);
    assert_eq!(bits(&out), bits(&multiply(Isa::SCALAR, &pool(1), weights, &short)));
}

#[test]
fn a_nan_activation_makes_its_row_nan() {
    let mut rng = TestRng(9);
    for format in Format::ALL {
        let mut bytes = rng.weights(format, 16, 256);
        if format.block_values() > 1 {
            bytes = (0..16).flat_map(|_| vec![0; format.row_bytes(256).expect("whole")]).collect();
        }
        let weights = Matrix::new(format, 16, 256, &bytes).expect("sound");
        let mut values = rng.values(2 * 256);
        values[300] = f32::NAN;
        for isa in Isa::all() {
            let out = multiply(isa, &pool(1), weights, &values);
            assert!(out[..16].iter().all(|value| value.is_finite()), "{isa:?} {}", format.name());
            assert!(out[16..].iter().all(|value| value.is_nan()), "{isa:?} {}", format.name());
        }
    }
}
