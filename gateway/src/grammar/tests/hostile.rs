//! Sources that are made to take long, to use much memory, or to overflow the stack.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{gbnf, lark, regex, schema};
use crate::grammar::fixture::{compile, tokens, try_compile};
use crate::grammar::limits::SOURCE_BYTES_MAX;
use crate::grammar::{GrammarError, GrammarSource, MatcherError};

/// Sources that are as large, deep or ambiguous as the bounds allow.
fn hostile() -> Vec<(&'static str, GrammarSource)> {
    let most = |part: &str| part.repeat(SOURCE_BYTES_MAX / part.len());
    let chain = |number: usize| json!({"anyOf": [{"type": "null"}, {"$ref": format!("#/$defs/{}", number + 1)}]});
    let mut chained: serde_json::Map<String, Value> =
        (0..3300).map(|number| (number.to_string(), chain(number))).collect();
    chained.insert("3300".to_owned(), json!({"type": "null"}));
    let straight: serde_json::Map<String, Value> = (0..4900)
        .map(|number| (number.to_string(), json!({"items": {"$ref": format!("#/$defs/{}", (number + 1) % 4900)}})))
        .collect();
    let rules: String = (0..24_000).map(|number| format!("r{number}: r{}\n", number + 1)).collect();
    let rules = &rules[..rules.len().min(SOURCE_BYTES_MAX - 100)];
    let rules = &rules[..=rules.rfind('\n').unwrap()];
    let last = rules.lines().last().unwrap().split(' ').next_back().unwrap().to_owned();
    let wide: Vec<Value> = (0..60).map(|n| json!({"anyOf": [{"minimum": n}, {"maximum": -n}, {"const": n}]})).collect();
    let double: String = (0..200).map(|n| format!("r{n} ::= r{0} r{0}\n", n + 1)).collect();
    vec![
        ("refs in a chain", schema(json!({"$ref": "#/$defs/0", "$defs": chained}))),
        ("items in a chain", schema(json!({"$ref": "#/$defs/0", "$defs": straight}))),
        ("allOf of anyOfs", schema(json!({"allOf": wide}))),
        (
            "an endless object",
            schema(json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {
            "a": {"$ref": "#/$defs/a"}}, "required": ["a"], "additionalProperties": false}}})),
        ),
        ("a rule chain", lark(&format!("start: r0\n{rules}{last}: \"a\"\n"))),
        ("a terminal chain", lark(&format!("start: R0\n{}{}: \"a\"\n", rules.to_uppercase(), last.to_uppercase()))),
        ("endless text", lark("start: \"a\" start\n")),
        ("a long forced text", regex("a{100000000}")),
        ("nested repetitions", regex("((((a{1000}){1000}){1000}){1000}){1000}")),
        ("exponential states", regex("(a|b)*a(a|b){5000}c")),
        ("brackets", regex(&format!("{}a", most("(")))),
        ("groups", lark(&format!("start: {}", most("(")))),
        ("templates", lark(&format!("start: {}", most("a{")))),
        ("conditions", lark(&format!("start: a::0\na::_: \"x\" %if {}", most("not(")))),
        ("tildes", lark(&format!("start: {}", most("~")))),
        ("a long literal", lark(&format!("start: \"{}\"\n", most("a").get(..SOURCE_BYTES_MAX - 20).unwrap()))),
        ("a long GBNF literal", gbnf(&format!("root ::= \"{}\"", &most("a")[..SOURCE_BYTES_MAX - 20]))),
        ("many names", gbnf(&format!("root ::= {}", &most("a b c d ")[..SOURCE_BYTES_MAX - 20]))),
        ("doubling rules", gbnf(&format!("root ::= r0\n{double}r200 ::= \"a\" | \"b\"\n"))),
        ("ambiguity", lark("start: start start | start start start | \"a\" | \"\"\n")),
        ("many choices", GrammarSource::Choice((0..4096).map(|n| format!("{n:0>60}")).collect())),
        ("large enum", schema(json!({"enum": (0..9000).map(|n| n.to_string()).collect::<Vec<_>>()}))),
        (
            "many properties",
            schema(
                json!({"type": "object", "properties": (0..4900).map(|n| (format!("p{n}"), json!({"type": "string"})))
            .collect::<serde_json::Map<_, _>>()}),
            ),
        ),
        (
            "patterns",
            schema(json!({"patternProperties": (0..32).map(|n| (format!("^(a|b)*{n}(a|b){{9}}$"), json!({})))
            .collect::<serde_json::Map<_, _>>()})),
        ),
        (
            "email and pattern",
            schema(json!({"type": "string", "format": "email", "minLength": 6,
            "pattern": "^\\w+([\\.-]?\\w+)*@\\w+([\\.-]?\\w+)*(\\.\\w{2,})+$"})),
        ),
        ("long strings", schema(json!({"type": "string", "minLength": 100_000, "maxLength": 4_000_000_000_u64}))),
    ]
}

#[test]
fn hostile_sources_end_in_an_answer_within_their_time() {
    for (name, source) in hostile() {
        let started = Instant::now();
        let compiled = try_compile(&source);
        let took = started.elapsed();
        match &compiled {
            Ok(_) => eprintln!("{name}: compiled in {took:?}"),
            Err(error) => eprintln!("{name}: {took:?}: {}", error.to_string().chars().take(150).collect::<String>()),
        }
        assert!(took < Duration::from_secs(8), "{name}: {took:?}");
        assert!(!matches!(compiled, Err(GrammarError::Internal { .. })), "{name}");
        let Ok(grammar) = compiled else { continue };
        let mut matcher = grammar.matcher();
        for step in 0..50 {
            let started = Instant::now();
            let Ok(allowed) = matcher.allowed() else { break };
            let allowed = tokens(allowed);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(1), "{name}: mask {step} took {took:?}");
            // It may reach a bound, too.
            match matcher.accept(allowed[step % allowed.len()]) {
                Ok(()) => {}
                Err(MatcherError::TooComplex { .. }) => break,
                Err(error) => panic!("{name}: {error}"),
            }
            if matcher.is_stopped() {
                break;
            }
        }
    }
}

#[test]
fn the_same_source_is_compiled_once() {
    let source = schema(
        json!({"type": "object", "properties": (0..300).map(|n| (format!("cached{n}"), json!({"type": "string"})))
        .collect::<serde_json::Map<_, _>>()}),
    );
    let started = Instant::now();
    compile(&source);
    let first = started.elapsed();
    let started = Instant::now();
    compile(&source);
    assert!(started.elapsed() < first, "{first:?}");
}
