//! The formats with blocks of 32 values, in ggml's layouts.

use super::quantise::{nearest, put_half};
use super::search;

/// Q4_0, Q5_0 and Q8_0: a scale, then integers around zero.
pub fn scaled(values: &[f32], bits: u32, out: &mut [u8]) {
    let low = -1 << (bits - 1);
    let scale = put_half(out, search::scale(values, low));
    let integers = values.iter().map(|value| nearest(*value, scale, low, -low - 1));
    if bits == 8 {
        out[2..].iter_mut().zip(integers).for_each(|(out, integer)| *out = (integer as i8).cast_unsigned());
    } else {
        let raised: Vec<u32> = integers.map(|integer| (integer - low) as u32).collect();
        put_bits(&raised, bits, &mut out[2..]);
    }
}

/// Q4_1 and Q5_1: a scale, a minimum, then integers from zero.
pub fn shifted(values: &[f32], bits: u32, out: &mut [u8]) {
    let high = (1 << bits) - 1;
    let (scale, minimum) = search::scale_and_minimum(values, high, f32::INFINITY);
    let (scale, minimum) = (put_half(out, scale), put_half(&mut out[2..], minimum));
    let integers = values.iter().map(|value| nearest(value - minimum, scale, 0, high) as u32);
    put_bits(&integers.collect::<Vec<_>>(), bits, &mut out[4..]);
}

/// Writes 32 integers: their fifth bits if `bits` is 5, then 16 bytes with one integer of the first half in the low 4
/// bits and one of the second half in the high 4 bits.
fn put_bits(integers: &[u32], bits: u32, out: &mut [u8]) {
    let (fifths, nibbles) = out.split_at_mut(if bits == 5 { 4 } else { 0 });
    if bits == 5 {
        let fifth = integers.iter().enumerate().fold(0, |all, (at, integer)| all | (integer >> 4) << at);
        fifths.copy_from_slice(&fifth.to_le_bytes());
    }
    for (at, out) in nibbles.iter_mut().enumerate() {
        *out = (integers[at] & 15 | (integers[at + 16] & 15) << 4) as u8;
    }
}
