//! Laws of random walks.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::sources::{JSON_GBNF, any_schema, schemas, sources};
use super::{gbnf, regex, schema};
use crate::grammar::fixture::{matcher, texts, tokenizer, tokens, try_compile, walk};
use crate::grammar::{GrammarError, GrammarSource, Matcher, MatcherError};

/// True if `text` has a number that the validator cannot hold exactly: with an exponent, or of many digits.
fn has_large_number(text: &str) -> bool {
    let exponents = fancy_regex::Regex::new(r"[0-9][eE][-+]?[0-9]|[0-9.]{16,}").unwrap();
    exponents.is_match(text).unwrap()
}

fn assert_valid(schema: &Value, text: &str) {
    if has_large_number(text) {
        return;
    }
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{schema}: {text:?}: {error}"));
    let validator = jsonschema::options().should_validate_formats(true).build(schema).unwrap();
    assert!(validator.is_valid(&value), "{schema}: {text}");
}

/// The places at which a walk goes back, from its seed.
fn goes_back(seed: u64, step: usize) -> bool {
    (seed ^ step as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 62 == 0
}

/// Walks at random from `matcher`, and back.
fn there_and_back(matcher: &mut Matcher, seed: u64) {
    let mut taken = 0;
    for step in 0..1 + seed % 7 {
        let allowed = tokens(matcher.allowed().unwrap());
        let next = allowed[(seed.rotate_left(step as u32 * 9) % allowed.len() as u64) as usize];
        matcher.accept(next).unwrap();
        taken += 1;
        if tokenizer().stop_tokens().contains(&next) {
            break;
        }
    }
    matcher.rollback(taken).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn a_random_walk_through_any_schema_ends_in_a_valid_value(any in any_schema(), seed: u64) {
        let ids = walk(&mut matcher(&schema(any.clone())), seed, |_, _| {});
        assert_valid(&any, &tokenizer().decode(&ids));
    }

    #[test]
    fn a_random_walk_through_a_known_schema_ends_in_a_valid_value(
        known in proptest::sample::select(schemas()), seed: u64,
    ) {
        let ids = walk(&mut matcher(&schema(known.clone())), seed, |_, _| {});
        assert_valid(&known, &tokenizer().decode(&ids));
    }

    #[test]
    fn going_back_is_as_if_nothing_had_been_accepted(source in proptest::sample::select(sources()), seed: u64) {
        let mut step = 0;
        let start = matcher(&source);
        walk(&mut start.clone(), seed, |matcher, path| {
            step += 1;
            if goes_back(seed, step) {
                there_and_back(matcher, seed.rotate_left(step as u32));
            }
            let mut straight = start.clone();
            path.iter().for_each(|&token| straight.accept(token).unwrap());
            assert_eq!(matcher.allowed().unwrap(), straight.allowed().unwrap(), "{}", tokenizer().decode(path));
            assert_eq!(matcher.forced_tokens().unwrap(), straight.forced_tokens().unwrap());
            assert_eq!((matcher.is_stopped(), matcher.accepted()), (straight.is_stopped(), straight.accepted()));
        });
    }

    #[test]
    fn forced_tokens_are_the_only_allowed_ones_and_masks_are_always_the_same(
        source in proptest::sample::select(sources()), seed: u64,
    ) {
        walk(&mut matcher(&source), seed, |matcher, _| {
            let mut copy = matcher.clone();
            assert_eq!(copy.allowed().unwrap().to_vec(), matcher.allowed().unwrap());
            let forced = matcher.forced_tokens().unwrap();
            assert_eq!(copy.forced_tokens().unwrap(), forced);
            assert_eq!(copy.allowed().unwrap().to_vec(), matcher.allowed().unwrap(), "after asking for forced tokens");
            for token in forced {
                assert_eq!(tokens(copy.allowed().unwrap()), [token]);
                copy.accept(token).unwrap();
            }
        });
    }

    #[test]
    fn control_tokens_are_never_allowed_and_stops_only_together(
        source in proptest::sample::select(sources()), seed: u64,
    ) {
        let tokenizer = tokenizer();
        let mut matcher = matcher(&source);
        walk(&mut matcher, seed, |matcher, _| {
            let allowed = tokens(matcher.allowed().unwrap());
            let (stops, others): (Vec<u32>, Vec<u32>) =
                allowed.iter().partition(|id| tokenizer.stop_tokens().contains(id));
            assert!(stops.is_empty() || stops == tokenizer.stop_tokens());
            assert!(others.iter().all(|id| !tokenizer.token_bytes(*id).is_empty()));
            if matcher.is_stopped() {
                assert_eq!(allowed, tokenizer.stop_tokens());
            }
            // Other tokens are refused, and change nothing.
            let mut some = ((seed % 16) as u32..tokenizer.vocab_size() as u32 + 40).step_by(16);
            let refused = some.find(|id| !allowed.contains(id));
            if let Some(token) = refused.filter(|_| matcher.forced_tokens().unwrap().is_empty()) {
                let accepted = matcher.accepted();
                assert_eq!(matcher.accept(token), Err(MatcherError::Refused { token, accepted }));
                assert_eq!(tokens(matcher.allowed().unwrap()), allowed);
            }
        });
        assert!(matcher.is_stopped());
        assert_eq!(tokens(matcher.allowed().unwrap()), tokenizer.stop_tokens());
    }

    #[test]
    fn a_text_may_end_exactly_where_the_expression_matches(seed: u64) {
        let pattern = r"\d{2,4}(-[a-c]+)?( foo| foobar)*";
        let reference = fancy_regex::Regex::new(&format!("\\A(?:{pattern})\\z")).unwrap();
        let ids = walk(&mut matcher(&regex(pattern)), seed, |matcher, path| {
            let may_end = texts(matcher.allowed().unwrap()).contains(&"<end>".to_owned());
            assert_eq!(may_end, reference.is_match(&tokenizer().decode(path)).unwrap(), "{}", tokenizer().decode(path));
        });
        assert!(reference.is_match(&tokenizer().decode(&ids)).unwrap());
    }

    #[test]
    fn json_in_gbnf_is_json(seed: u64) {
        let ids = walk(&mut matcher(&gbnf(JSON_GBNF)), seed, |_, _| {});
        assert_valid(&json!({"type": "object"}), &tokenizer().decode(&ids));
    }

    #[test]
    fn no_source_panics(text in "\\PC{0,40}", kind in 0..4) {
        let source = match kind {
            0 => GrammarSource::Regex(text),
            1 => GrammarSource::Lark(format!("start: {text}")),
            2 => GrammarSource::Gbnf(format!("root ::= {text}")),
            _ => schema(json!({"pattern": text, "properties": {"a": {"format": "x"}}})),
        };
        if let Err(error) = try_compile(&source) {
            assert!(!matches!(error, GrammarError::Internal { .. }), "{source:?}: {error}");
        }
    }
}
