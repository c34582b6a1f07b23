//! Sizes in the form that people write, `6GiB`, and in the form that is shown to people, `376.3 MiB`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The units that may follow the number, each with its size in bytes.
const UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

/// A number of bytes, never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(u64);

/// A number of bytes formatted for people, zero included. It is shown in the largest binary unit that it fills, with
/// one decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HumanBytes(pub u64);

/// A size that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "size {found:?} is not usable: expected a number and one of B, kB, MB, GB, TB, KiB, MiB, GiB, TiB, such as 6GiB"
)]
pub struct SizeError {
    found: String,
}

// === impl ByteSize ===

impl ByteSize {
    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = SizeError;
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let error = || SizeError { found: text.chars().take(40).collect() };
        let (number, unit) = UNITS
            .iter()
            .find_map(|(name, bytes)| text.strip_suffix(name).map(|number| (number.trim_end(), *bytes)))
            .ok_or_else(error)?;
        // "1.5": the whole part and the fraction are parsed separately, so that no size passes through a float.
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 6 || number.ends_with('.') {
            return Err(error());
        }
        let whole: u128 = whole.parse().map_err(|_| error())?;
        let scale = 10u128.pow(fraction.len() as u32);
        let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().map_err(|_| error())? };
        let scaled = whole.checked_mul(scale).and_then(|whole| (whole + fraction).checked_mul(unit.into()));
        let bytes = scaled.and_then(|scaled| u64::try_from(scaled / scale).ok()).ok_or_else(error)?;
        if bytes == 0 { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for ByteSize {
    type Error = SizeError;
    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl fmt::Display for ByteSize {
    /// Writes the size in the largest unit that gives a whole number, so that `6GiB` stays `6GiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = UNITS.iter().filter(|(_, unit)| self.0.is_multiple_of(*unit)).max_by_key(|(_, unit)| *unit);
        let (name, unit) = whole.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

// === impl HumanBytes ===

impl HumanBytes {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

    /// The smallest number, not below this one, that one decimal shows exactly. If a message shows a required minimum
    /// this way, the shown amount suffices.
    pub fn rounded_up(self) -> Self {
        let Some((_, unit)) = self.unit() else { return self };
        let tenths = (u128::from(self.0) * 10).div_ceil(unit.into());
        // Truncated to whole bytes, as parsing does with the shown text. The tenths were rounded up, so the result is
        // no less than `self`.
        let bytes = tenths * u128::from(unit) / 10;
        Self(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    fn unit(self) -> Option<(&'static str, u64)> {
        Self::UNITS.into_iter().find(|(_, unit)| self.0 >= *unit)
    }
}

impl fmt::Display for HumanBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit() {
            Some((name, unit)) => write!(f, "{:.1} {name}", self.0 as f64 / unit as f64),
            None => write!(f, "{} B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_for_people_are_short() {
        let cases = [(0, "0 B"), (1023, "1023 B"), (98_362_432, "93.8 MiB"), (16 << 30, "16.0 GiB")];
        for (bytes, text) in cases {
            assert_eq!(HumanBytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn a_least_amount_is_shown_as_one_that_suffices() {
        for (bytes, text) in [(1023, "1023 B"), (1025, "1.1 KiB"), (3 << 20, "3.0 MiB"), ((1 << 30) - 1, "1.0 GiB")] {
            let shown = HumanBytes(bytes).rounded_up();
            assert!(shown.0 >= bytes && shown.rounded_up() == shown);
            assert_eq!(shown.to_string(), text);
        }
        assert_eq!(HumanBytes(u64::MAX).rounded_up().0, u64::MAX);
    }

    #[test]
    fn sizes_are_read_in_powers_of_two_and_of_ten() {
        for (text, bytes) in [
            ("6GiB", 6 << 30),
            ("800MB", 800_000_000),
            ("1.5GiB", 3 << 29),
            ("0.000001MB", 1),
            ("512 MiB", 512 << 20),
            ("7B", 7),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(ByteSize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn an_invalid_size_is_refused_with_the_units() {
        for text in ["", "6", "GiB", "-1GiB", "6gb", "1e9B", "0MB", "1.GiB", ".5GiB", "99999999999TiB", "1.0000001GB"] {
            let error = text.parse::<ByteSize>().unwrap_err().to_string();
            assert!(error.contains("KiB, MiB, GiB"), "{text} gave {error}");
        }
    }

    #[test]
    fn a_written_size_reads_back() {
        for (text, written) in [("1.5GiB", "1536MiB"), ("6GiB", "6GiB"), ("800MB", "800MB"), ("1001B", "1001B")] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!(size.to_string(), written);
            assert_eq!(written.parse::<ByteSize>().unwrap(), size);
        }
    }
}
