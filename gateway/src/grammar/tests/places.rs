//! Places in a grammar: what is allowed and forced there, and going on, back and apart.

use serde_json::json;

use super::{choice, lark, regex, schema};
use crate::grammar::fixture::{matcher, texts, token, tokenizer};
use crate::grammar::limits::UNMASKED_TOKENS_MAX;
use crate::grammar::{GrammarSource, MatcherError, WhiteSpace, lark_value};
use crate::text::Special;

#[test]
fn a_choice_allows_exactly_the_tokens_that_go_on() {
    let choices = ["foo", "foobar", "true", "日本"];
    let mut matcher = matcher(&choice(&choices));
    assert_eq!(
        texts(matcher.allowed().unwrap()),
        [
            "f",
            "t",
            "\u{FFFD}",
            "tr",
            "tru",
            "true",
            "fo",
            "foo",
            "foob",
            "fooba",
            "foobar",
            "\u{FFFD}",
            "日",
            "日\u{FFFD}",
            "日\u{FFFD}",
            "日本"
        ]
    );
    matcher.accept(token("foo")).unwrap();
    assert_eq!(texts(matcher.allowed().unwrap()), ["b", "<end>", "<end>"]);
    matcher.accept(token("b")).unwrap();
    assert_eq!(tokenizer().decode(&matcher.forced_tokens().unwrap()), "ar");
}

#[test]
fn forced_text_is_divided_as_the_model_divides_it() {
    let source = schema(json!({"type": "object", "properties": {"name": {"const": "foobar"}}, "required": ["name"],
        "additionalProperties": false}));
    let mut matcher = matcher(&source);
    let forced = matcher.forced_tokens().unwrap();
    // White space behind the brace is a choice, so it is not known yet which token the brace belongs to.
    assert!(forced.is_empty(), "{:?}", tokenizer().decode(&forced));
    matcher.accept(token("{")).unwrap();
    matcher.accept(token("\"")).unwrap();
    let forced = matcher.forced_tokens().unwrap();
    assert_eq!(forced, [token("name")]);
    // Other divisions are not allowed, but accepted.
    assert_eq!(texts(matcher.allowed().unwrap()), ["name"]);
    matcher.accept(token("n")).unwrap();
    assert_eq!(tokenizer().decode(&matcher.forced_tokens().unwrap()), "ame");
}

#[test]
fn white_space_in_json_is_bounded() {
    for source in [schema(json!({"type": "array", "items": {"type": "integer"}})), GrammarSource::JsonObject] {
        let mut matcher = matcher(&source);
        let open = texts(matcher.allowed().unwrap()).into_iter().find(|text| text.len() == 1).unwrap();
        matcher.accept(token(&open)).unwrap();
        matcher.accept(token("\n")).unwrap();
        let mut spaces = 0;
        while matcher.accept(token(" ")).is_ok() {
            spaces += 1;
            assert!(spaces <= 40);
        }
        assert_eq!(spaces, 40);
        assert!(matcher.accept(token("\n")).is_err());
        assert!(texts(matcher.allowed().unwrap()).iter().all(|text| !text.starts_with([' ', '\n', '\t'])));
    }
}

#[test]
fn white_space_in_a_schema_within_lark_is_bounded() {
    let value = lark_value(&json!({"type": "array"}), true, WhiteSpace::Chosen).unwrap();
    let mut matcher = matcher(&lark(&format!("start: \"<call>\" {value} \"</call>\"\n")));
    for text in ["<", "c", "a", "l", "l", ">", "[", " "] {
        matcher.accept(token(text)).unwrap();
    }
    assert!(matcher.accept(token(" ")).is_err());
    matcher.accept(token("]")).unwrap();
    assert!(!matcher.is_stopped());
    assert_eq!(tokenizer().decode(&matcher.forced_tokens().unwrap()), "</call>");
}

#[test]
fn a_mask_after_going_back_is_not_that_of_another_text_of_the_same_length() {
    // After "a" and after "b" the lexer is in the same state, and the same number of terminals was read.
    let mut matcher = matcher(&lark("start: \"a\" D \"foo\" | \"b\" D \"true\"\nD: /[0-9]/\n"));
    let mut after = |first: &str| {
        for text in [first, "1"] {
            matcher.allowed().unwrap();
            matcher.accept(token(text)).unwrap();
        }
        let allowed = texts(matcher.allowed().unwrap());
        matcher.rollback(2).unwrap();
        allowed
    };
    assert_eq!(after("a"), ["foo"]);
    assert_eq!(after("b"), ["true"]);
    assert_eq!(after("a"), ["foo"]);
}

