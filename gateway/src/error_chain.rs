//! An error with its causes as one line of text.

use std::error::Error;
use std::fmt::Write as _;

/// An error and its causes in one line, outermost first.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        // Some errors already contain the text of their cause.
        if !text.ends_with(&message) {
            let _ = write!(text, ": {message}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn causes_follow_without_repetitions() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot start")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("request error: not found")]
        struct Middle(#[source] io::Error);
        let error = Outer(Middle(io::Error::other("not found")));
        assert_eq!(chain(&error), "cannot start: request error: not found");
    }
}
