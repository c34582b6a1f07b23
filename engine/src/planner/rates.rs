//! A stage's speed with the weights of one model, measured or assumed.

use schema::record::{FormatSpeed, ModelRecord, Speeds};

/// Rows of the micro-batch that a division is made for: a few sequences in one batch.
pub const ROWS: u64 = 8;
/// Measured speeds that differ by no more, in hundredths, count as equal: other work of a machine while it measures
/// changes a speed by about as much, and equal machines are to get equal shares.
const ALIKE_PERCENT: u128 = 25;
/// The speeds assumed of every stage while none has measured itself: a processor of 10 GB/s and 60 billion
/// multiplications a second. Only their ratio matters then, and that is alike on the machines that this program is made
/// for.
const NEUTRAL: FormatSpeed =
    FormatSpeed { bytes_per_second: 10_000_000_000, multiplications_per_second: 60_000_000_000 };

/// A stage's speeds with the weights of the layers and of the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rates {
    layer: FormatSpeed,
    head: FormatSpeed,
}

/// The rates of all stages. A stage that has measured the format of most layers has its own. The others are assumed to
/// have the median of those, so that a new stage counts as an average one. Speeds are compared coarsely.
pub(super) fn rates<'a>(model: &ModelRecord, speeds: impl Iterator<Item = &'a Speeds>) -> Vec<Rates> {
    let mut measured: Vec<_> = speeds.map(|speeds| Rates::measured(model, speeds)).collect();
    even_out(&mut measured, |rates| &mut rates.layer.bytes_per_second);
    even_out(&mut measured, |rates| &mut rates.layer.multiplications_per_second);
    even_out(&mut measured, |rates| &mut rates.head.bytes_per_second);
    even_out(&mut measured, |rates| &mut rates.head.multiplications_per_second);
    let mut sorted: Vec<_> = measured.iter().copied().flatten().collect();
    sorted.sort_by_key(|rates| rates.layer.bytes_per_second);
    let neutral = Rates { layer: NEUTRAL, head: NEUTRAL };
    let assumed = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(neutral);
    measured.into_iter().map(|rates| rates.unwrap_or(assumed)).collect()
}

/// Makes similar figures equal: from the least on, each group that lies within [`ALIKE_PERCENT`] of its least.
fn even_out(measured: &mut [Option<Rates>], figure: impl Fn(&mut Rates) -> &mut u64) {
    let mut figures: Vec<_> = measured.iter_mut().flatten().map(figure).collect();
    figures.sort_unstable();
    let mut least = 0;
    for figure in figures {
        if u128::from(*figure) * 100 > u128::from(least) * (100 + ALIKE_PERCENT) {
            least = *figure;
        }
        *figure = least;
    }
}

// === impl Rates ===

impl Rates {
    /// The rates that `speeds` have for the model's formats. `None` if they do not name that of its layers.
    pub(super) fn measured(model: &ModelRecord, speeds: &Speeds) -> Option<Self> {
        let layer = *speeds.get(model.layer_format.as_ref()?)?;
        let head = model.head_format.as_ref().and_then(|format| speeds.get(format)).copied();
        Some(Self { layer, head: head.unwrap_or(layer) })
    }

    /// The time of one layer for a micro-batch of `rows`, in picoseconds: reading its weights or multiplying them,
    /// whichever takes longer.
    pub(super) fn layer_ps(self, bytes: u64, multiplications: u64, rows: u64) -> u64 {
        time_ps(self.layer, bytes, multiplications, rows)
    }

    /// The same for the head.
    pub(super) fn head_ps(self, bytes: u64, multiplications: u64, rows: u64) -> u64 {
        time_ps(self.head, bytes, multiplications, rows)
    }
}

fn time_ps(speed: FormatSpeed, bytes: u64, multiplications: u64, rows: u64) -> u64 {
    const SECOND_PS: f64 = 1e12;
    // Division is exact to the last bit on every machine, so every stage finds the same time. A wrong record may say
    // zero.
    let over = |count: u64, rate: u64| (count as f64 * SECOND_PS / rate.max(1) as f64) as u64;
    let multiplying = over(multiplications.saturating_mul(rows), speed.multiplications_per_second);
    over(bytes, speed.bytes_per_second).max(multiplying)
}
