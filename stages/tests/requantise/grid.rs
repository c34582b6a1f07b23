//! The formats whose indices choose points of a grid, in ggml's layouts. The points are read from the decoder: block by
//! block, one index after the other.

use std::sync::LazyLock;

use stages::format::Format;
use stages::kernels::dequantise_block_bytes;

use super::quantise::{nearest, put_half, rounded};

/// A format's grid, and how its scales step.
struct Grid {
    format: Format,
    /// Magnitudes of a coordinate, or the values -1, 0 and 1 if the format has no signs.
    levels: Vec<f32>,
    /// Coordinates of a point: eight or four.
    width: usize,
    /// The nearest point for each combination of levels, the first coordinate's level counting least.
    nearest: Vec<u16>,
    /// Values that share a scale.
    length: usize,
    /// The scale that the integer 0 stands for, the amount that one more adds, and the largest integer.
    scales: (f32, f32, i32),
    /// True if the number of negative values in eight must be even.
    even: bool,
}

static GRIDS: LazyLock<Vec<Grid>> = LazyLock::new(|| {
    let two = || vec![8.0, 25.0, 43.0];
    let three = |first: f32, step: f32| (0..8).map(move |level| first + step * level as f32);
    let mut uneven: Vec<f32> = three(4.0, 8.0).collect();
    uneven[7] = 62.0;
    vec![
        Grid::new(Format::Iq2Xxs, two(), 8, 32, (0.125, 0.25, 15), true),
        Grid::new(Format::Iq2Xs, two(), 8, 16, (0.125, 0.25, 15), true),
        Grid::new(Format::Iq2S, two(), 8, 16, (0.125, 0.25, 15), false),
        Grid::new(Format::Iq3Xxs, uneven, 4, 32, (0.25, 0.5, 15), true),
        Grid::new(Format::Iq3S, three(1.0, 2.0).collect(), 4, 32, (1.0, 2.0, 15), false),
        Grid::new(Format::Iq1S, vec![-1.0, 0.0, 1.0], 8, 32, (1.0, 2.0, 7), false),
        Grid::new(Format::Iq1M, vec![-1.0, 0.0, 1.0], 8, 16, (1.0, 2.0, 7), false),
    ]
});

/// Fractions of the largest magnitude that are tried as the highest level.
const TRIES: [f32; 4] = [1.0, 0.85, 0.7, 0.55];

/// Quantises 256 values.
///
/// # Panics
/// If the format has no grid.
pub fn block(format: Format, values: &[f32], out: &mut [u8]) {
    let grid = GRIDS.iter().find(|grid| grid.format == format).expect("a format with a grid");
    let fits: Vec<f32> = values.chunks_exact(grid.length).map(|values| grid.scale(values)).collect();
    let largest = fits.iter().fold(0.0_f32, |most, fit| if *fit > most { *fit } else { most });
    let (first, step, integer_max) = grid.scales;
    let factor = put_factor(format, largest / (first + step * integer_max as f32), out);
    let integers = fits.iter().map(|fit| nearest(fit - factor * first, factor * step, 0, integer_max));
    for (at, (integer, values)) in integers.zip(values.chunks_exact(grid.length)).enumerate() {
        let scale = factor * (first + step * integer as f32);
        put_scale(format, at, integer as u32, out);
        let shifts = if grid.levels[0] < 0.0 { &[0.125, -0.125][..] } else { &[0.0] };
        // The shift of IQ1_S is the sub-block's, that of IQ1_M each point's.
        let together = if format == Format::Iq1S { 32 } else { 8 };
        for (eights, values) in values.chunks_exact(together).enumerate() {
            let errors = shifts.iter().map(|shift| grid.error(values, scale, *shift));
            let best = errors.enumerate().fold(
                (0, f32::INFINITY),
                |best, (shift, error)| {
                    if error < best.1 { (shift, error) } else { best }
                },
            );
            for (eight, values) in values.chunks_exact(8).enumerate() {
                let first = at * grid.length + eights * together + 8 * eight;
                put_eight(grid, first / 8, values, scale, shifts[best.0], out);
            }
        }
    }
}

