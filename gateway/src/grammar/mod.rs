//! Constrained decoding: which tokens may come next, so that an answer is in the language of a grammar.
//!
//! A grammar is a JSON schema, a regular expression, a list of choices, or a Lark or GBNF text. [`GrammarCompiler`]
//! compiles it once, [`Grammar`] is shared, and each sequence has a [`Matcher`], its place in the grammar. The matcher
//! answers with a bit for each token of the vocabulary, and advances or goes back by tokens. Parsing, lexing and masks
//! are llguidance's. This module bounds them, names what is not supported, and translates its errors.
//!
//! Rules for every grammar:
//!
//! - A token without text (a control token) is never allowed, but for the marks of a grammar of calls, where it names
//!   them. A stop token is allowed exactly where the grammar may end, and only as the end.
//! - A matcher's masks depend on its grammar and its accepted tokens only. Two matchers share no state that changes.
//! - No source and no token panics or runs for ever: see `limits.rs`. White space in JSON is bounded. A string, a
//!   number or an array without a bound in its schema is not: it ends with the request's `max_tokens`.
//!
//! The module does not know HTTP, meets the engine in `constraint.rs` only, and reads no clock but to give up on a
//! grammar that takes too long.

mod cache;
mod compile_thread;
mod compiled;
mod compiler;
mod constraint;
mod error;
mod gbnf;
mod limits;
mod llguidance_error;
mod matcher;
mod regex;
mod schema;
mod source;
mod token_mask;
mod token_trie;
mod translation;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use compiled::Grammar;
pub use compiler::GrammarCompiler;
pub use error::{GrammarError, MatcherError, Position};
pub use matcher::Matcher;
pub use schema::lark_value;
pub use source::{GrammarSource, WhiteSpace};
