//! A constraint over reasoning and the answer behind it: ends reasoning that has used up its budget, and applies a
//! grammar only to what comes behind the reasoning.

use std::sync::Arc;

use engine::generate::{Constraint, ConstraintError, Grammar, NextTokens, SharedGrammar};
use schema::frame::TokenMask;

use super::ReasoningFormat;
use crate::text::marked_detokenizer::ControlMarks;
use crate::text::tokenizer::Tokenizer;

/// The tokens of a model's reasoning.
#[derive(Debug, Clone)]
pub struct ReasoningTokens {
    /// The tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// The marks that are control tokens.
    pub marks: ControlMarks,
    /// The marks around reasoning.
    pub format: ReasoningFormat,
    /// The tokens that end reasoning. They contain the mark behind it.
    pub end: Vec<u32>,
    /// The tokens between this mark and the answer.
    pub gap: Vec<u32>,
}

/// The grammar of reasoning and an answer.
#[derive(Debug, Clone)]
pub struct ReasoningGate(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    tokens: ReasoningTokens,
    /// True if the answer begins within the reasoning.
    opened: bool,
    /// Most tokens of reasoning.
    budget: u32,
    /// The token before reasoning, if it is one token.
    open_token: Option<u32>,
    /// The grammar of what comes behind the reasoning.
    answer: Option<SharedGrammar>,
    /// True if this grammar covers the reasoning, too.
    covers_reasoning: bool,
}

/// A sequence's place.
#[derive(Debug)]
struct GateConstraint {
    settings: Arc<Settings>,
    /// The places after each accepted token, before the first one included.
    places: Vec<Place>,
    /// The place in the answer's grammar.
    answer: Option<Box<dyn Constraint>>,
}

/// A place in reasoning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before it. `matched` bytes of the mark before it came.
    Start { matched: usize },
    /// In it, after `used` tokens. The last ones end with `matched` bytes of the mark behind it.
    Inside { used: u32, matched: usize },
    /// In the tokens that end it, before the one at `at`.
    Ending { at: usize },
    /// In the tokens between it and the answer.
    Gap { at: usize },
    /// Behind it, or in an answer without it.
    Answer,
}

// === impl ReasoningGate ===

impl ReasoningGate {
    /// A gate behind reasoning of at most `budget` tokens, if there is a bound. With `opened`, the answer begins within
    /// the reasoning. `answer` applies to what comes behind it, or to all if `covers_reasoning`.
    #[must_use]
    pub fn new(
        tokens: ReasoningTokens,
        opened: bool,
        budget: Option<u32>,
        answer: Option<SharedGrammar>,
        covers_reasoning: bool,
    ) -> Self {
        let open_token = tokens.token(tokens.format.open);
        let budget = budget.unwrap_or(u32::MAX);
        Self(Arc::new(Settings { tokens, opened, budget, open_token, answer, covers_reasoning }))
    }
}

impl Grammar for ReasoningGate {
    fn begin(&self) -> Box<dyn Constraint> {
        let settings = Arc::clone(&self.0);
        let first = if settings.opened { Place::Inside { used: 0, matched: 0 } } else { Place::Start { matched: 0 } };
        let answer = settings.answer.as_ref().map(|grammar| grammar.begin());
        Box::new(GateConstraint { settings, places: vec![first], answer })
    }
}

// === impl ReasoningTokens ===

impl ReasoningTokens {
    /// The bytes of a token, in which marks are spelled.
    fn bytes(&self, token: u32) -> &[u8] {
        self.marks.bytes(&self.tokenizer, token)
    }

    /// The token that is exactly `text`, if there is one.
    fn token(&self, text: &str) -> Option<u32> {
        let mark = self.marks.list().iter().find(|(_, spelling)| spelling == text).map(|(id, _)| *id);
        let encoded = || self.tokenizer.encode_continuation(text, crate::text::Special::Parse).ok();
        mark.or_else(|| encoded().filter(|tokens| tokens.len() == 1).map(|tokens| tokens[0]))
    }
}

// === impl Settings ===

impl Settings {
    /// The grammar that applies to the tokens of reasoning.
    fn watches(&self) -> bool {
        self.answer.is_none() || self.covers_reasoning
    }

    /// The place after `token` at `place`. `None` if the token is not allowed there.
    fn after(&self, place: Place, token: u32) -> Option<Place> {
        match place {
            Place::Start { .. } if !self.watches() => {
                let opens = Some(token) == self.open_token;
                Some(if opens { Place::Inside { used: 0, matched: 0 } } else { Place::Answer })
            }
            Place::Start { matched } => Some(self.start(matched, token)),
            Place::Inside { used, .. } if used >= self.budget => self.ending(0, token),
            Place::Inside { used, matched } => Some(self.inside(used, matched, token)),
            Place::Ending { at } => self.ending(at, token),
            Place::Gap { at } => {
                let expected = self.tokens.gap.get(at)?;
                (*expected == token).then(|| self.gap(at + 1))
            }
            Place::Answer => Some(Place::Answer),
        }
    }

