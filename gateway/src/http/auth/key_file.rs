//! A file of API keys: a key on each line, perhaps with limits of its own.
//!
//! ```text
//! # NAME:SECRET or SECRET, then limits, with spaces between them
//! alice:5f2c…  requests_per_minute=60 concurrent_requests=4
//! monitor:91aa…  requests_per_minute=unlimited
//! ```

use std::num::NonZeroU32;

use super::error::ApiKeyError;
use super::key_limits::Limit;
use super::key_ring::GivenKey;
use super::key_text;
use crate::http::limits::{CONCURRENT_REQUESTS_MAX, REQUESTS_PER_MINUTE_MAX};

/// The word for a limit that does not exist.
const UNLIMITED: &str = "unlimited";

/// The reason that a file of API keys cannot be used. No text contains a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// The key of a line cannot be used.
    #[error("line {line}")]
    Key {
        /// The line, counted from 1.
        line: usize,
        /// The reason.
        #[source]
        cause: ApiKeyError,
    },
    /// A word after a key is no limit.
    #[error(
        "line {line} has something after its key that is no limit: expected requests_per_minute=N, with N from 1 to \
         {REQUESTS_PER_MINUTE_MAX}, and concurrent_requests=N, with N from 1 to {CONCURRENT_REQUESTS_MAX}, each at \
         most once, or `{UNLIMITED}` for N"
    )]
    Limit {
        /// The line, counted from 1.
        line: usize,
    },
    /// The file has no key.
    #[error("it holds no key: expected one NAME:SECRET or SECRET on each line")]
    Empty,
}

/// Parses the text of a file. Empty lines and lines that begin with `#` are left out.
///
/// # Errors
/// [`KeyFileError`] names the first line that cannot be used.
pub fn parse(text: &str) -> Result<Vec<GivenKey>, KeyFileError> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let keys = lines.map(|(number, line)| parse_line(number, line)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(KeyFileError::Empty) } else { Ok(keys) }
}

fn parse_line(number: usize, line: &str) -> Result<GivenKey, KeyFileError> {
    let mut words = line.split_whitespace();
    let key = key_text::parse(words.next().unwrap_or_default());
    let mut key = key.map_err(|cause| KeyFileError::Key { line: number, cause })?;
    for word in words {
        let limit = word.split_once('=').and_then(|(name, value)| {
            let limits = &mut key.own_limits;
            let (place, max) = match name {
                "requests_per_minute" => (&mut limits.requests_per_minute, REQUESTS_PER_MINUTE_MAX),
                "concurrent_requests" => (&mut limits.concurrent_requests, CONCURRENT_REQUESTS_MAX),
                _ => return None,
            };
            let limit = parse_limit(value, max)?;
            place.replace(limit).is_none().then_some(())
        });
        limit.ok_or(KeyFileError::Limit { line: number })?;
    }
    Ok(key)
}

fn parse_limit(text: &str, max: u32) -> Option<Limit> {
    if text == UNLIMITED {
        return Some(Limit::Unlimited);
    }
    let number = text.parse::<NonZeroU32>().ok().filter(|number| number.get() <= max)?;
    Some(Limit::AtMost(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbb";

    fn at_most(number: u32) -> Option<Limit> {
        NonZeroU32::new(number).map(Limit::AtMost)
    }

    #[test]
    fn a_line_has_a_key_and_limits_and_comments_are_left_out() {
        let text =
            format!("# keys\n\n alice:{A}  requests_per_minute=60\tconcurrent_requests=unlimited \r\n{B}\n  # end\n");
        let keys = parse(&text).unwrap();
        let names: Vec<_> = keys.iter().map(|key| key.name.as_ref().map(ToString::to_string)).collect();
        assert_eq!(names, [Some("alice".to_owned()), None]);
        let limits = keys[0].own_limits;
        assert_eq!((limits.requests_per_minute, limits.concurrent_requests), (at_most(60), Some(Limit::Unlimited)));
        assert_eq!(keys[1].own_limits.requests_per_minute, None);
    }

    #[test]
    fn a_word_that_is_no_limit_is_refused_with_its_line() {
        for word in [
            "requests_per_minute=0",
            "requests_per_minute=100001",
            "requests_per_minute=many",
            "requests_per_minute",
            "concurrent_requests=1025",
            "tokens=7",
            "concurrent_requests=1 concurrent_requests=2",
        ] {
            assert_eq!(parse(&format!("# a\na:{A} {word}\n")), Err(KeyFileError::Limit { line: 2 }), "{word}");
        }
    }

    #[test]
    fn a_bad_key_is_refused_with_its_line_and_a_file_without_keys_too() {
        let error = parse(&format!("{A}\nshort\n")).unwrap_err();
        assert_eq!(error, KeyFileError::Key { line: 2, cause: ApiKeyError::Length { found: 5 } });
        for text in ["", "\n\n", "# alice\n"] {
            assert_eq!(parse(text), Err(KeyFileError::Empty));
        }
    }
}
