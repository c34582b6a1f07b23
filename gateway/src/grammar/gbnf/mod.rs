//! GBNF, llama.cpp's notation of grammars, translated to Lark.
//!
//! GBNF has no lexer: a rule refers to characters. Lark has one, and llguidance is fast only with long terminals. So
//! every rule that does not refer to itself, directly or through others, becomes one terminal, and within the other
//! rules every run of such parts does.

mod cursor;
mod lark;
mod parser;
mod syntax;

use super::GrammarError;

/// The Lark grammar of the same texts, as far as [`super::GrammarSource::Gbnf`] says.
///
/// # Errors
/// [`GrammarError`] with the place of a mistake, of something unsupported, or of what is over a bound.
pub(super) fn to_lark(text: &str) -> Result<String, GrammarError> {
    Ok(lark::write(&parser::parse(text)?))
}
