//! Grammars of calls, in llguidance's variant of Lark: for requests in which the model must call a tool, and for tools
//! whose calls must fit their schemas.
//!
//! A grammar has the spacing with which the family's template writes calls, so that a call in a conversation has the
//! tokens with which it was generated.

mod call_rules;
mod lark;
mod parameter_rules;
#[cfg(test)]
mod tests;
mod values;

pub use call_rules::{CallGrammar, CallMode};
