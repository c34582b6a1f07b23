//! Figures as people read them: as in the dashboard. Pure.

use schema::LayerRange;

/// A whole number with commas.
pub(super) fn whole(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with as many decimals as matter.
pub(super) fn number(value: f64) -> String {
    if value.abs() >= 100.0 { whole(value.abs().round() as u64) } else { format!("{value:.1}") }
}

/// A share of 0 to 1.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

/// A duration in milliseconds.
pub(super) fn duration(ms: f64) -> String {
    let seconds = ms / 1000.0;
    match ms {
        ms if ms < 1.0 => format!("{:.0} µs", ms * 1000.0),
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        _ if seconds < 90.0 => format!("{seconds:.0} s"),
        _ if seconds < 5400.0 => format!("{:.0} min {:.0} s", (seconds / 60.0).floor(), seconds % 60.0),
        _ => format!("{:.0} h {:.0} min", (seconds / 3600.0).floor(), (seconds / 60.0).floor() % 60.0),
    }
}

/// The time of day in UTC of milliseconds since 1970.
pub(super) fn clock(ms: u64) -> String {
    let seconds = ms / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// A layer range, and a dash for none.
pub(super) fn layers(range: Option<LayerRange>) -> String {
    range.map_or_else(|| "-".to_owned(), |range| range.to_string())
}

/// Values as a line of blocks, the highest as a whole one.
pub(super) fn sparkline(values: &[f64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let block = |value: &f64| {
        let share = if most > 0.0 { value / most } else { 0.0 };
        BLOCKS[((share * 7.0).round() as usize).min(7)]
    };
    values.iter().map(block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_as_many_digits_as_people_read() {
        assert_eq!([whole(7), whole(1234), whole(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!([number(0.0), number(24.06), number(123.4), number(4321.0)], ["0.0", "24.1", "123", "4,321"]);
        let durations = [0.08, 1.25, 182.0, 3210.0, 61_000.0, 125_000.0, 7_500_000.0].map(duration);
        assert_eq!(durations, ["80 µs", "1.2 ms", "182 ms", "3.2 s", "61 s", "2 min 5 s", "2 h 5 min"]);
        assert_eq!(clock(86_400_000 * 3 + 3_723_456), "01:02:03");
        assert_eq!((sparkline(&[0.0, 4.0, 8.0]).as_str(), sparkline(&[0.0]).as_str()), ("▁▅█", "▁"));
    }
}
