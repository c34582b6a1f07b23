//! A grammar as the engine uses it.

use engine::generate::{Constraint, ConstraintError, NextTokens};
use schema::frame::TokenMask;

use super::{Grammar, Matcher, MatcherError};

/// A sequence's matcher as the engine's [`Constraint`].
struct MatcherConstraint {
    matcher: Matcher,
    /// Tokens in the vocabulary.
    tokens: u32,
}

impl engine::generate::Grammar for Grammar {
    fn begin(&self) -> Box<dyn Constraint> {
        let tokens = u32::try_from(self.tokens().vocab_size()).unwrap_or(u32::MAX);
        Box::new(MatcherConstraint { matcher: self.matcher(), tokens })
    }
}

impl std::fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Grammar")
    }
}

impl std::fmt::Debug for MatcherConstraint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MatcherConstraint")
    }
}

impl Constraint for MatcherConstraint {
    fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        if self.matcher.is_stopped() {
            return Ok(NextTokens::End);
        }
        let forced = self.matcher.forced_tokens().map_err(|error| refuse(&error))?;
        if !forced.is_empty() {
            return Ok(NextTokens::Forced(forced));
        }
        let words = self.matcher.allowed().map_err(|error| refuse(&error))?;
        Ok(NextTokens::Masked(TokenMask::from_words(words, self.tokens)))
    }

    fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
        match self.matcher.accept(token) {
            Ok(()) => Ok(true),
            Err(MatcherError::Refused { .. }) => Ok(false),
            Err(error) => Err(refuse(&error)),
        }
    }

    fn rollback(&mut self, tokens: usize) {
        // It fails only if the grammar cannot be followed, and then the next call says so.
        let _ = self.matcher.rollback(tokens);
    }
}

fn refuse(error: &MatcherError) -> ConstraintError {
    ConstraintError(error.to_string())
}
