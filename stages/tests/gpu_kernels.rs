//! Compares the GPU's kernels, under the simulator, with double precision and with the processor's kernels.
//! `etc/check-msl` builds the simulator and runs these tests.

mod gpu_support;
mod runner_support;

use std::num::NonZeroUsize;

use gpu_support::{bytes, floats, formats, launch, open, read_floats, read_words, words};
use schema::frame::Sampling;
use schema::record::KvType;
use stages::format::Format;
use stages::gpu::{DeviceBuffer, GpuError, Kernel, RowsAtOnce, SimBuffer};
use stages::kernels::{MatmulJob, Matrix, Rows, ThreadPool, dequantise_row, matmul};
use stages::sampling::{Readout, Sampler};
use stages::selftest::{Random, random_blocks};

/// Outputs of a matrix: not a multiple of what a simdgroup or a group computes.
const OUTPUTS: usize = 13;
/// Largest difference from double precision, as a part of the sum of the terms' sizes.
const TOLERANCE: f64 = 1e-6;
/// Largest difference from the processor's product, which rounds activations to 8 bits, likewise.
const TOLERANCE_OF_BYTES: f64 = 6e-3;

fn values(random: &mut Random, count: usize) -> Vec<f32> {
    (0..count).map(|_| 2.0 * random.float()).collect()
}

/// Inputs of a matrix: more than the lanes of a simdgroup have parts of eight, and not a multiple of that.
fn cols_of(format: Format) -> usize {
    if format.block_values() == 256 { 512 } else { 288 }
}

/// Products of the rows with each row of the matrix, and the sums of the terms' sizes, in double precision.
fn exact(matrix: &Matrix<'_>, rows: &[f32]) -> Vec<(f64, f64)> {
    let cols = matrix.cols();
    let mut weights = vec![0.0; cols];
    let mut found = vec![(0.0, 0.0); rows.len() / cols * matrix.rows()];
    for output in 0..matrix.rows() {
        dequantise_row(matrix, output, &mut weights);
        for (row, values) in rows.chunks_exact(cols).enumerate() {
            let terms = || weights.iter().zip(values).map(|(weight, value)| f64::from(*weight) * f64::from(*value));
            found[row * matrix.rows() + output] = (terms().sum(), terms().map(f64::abs).sum());
        }
    }
    found
}

