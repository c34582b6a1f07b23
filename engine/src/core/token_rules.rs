//! Makes the token rules of one sequence: what the last stage needs to know, beside the logits, of each position.
//!
//! A rule is a function of the request and of the tokens before its position. So a position that is computed again
//! after a fault, or verified as a draft token, has the same rule and gives the same token.

mod dry;

use std::collections::BTreeMap;

use schema::frame::{ADJUSTMENTS_MAX, Adjustment, PositionRule, RULE_BYTES_MAX, TokenMask, TokenRule};

use crate::generate::{Constraint, ConstraintError, NextTokens, Penalties, Request, TokenOptions};

/// Most bytes of the rules of one slice. What draft tokens exceed is not sent.
const SLICE_RULE_BYTES_MAX: usize = RULE_BYTES_MAX / 4;

/// The options of one sequence, with the state that its history leaves.
#[derive(Debug)]
pub(crate) struct TokenRules {
    options: TokenOptions,
    /// Tokens that must not be chosen before there are `tokens_min`.
    stop_tokens: Vec<u32>,
    prompt_tokens: usize,
    /// Occurrences of each token of the history. Empty if no penalty counts them.
    counts: BTreeMap<u32, Occurrences>,
    constraint: Option<Box<dyn Constraint>>,
    /// The mask after the history.
    mask: Option<TokenMask>,
}

/// The number of times that a token occurs.
#[derive(Debug, Clone, Copy, Default)]
struct Occurrences {
    /// In prompt and answer.
    all: u32,
    /// In the answer.
    generated: u32,
}

/// The rules after a history, and after tokens that are assumed to follow it.
#[derive(Debug, PartialEq)]
pub(crate) struct AssumedRules {
    /// The number of positions that can be sent: the first one, and one for each assumed token that may follow.
    pub(crate) count: usize,
    /// One rule for each of them, or none at all if none has one.
    pub(crate) positions: Vec<PositionRule>,
}

/// The continuation that a grammar leaves after a history.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Continuation {
    /// The model chooses the next token.
    Chosen,
    /// These tokens follow.
    Forced(Vec<u32>),
    /// Nothing follows.
    End,
}

// === impl TokenRules ===

impl TokenRules {
    /// The rules of a new sequence.
    pub(crate) fn new(request: &Request) -> Self {
        let mut rules = Self {
            stop_tokens: request.stop_tokens.clone(),
            prompt_tokens: request.prompt.len(),
            counts: BTreeMap::new(),
            constraint: request.tokens.grammar.as_ref().map(|grammar| grammar.begin()),
            mask: None,
            options: request.tokens.clone(),
        };
        if rules.counts_tokens() {
            for token in &request.prompt {
                rules.counts.entry(*token).or_default().all += 1;
            }
        }
        rules
    }

    /// True if a penalty depends on the number of times that tokens occur.
    fn counts_tokens(&self) -> bool {
        let Penalties { repetition, last_tokens, presence, frequency, .. } = self.options.penalties;
        (repetition != 1.0 && last_tokens.is_none()) || presence != 0.0 || frequency != 0.0
    }

    /// True if a position after `generated` tokens of the answer can have a rule.
    fn has_rules(&self, generated: usize) -> bool {
        let TokenOptions { bias, penalties, tokens_min, forbidden, .. } = &self.options;
        self.constraint.is_some()
            || !bias.is_empty()
            || *penalties != Penalties::NONE
            || generated < *tokens_min as usize
            || !forbidden.is_empty()
    }

    /// The rule for a slice whose chosen positions have the rules `positions`.
    pub(crate) fn rule(&self, positions: Vec<PositionRule>) -> TokenRule {
        TokenRule { sampling: self.options.sampling, alternatives: self.options.alternatives.unwrap_or(0), positions }
    }

    /// Records that `token` follows the history. Returns false if the grammar does not allow it.
    ///
    /// # Errors
    /// [`ConstraintError`] if the grammar cannot be followed.
    pub(crate) fn push(&mut self, token: u32) -> Result<bool, ConstraintError> {
        self.count(token, 1);
        self.mask = None;
        match &mut self.constraint {
            Some(constraint) => constraint.accept(token),
            None => Ok(true),
        }
    }

    /// Asks the grammar for the continuation of the history.
    ///
    /// # Errors
    /// [`ConstraintError`] if the grammar cannot be followed.
    pub(crate) fn advance(&mut self) -> Result<Continuation, ConstraintError> {
        let Some(constraint) = &mut self.constraint else { return Ok(Continuation::Chosen) };
        match constraint.next()? {
            NextTokens::Any => self.mask = None,
            NextTokens::Masked(mask) => self.mask = Some(mask),
            NextTokens::Forced(tokens) => return Ok(Continuation::Forced(tokens)),
            NextTokens::End => return Ok(Continuation::End),
        }
        Ok(Continuation::Chosen)
    }

