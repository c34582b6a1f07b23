//! A stage's speed with the weights of one model, measured or assumed.

use std::collections::{BTreeMap, BTreeSet};

use schema::record::{FormatSpeed, LayerCost, ModelRecord, Speeds};

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rates {
    /// With the format of most layers.
    layer: FormatSpeed,
    /// With the other formats that layers have. The same formats on every stage.
    others: BTreeMap<String, FormatSpeed>,
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
    for format in other_formats(model) {
        // Every stage that has measured itself has each of these.
        even_out(&mut measured, |rates| &mut rates.of_format(format).bytes_per_second);
        even_out(&mut measured, |rates| &mut rates.of_format(format).multiplications_per_second);
    }
    let mut sorted: Vec<_> = measured.iter().flatten().cloned().collect();
    sorted.sort_by_key(|rates| rates.layer.bytes_per_second);
    let neutral = Rates { layer: NEUTRAL, others: BTreeMap::new(), head: NEUTRAL };
    let assumed = sorted.get(sorted.len().saturating_sub(1) / 2).cloned().unwrap_or(neutral);
    measured.into_iter().map(|rates| rates.unwrap_or_else(|| assumed.clone())).collect()
}

/// The formats of layers that are not the format of most.
fn other_formats(model: &ModelRecord) -> BTreeSet<&String> {
    model.layer_formats.iter().filter(|format| Some(*format) != model.layer_format.as_ref()).collect()
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
        let of = |format: &String| speeds.get(format).copied().unwrap_or(layer);
        let others = other_formats(model).into_iter().map(|format| (format.clone(), of(format))).collect();
        Some(Self { layer, others, head: model.head_format.as_ref().map_or(layer, of) })
    }

    /// The speed with a layer's format, which is one of the model's.
    fn of_format(&mut self, format: &str) -> &mut FormatSpeed {
        self.others.get_mut(format).unwrap_or(&mut self.layer)
    }

    /// The time of one layer for a micro-batch of `rows`, in picoseconds: reading its weights or multiplying them,
    /// whichever takes longer.
    pub(super) fn layer_ps(&self, layer: LayerCost<'_>, rows: u64) -> u64 {
        let own = layer.format.and_then(|format| self.others.get(format));
        time_ps(own.copied().unwrap_or(self.layer), bytes_read(layer, rows), layer.multiplications, rows)
    }

    /// The same for the head.
    pub(super) fn head_ps(&self, bytes: u64, multiplications: u64, rows: u64) -> u64 {
        time_ps(self.head, bytes, multiplications, rows)
    }
}

/// The bytes of a layer's weights that a micro-batch of `rows` is expected to read: each row chooses its experts, and
/// weights that several rows chose are read once.
fn bytes_read(layer: LayerCost<'_>, rows: u64) -> u64 {
    if layer.read_per_token == layer.weights {
        return layer.weights;
    }
    // Products are exact to the last bit on every machine, too.
    let unread = 1.0 - layer.read_per_token as f64 / layer.weights as f64;
    let unread = (0..rows.min(64)).fold(1.0, |product, _| product * unread);
    (layer.weights as f64 * (1.0 - unread)) as u64
}

fn time_ps(speed: FormatSpeed, bytes: u64, multiplications: u64, rows: u64) -> u64 {
    const SECOND_PS: f64 = 1e12;
    // Division is exact to the last bit on every machine, so every stage finds the same time. A wrong record may say
    // zero.
    let over = |count: u64, rate: u64| (count as f64 * SECOND_PS / rate.max(1) as f64) as u64;
    let multiplying = over(multiplications.saturating_mul(rows), speed.multiplications_per_second);
    over(bytes, speed.bytes_per_second).max(multiplying)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed(bytes_per_second: u64) -> FormatSpeed {
        FormatSpeed { bytes_per_second, multiplications_per_second: 1 << 50 }
    }

    #[test]
    fn a_layer_of_experts_reads_those_that_some_row_chose() {
        let layer = |read_per_token| LayerCost {
            weights: 1000,
            read_per_token,
            multiplications: 0,
            kv_per_token: 0,
            kv_tokens: 0,
            format: None,
        };
        assert_eq!([1, 8].map(|rows| bytes_read(layer(1000), rows)), [1000, 1000]);
        let found = [1, 2, 8, u64::MAX].map(|rows| bytes_read(layer(250), rows));
        assert_eq!(found, [250, 437, 899, 999], "of four experts each row chooses one");
    }

    #[test]
    fn a_layer_takes_the_time_of_its_own_format() {
        let model = ModelRecord {
            layer_format: Some("Q4_K".to_owned()),
            layer_formats: ["Q4_K", "Q8_0", "F16"].map(str::to_owned).to_vec(),
            ..ModelRecord::new("m", vec![1000; 3])
        };
        let measured: Speeds = [("Q4_K".to_owned(), speed(1000)), ("Q8_0".to_owned(), speed(2000))].into();
        let found = rates(&model, [&measured, &Speeds::new()].into_iter());
        for rates in found {
            let times = [0, 1, 2].map(|layer| rates.layer_ps(model.layer(layer), 1));
            assert_eq!(times, [1_000_000_000_000, 500_000_000_000, 1_000_000_000_000], "F16 was not measured");
        }
    }
}