/// The products that a launch of `kernels/product.h` computes for rows of one matrix.
fn product(seed: u64, matrix: &Matrix<'_>, rows: &[f32]) -> Result<Vec<f32>, GpuError> {
    let mut gpu = open(seed);
    let (cols, outputs) = (matrix.cols(), matrix.rows());
    let count = rows.len() / cols;
    let (x, weights) = (floats(&mut gpu, rows), bytes(&mut gpu, matrix.bytes()));
    let (none, out) = (words(&mut gpu, &[0]), floats(&mut gpu, &vec![f32::NAN; count * outputs]));
    let at_once = RowsAtOnce::of(count);
    launch(
        &mut gpu,
        Kernel::Product(matrix.format(), at_once),
        [outputs.div_ceil(Kernel::OUTPUTS_OF_GROUP) as u32, at_once.groups(count), 1],
        [&[&x, &weights, &none, &none, &none], &[&out]],
        &[cols as u32, matrix.row_bytes() as u32, count as u32, outputs as u32, 0, 0, outputs as u32, 0, 0],
    )?;
    Ok(read_floats(&out, count * outputs))
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn products_agree_with_double_precision_and_the_processor_and_a_row_keeps_its_bits_in_any_batch() {
    let pool = ThreadPool::new(NonZeroUsize::MIN);
    for format in formats() {
        let (cols, name) = (cols_of(format), format.name());
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let blocks = random_blocks(&mut random, format, cols * OUTPUTS, cols as f32);
        let matrix = Matrix::new(format, OUTPUTS, cols, &blocks).unwrap();
        let rows = values(&mut random, 11 * cols);
        let alone: Vec<f32> =
            (0..11).flat_map(|row| product(row, &matrix, &rows[row as usize * cols..][..cols]).unwrap()).collect();
        for (index, (found, (exact, size))) in alone.iter().zip(exact(&matrix, &rows)).enumerate() {
            let difference = (f64::from(*found) - exact).abs();
            assert!(difference <= TOLERANCE * size, "{name}: output {index} is {found}: expected {exact}");
        }
        for count in [2, 3, 4, 5, 8, 11] {
            let batch = product(77 + count as u64, &matrix, &rows[..count * cols]).unwrap();
            let differs = batch.iter().zip(&alone).position(|(found, alone)| found.to_bits() != alone.to_bits());
            assert_eq!(differs, None, "{name}: the first output of {count} rows that differs from the row alone");
        }
        let mut input = Rows::default();
        input.prepare(11, cols).copy_from_slice(&rows);
        let mut processors = vec![0.0; 11 * OUTPUTS];
        matmul(&pool, &mut [MatmulJob { weights: matrix, out: &mut processors }], &mut input);
        let bound = if format.has_integers() { TOLERANCE_OF_BYTES } else { TOLERANCE };
        for ((found, expected), (_, size)) in alone.iter().zip(&processors).zip(exact(&matrix, &rows)) {
            let difference = f64::from(found - expected).abs();
            assert!(difference <= bound * size, "{name}: {found}, and {expected} on the processor");
        }
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn products_of_three_matrices_have_biases_and_are_added_to_what_is_there() {
    let (format, cols, stride) = (Format::Q8_0, 64, 40);
    let mut gpu = open(5);
    let mut random = Random(3);
    let rows = values(&mut random, 3 * cols);
    let counts = [9, 4, 7];
    let blocks = counts.map(|count| random_blocks(&mut random, format, count * cols, cols as f32));
    let matrices: Vec<Matrix<'_>> =
        counts.iter().zip(&blocks).map(|(count, blocks)| Matrix::new(format, *count, cols, blocks).unwrap()).collect();
    let before = values(&mut random, 3 * stride);
    let bias = values(&mut random, 20);
    let (x, biases, out) = (floats(&mut gpu, &rows), floats(&mut gpu, &bias), floats(&mut gpu, &before));
    let [first, second, third] = blocks.each_ref().map(|blocks| bytes(&mut gpu, blocks));
    launch(
        &mut gpu,
        Kernel::Product(format, RowsAtOnce::Four),
        [3, 1, 1],
        [&[&x, &first, &second, &third, &biases], &[&out]],
        &[cols as u32, 68, 3, 9, 4, 7, stride as u32, 11, 1 | 2],
    )
    .unwrap();
    let found = read_floats(&out, 3 * stride);
    let exact: Vec<Vec<(f64, f64)>> = matrices.iter().map(|matrix| exact(matrix, &rows)).collect();
    for row in 0..3 {
        for place in 0..stride {
            let at = row * stride + place;
            let Some(output) = place.checked_sub(11).filter(|output| *output < 20) else {
                assert_eq!(found[at], before[at], "row {row}: {place} is no output");
                continue;
            };
            let (matrix, within) = [(0, 0), (1, 9), (2, 13)]
                .into_iter()
                .rev()
                .find(|(_, first)| output >= *first)
                .map(|(matrix, first)| (matrix, output - first))
                .unwrap();
            let product = exact[matrix][row * counts[matrix] + within].0;
            let expected = product + f64::from(bias[output]) + f64::from(before[at]);
            assert!((f64::from(found[at]) - expected).abs() < 1e-5, "row {row}: output {output}");
        }
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn gated_values_agree_with_double_precision_and_keep_their_bits_in_any_batch() {
    for format in formats() {
        let (cols, name) = (cols_of(format), format.name());
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let [gates, ups] = [(); 2].map(|()| random_blocks(&mut random, format, cols * OUTPUTS, cols as f32));
        let rows = values(&mut random, 5 * cols);
        let run = |rows: &[f32], activation: u32| {
            let mut gpu = open(activation.into());
            let count = rows.len() / cols;
            let (x, gates, ups) = (floats(&mut gpu, rows), bytes(&mut gpu, &gates), bytes(&mut gpu, &ups));
            let out = floats(&mut gpu, &vec![f32::NAN; count * OUTPUTS]);
            let at_once = RowsAtOnce::of(count);
            launch(
                &mut gpu,
                Kernel::Gated(format, at_once),
                [2, at_once.groups(count), 1],
                [&[&x, &gates, &ups], &[&out]],
                &[cols as u32, format.row_bytes(cols).unwrap() as u32, count as u32, OUTPUTS as u32, activation],
            )
            .unwrap();
            read_floats(&out, count * OUTPUTS)
        };
        let of = |blocks| exact(&Matrix::new(format, OUTPUTS, cols, blocks).unwrap(), &rows);
        let (gates_exact, ups_exact) = (of(&gates), of(&ups));
        for activation in [0, 1] {
            let found = run(&rows, activation);
            for (index, found) in found.iter().enumerate() {
                let (gate, up) = (gates_exact[index].0, ups_exact[index].0);
                let inner = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044_715 * gate.powi(3));
                let expected = gate / (1.0 + (-if activation == 0 { gate } else { inner }).exp()) * up;
                let bound = 4e-6 * (1.0 + gates_exact[index].1) * (1.0 + ups_exact[index].1);
                assert!((f64::from(*found) - expected).abs() < bound, "{name}: {found}: expected {expected}");
            }
            let alone: Vec<u32> = rows.chunks(cols).flat_map(|row| run(row, activation)).map(f32::to_bits).collect();
            assert_eq!(found.into_iter().map(f32::to_bits).collect::<Vec<_>>(), alone, "{name}: rows alone");
        }
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn norms_agree_with_double_precision() {
    for width in [1, 40, 576] {
        let mut gpu = open(width as u64);
        let mut random = Random(17);
        let (rows, weights) = (values(&mut random, 5 * width), values(&mut random, width));
        let places = [4_u32, 0, 3];
        let (x, at) = (floats(&mut gpu, &rows), words(&mut gpu, &places));
        let (factors, out) = (floats(&mut gpu, &weights), floats(&mut gpu, &vec![f32::NAN; 3 * width]));
        let sizes = [width as u32, 1e-5_f32.to_bits()];
        launch(&mut gpu, Kernel::RmsNorm, [3, 1, 1], [&[&x, &at, &factors], &[&out]], &sizes).unwrap();
        let found = read_floats(&out, 3 * width);
        for (row, place) in places.into_iter().enumerate() {
            let values = &rows[place as usize * width..][..width];
            let mean = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / width as f64;
            for at in 0..width {
                let expected = f64::from(values[at]) / (mean + 1e-5).sqrt() * f64::from(weights[at]);
                let difference = (f64::from(found[row * width + at]) - expected).abs();
                assert!(difference < 2e-6 * (1.0 + expected.abs()), "{width} values: off by {difference}");
            }
        }
    }
}

/// Sizes of heads in the tests of keys, values and attention.
const HEADS: usize = 6;
const KV_HEADS: usize = 2;
const KEY: usize = 64;
const VALUE: usize = 96;
const BLOCK: usize = 32;

/// The numbers that a buffer of keys or values holds: `scales` are those of 8 bits.
struct Stored {
    kv_type: KvType,
    numbers: Vec<u8>,
    scales: Vec<u8>,
}

impl Stored {
    fn half(bytes: &[u8], at: usize) -> f64 {
        f64::from(half::f16::from_le_bytes([bytes[2 * at], bytes[2 * at + 1]]).to_f32())
    }

    /// Dimension `dimension` of a key or a value of `width` dimensions.
    fn at(&self, is_key: bool, block: usize, head: usize, token: usize, dimension: usize, width: usize) -> f64 {
        let first = (block * KV_HEADS + head) * width * BLOCK;
        let at = first + if is_key { dimension * BLOCK + token } else { token * width + dimension };
        if self.kv_type == KvType::F16 {
            return Self::half(&self.numbers, at);
        }
        let scale = ((block * KV_HEADS + head) * (width / 32) + dimension / 32) * BLOCK + token;
        Self::half(&self.scales, scale) * f64::from(self.numbers[at].cast_signed())
    }
}

fn read_bytes(buffer: &SimBuffer, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    buffer.read(0, &mut bytes);
    bytes
}

fn check_heads(kv_type: KvType, halves: bool, pairs: usize, norms: bool) {
    let mut gpu = open(u64::from(halves) + 2 * pairs as u64);
    let mut random = Random(23);
    let width = (HEADS + KV_HEADS) * KEY + KV_HEADS * VALUE;
    let (rows, angles) = (values(&mut random, 2 * width), values(&mut random, 2 * 2 * pairs));
    let norm_weights = [(); 2].map(|()| values(&mut random, KEY));
    let slots = [3 * BLOCK as u32 + 7, BLOCK as u32 + 31];
    let blocks = 5;
    let numbers = [KEY, VALUE].map(|width| blocks * BLOCK * KV_HEADS * width);
    let number_bytes = if kv_type == KvType::F16 { 2 } else { 1 };
    let [keys, stored_values] = numbers.map(|count| bytes(&mut gpu, &vec![0; count * number_bytes]));
    let [key_scales, value_scales] = numbers.map(|count| bytes(&mut gpu, &vec![0; count / 16]));
    let (x, angle_buffer, slot_buffer) = (floats(&mut gpu, &rows), floats(&mut gpu, &angles), words(&mut gpu, &slots));
    let [query_norm, key_norm] = norm_weights.each_ref().map(|weights| floats(&mut gpu, weights));
    let queries = floats(&mut gpu, &vec![f32::NAN; 2 * HEADS * KEY]);
    let read = [&x, &angle_buffer, &slot_buffer, &query_norm, &key_norm];
    let mut written = vec![&queries, &keys, &stored_values];
    if kv_type == KvType::Q8 {
        written.extend([&key_scales, &value_scales]);
    }
    let flags = if norms { 3 } else { 0 } | if halves { 4 } else { 0 };
    let sizes = [HEADS, KV_HEADS, KEY, VALUE, pairs].map(|size| size as u32);
    let sizes = [&sizes[..], &[flags, 1e-6_f32.to_bits(), 0.125_f32.to_bits()]].concat();
    let groups = [(HEADS + 2 * KV_HEADS) as u32, 2, 1];
    launch(&mut gpu, Kernel::WriteHeads(kv_type), groups, [&read, &written], &sizes).unwrap();

    let found_queries = read_floats(&queries, 2 * HEADS * KEY);
    let stored = |numbers: &SimBuffer, scales: &SimBuffer, count: usize| Stored {
        kv_type,
        numbers: read_bytes(numbers, count * number_bytes),
        scales: read_bytes(scales, count / 16),
    };
    let stored_keys = stored(&keys, &key_scales, numbers[0]);
    let stored_values = stored(&stored_values, &value_scales, numbers[1]);
    let prepared = |row: usize, head: usize| {
        let from = &rows[row * width + head * KEY..][..KEY];
        let mut values: Vec<f64> = from.iter().map(|value| f64::from(*value)).collect();
        if norms {
            let mean = values.iter().map(|value| value * value).sum::<f64>() / KEY as f64;
            let weights = &norm_weights[usize::from(head >= HEADS)];
            for (value, weight) in values.iter_mut().zip(weights) {
                *value *= f64::from(*weight) / (mean + 1e-6).sqrt();
            }
        }
        let angles = &angles[row * 2 * pairs..][..2 * pairs];
        for pair in 0..pairs {
            let (first, second) = if halves { (pair, pair + pairs) } else { (2 * pair, 2 * pair + 1) };
            let (a, b) = (values[first], values[second]);
            let (cosine, sine) = (f64::from(angles[pair]), f64::from(angles[pairs + pair]));
            (values[first], values[second]) = (a * cosine - b * sine, a * sine + b * cosine);
        }
        values
    };
    // Half precision keeps 11 bits; 8 bits keep half a step of the largest of 32 values.
    let close = |found: f64, expected: f64, largest: f64| {
        let bound = if kv_type == KvType::F16 { expected.abs() / 2048.0 } else { largest / 127.0 * 0.6 };
        (found - expected).abs() <= bound + 1e-5
    };
    let largest = |values: &[f64], dimension: usize| {
        values[dimension / 32 * 32..][..32].iter().fold(0.0_f64, |largest, value| largest.max(value.abs()))
    };
    for row in 0..2 {
        let (block, token) = (slots[row] as usize / BLOCK, slots[row] as usize % BLOCK);
        for head in 0..HEADS {
            for (dimension, expected) in prepared(row, head).into_iter().enumerate() {
                let found = f64::from(found_queries[(row * HEADS + head) * KEY + dimension]);
                assert!((found - expected / 8.0).abs() < 1e-5, "query {head}, {dimension}: {found}");
            }
        }
        for head in 0..KV_HEADS {
            let key = prepared(row, HEADS + head);
            for (dimension, expected) in key.iter().enumerate() {
                let found = stored_keys.at(true, block, head, token, dimension, KEY);
                assert!(close(found, *expected, largest(&key, dimension)), "key: {found}, expected {expected}");
            }
            let from = row * width + (HEADS + KV_HEADS) * KEY + head * VALUE;
            let value: Vec<f64> = rows[from..][..VALUE].iter().map(|value| f64::from(*value)).collect();
            for (dimension, expected) in value.iter().enumerate() {
                let found = stored_values.at(false, block, head, token, dimension, VALUE);
                assert!(close(found, *expected, largest(&value, dimension)), "value: {found}, expected {expected}");
            }
        }
    }
    let written = 2 * KV_HEADS * KEY * number_bytes;
    let others = stored_keys.numbers.iter().filter(|byte| **byte != 0).count();
    assert!(others <= written, "{others} bytes of keys are not zero: expected at most {written}");
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn heads_are_normed_rotated_and_stored() {
    for kv_type in [KvType::F16, KvType::Q8] {
        check_heads(kv_type, false, KEY / 2, false);
        check_heads(kv_type, true, KEY / 2, true);
        check_heads(kv_type, true, 13, false);
        check_heads(kv_type, false, 0, true);
    }
}

fn check_attention(kv_type: KvType, positions: [u32; 2], window: u32) {
    let mut gpu = open(u64::from(positions[0]) ^ u64::from(window));
    let mut random = Random(29);
    let blocks = 24;
    let numbers = [KEY, VALUE].map(|width| blocks * BLOCK * KV_HEADS * width);
    let mut store = |count: usize| {
        let bytes: Vec<u8> = match kv_type {
            KvType::F16 => {
                values(&mut random, count).iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
            }
            KvType::Q8 => (0..count).map(|_| (random.bits() >> 20) as u8).collect(),
        };
        let scales = values(&mut random, count / 32);
        let scales = scales.iter().flat_map(|scale| half::f16::from_f32(scale.abs() / 64.0).to_le_bytes()).collect();
        Stored { kv_type, numbers: bytes, scales }
    };
    let (keys, stored_values) = (store(numbers[0]), store(numbers[1]));
    let queries = values(&mut random, 2 * HEADS * KEY);
    // Two sequences whose blocks alternate and descend; the second has lost its first block.
    let tables: [Vec<u32>; 2] =
        [(0..12).rev().map(|block| 2 * block).collect(), (0..11).rev().map(|block| 2 * block + 1).collect()];
    let firsts = [0_u32, if window == u32::MAX { 0 } else { 1 }];
    let table = tables.concat();
    let rows = [positions[0], firsts[0], 0, positions[1], firsts[1], 12];
    let splits = 2;
    let (query_buffer, row_buffer) = (floats(&mut gpu, &queries), words(&mut gpu, &rows));
    let table_buffer = words(&mut gpu, &table);
    let [key_numbers, key_scales] = [&keys.numbers, &keys.scales].map(|values| bytes(&mut gpu, values));
    let [value_numbers, value_scales] =
        [&stored_values.numbers, &stored_values.scales].map(|values| bytes(&mut gpu, values));
    let parts = floats(&mut gpu, &vec![f32::NAN; 2 * HEADS * splits * (VALUE + 2)]);
    let out = floats(&mut gpu, &vec![f32::NAN; 2 * HEADS * VALUE]);
    let mut read = vec![&query_buffer, &row_buffer, &table_buffer, &key_numbers, &value_numbers];
    if kv_type == KvType::Q8 {
        read.extend([&key_scales, &value_scales]);
    }
    let sizes = [HEADS as u32, KV_HEADS as u32, KEY as u32, VALUE as u32, window, splits as u32];
    let groups = [HEADS as u32, 2, splits as u32];
    launch(&mut gpu, Kernel::Attend(kv_type), groups, [&read, &[&parts]], &sizes).unwrap();
    let groups = [HEADS as u32, 2, 1];
    launch(&mut gpu, Kernel::MergeAttention, groups, [&[&parts, &row_buffer], &[&out]], &sizes).unwrap();
    let found = read_floats(&out, 2 * HEADS * VALUE);
    for row in 0..2 {
        let position = positions[row];
        let visible = (position + 1).saturating_sub(window)..position + 1;
        for head in 0..HEADS {
            let kv_head = head / (HEADS / KV_HEADS);
            let place = |token: u32| {
                (tables[row][(token as usize / BLOCK) - firsts[row] as usize] as usize, token as usize % BLOCK)
            };
            let query = &queries[(row * HEADS + head) * KEY..][..KEY];
            let score = |token: u32| -> f64 {
                let (block, token) = place(token);
                let key = |dimension| keys.at(true, block, kv_head, token, dimension, KEY);
                query.iter().enumerate().map(|(dimension, query)| f64::from(*query) * key(dimension)).sum()
            };
            let scores: Vec<f64> = visible.clone().map(score).collect();
            let largest = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for dimension in 0..VALUE {
                let term = |(token, weight): (u32, &f64)| {
                    let (block, token) = place(token);
                    weight * stored_values.at(false, block, kv_head, token, dimension, VALUE)
                };
                let expected = visible.clone().zip(&weights).map(term).sum::<f64>() / sum;
                let found = f64::from(found[(row * HEADS + head) * VALUE + dimension]);
                let difference = (found - expected).abs();
                assert!(difference < 2e-5, "{kv_type}, position {position}: {found}, expected {expected}");
            }
        }
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn attention_agrees_with_double_precision_over_several_splits_and_in_windows() {
    for kv_type in [KvType::F16, KvType::Q8] {
        check_attention(kv_type, [300, 0], u32::MAX);
        check_attention(kv_type, [255, 256], u32::MAX);
        check_attention(kv_type, [31, 290], 45);
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn rows_with_values_that_are_not_finite_are_found() {
    let mut gpu = open(1);
    let width = 300;
    let mut rows = values(&mut Random(31), 4 * width);
    rows[width + 299] = f32::NAN;
    rows[3 * width] = f32::NEG_INFINITY;
    let (x, found) = (floats(&mut gpu, &rows), words(&mut gpu, &[7; 4]));
    launch(&mut gpu, Kernel::FindUnusable, [4, 1, 1], [&[&x], &[&found]], &[width as u32]).unwrap();
    assert_eq!(read_words(&found, 4), [0, 1, 0, 1]);
}

/// The tokens that a launch of `kernels/choose.h` chooses, and their logarithms.
fn choose(logits: &[f32], rules: &[[u32; 6]]) -> Vec<(u32, f32)> {
    let mut gpu = open(rules.len() as u64);
    let (x, rule_buffer) = (floats(&mut gpu, logits), words(&mut gpu, &rules.concat()));
    let chosen = words(&mut gpu, &vec![7; 2 * rules.len()]);
    let groups = [rules.len() as u32, 1, 1];
    let sizes = [(logits.len() / rules.len()) as u32];
    launch(&mut gpu, Kernel::ChooseToken, groups, [&[&x, &rule_buffer], &[&chosen]], &sizes).unwrap();
    let found = read_words(&chosen, 2 * rules.len());
    found.as_chunks::<2>().0.iter().map(|[token, logprob]| (*token, f32::from_bits(*logprob))).collect()
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn the_first_of_the_likeliest_tokens_is_chosen() {
    let vocabulary = 1000;
    let mut rows = values(&mut Random(37), 3 * vocabulary);
    (rows[999], rows[1003], rows[1002], rows[2770]) = (5.0, 3.0, 3.0, 2.0);
    let found = choose(&rows, &[[0; 6]; 3]);
    for (row, expected) in [999_u32, 2, 770].into_iter().enumerate() {
        let logits = &rows[row * vocabulary..][..vocabulary];
        let sum: f64 = logits.iter().map(|logit| f64::from(*logit - logits[expected as usize]).exp()).sum();
        let (token, logprob) = found[row];
        assert_eq!(token, expected);
        assert!((f64::from(logprob) + sum.ln()).abs() < 1e-5, "row {row}: {logprob}");
    }
    rows[500] = f32::NAN;
    assert!(choose(&rows[..vocabulary], &[[0; 6]])[0].1.is_nan());
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn a_token_is_drawn_as_the_processor_draws_it() {
    let vocabulary = 700;
    let mut random = Random(41);
    let logits: Vec<f32> = values(&mut random, vocabulary).iter().map(|value| 4.0 * value).collect();
    let mut sampler = Sampler::new(vocabulary);
    let seed = 0x0123_4567_89ab_cdef;
    for (temperature, min_p) in [(1.0, 0.0), (0.6, 0.0), (1.3, 0.2)] {
        let mut tokens = std::collections::BTreeSet::new();
        for position in 0..40 {
            let sampling = Sampling { temperature, min_p, seed, choice: 3, ..Sampling::GREEDY };
            let sampling = Sampling { top_k: 0, top_p: 1.0, ..sampling };
            let expected = sampler.read(&logits, 0, Readout::Choose { position, sampling: &sampling, rule: None });
            let expected = expected.unwrap();
            let rule = [(1.0 / temperature).to_bits(), min_p.to_bits(), position, 3, seed as u32, (seed >> 32) as u32];
            let (token, logprob) = choose(&logits, &[rule])[0];
            assert_eq!(token, expected.token, "temperature {temperature}, position {position}");
            assert!((logprob - expected.logprob).abs() < 1e-5, "{logprob}, and {} there", expected.logprob);
            tokens.insert(token);
        }
        assert!(tokens.len() > 10, "only {tokens:?} in 40 draws");
    }
}

#[test]
#[ignore = "needs the library that etc/check-msl builds"]
fn arguments_that_a_kernel_does_not_take_are_refused() {
    let mut gpu = open(3);
    let none = words(&mut gpu, &[0]);
    let error = launch(&mut gpu, Kernel::RmsNorm, [1, 1, 1], [&[&none], &[]], &[1]).unwrap_err().to_string();
    assert_eq!(error, "kernel rms_norm: takes 4 buffers and 8 bytes of sizes, found 1 and 4");
    let error = launch(&mut gpu, Kernel::Product(Format::Iq1S, RowsAtOnce::One), [1; 3], [&[&none], &[]], &[1]);
    assert!(error.unwrap_err().to_string().ends_with("there is no such kernel"));
}