// === impl Grid ===

impl Grid {
    fn new(format: Format, levels: Vec<f32>, width: usize, length: usize, scales: (f32, f32, i32), even: bool) -> Self {
        let points: Vec<Vec<f32>> = points(format, width, &levels);
        let combinations = levels.len().pow(width as u32);
        let nearest = (0..combinations).map(|combination| {
            let of = |at: usize| levels[combination / levels.len().pow(at as u32) % levels.len()];
            let wanted: Vec<f32> = (0..width).map(of).collect();
            let distance = |point: &[f32]| point.iter().zip(&wanted).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
            let distances = points.iter().enumerate().map(|(index, point)| (index as u16, distance(point)));
            distances.fold((0, f32::INFINITY), |best, one| if one.1 < best.1 { one } else { best }).0
        });
        let nearest = nearest.collect();
        Self { format, levels, width, nearest, length, scales, even }
    }

    /// A scale for values that share one. Zero if all are zero.
    fn scale(&self, values: &[f32]) -> f32 {
        let largest = values.iter().fold(0.0_f32, |most, value| if value.abs() > most { value.abs() } else { most });
        let top = self.levels[self.levels.len() - 1];
        let mut best = (0.0, f32::INFINITY);
        for fraction in TRIES {
            let scale = largest * fraction / top;
            let error = self.error(values, scale, 0.0);
            if error < best.1 {
                best = (scale, error);
            }
        }
        best.0
    }

    /// The squared error of the nearest levels, whether or not the grid has their points.
    fn error(&self, values: &[f32], scale: f32, shift: f32) -> f32 {
        values.iter().fold(0.0, |sum, value| {
            let (value, level) = self.level(*value, scale, shift);
            let error = value - scale * (self.levels[level] + shift);
            sum + error * error
        })
    }

    /// The target of a coordinate (a magnitude if the format has signs), and the nearest level to it.
    fn level(&self, value: f32, scale: f32, shift: f32) -> (f32, usize) {
        let (low, high) = (self.levels[0], self.levels[1]);
        let value = if low > 0.0 { value.abs() } else { value };
        // Levels are evenly spaced but for the last one, which is a little closer or further away.
        let level = if scale == 0.0 { 0.0 } else { (value / scale - shift - low) / (high - low) };
        (value, rounded(level, 0.0, (self.levels.len() - 1) as f32) as usize)
    }

    /// The index of the point nearest to the levels of `values`.
    fn index(&self, values: &[f32], scale: f32, shift: f32) -> u16 {
        let levels = values.iter().rev().map(|value| self.level(*value, scale, shift).1);
        self.nearest[levels.fold(0, |all, level| self.levels.len() * all + level)]
    }
}

/// All points of a grid, as multiples of the scale.
fn points(format: Format, width: usize, levels: &[f32]) -> Vec<Vec<f32>> {
    let count = match format {
        Format::Iq2Xxs | Format::Iq3Xxs => 256,
        Format::Iq2Xs | Format::Iq3S => 512,
        Format::Iq2S => 1024,
        _ => 2048,
    };
    let point = |index: u16| {
        let (mut block, mut values) = (vec![0; format.block_bytes()], vec![0.0; 256]);
        let factor = put_factor(format, 1.0, &mut block);
        put_index(format, 0, index, &mut block);
        dequantise_block_bytes(format, &block, &mut values);
        // Integer scales of zero, and a shift up.
        let (scale, shift) = match format {
            Format::Iq2Xxs | Format::Iq2Xs | Format::Iq2S => (0.125, 0.0),
            Format::Iq3Xxs => (0.25, 0.0),
            Format::Iq3S => (1.0, 0.0),
            _ => (1.0, 0.125),
        };
        values[..width].iter().map(|value| value / (scale * factor) - shift).collect::<Vec<_>>()
    };
    let points: Vec<Vec<f32>> = (0..count).map(point).collect();
    assert!(points.iter().flatten().all(|value| levels.contains(value)), "{}", format.name());
    points
}

