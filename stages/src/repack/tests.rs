//! The written blocks hold exactly the numbers that the encodings' formulas give, whichever rows are taken.

use proptest::prelude::*;

use super::*;
use crate::kernels::dequantise_block_bytes;

/// Rows and columns of the matrices.
const SHAPE: (usize, usize) = (24, 256);

/// Random bytes of an encoding's tensors, with floats that are small and finite.
fn tensors(encoding: Encoding, seed: u64) -> Vec<Vec<u8>> {
    let (rows, cols) = SHAPE;
    let mut state = seed | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let lengths = encoding.stored_bytes(rows as u64, cols as u64).unwrap();
    let factors = match encoding {
        Encoding::Affine { .. } => &[1, 2][..],
        Encoding::Fp8 { .. } => &[1],
        Encoding::Gptq { .. } | Encoding::Awq { .. } => &[2],
        Encoding::Mxfp4 => &[],
        Encoding::Transposed(_) => &[0],
    };
    let tensor = |(index, bytes): (usize, u64)| -> Vec<u8> {
        if factors.contains(&index) {
            return (0..bytes / 4).flat_map(|_| (next() as f32 / 1e9 - 1.0).to_le_bytes()).collect();
        }
        if let (Encoding::Gptq { group, .. }, 3) = (encoding, index) {
            return (0..bytes / 4).flat_map(|column| ((column / group) as u32).to_le_bytes()).collect();
        }
        let bytes = (0..bytes).map(|_| next() as u8);
        match encoding {
            Encoding::Mxfp4 if index == 1 => bytes.map(|exponent| exponent % 255).collect(),
            Encoding::Fp8 { .. } => bytes.map(|bits| if bits & 0x7f == 0x7f { 1 } else { bits }).collect(),
            _ => bytes.collect(),
        }
    };
    lengths.into_iter().enumerate().map(tensor).collect()
}

fn float(bytes: &[u8], index: usize) -> f32 {
    f32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap())
}

fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().unwrap())
}

/// The value at `row` and `col`, by the formulas that the encodings' authors give.
fn expected(encoding: Encoding, tensors: &[Vec<u8>], row: usize, col: usize) -> f32 {
    let (rows, cols) = SHAPE;
    match encoding {
        Encoding::Affine { bits, group, .. } => {
            let each = 32 / bits as usize;
            let word = word(&tensors[0], row * (cols / each) + col / each);
            let integer = word >> (bits as usize * (col % each)) & ((1 << bits) - 1);
            let place = row * (cols / group as usize) + col / group as usize;
            float(&tensors[1], place) * integer as f32 + float(&tensors[2], place)
        }
        Encoding::Mxfp4 => {
            const VALUES: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
            let bits = tensors[0][(row * cols + col) / 2] >> (4 * (col % 2)) & 15;
            let sign = if bits >= 8 { -1.0 } else { 1.0 };
            let exponent = i32::from(tensors[1][row * (cols / 32) + col / 32]) - 127;
            sign * VALUES[usize::from(bits & 7)] * f64::from(exponent).exp2() as f32
        }
        Encoding::Fp8 { block, .. } => {
            let bits = tensors[0][row * cols + col];
            let (exponent, mantissa) = (i32::from(bits >> 3 & 15), f32::from(bits & 7) / 8.0);
            let magnitude =
                if exponent == 0 { mantissa / 64.0 } else { (1.0 + mantissa) * ((exponent - 7) as f32).exp2() };
            let sign = if bits >= 0x80 { -1.0 } else { 1.0 };
            let across = cols.div_ceil(block[1] as usize);
            sign * magnitude * float(&tensors[1], row / block[0] as usize * across + col / block[1] as usize)
        }
        Encoding::Gptq { group, zeros_below, .. } => {
            let group = col / group as usize;
            let integer = word(&tensors[0], col / 8 * rows + row) >> (4 * (col % 8)) & 15;
            let stored = word(&tensors[1], group * (rows / 8) + row / 8) >> (4 * (row % 8)) & 15;
            let zero = (stored + zeros_below) & 15;
            let scale = float(&tensors[2], group * rows + row);
            scale * integer as f32 - scale * zero as f32
        }
        Encoding::Awq { group, .. } => {
            const ORDER: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];
            let place = ORDER.iter().position(|own| *own == row % 8).unwrap();
            let group = col / group as usize;
            let of = |tensor: &[u8], line: usize| word(tensor, line * (rows / 8) + row / 8) >> (4 * place) & 15;
            let scale = float(&tensors[2], group * rows + row);
            scale * of(&tensors[0], col) as f32 - scale * of(&tensors[1], group) as f32
        }
        Encoding::Transposed(_) => float(&tensors[0], col * rows + row),
    }
}