#[test]
fn a_stop_token_is_accepted_once_where_the_text_may_end_and_can_be_taken_back() {
    let mut matcher = matcher(&regex("ab?"));
    let stop = tokenizer().stop_tokens()[1];
    assert_eq!(matcher.accept(stop), Err(MatcherError::Refused { token: stop, accepted: 0 }));
    matcher.accept(token("a")).unwrap();
    assert!(!matcher.is_stopped());
    matcher.accept(stop).unwrap();
    assert!(matcher.is_stopped());
    assert_eq!(matcher.accepted(), 2);
    assert_eq!(matcher.accept(token("b")), Err(MatcherError::Refused { token: token("b"), accepted: 2 }));
    assert_eq!(matcher.accept(stop), Err(MatcherError::Refused { token: stop, accepted: 2 }));
    assert!(matcher.forced_tokens().unwrap().is_empty());
    assert_eq!(matcher.rollback(3), Err(MatcherError::TooFarBack { tokens: 3, accepted: 2 }));
    matcher.rollback(1).unwrap();
    matcher.accept(token("b")).unwrap();
    assert!(matcher.is_stopped(), "nothing can follow");
    assert_eq!(texts(matcher.allowed().unwrap()), ["<end>", "<end>"]);
    matcher.rollback(2).unwrap();
    assert_eq!(texts(matcher.allowed().unwrap()), ["a", "ab"]);
}

#[test]
fn clones_go_their_own_way() {
    let mut one = matcher(&choice(&["foobar", "true"]));
    let mut other = one.clone();
    one.accept(token("foo")).unwrap();
    other.accept(token("tru")).unwrap();
    let third = one.clone();
    one.accept(token("bar".get(..1).unwrap())).unwrap();
    assert_eq!(other.forced_tokens().unwrap(), [token("e")]);
    assert_eq!(tokenizer().decode(&third.clone().forced_tokens().unwrap()), "bar");
    assert_eq!(tokenizer().decode(&one.forced_tokens().unwrap()), "ar");
}

#[test]
fn after_an_error_going_back_helps() {
    // Each further "a" doubles the states that the lexer has to tell apart, until a bound is reached.
    let mut matcher = matcher(&regex("(a|b)*a(a|b){24}c"));
    let mut failed = None;
    for step in 0..400 {
        let next = if step % 3 == 0 { "a" } else { "b" };
        if let Err(error) = matcher.allowed().and(Ok(())).and_then(|()| matcher.accept(token(next))) {
            failed = Some(error);
            break;
        }
    }
    let Some(error) = failed else { return };
    assert!(matches!(error, MatcherError::TooComplex { .. }), "{error}");
    assert_eq!(matcher.allowed().unwrap_err(), error);
    assert_eq!(matcher.accept(token("a")).unwrap_err(), error);
    let accepted = matcher.accepted();
    matcher.rollback(accepted - 1).unwrap();
    assert!(matcher.allowed().is_ok());
    assert_eq!(matcher.accepted(), 1);
}

#[test]
fn a_long_text_can_be_followed_without_masks() {
    let source = schema(json!({"type": "array", "items": {"type": "string", "maxLength": 2000}}));
    let mut matcher = matcher(&source);
    let text = format!("[{}\"x\"]", format!("\"{}\",", "foobar".repeat(300)).repeat(20));
    let ids = tokenizer().encode(&text, Special::Plain).unwrap();
    assert!(ids.len() > 50 * UNMASKED_TOKENS_MAX);
    ids.iter().for_each(|&id| matcher.accept(id).unwrap());
    assert!(matcher.is_stopped());
}

#[test]
fn fixed_white_space_leaves_no_choice_between_keys() {
    let schema = json!({
        "type": "object", "required": ["a", "b"], "additionalProperties": false,
        "properties": {"a": {"enum": [1]}, "b": {"type": "array", "items": {"const": 2}, "minItems": 2, "maxItems": 2}}
    });
    let source = |white_space| GrammarSource::JsonSchema { schema: schema.clone(), strict: true, white_space };
    let forced = matcher(&source(WhiteSpace::Fixed)).forced_tokens().unwrap();
    let text: Vec<u8> = forced.iter().flat_map(|token| tokenizer().token_bytes(*token).to_vec()).collect();
    assert_eq!(String::from_utf8(text).unwrap(), r#"{"a": 1, "b": [2, 2]}"#);
    assert!(matcher(&source(WhiteSpace::Chosen)).forced_tokens().unwrap().len() < forced.len());
}
