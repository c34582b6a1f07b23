//! One sequence's place in its grammar.

use llguidance::api::StopReason;

use super::limits::{FORCED_TOKENS_MAX, UNMASKED_TOKENS_MAX};
use super::token_mask::TokenMask;
use super::{Grammar, MatcherError, llguidance_error};

/// One sequence's place in its grammar. It begins before the first token of the answer.
///
/// A clone goes its own way from the same place: nothing that one does changes another. So the choices of a request
/// can share the work of compiling, and a matcher's answers depend on its own tokens alone.
pub struct Matcher {
    grammar: Grammar,
    parser: llguidance::Matcher,
    /// The accepted tokens of the text. The stop token is not among them.
    text: Vec<u32>,
    /// True once a stop token was accepted.
    ended: bool,
    /// The allowed tokens.
    mask: TokenMask,
    /// True if `mask` is the mask of this place.
    masked: bool,
    /// Tokens accepted since the last mask that llguidance computed.
    unmasked_tokens: usize,
    /// The reason why the grammar cannot be followed from this place.
    failed: Option<MatcherError>,
}

// === impl Matcher ===

impl Matcher {
    pub(super) fn new(grammar: Grammar) -> Self {
        let parser = grammar.parser();
        let mask = TokenMask::new(grammar.tokens().vocab_size());
        Self { grammar, parser, text: Vec::new(), ended: false, mask, masked: false, unmasked_tokens: 0, failed: None }
    }

    /// The tokens that may come next: bit `i % 32` of word `i / 32` is token `i`. There are `vocab_size / 32` words,
    /// rounded up; bits beyond the vocabulary are zero.
    ///
    /// The stop tokens are among them exactly if the grammar may end here. Where the grammar forces the text, the mask
    /// has the one token that the model's own tokenizer would write. At least one bit is set.
    ///
    /// # Errors
    /// [`MatcherError::DeadEnd`] when no token of the vocabulary continues the text, [`MatcherError::TooComplex`] when
    /// a bound is reached. The error stays until [`Self::rollback`] leaves this place.
    pub fn allowed(&mut self) -> Result<&[u32], MatcherError> {
        self.check()?;
        if !self.masked {
            self.compute_mask()?;
        }
        Ok(self.mask.words())
    }

    /// Takes `token` as the next one.
    ///
    /// Any division of a text into tokens is taken, not only the one that [`Self::allowed`] would show where the text
    /// is forced.
    ///
    /// # Errors
    /// [`MatcherError::Refused`] when the grammar does not allow it; the matcher is then unchanged. Otherwise as for
    /// [`Self::allowed`].
    pub fn accept(&mut self, token: u32) -> Result<(), MatcherError> {
        self.check()?;
        let refused = MatcherError::Refused { token, accepted: self.accepted() };
        if self.ended || !self.grammar.can_choose(token) {
            return Err(refused);
        }
        if self.grammar.tokens().stops().contains(&token) {
            let may_end = self.parser.is_accepting().map_err(|error| self.fail(&error.to_string()))?;
            return if may_end { self.end() } else { Err(refused) };
        }
        if self.unmasked_tokens >= UNMASKED_TOKENS_MAX {
            self.compute_mask()?;
        }
        let taken = self.parser.try_consume_tokens(&[token]);
        match taken.map_err(|error| self.fail(&error.to_string()))? {
            0 => Err(refused),
            _ => {
                self.text.push(token);
                self.unmasked_tokens += 1;
                self.masked = false;
                Ok(())
            }
        }
    }

    /// The tokens that the grammar forces next, as the model's own tokenizer writes them: 256 at most; the next call
    /// gives more. [`Self::allowed`] would show each of them alone. It is empty where there is a choice, and where the
    /// text is complete.
    ///
    /// # Errors
    /// As for [`Self::allowed`].
    pub fn forced_tokens(&mut self) -> Result<Vec<u32>, MatcherError> {
        self.check()?;
        if self.is_stopped() {
            return Ok(Vec::new());
        }
        let mut forced = self.parser.compute_ff_tokens();
        if let Some(error) = self.parser.get_error() {
            return Err(self.fail(&error));
        }
        forced.truncate(FORCED_TOKENS_MAX);
        Ok(forced)
    }

    /// Takes back the last `tokens` accepted ones, for example rejected draft tokens. The matcher is then as if they
    /// had never been accepted. An error that they led to is gone.
    ///
    /// # Errors
    /// [`MatcherError::TooFarBack`] when fewer were accepted; the matcher is then unchanged. After an error, it follows
    /// the remaining tokens anew, which can fail as in [`Self::accept`].
    pub fn rollback(&mut self, tokens: usize) -> Result<(), MatcherError> {
        let accepted = self.accepted();
        if tokens > accepted {
            return Err(MatcherError::TooFarBack { tokens, accepted });
        }
        if tokens == 0 {
            return Ok(());
        }
        self.masked = false;
        let from_text = tokens - usize::from(std::mem::take(&mut self.ended));
        self.text.truncate(self.text.len() - from_text);
        if self.failed.take().is_some() || self.parser.rollback(from_text).is_err() {
            return self.replay();
        }
        // llguidance keeps the last mask by its number of lexemes and its lexer state. Another text can have the same.
        self.parser.invalidate_bias_cache();
        Ok(())
    }

    /// True if the text is complete: a stop token was accepted, or nothing but a stop token may follow.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.ended || self.parser.stop_reason() == StopReason::NoExtension
    }

    /// Number of accepted tokens, a stop token included.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.text.len() + usize::from(self.ended)
    }

    fn check(&self) -> Result<(), MatcherError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    fn end(&mut self) -> Result<(), MatcherError> {
        self.ended = true;
        self.masked = false;
        Ok(())
    }

    fn compute_mask(&mut self) -> Result<(), MatcherError> {
        let tokens = self.grammar.tokens();
        if self.is_stopped() {
            let mut stops = TokenMask::new(tokens.vocab_size());
            tokens.stops().iter().for_each(|&stop| stops.insert(stop));
            self.mask = stops;
        } else {
            let allowed = self.parser.compute_mask().map_err(|error| self.fail(&error.to_string()))?;
            self.mask.set_intersection(allowed.as_slice(), self.grammar.tokens().choosable());
            self.mask.insert_common(allowed.as_slice(), self.grammar.marks());
            if self.mask.is_empty() {
                self.failed = Some(MatcherError::DeadEnd);
                return Err(MatcherError::DeadEnd);
            }
        }
        self.masked = true;
        self.unmasked_tokens = 0;
        Ok(())
    }

    /// Goes to this place again, from the grammar's beginning.
    fn replay(&mut self) -> Result<(), MatcherError> {
        let mut again = Self::new(self.grammar.clone());
        match self.text.iter().try_for_each(|&token| again.accept(token)) {
            Ok(()) => {
                *self = again;
                Ok(())
            }
            Err(error) => {
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Remembers the parser's error, after which it can do nothing more.
    fn fail(&mut self, message: &str) -> MatcherError {
        let error = llguidance_error::following(message);
        self.failed = Some(error.clone());
        error
    }
}

impl Clone for Matcher {
    fn clone(&self) -> Self {
        Self {
            grammar: self.grammar.clone(),
            // A plain clone would share its lexer's states, and the budget for new ones, with this matcher.
            parser: self.parser.deep_clone(),
            text: self.text.clone(),
            mask: self.mask.clone(),
            failed: self.failed.clone(),
            ..*self
        }
    }
}
