//! Grammars over the default model's vocabulary: random walks end in valid texts, and forced text is divided as the
//! model's own tokenizer divides it.

mod common;

use std::fs::File;
use std::sync::{Arc, LazyLock};

use gateway::grammar::{GrammarCompiler, GrammarSource, Matcher, WhiteSpace};
use gateway::text::{Special, Tokenizer, Vocabulary};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use stages::gguf::GgufHeader;

static TOKENIZER: LazyLock<Arc<Tokenizer>> = LazyLock::new(|| {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut File::open(common::model_path()).unwrap(), &mut bytes).unwrap();
    let vocabulary = Vocabulary::from_metadata(&GgufHeader::parse(&bytes).unwrap().metadata).unwrap();
    Arc::new(Tokenizer::new(&vocabulary).unwrap())
});
static COMPILER: LazyLock<GrammarCompiler> = LazyLock::new(|| GrammarCompiler::new(Arc::clone(&TOKENIZER)).unwrap());

fn matcher(source: &GrammarSource) -> Matcher {
    COMPILER.compile(source).unwrap_or_else(|error| panic!("{source:?}: {error}")).matcher()
}

fn schemas() -> Vec<Value> {
    vec![
        json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 40},
               "age": {"type": "integer", "minimum": 0, "maximum": 150},
               "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4}},
               "required": ["name", "age", "tags"], "additionalProperties": false}),
        json!({"type": "array", "items": {"anyOf": [{"type": "number"}, {"enum": ["low", "high", null]}]},
               "minItems": 2, "maxItems": 9}),
        json!({"type": "object", "properties": {"when": {"type": "string", "format": "date"},
               "id": {"type": "string", "pattern": "^[A-Z]{3}-\\d{4}$"}}, "required": ["when", "id"]}),
        json!({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"value": {"type": "string"},
               "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}}, "required": ["value", "next"],
               "additionalProperties": false}}}),
        json!({}),
    ]
}

fn tokens(mask: &[u32]) -> Vec<u32> {
    (0..mask.len() as u32 * 32).filter(|token| mask[*token as usize / 32] >> (token % 32) & 1 == 1).collect()
}

/// Walks at random to a stop token, by forced tokens where there are any. Returns the text.
fn walk(matcher: &mut Matcher, seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let mut path = Vec::new();
    while path.len() < 3000 {
        let forced = matcher.forced_tokens().unwrap();
        if forced.is_empty() {
            let allowed = tokens(matcher.allowed().unwrap());
            let is_stop = |id: &u32| TOKENIZER.stop_tokens().contains(id);
            let closes =
                |id: &u32| is_stop(id) || matches!(TOKENIZER.token_bytes(*id), b"\"" | b"}" | b"]" | b"0" | b"n");
            let closing: Vec<u32> = allowed.iter().copied().filter(closes).collect();
            let hurry = path.len() > 80 || random.random_bool(0.2);
            let from = if hurry && !closing.is_empty() { &closing } else { &allowed };
            let next = *from.choose(&mut random).unwrap();
            matcher.accept(next).unwrap();
            if is_stop(&next) {
                return TOKENIZER.decode(&path);
            }
            path.push(next);
        }
        for token in forced {
            assert_eq!(tokens(matcher.allowed().unwrap()), [token]);
            matcher.accept(token).unwrap();
            path.push(token);
        }
    }
    panic!("no end: {:?}", TOKENIZER.decode(&path));
}

#[test]
fn random_walks_through_schemas_end_in_valid_values() {
    for schema in schemas() {
        let start = matcher(&GrammarSource::JsonSchema {
            schema: schema.clone(),
            strict: true,
            white_space: WhiteSpace::Chosen,
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        for seed in 0..12 {
            let text = walk(&mut start.clone(), seed);
            match serde_json::from_str(&text) {
                Ok(value) => assert!(validator.is_valid(&value), "{schema}: {text}"),
                // JSON has numbers of any size.
                Err(error) => assert!(error.to_string().contains("number out of range"), "{schema}: {text}: {error}"),
            }
        }
    }
}

#[test]
fn a_forced_text_has_the_tokens_of_the_models_tokenizer() {
    for text in
        ["The capital of France is Paris.", "{\"name\": \"Ada Lovelace\", \"born\": 1815}", "日本語 \u{1F600}\n\n    x"]
    {
        let mut matcher = matcher(&GrammarSource::Choice(vec![text.to_owned()]));
        assert_eq!(matcher.forced_tokens().unwrap(), TOKENIZER.encode(text, Special::Plain).unwrap());
    }
}

#[test]
fn drafts_that_are_taken_back_leave_no_trace() {
    let source =
        GrammarSource::JsonSchema { schema: schemas().swap_remove(0), strict: true, white_space: WhiteSpace::Chosen };
    let draft = TOKENIZER.encode("{\"name\": \"Ada\", \"age\": 36, \"tags\": [\"poet\"]}", Special::Plain).unwrap();
    let mut straight = matcher(&source);
    let mut speculative = straight.clone();
    for (place, &token) in draft.iter().enumerate() {
        let ahead = draft[place..].iter().take(5).take_while(|&&token| speculative.accept(token).is_ok()).count();
        speculative.rollback(ahead).unwrap();
        assert_eq!(speculative.allowed().unwrap(), straight.allowed().unwrap(), "at token {place}");
        straight.accept(token).unwrap();
        speculative.accept(token).unwrap();
    }
    assert!(straight.is_stopped() && speculative.is_stopped());
}
