//! Grammars over a SentencePiece vocabulary, in which spaces are spelled as ▁ and single bytes have tokens beside those
//! of their characters.

use std::sync::Arc;

use super::{choice, regex};
use crate::grammar::fixture::tokens;
use crate::grammar::{Grammar, GrammarCompiler, GrammarSource};
use crate::text::{Special, Tokenizer, Vocabulary, VocabularyFields};

const PIECES: [(&str, f32); 9] = [
    ("▁", -1.0),
    ("a", -2.0),
    ("b", -2.0),
    ("▁a", -0.5),
    ("ab", -0.6),
    ("▁ab", -0.1),
    ("é", -3.0),
    ("\n", -3.0),
    ("▁▁", -0.7),
];

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::new(&Vocabulary::new(VocabularyFields::pieces_and(&PIECES)).unwrap()).unwrap())
}

fn compile(source: &GrammarSource) -> Grammar {
    GrammarCompiler::new(tokenizer()).unwrap().compile(source).unwrap()
}

/// The id of a piece, or of a byte.
fn id(piece: &str) -> u32 {
    let found = PIECES.iter().position(|(known, _)| *known == piece);
    found.map_or_else(|| 3 + u32::from(piece.as_bytes()[0]), |at| 3 + 256 + at as u32)
}

#[test]
fn spaces_and_bytes_are_allowed_by_their_text() {
    let mut matcher = compile(&choice(&[" ab", "é"])).matcher();
    let expected = [3 + u32::from(b' '), 3 + 0xC3, id("▁"), id("▁a"), id("▁ab"), id("é")];
    assert_eq!(tokens(matcher.allowed().unwrap()), expected);
    matcher.accept(3 + 0xC3).unwrap();
    assert_eq!(tokens(matcher.allowed().unwrap()), [3 + 0xA9]);
    matcher.accept(3 + 0xA9).unwrap();
    assert_eq!(tokens(matcher.allowed().unwrap()), [2], "the answer ends");
}

#[test]
fn forced_text_gets_no_space_in_front() {
    let source = regex("b(ab ab|b)");
    let mut matcher = compile(&source).matcher();
    matcher.accept(id("b")).unwrap();
    matcher.accept(id("a")).unwrap();
    let forced = matcher.forced_tokens().unwrap();
    assert_eq!(forced, [id("b"), id("▁ab")]);
    assert_eq!(tokenizer().encode_continuation("ab ab", Special::Plain).unwrap(), [id("ab"), id("▁ab")]);
}
