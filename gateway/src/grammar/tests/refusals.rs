//! Grammars that are refused, and why.

use serde_json::json;

use super::{choice, gbnf, lark, regex, schema};
use crate::grammar::fixture::{compile, refusal};
use crate::grammar::schema::SUPPORTED_KEYWORDS;
use crate::grammar::{GrammarError, GrammarSource, WhiteSpace};

#[test]
fn unsupported_keywords_are_named_or_listed() {
    let unique = json!({"type": "array", "items": {"type": "integer"}, "uniqueItems": true});
    let error = refusal(&schema(unique.clone()));
    assert!(matches!(&error, GrammarError::Unsupported { keyword, .. } if keyword == "uniqueItems"), "{error}");
    let lenient =
        compile(&GrammarSource::JsonSchema { schema: unique, strict: false, white_space: WhiteSpace::Chosen });
    assert_eq!(lenient.unenforced(), ["uniqueItems at #/uniqueItems"]);
    let overlap = json!({"oneOf": [{"type": "integer"}, {"type": "number"}, {"type": "integer", "minimum": 3}]});
    let error = refusal(&schema(overlap.clone()));
    assert!(matches!(&error, GrammarError::Unsupported { keyword, .. } if keyword == "oneOf"), "{error}");
    let lenient =
        compile(&GrammarSource::JsonSchema { schema: overlap, strict: false, white_space: WhiteSpace::Chosen });
    assert!(lenient.unenforced()[0].starts_with("oneOf not fully supported"), "{:?}", lenient.unenforced());
}

#[test]
fn every_keyword_and_format_that_is_called_supported_is() {
    for word in SUPPORTED_KEYWORDS {
        let value = match *word {
            "$ref" => json!("#/$defs/a"),
            "additionalItems" | "additionalProperties" => json!({"type": "null"}),
            "allOf" | "anyOf" | "oneOf" | "prefixItems" => json!([{"type": "string"}]),
            "items" => json!([{"type": "string"}]),
            "const" => json!(1),
            "enum" => json!([1, "a"]),
            "format" => json!("date"),
            "pattern" => json!("^a"),
            "properties" | "patternProperties" => json!({"a": {"type": "null"}}),
            "required" => json!(["a"]),
            "type" => json!("string"),
            _ => json!(2),
        };
        let mut source = json!({"$defs": {"a": {"type": "null"}}, *word: value});
        if word.ends_with("Properties") && word.starts_with("m") {
            source["properties"] = json!({});
        }
        compile(&schema(source));
    }
}

#[test]
fn what_a_matcher_cannot_follow_is_refused_by_name() {
    for (text, keyword) in [
        ("start: a\na[max_tokens=3]: /[a-z]+/\n", "max_tokens="),
        ("start: a \".\"\na[stop=\".\"]: /[a-z.]+/\n", "stop="),
        ("start: <[256]> \"a\"\n", "special tokens (<…>)"),
        ("start: <[*]> \"a\"\n", "special tokens (<…>)"),
        ("start: <|im_start|> \"a\"\n", "special tokens (<…>)"),
    ] {
        let error = refusal(&lark(text));
        assert!(
            matches!(&error, GrammarError::Unsupported { keyword: found, .. } if found == keyword),
            "{text}: {error}"
        );
    }
}

#[test]
fn mistakes_have_a_reason_and_a_place() {
    let refusal = |source| refusal(&source).to_string();
    assert!(refusal(lark("start: a\n  b: \"x")).starts_with("invalid grammar at line 2, column "));
    assert!(refusal(lark("start: a\n")).contains("unknown name: \"a\""));
    assert!(refusal(lark("a: \"b\"\n")).contains("no start rule found"));
    assert!(refusal(lark(" \n")).contains("expected a grammar, found nothing"));
    assert!(refusal(regex("a{2")).contains("line 1, column 2"));
    assert!(refusal(choice(&[])).contains("expected at least one choice"));
    assert!(refusal(choice(&["a", ""])).contains("found an empty one at 1"));
    assert!(refusal(choice(&["a"; 4097])).contains("expected at most 4096 choices, found 4097"));
    assert!(refusal(schema(json!({"type": "object", "required": "a"}))).starts_with("invalid grammar"));
}

#[test]
fn bounds_that_are_too_large_are_refused_by_keyword() {
    for (kind, keyword, bound) in
        [("integer", "minimum", 1e30), ("integer", "exclusiveMaximum", -1e30), ("number", "maximum", 1e300)]
    {
        let error = refusal(&schema(json!({"type": kind, keyword: bound})));
        assert!(
            matches!(&error, GrammarError::Unsupported { keyword, .. } if keyword == "minimum and maximum"),
            "{error}"
        );
    }
    compile(&schema(json!({"type": "integer", "minimum": 0, "maximum": u64::MAX})));
    compile(&schema(json!({"type": "number", "minimum": -1e17, "maximum": 1e17})));
}

#[test]
fn a_grammar_without_a_text_is_refused() {
    let empty = [
        schema(json!({"allOf": [{"type": "string"}, {"type": "integer"}]})),
        schema(json!({"type": "integer", "minimum": 3, "maximum": 2})),
        lark("start: start\n"),
        gbnf("root ::= root"),
        schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}})),
    ];
    for source in empty {
        let error = refusal(&source);
        let told = matches!(error, GrammarError::Unsatisfiable { .. } | GrammarError::Invalid { .. });
        assert!(told, "{source:?}: {error:?}");
    }
}