fn encodings() -> Vec<Encoding> {
    let factors = Format::F32;
    let affine = [(4, 32), (4, 64), (4, 128), (8, 32), (8, 64), (8, 128)];
    let mut all: Vec<_> = affine.map(|(bits, group)| Encoding::Affine { bits, group, factors }).into();
    all.extend([Encoding::Mxfp4, Encoding::Transposed(Format::F32)]);
    all.extend([[128, 128], [7, 64]].map(|block| Encoding::Fp8 { block, factors }));
    all.extend([32, 64, 128, 256].map(|group| Encoding::Gptq { group, zeros_below: 1, factors, listed: false }));
    all.push(Encoding::Gptq { group: 32, zeros_below: 0, factors, listed: true });
    all.extend([32, 64, 128, 256].map(|group| Encoding::Awq { group, factors }));
    all
}

fn rows_of(repacking: &Repacking, stored: &[&[u8]], rows: Range<u64>) -> Vec<f32> {
    let mut out = vec![0; ((rows.end - rows.start) * repacking.row_bytes().unwrap()) as usize];
    let mut values = vec![0.0; (rows.end - rows.start) as usize * SHAPE.1];
    repacking.write(stored, rows, &mut out).unwrap();
    dequantise_block_bytes(repacking.format(), &out, &mut values);
    values
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]
    #[test]
    fn blocks_hold_the_numbers_of_the_formulas(seed in any::<u64>(), start in 0_u64..12, interleaved in any::<bool>()) {
        for encoding in encodings() {
            let stored = tensors(encoding, seed);
            let slices: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
            let whole = Repacking::whole(encoding, SHAPE.0 as u64, SHAPE.1 as u64);
            let repacking = if interleaved { Repacking { first: 1, step: 2, rows: 12, ..whole } } else { whole };
            let found = rows_of(&repacking, &slices, start..12);
            for (index, values) in found.chunks(SHAPE.1).enumerate() {
                let row = (repacking.first + (start + index as u64) * repacking.step) as usize;
                for (col, found) in values.iter().enumerate() {
                    let expected = expected(encoding, &stored, row, col);
                    prop_assert_eq!(*found, expected, "{:?} {} {}", encoding, row, col);
                }
                if let Some((one, places)) = repacking.of_row(start + index as u64) {
                    let parts: Vec<&[u8]> = slices.iter().zip(places)
                        .map(|(bytes, place)| &bytes[place.start as usize..place.end as usize]).collect();
                    prop_assert_eq!(&rows_of(&one, &parts, 0..1)[..], values, "one row of {:?}", encoding);
                }
            }
        }
    }
}

#[test]
fn numbers_that_no_weight_has_are_refused() {
    let listed = Encoding::Gptq { group: 32, zeros_below: 0, factors: Format::F32, listed: true };
    let cases: [(Encoding, usize, &[u8], &str); 6] = [
        (listed, 3, &[1, 0, 0, 0], "expected group 0 of column 0, as columns in the order of activations"),
        (encodings()[0], 1, &f32::NAN.to_le_bytes(), "finite scales, found NaN in row 0"),
        (encodings()[0], 2, &f32::INFINITY.to_le_bytes(), "finite biases, found inf"),
        (Encoding::Mxfp4, 1, &[255], "finite scales, found NaN"),
        (Encoding::Fp8 { block: [128; 2], factors: Format::F32 }, 0, &[0xff], "finite weights, found NaN"),
        (Encoding::Awq { group: 32, factors: Format::F32 }, 2, &f32::NAN.to_le_bytes(), "finite scales"),
    ];
    for (encoding, tensor, bytes, sentence) in cases {
        let mut stored = tensors(encoding, 7);
        stored[tensor][..bytes.len()].copy_from_slice(bytes);
        let slices: Vec<&[u8]> = stored.iter().map(Vec::as_slice).collect();
        let repacking = Repacking::whole(encoding, SHAPE.0 as u64, SHAPE.1 as u64);
        let mut out = vec![0; (SHAPE.0 as u64 * repacking.row_bytes().unwrap()) as usize];
        let error = repacking.write(&slices, 0..SHAPE.0 as u64, &mut out).unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    }
}