    fn start(&self, mut matched: usize, token: u32) -> Place {
        let open = self.tokens.format.open.as_bytes();
        for (at, byte) in self.tokens.bytes(token).iter().enumerate() {
            if matched == open.len() {
                let rest = &self.tokens.bytes(token)[at..];
                return self.follow(1, 0, rest);
            }
            if matched == 0 && byte.is_ascii_whitespace() && *byte != open[0] {
                continue;
            }
            if *byte != open[matched] {
                return Place::Answer;
            }
            matched += 1;
        }
        if matched == open.len() { Place::Inside { used: 0, matched: 0 } } else { Place::Start { matched } }
    }

    fn inside(&self, used: u32, matched: usize, token: u32) -> Place {
        self.follow(used.saturating_add(1), matched, self.tokens.bytes(token))
    }

    /// The place in reasoning after `bytes`, given that `matched` bytes of the mark behind it came before.
    fn follow(&self, used: u32, mut matched: usize, bytes: &[u8]) -> Place {
        let close = self.tokens.format.close.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            matched = advance(close, matched, *byte);
            if matched == close.len() {
                // A gap that begins in the same token goes on as the model likes.
                return if bytes.len() > at + 1 { Place::Answer } else { self.gap(0) };
            }
        }
        Place::Inside { used, matched }
    }

    fn ending(&self, at: usize, token: u32) -> Option<Place> {
        let next = at + 1;
        if *self.tokens.end.get(at)? != token {
            return None;
        }
        Some(if next < self.tokens.end.len() { Place::Ending { at: next } } else { self.gap(0) })
    }

    /// The gap is forced only where a grammar comes behind it.
    fn gap(&self, at: usize) -> Place {
        if self.watches() || at >= self.tokens.gap.len() { Place::Answer } else { Place::Gap { at } }
    }
}

/// The number of bytes of `pattern` that end a text, if `matched` did and `byte` follows.
fn advance(pattern: &[u8], matched: usize, byte: u8) -> usize {
    let fits = |length: &usize| {
        let (before, last) = pattern[..*length].split_at(length - 1);
        last == [byte] && pattern[..matched].ends_with(before)
    };
    (1..=matched + 1).rev().find(fits).unwrap_or(0)
}

// === impl GateConstraint ===

impl GateConstraint {
    fn place(&self) -> Place {
        self.places.last().copied().unwrap_or(Place::Answer)
    }

    fn answer_next(&mut self) -> Result<NextTokens, ConstraintError> {
        self.answer.as_mut().map_or(Ok(NextTokens::Any), |answer| answer.next())
    }

    /// Hands a token to the answer's grammar.
    fn answer_accepts(&mut self, token: u32) -> Result<bool, ConstraintError> {
        self.answer.as_mut().map_or(Ok(true), |answer| answer.accept(token))
    }

    /// True if the answer's grammar applies to the token that leads from `from` to `to`.
    fn is_answer(&self, from: Place, to: Place) -> bool {
        let start = matches!(from, Place::Start { .. }) && to == Place::Answer;
        self.settings.covers_reasoning || from == Place::Answer || start && !self.settings.watches()
    }
}

impl Constraint for GateConstraint {
    fn next(&mut self) -> Result<NextTokens, ConstraintError> {
        let settings = Arc::clone(&self.settings);
        let tokens = &settings.tokens;
        Ok(match self.place() {
            Place::Answer => self.answer_next()?,
            Place::Start { .. } if !settings.watches() => {
                let next = self.answer_next()?;
                settings.open_token.map_or(next.clone(), |open| with_token(next, open))
            }
            Place::Inside { used, .. } if used >= settings.budget => NextTokens::Forced(tokens.end.clone()),
            Place::Ending { at } => NextTokens::Forced(tokens.end[at..].to_vec()),
            Place::Gap { at } => NextTokens::Forced(tokens.gap[at..].to_vec()),
            Place::Start { .. } | Place::Inside { .. } if settings.covers_reasoning => self.answer_next()?,
            Place::Start { .. } | Place::Inside { .. } if settings.answer.is_none() => NextTokens::Any,
            // An answer has to follow.
            Place::Start { .. } | Place::Inside { .. } => {
                NextTokens::Masked(TokenMask::Without(tokens.tokenizer.stop_tokens().to_vec()))
            }
        })
    }

    fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
        let from = self.place();
        let Some(to) = self.settings.after(from, token) else { return Ok(false) };
        let is_stop = self.settings.tokens.tokenizer.stop_tokens().contains(&token);
        if self.is_answer(from, to) {
            if !self.answer_accepts(token)? {
                return Ok(false);
            }
        } else if is_stop && self.settings.answer.is_some() {
            return Ok(false);
        }
        self.places.push(to);
        Ok(true)
    }

    fn rollback(&mut self, tokens: usize) {
        let mut answered = 0;
        for _ in 0..tokens.min(self.places.len().saturating_sub(1)) {
            let Some(to) = self.places.pop() else { break };
            answered += usize::from(self.is_answer(self.place(), to));
        }
        if let Some(answer) = self.answer.as_mut().filter(|_| answered > 0) {
            answer.rollback(answered);
        }
    }
}

/// `next`, and `token` beside it.
fn with_token(next: NextTokens, token: u32) -> NextTokens {
    let mask = match next {
        NextTokens::Any | NextTokens::End => return next,
        NextTokens::Forced(forced) => TokenMask::Only(forced.into_iter().take(1).collect()),
        NextTokens::Masked(mask) => mask,
    };
    NextTokens::Masked(match mask {
        TokenMask::Only(mut tokens) => {
            if let Err(at) = tokens.binary_search(&token) {
                tokens.insert(at, token);
            }
            TokenMask::Only(tokens)
        }
        TokenMask::Without(mut tokens) => {
            tokens.retain(|other| *other != token);
            TokenMask::Without(tokens)
        }
        TokenMask::Bits(mut bytes) => {
            let at = token as usize / 8;
            if bytes.len() <= at {
                bytes.resize(at + 1, 0);
            }
            bytes[at] |= 1 << (token % 8);
            TokenMask::Bits(bytes)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{Vocabulary, VocabularyFields};

    const OPEN: u32 = 256;
    const CLOSE: u32 = 257;
    const STOP: u32 = 258;

    /// A grammar of exactly the bytes "ok".
    #[derive(Debug)]
    struct OkGrammar;

    #[derive(Debug)]
    struct OkPlace(usize);

    impl Grammar for OkGrammar {
        fn begin(&self) -> Box<dyn Constraint> {
            Box::new(OkPlace(0))
        }
    }

    impl Constraint for OkPlace {
        fn next(&mut self) -> Result<NextTokens, ConstraintError> {
            Ok(b"ok".get(self.0).map_or(NextTokens::End, |byte| NextTokens::Forced(vec![u32::from(*byte)])))
        }

        fn accept(&mut self, token: u32) -> Result<bool, ConstraintError> {
            let accepted = self.next()? == NextTokens::Forced(vec![token]) || self.0 == 2 && token == STOP;
            self.0 += usize::from(accepted);
            Ok(accepted)
        }

        fn rollback(&mut self, tokens: usize) {
            self.0 -= tokens;
        }
    }

    fn bytes(text: &str) -> Vec<u32> {
        text.bytes().map(u32::from).collect()
    }

    fn gate(opened: bool, budget: Option<u32>, answer: bool) -> Box<dyn Constraint> {
        let mut fields = VocabularyFields::bytes_and(&["<think>", "</think>", "<|im_end|>"]);
        fields.eos = Some(STOP);
        let vocabulary = Vocabulary::new(fields).unwrap();
        let tokenizer = Arc::new(Tokenizer::new(&vocabulary).unwrap());
        let format = ReasoningFormat { open: "<think>", close: "</think>" };
        let marks = ControlMarks::of(&vocabulary, &format.marks());
        let end = [bytes("\n"), vec![CLOSE]].concat();
        let tokens = ReasoningTokens { tokenizer, marks, format, end, gap: bytes("\n\n") };
        let answer = answer.then(|| SharedGrammar::new(OkGrammar));
        ReasoningGate::new(tokens, opened, budget, answer, false).begin()
    }

    fn accept_all(constraint: &mut dyn Constraint, tokens: &[u32]) {
        for (at, token) in tokens.iter().enumerate() {
            assert!(constraint.accept(*token).unwrap(), "token {at} of {tokens:?}");
        }
    }

    #[test]
    fn reasoning_that_has_used_up_its_budget_is_ended() {
        let mut constraint = gate(true, Some(3), false);
        for byte in bytes("abc") {
            assert_eq!(constraint.next().unwrap(), NextTokens::Any);
            accept_all(&mut *constraint, &[byte]);
        }
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(vec![10, CLOSE]));
        assert!(!constraint.accept(97).unwrap());
        accept_all(&mut *constraint, &[10]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(vec![CLOSE]));
        accept_all(&mut *constraint, &[CLOSE]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Any, "the answer is free");
        accept_all(&mut *constraint, &bytes("abcdef"));
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
    }

    #[test]
    fn a_budget_of_nothing_ends_reasoning_at_once_and_an_answer_without_it_has_none() {
        let mut constraint = gate(false, Some(0), false);
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
        accept_all(&mut *constraint, &[10, OPEN]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(vec![10, CLOSE]));
        let mut constraint = gate(false, Some(0), false);
        accept_all(&mut *constraint, &[97, OPEN]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
    }

    #[test]
    fn marks_are_found_in_the_bytes_of_ordinary_tokens() {
        let mut constraint = gate(false, Some(5), false);
        accept_all(&mut *constraint, &bytes("<think>"));
        accept_all(&mut *constraint, &bytes("</"));
        accept_all(&mut *constraint, &[CLOSE]);
        accept_all(&mut *constraint, &bytes("free again"));
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
        let mut constraint = gate(true, Some(9), false);
        accept_all(&mut *constraint, &bytes("<</think>"));
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
        accept_all(&mut *constraint, &bytes("more than nine tokens"));
        assert_eq!(constraint.next().unwrap(), NextTokens::Any);
    }

    #[test]
    fn a_grammar_applies_behind_the_reasoning() {
        let mut constraint = gate(true, None, true);
        assert_eq!(constraint.next().unwrap(), NextTokens::Masked(TokenMask::Without(vec![STOP])));
        assert!(!constraint.accept(STOP).unwrap(), "an answer has to follow");
        accept_all(&mut *constraint, &[97, CLOSE]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(vec![10, 10]));
        accept_all(&mut *constraint, &[10, 10]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(bytes("o")));
        assert!(!constraint.accept(97).unwrap());
        accept_all(&mut *constraint, &bytes("ok"));
        assert_eq!(constraint.next().unwrap(), NextTokens::End);
        accept_all(&mut *constraint, &[STOP]);
    }

    #[test]
    fn a_model_may_reason_before_a_grammar_or_not() {
        let mut constraint = gate(false, None, true);
        let both = TokenMask::Only(vec![u32::from(b'o'), OPEN]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Masked(both.clone()));
        accept_all(&mut *constraint, &bytes("ok"));
        assert_eq!(constraint.next().unwrap(), NextTokens::End);
        constraint.rollback(2);
        assert_eq!(constraint.next().unwrap(), NextTokens::Masked(both));
        accept_all(&mut *constraint, &[OPEN, 97, CLOSE, 10, 10]);
        assert_eq!(constraint.next().unwrap(), NextTokens::Forced(bytes("o")));
    }

    #[test]
    fn tokens_are_taken_back_across_the_end_of_the_reasoning() {
        let tokens = [vec![97, 98, CLOSE, 10, 10], bytes("ok")].concat();
        let mut whole = gate(true, Some(9), true);
        let mut answers = vec![whole.next().unwrap()];
        for token in &tokens {
            accept_all(&mut *whole, &[*token]);
            answers.push(whole.next().unwrap());
        }
        for back in 0..=tokens.len() {
            let mut constraint = gate(true, Some(9), true);
            accept_all(&mut *constraint, &tokens);
            constraint.rollback(back);
            let kept = tokens.len() - back;
            assert_eq!(constraint.next().unwrap(), answers[kept], "{back} taken back");
            accept_all(&mut *constraint, &tokens[kept..]);
        }
    }

    #[test]
    fn a_token_is_added_to_every_form_of_a_mask() {
        let with = |mask| with_token(NextTokens::Masked(mask), 9);
        assert_eq!(with(TokenMask::Only(vec![3, 12])), NextTokens::Masked(TokenMask::Only(vec![3, 9, 12])));
        assert_eq!(with(TokenMask::Without(vec![9, 12])), NextTokens::Masked(TokenMask::Without(vec![12])));
        assert_eq!(with(TokenMask::Bits(vec![1])), NextTokens::Masked(TokenMask::Bits(vec![1, 2])));
        assert_eq!(with_token(NextTokens::Any, 9), NextTokens::Any);
    }

    #[test]
    fn a_pattern_is_followed_through_its_own_beginnings() {
        let pattern = b"aab";
        let matched = b"aaab".iter().fold(0, |matched, byte| advance(pattern, matched, *byte));
        assert_eq!(matched, 3);
        assert_eq!(b"aac".iter().fold(0, |matched, byte| advance(pattern, matched, *byte)), 0);
    }
}