    /// The rules after `history`, and after each of the tokens `assumed` to follow it. It ends before a token that
    /// cannot follow, and after one behind which nothing can be chosen.
    pub(crate) fn assume(&mut self, history: &[u32], assumed: &[u32]) -> AssumedRules {
        let generated = history.len() - self.prompt_tokens;
        if !self.has_rules(generated) {
            return AssumedRules { count: 1 + assumed.len(), positions: Vec::new() };
        }
        let mut text = history.to_vec();
        let mut positions = vec![self.position(&text, self.mask.clone())];
        let mut bytes = positions[0].bytes();
        let mut accepted = 0;
        for token in assumed {
            if positions.last().and_then(|rule| rule.mask.as_ref()).is_some_and(|mask| !mask.allows(*token)) {
                break;
            }
            let mask = match &mut self.constraint {
                None => None,
                Some(constraint) => match constraint.accept(*token) {
                    Ok(true) => {
                        accepted += 1;
                        match constraint.next() {
                            Ok(NextTokens::Any) => None,
                            Ok(NextTokens::Masked(mask)) => Some(mask),
                            Ok(NextTokens::Forced(_) | NextTokens::End) | Err(_) => break,
                        }
                    }
                    Ok(false) | Err(_) => break,
                },
            };
            text.push(*token);
            self.count(*token, 1);
            let position = self.position(&text, mask);
            bytes += position.bytes();
            if bytes > SLICE_RULE_BYTES_MAX {
                break;
            }
            positions.push(position);
        }
        for token in &text[history.len()..] {
            self.count(*token, -1);
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.rollback(accepted);
        }
        let count = positions.len();
        if positions.iter().all(PositionRule::is_plain) {
            positions.clear();
        }
        AssumedRules { count, positions }
    }

    fn count(&mut self, token: u32, times: i32) {
        if self.counts_tokens() {
            let counts = self.counts.entry(token).or_default();
            counts.all = counts.all.saturating_add_signed(times);
            counts.generated = counts.generated.saturating_add_signed(times);
        }
    }

    /// The rule of the position after `text`.
    fn position(&self, text: &[u32], mask: Option<TokenMask>) -> PositionRule {
        let mut changes = BTreeMap::new();
        for (token, bias) in &self.options.bias {
            change(&mut changes, *token).bias = *bias;
        }
        self.penalise(text, &mut changes);
        for token in self.forbidden(text) {
            change(&mut changes, token).bias = f32::NEG_INFINITY;
        }
        // A grammar goes before other options: if these forbid all that it allows, they forbid nothing.
        let is_forbidden = |token: &u32| changes.get(token).is_some_and(|change| change.bias == f32::NEG_INFINITY);
        if mask
            .as_ref()
            .and_then(TokenMask::allowed)
            .is_some_and(|mut allowed| allowed.all(|token| is_forbidden(&token)))
        {
            changes.retain(|_, change| change.bias != f32::NEG_INFINITY);
        }
        PositionRule { adjustments: changes.into_values().take(ADJUSTMENTS_MAX).collect(), mask }
    }

    fn penalise(&self, text: &[u32], changes: &mut BTreeMap<u32, Adjustment>) {
        let Penalties { repetition, last_tokens, presence, frequency, dry } = &self.options.penalties;
        if let Some(last) = last_tokens.filter(|_| *repetition != 1.0) {
            for token in &text[text.len().saturating_sub(last as usize)..] {
                change(changes, *token).repetition = *repetition;
            }
        }
        for (token, Occurrences { all, generated }) in self.counts.iter().filter(|(_, counts)| counts.all > 0) {
            if *repetition != 1.0 && last_tokens.is_none() && *all > 0 {
                change(changes, *token).repetition = *repetition;
            }
            let penalty = if *generated > 0 { presence + frequency * *generated as f32 } else { 0.0 };
            if penalty != 0.0 {
                change(changes, *token).penalty = penalty;
            }
        }
        if let Some(dry) = dry {
            for (token, penalty) in dry::penalties(dry, text) {
                change(changes, token).penalty += penalty;
            }
        }
    }

    /// Tokens that must not follow `text`.
    fn forbidden(&self, text: &[u32]) -> impl Iterator<Item = u32> {
        let answer = &text[self.prompt_tokens.min(text.len())..];
        let ends = |words: &&Vec<u32>| words.split_last().is_some_and(|(_, before)| answer.ends_with(before));
        let words = self.options.forbidden.iter().filter(ends).filter_map(|words| words.last().copied());
        let too_short = answer.len() < self.options.tokens_min as usize;
        let stops = self.stop_tokens.iter().copied().filter(|_| too_short);
        words.chain(stops).collect::<Vec<_>>().into_iter()
    }
}

fn change(changes: &mut BTreeMap<u32, Adjustment>, token: u32) -> &mut Adjustment {
    changes.entry(token).or_insert_with(|| Adjustment::none(token))
}

#[cfg(test)]
mod tests;
