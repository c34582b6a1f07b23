use schema::record::KvType;

use super::*;
use crate::cpu::kv::{KvCache, KvNumber, KvShape};
use crate::cpu::quantised;

/// A pseudorandom number from -1 to 1.
fn noise(index: usize, salt: usize) -> f32 {
    let mixed = (index.wrapping_mul(2_654_435_761) ^ salt.wrapping_mul(40_503)).wrapping_mul(2_246_822_519);
    (mixed >> 16 & 0xffff) as f32 / 32768.0 - 1.0
}

struct Case {
    heads: usize,
    key: usize,
    value: usize,
    position: usize,
    rows: usize,
    /// Length of the text. Only rows that attend to all of it see tokens after them.
    text: usize,
    window: Window,
    kv_type: KvType,
}

impl Case {
    fn blocks(&self) -> Vec<u32> {
        let count = self.text.div_ceil(TOKENS) as u32;
        (0..count).rev().collect()
    }

    fn shape(&self) -> AttentionShape {
        let value_padded = self.value.next_multiple_of(WIDTH);
        AttentionShape { heads: self.heads, key: self.key, value_padded, window: self.window, softcap: None }
    }

    /// Keys and values of all positions of the text. All others are poisoned with NaN.
    fn cache(&self) -> KvCache {
        let shape =
            KvShape { heads: 2, key: self.key, value: self.value, number: KvNumber::from(self.kv_type), latent: false };
        let blocks = self.blocks();
        let mut cache = KvCache::new([(shape, blocks.len())].into_iter()).unwrap();
        let layer = cache.layer_mut(0);
        let (poison_key, poison_value) = (vec![f32::NAN; self.key], vec![f32::NAN; self.value]);
        for position in 0..blocks.len() * TOKENS {
            let slot = blocks[position / TOKENS] as usize * TOKENS + position % TOKENS;
            let known = position < self.text;
            // SAFETY: there is one thread.
            unsafe {
                layer.write(Isa::best(), slot, 0, &poison_key, &poison_value);
                let (key, value) = (self.key_at(position), self.value_at(position));
                let (key, value) = if known { (&key, &value) } else { (&poison_key, &poison_value) };
                layer.write(Isa::best(), slot, 1, key, value);
            }
        }
        cache
    }

    fn key_at(&self, position: usize) -> Vec<f32> {
        (0..self.key).map(|d| half::f16::from_f32(noise(position * self.key + d, 1)).to_f32()).collect()
    }

    fn value_at(&self, position: usize) -> Vec<f32> {
        (0..self.value).map(|d| half::f16::from_f32(noise(position * self.value + d, 2)).to_f32()).collect()
    }

    fn query_at(&self, row: usize, head: usize) -> Vec<f32> {
        (0..self.key).map(|d| noise(((self.position + row) * self.heads + head) * self.key + d, 3)).collect()
    }

    fn span<'a>(&self, blocks: &'a [u32]) -> Span<'a> {
        Span { position: self.position as u32, rows: self.rows, text: self.text, first_block: 0, blocks, kv_head: 1 }
    }

    fn scratch(&self) -> Scratch {
        let mut scratch = Scratch::new(self.key, self.shape().value_padded, self.rows * self.heads);
        for row in 0..self.rows {
            for head in 0..self.heads {
                let query = self.query_at(row, head);
                scratch.queries[(row * self.heads + head) * self.key..][..self.key].copy_from_slice(&query);
            }
        }
        scratch
    }

    /// Expected values of one row and head in double precision. Weights are powers of two, because real queries are
    /// scaled by `log2(e)`.
    fn exact(&self, row: usize, head: usize) -> Vec<f64> {
        let position = self.position + row;
        let end = if self.window == Window::Text { self.text } else { position + 1 };
        let visible = self.window.first(position as u32) as usize..end;
        let query = self.query_at(row, head);
        let stored = |values: Vec<f32>| match self.kv_type {
            KvType::F16 => values,
            KvType::Q8 => values.as_chunks().0.iter().flat_map(expanded).collect(),
        };
        let dot = |key: Vec<f32>| key.iter().zip(&query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
        let weights: Vec<f64> = visible.clone().map(|position| dot(stored(self.key_at(position))).exp2()).collect();
        let sum: f64 = weights.iter().sum();
        let mut out = vec![0.0; self.value];
        for (position, weight) in visible.zip(weights) {
            for (out, value) in out.iter_mut().zip(stored(self.value_at(position))) {
                *out += weight / sum * f64::from(value);
            }
        }
        out
    }

    fn attended(&self, isa: Isa, cache: &KvCache) -> Vec<f32> {
        let mut scratch = self.scratch();
        attend(isa, self.shape(), self.span(&self.blocks()), cache.layer(0), &mut scratch);
        scratch.total.values
    }
}