// === bits ===

/// Writes the factor of the scales and returns its value.
fn put_factor(format: Format, value: f32, out: &mut [u8]) -> f32 {
    if format != Format::Iq1M {
        return put_half(out, value);
    }
    let mut half = [0; 2];
    let value = put_half(&mut half, value);
    for at in 0..4 {
        out[49 + 2 * at] |= (half[at / 2] >> (4 * (at % 2)) & 15) << 4;
    }
    value
}

/// Writes the integer scale of sub-block `at`.
fn put_scale(format: Format, at: usize, integer: u32, out: &mut [u8]) {
    let mut put = |at: usize, bits: u32| or(out, at, bits);
    match format {
        Format::Iq2Xxs => put(6 + 8 * at, integer << 28),
        Format::Iq3Xxs => put(66 + 4 * at, integer << 28),
        Format::Iq2Xs => put(66 + at / 2, integer << (4 * (at % 2))),
        Format::Iq2S => put(74 + at / 2, integer << (4 * (at % 2))),
        Format::Iq3S => put(106 + at / 2, integer << (4 * (at % 2))),
        Format::Iq1S => put(34 + 2 * at, integer << 12),
        _ => put(48 + 2 * (at / 4), integer << (3 * (at % 4))),
    }
}

/// Writes index `at` of a block.
fn put_index(format: Format, at: usize, index: u16, out: &mut [u8]) {
    let index = u32::from(index);
    let (low, high) = (index & 255, index >> 8);
    let mut put = |at: usize, bits: u32| or(out, at, bits);
    match format {
        Format::Iq2Xxs => put(2 + 8 * (at / 4) + at % 4, low),
        Format::Iq3Xxs => put(2 + at, low),
        Format::Iq2Xs => put(2 + 2 * at, index),
        Format::Iq2S => {
            put(2 + at, low);
            put(66 + at / 4, high << (2 * (at % 4)));
        }
        Format::Iq3S => {
            put(2 + at, low);
            put(66 + at / 8, high << (at % 8));
        }
        Format::Iq1S => {
            put(2 + at, low);
            put(34 + 2 * (at / 4), high << (3 * (at % 4)));
        }
        _ => {
            put(at, low);
            put(32 + at / 2, high << (4 * (at % 2)));
        }
    }
}

/// Writes the indices and signs of eight values, `eight` of a block.
fn put_eight(grid: &Grid, eight: usize, values: &[f32], scale: f32, shift: f32, out: &mut [u8]) {
    for (at, values) in values.chunks_exact(grid.width).enumerate() {
        put_index(grid.format, 8 / grid.width * eight + at, grid.index(values, scale, shift), out);
    }
    let mut signs = values.iter().enumerate().fold(0, |signs, (at, value)| signs | u32::from(*value < 0.0) << at);
    if grid.even && signs.count_ones() % 2 == 1 {
        let smallest = (1..8).fold(0, |least, at| if values[at].abs() < values[least].abs() { at } else { least });
        signs ^= 1 << smallest;
    }
    let seven = signs & 127;
    match grid.format {
        Format::Iq2Xxs => or(out, 6 + 8 * (eight / 4), seven << (7 * (eight % 4))),
        Format::Iq3Xxs => or(out, 66 + 4 * (eight / 4), seven << (7 * (eight % 4))),
        Format::Iq2Xs => or(out, 2 + 2 * eight, seven << 9),
        Format::Iq2S => or(out, 34 + eight, signs),
        Format::Iq3S => or(out, 74 + eight, signs),
        Format::Iq1S => out[35 + 2 * (eight / 4)] |= u8::from(shift < 0.0) << 7,
        _ => out[32 + eight / 2] |= u8::from(shift < 0.0) << (4 * (eight % 2) + 3),
    }
}

/// Sets the bits of a little-endian number that starts at byte `at`.
fn or(out: &mut [u8], at: usize, bits: u32) {
    for (out, bits) in out[at..].iter_mut().zip(bits.to_le_bytes()) {
        *out |= bits;
    }
}
