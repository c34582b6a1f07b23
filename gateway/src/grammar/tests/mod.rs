//! Tests of the rules for every grammar. Tests of one file's own work are in that file.

mod hostile;
mod laws;
mod places;
mod refusals;
mod sentence_piece;
mod sources;

use serde_json::Value;

use super::{GrammarSource, WhiteSpace};

fn schema(schema: Value) -> GrammarSource {
    GrammarSource::JsonSchema { schema, strict: true, white_space: WhiteSpace::Chosen }
}

fn regex(pattern: &str) -> GrammarSource {
    GrammarSource::Regex(pattern.to_owned())
}

fn choice(texts: &[&str]) -> GrammarSource {
    GrammarSource::Choice(texts.iter().map(|&text| text.to_owned()).collect())
}

fn lark(text: &str) -> GrammarSource {
    GrammarSource::Lark(text.to_owned())
}

fn gbnf(text: &str) -> GrammarSource {
    GrammarSource::Gbnf(text.to_owned())
}