/// The values that a block represents once it is stored.
fn expanded(values: &[f32; quantised::BLOCK]) -> [f32; quantised::BLOCK] {
    let (scale, bytes) = quantised::quantise(values);
    bytes.map(|byte| half::f16::from_bits(scale).to_f32() * f32::from(byte))
}

fn cases() -> Vec<Case> {
    let case = |heads, key, value, position, rows, window| Case {
        heads,
        key,
        value,
        position,
        rows,
        text: position + rows,
        window,
        kv_type: KvType::F16,
    };
    let eight_bits = |heads, size, position, rows, window| Case {
        kv_type: KvType::Q8,
        ..case(heads, size, size, position, rows, window)
    };
    let of_text = |text, case: Case| Case { text, window: Window::Text, ..case };
    vec![
        of_text(1, case(1, 64, 64, 0, 1, Window::All)),
        of_text(32, case(2, 16, 16, 0, 32, Window::All)),
        of_text(137, case(1, 32, 32, 40, 40, Window::All)),
        of_text(700, case(3, 20, 24, 250, 12, Window::All)),
        of_text(300, eight_bits(1, 64, 20, 30, Window::All)),
        eight_bits(1, 64, 0, 1, Window::All),
        eight_bits(3, 64, 20, 30, Window::All),
        eight_bits(9, 32, 31, 2, Window::All),
        eight_bits(4, 128, 600, 3, Window::All),
        eight_bits(2, 96, 250, 40, Window::Last(300)),
        case(1, 64, 64, 0, 1, Window::All),
        case(3, 64, 64, 20, 30, Window::All),
        case(9, 32, 48, 31, 2, Window::All),
        case(2, 20, 24, 250, 40, Window::All),
        case(4, 128, 128, 600, 3, Window::All),
        case(3, 16, 16, 100, 20, Window::Last(40)),
        case(2, 16, 16, 600, 10, Window::Last(300)),
        case(2, 16, 16, 70, 5, Window::Last(1)),
        case(2, 16, 16, 95, 40, Window::Chunk(96)),
        case(3, 16, 16, 60, 20, Window::Chunk(7)),
    ]
}

#[test]
fn rows_attend_to_their_visible_tokens_only() {
    for case in cases() {
        let cache = case.cache();
        let found = case.attended(Isa::best(), &cache);
        let padded = case.shape().value_padded;
        for row in 0..case.rows {
            for head in 0..case.heads {
                let found = &found[(row * case.heads + head) * padded..][..case.value];
                for (found, exact) in found.iter().zip(case.exact(row, head)) {
                    assert!(
                        (f64::from(*found) - exact).abs() < 2e-6,
                        "row {row} at {}: {found}, {exact}",
                        case.position
                    );
                }
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for case in cases() {
        let cache = case.cache();
        let bits = |isa| case.attended(isa, &cache).iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        let expected = bits(Isa::SCALAR);
        for isa in Isa::all() {
            assert_eq!(bits(isa), expected, "{isa:?}, {} rows at {}", case.rows, case.position);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    for case in cases() {
        let cache = case.cache();
        let together = case.attended(Isa::best(), &cache);
        let width = case.heads * case.shape().value_padded;
        for row in 0..case.rows {
            let alone = Case { position: case.position + row, rows: 1, ..case };
            let blocks = case.blocks();
            let mut scratch = alone.scratch();
            attend(Isa::best(), alone.shape(), alone.span(&blocks), cache.layer(0), &mut scratch);
            assert_eq!(scratch.total.values, together[row * width..][..width], "row {row} at {}", case.position);
        }
    }
}

#[test]
fn separate_chunks_merge_to_the_bits_of_the_whole() {
    for case in cases() {
        let cache = case.cache();
        let blocks = case.blocks();
        let (shape, span) = (case.shape(), case.span(&blocks));
        let pieces: Vec<Sums> = span
            .chunks(case.window)
            .map(|chunk| {
                let mut scratch = case.scratch();
                attend_single_chunk(Isa::best(), shape, span, chunk, cache.layer(0), &mut scratch);
                scratch.chunk
            })
            .collect();
        let mut total = Sums::new(shape.value_padded, case.rows * case.heads);
        merge(Isa::best(), shape, case.rows * case.heads, &pieces, &mut total);
        assert_eq!(total.values, case.attended(Isa::best(), &cache), "{} rows at {}", case.rows, case.position);
    }
}
