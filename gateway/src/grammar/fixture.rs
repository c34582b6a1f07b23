//! A small byte-level vocabulary for tests, and random walks through a grammar.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::{Grammar, GrammarCompiler, GrammarError, GrammarSource, Matcher};
use crate::text::{Tokenizer, Vocabulary, VocabularyFields};

/// Words that are one token each, beside the 256 bytes. Each is within one word of the pre-tokenizer.
const WORDS: &[&str] = &[
    "true", "false", "null", "name", "names", " age", "city", "{\"", "\":", "\",", " \"", "\"}", "},", "[]", "\n\n",
    "  ", "        ", "12", "2026", "-01", "abab", "foo", "foobar", "é", "日本", " {", "\\\"", "<|", "start",
];
/// Control tokens. The last two end an answer.
const CONTROL: &[&str] = &["<|im_start|>", "<|im_end|>", "<|endoftext|>"];
/// Tokens after which a walk makes for the end of its text.
const WALK_TOKENS: usize = 60;
/// Tokens after which a walk has failed.
const WALK_TOKENS_MAX: usize = 4000;

/// The vocabulary's tokenizer.
pub(super) fn tokenizer() -> Arc<Tokenizer> {
    static TOKENIZER: LazyLock<Arc<Tokenizer>> =
        LazyLock::new(|| Arc::new(Tokenizer::new(&Vocabulary::new(fields()).unwrap()).unwrap()));
    Arc::clone(&TOKENIZER)
}

fn compiler() -> GrammarCompiler {
    static COMPILER: LazyLock<GrammarCompiler> = LazyLock::new(|| GrammarCompiler::new(tokenizer()).unwrap());
    COMPILER.clone()
}

/// Compiles a source that is right.
pub(super) fn compile(source: &GrammarSource) -> Grammar {
    try_compile(source).unwrap_or_else(|error| panic!("{source:?}: {error}"))
}

/// Compiles a source. Waits while other tests compile theirs.
pub(super) fn try_compile(source: &GrammarSource) -> Result<Grammar, GrammarError> {
    loop {
        match compiler().compile(source) {
            Err(GrammarError::Busy { .. }) => std::thread::sleep(Duration::from_millis(20)),
            compiled => return compiled,
        }
    }
}

/// The error of compiling a source that is wrong.
pub(super) fn refusal(source: &GrammarSource) -> GrammarError {
    try_compile(source).err().unwrap_or_else(|| panic!("{source:?} is taken"))
}

/// A matcher at the beginning of a source that is right.
pub(super) fn matcher(source: &GrammarSource) -> Matcher {
    compile(source).matcher()
}

/// The token with exactly this text.
pub(super) fn token(text: &str) -> u32 {
    let tokenizer = tokenizer();
    (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_bytes(id) == text.as_bytes()).unwrap()
}

/// The tokens of a mask.
pub(super) fn tokens(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|token| mask[*token as usize / 32] >> (token % 32) & 1 == 1).collect()
}

/// The texts of a mask's tokens. Stop tokens are `<end>`.
pub(super) fn texts(mask: &[u32]) -> Vec<String> {
    let tokenizer = tokenizer();
    let text = |id: u32| match tokenizer.stop_tokens().contains(&id) {
        true => "<end>".to_owned(),
        false => String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned(),
    };
    tokens(mask).into_iter().map(text).collect()
}

/// Walks through a grammar by allowed tokens until a stop token. `visit` sees the matcher before each choice. Returns
/// the tokens, without the stop token.
pub(super) fn walk(matcher: &mut Matcher, seed: u64, mut visit: impl FnMut(&mut Matcher, &[u32])) -> Vec<u32> {
    let tokenizer = tokenizer();
    let mut random = StdRng::seed_from_u64(seed);
    let mut path = Vec::new();
    while path.len() < WALK_TOKENS_MAX {
        visit(matcher, &path);
        let mut allowed = tokens(matcher.allowed().unwrap());
        allowed.shuffle(&mut random);
        let is_stop = |id: &u32| tokenizer.stop_tokens().contains(id);
        // What ends a text, or a part of it. Chosen now and then from the start, since most tokens are letters.
        let closes = |id: &&u32| {
            is_stop(id)
                || matches!(tokenizer.token_bytes(**id), b"\"" | b"}" | b"]" | b"0" | b"1" | b"n" | b";" | b"\"}")
        };
        let hurry = path.len() >= WALK_TOKENS || random.random_bool(0.3);
        let closing = allowed.iter().find(closes).filter(|_| hurry);
        let next = *closing.unwrap_or(&allowed[0]);
        matcher.accept(next).unwrap();
        if is_stop(&next) {
            return path;
        }
        path.push(next);
    }
    panic!("no end after {WALK_TOKENS_MAX} tokens: {:?}", tokenizer.decode(&path));
}

fn fields() -> VocabularyFields {
    let mut fields = VocabularyFields::bytes_and(CONTROL);
    // As in vocabularies in use: merged tokens lie between the bytes and the control tokens.
    let control = fields.tokens.split_off(256);
    fields.token_types.truncate(256);
    let mut known: HashMap<String, ()> = fields.tokens.iter().map(|token| (token.clone(), ())).collect();
    for word in WORDS {
        let letters: Vec<String> = word.bytes().map(|byte| fields.tokens[usize::from(byte)].clone()).collect();
        let mut letters = letters.into_iter();
        let mut left = letters.next().unwrap();
        for right in letters {
            let joined = [left.as_str(), right.as_str()].concat();
            if known.insert(joined.clone(), ()).is_none() {
                fields.merges.push(format!("{left} {right}"));
                fields.tokens.push(joined.clone());
                fields.token_types.push(1);
            }
            left = joined;
        }
    }
    fields.token_types.extend(control.iter().map(|_| 3));
    fields.tokens.extend(control);
    fields
}
