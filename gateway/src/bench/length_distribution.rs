//! Distributions of lengths: fixed, uniform or log-normal.

use std::fmt;
use std::str::FromStr;

use rand::Rng;
use rand::rngs::StdRng;

use super::limits::TOKENS_MAX;

/// Largest sigma of a log-normal distribution. At 3, one length in a hundred is a thousand times the median.
const SIGMA_MAX: f64 = 3.0;
const EXPECTED: &str = "expected a number of tokens, uniform:FROM..TO or lognormal:MEDIAN,SIGMA";

/// A distribution of lengths in tokens. Every length is from 1 to 2^20.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LengthDistribution {
    /// Every length is this one.
    Fixed(u32),
    /// A uniform distribution from `from` to `to`, both included.
    Uniform {
        /// The least length.
        from: u32,
        /// The greatest length. Not less than `from`.
        to: u32,
    },
    /// A log-normal distribution: the logarithm of the length is normal.
    LogNormal {
        /// The median length.
        median: u32,
        /// The standard deviation of the natural logarithm.
        sigma: f64,
    },
}

// === impl LengthDistribution ===

impl LengthDistribution {
    /// Draws one length.
    pub fn sample(&self, random: &mut StdRng) -> u32 {
        match *self {
            Self::Fixed(tokens) => tokens,
            Self::Uniform { from, to } => random.random_range(from..=to),
            Self::LogNormal { median, sigma } => {
                let tokens = f64::from(median) * (sigma * normal(random)).exp();
                tokens.round().clamp(1.0, f64::from(TOKENS_MAX)) as u32
            }
        }
    }
}

/// A standard normal value (Box and Muller, 1958).
fn normal(random: &mut StdRng) -> f64 {
    // 1 - [0, 1) is never 0, whose logarithm is infinite.
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

impl FromStr for LengthDistribution {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{EXPECTED}, found {text:?}");
        let tokens = |text: &str| {
            let tokens = text.trim().parse().map_err(|_| wrong())?;
            if (1..=TOKENS_MAX).contains(&tokens) {
                Ok(tokens)
            } else {
                Err(format!("expected 1 to {TOKENS_MAX} tokens, found {tokens}"))
            }
        };
        match text.split_once(':') {
            None => Ok(Self::Fixed(tokens(text)?)),
            Some(("uniform", range)) => {
                let (from, to) = range.split_once("..").ok_or_else(wrong)?;
                let (from, to) = (tokens(from)?, tokens(to)?);
                if from <= to {
                    Ok(Self::Uniform { from, to })
                } else {
                    Err(format!("expected a range that goes upwards, found {range:?}"))
                }
            }
            Some(("lognormal", parameters)) => {
                let (median, sigma) = parameters.split_once(',').ok_or_else(wrong)?;
                let sigma: f64 = sigma.trim().parse().map_err(|_| wrong())?;
                if (0.0..=SIGMA_MAX).contains(&sigma) {
                    Ok(Self::LogNormal { median: tokens(median)?, sigma })
                } else {
                    Err(format!("expected a sigma of 0 to {SIGMA_MAX}, found {sigma}"))
                }
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl fmt::Display for LengthDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => write!(f, "{tokens}"),
            Self::Uniform { from, to } => write!(f, "uniform:{from}..{to}"),
            Self::LogNormal { median, sigma } => write!(f, "lognormal:{median},{sigma}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn lengths(distribution: &str, seed: u64) -> Vec<u32> {
        let distribution: LengthDistribution = distribution.parse().unwrap();
        let mut random = StdRng::seed_from_u64(seed);
        (0..20_000).map(|_| distribution.sample(&mut random)).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_lengths_and_another_gives_others() {
        for distribution in ["uniform:50..200", "lognormal:120,0.5"] {
            assert_eq!(lengths(distribution, 7), lengths(distribution, 7));
            assert_ne!(lengths(distribution, 7), lengths(distribution, 8));
        }
        assert!(lengths("120", 7).iter().all(|tokens| *tokens == 120));
    }

    #[test]
    fn uniform_lengths_fill_their_range_evenly() {
        let lengths = lengths("uniform:50..200", 1);
        assert_eq!((lengths.iter().min(), lengths.iter().max()), (Some(&50), Some(&200)));
        let mean = lengths.iter().map(|tokens| f64::from(*tokens)).sum::<f64>() / lengths.len() as f64;
        assert!((mean - 125.0).abs() < 2.0, "{mean}");
    }

    #[test]
    fn log_normal_lengths_have_the_given_median_and_sigma() {
        let mut lengths = lengths("lognormal:120,0.5", 1);
        lengths.sort_unstable();
        // A normal value is below -1 for 15.87 % and below 1 for 84.13 %.
        let at = |share: f64| f64::from(lengths[(share * lengths.len() as f64) as usize]);
        for (share, expected) in [(0.5, 120.0), (0.1587, 120.0 * (-0.5_f64).exp()), (0.8413, 120.0 * 0.5_f64.exp())] {
            assert!((at(share) / expected - 1.0).abs() < 0.03, "{share}: {} instead of {expected}", at(share));
        }
    }

    #[test]
    fn a_distribution_is_printed_as_it_was_written_and_another_text_is_refused() {
        for text in ["120", "uniform:50..200", "uniform:7..7", "lognormal:120,0.5"] {
            assert_eq!(text.parse::<LengthDistribution>().unwrap().to_string(), text);
        }
        let wrong = [
            "",
            "0",
            "-5",
            "many",
            "uniform:9..5",
            "uniform:5",
            "normal:5,1",
            "lognormal:5",
            "lognormal:5,9",
            "2000000",
        ];
        for text in wrong {
            assert!(text.parse::<LengthDistribution>().is_err(), "{text} was accepted");
        }
        assert!("lognormal:5,NaN".parse::<LengthDistribution>().is_err());
    }
}
