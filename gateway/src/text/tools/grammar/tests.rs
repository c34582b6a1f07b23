//! Tests of the grammars' text.

use std::convert::Infallible;

use serde_json::{Value, json};

use super::{CallGrammar, CallMode};
use crate::text::conversation::{Tool, ToolChoice};
use crate::text::tools::{KnownTools, ToolFormat};

fn lark(format: ToolFormat, mode: &CallMode, parallel: bool, control: &[(u32, String)]) -> String {
    let parameters = json!({
        "type": "object",
        "properties": {"s": {"type": "string"}, "n": {"type": "integer"}, "e": {"enum": ["a", "b"]}},
        "required": ["n"],
    });
    let f = Tool { name: "f".to_owned(), parameters: Some(parameters), strict: true, ..Tool::default() };
    let g = Tool { name: "g".to_owned(), ..Tool::default() };
    let tools = KnownTools::new(&[f, g], &ToolChoice::Required);
    let grammar = CallGrammar { format, tools: &tools, parallel, mode, control };
    assert!(grammar.is_possible());
    let write = |schema: &Value, strict: bool| Ok::<_, Infallible>(format!("%json({}, {strict})", schema["type"]));
    grammar.lark(write).unwrap()
}

#[test]
fn a_required_call_is_written_as_the_template_writes_it() {
    let expected = r#"rule_1: %json("object", true)
rule_2: "<tool_call>\n{\"name\": \"f\", \"arguments\": " rule_1 "}\n</tool_call>"
rule_3: %json("object", false)
rule_4: "<tool_call>\n{\"name\": \"g\", \"arguments\": " rule_3 "}\n</tool_call>"
rule_5: rule_2 | rule_4
rule_6:  rule_5 ("\n" rule_5)* 
start: rule_6
"#;
    assert_eq!(lark(ToolFormat::Hermes, &CallMode::Required, true, &[]), expected);
    let one = lark(ToolFormat::Hermes, &CallMode::Required, false, &[]);
    assert!(one.contains("rule_6:  rule_5  \n"), "{one}");
}

#[test]
fn marks_that_are_control_tokens_are_these_tokens() {
    let control = [(5, "[TOOL_CALLS]".to_owned()), (9, "[ARGS]".to_owned())];
    let text = lark(ToolFormat::Mistral, &CallMode::Required, true, &control);
    assert!(text.contains(r#"<[5]> "f" <[9]> rule_1"#), "{text}");
    let text = lark(ToolFormat::Mistral, &CallMode::Optional, true, &control);
    assert!(text.contains("start: rule_7 (rule_6 rule_7)*\n"), "{text}");
}

#[test]
fn text_before_a_call_ends_with_its_mark() {
    let text = lark(ToolFormat::Hermes, &CallMode::Optional, true, &[]);
    assert!(text.contains(r"rule_7[lazy]: /(?s:.*)\x{3C}tool\x{5F}call\x{3E}/"), "{text}");
    assert!(text.contains(r#"rule_2: "\n{\"name\": \"f\", \"arguments\": ""#), "{text}");
    assert!(text.contains("start: (rule_7 rule_6)* rule_8\n"), "{text}");
}

#[test]
fn an_answer_in_another_form_may_take_the_place_of_calls() {
    let text = lark(ToolFormat::Llama, &CallMode::Or("%json {}".to_owned()), true, &[]);
    assert!(text.contains("rule_7: %json {}\nstart: rule_6 | rule_7\n"), "{text}");
    assert!(!text.contains(")*"), "Llama's templates have one call only: {text}");
}

#[test]
fn arguments_that_are_written_one_by_one_have_the_form_of_their_types() {
    let text = lark(ToolFormat::QwenTags, &CallMode::Required, true, &[]);
    for rule in [
        r#""<parameter=s>\n" rule_1"#,
        r"rule_1[lazy]: /(?s:.*)\x{A}\x{3C}\x{2F}parameter\x{3E}\x{A}/",
        r#"%json("integer", true)"#,
        r#""<parameter=e>\n" ("a" | "b") "\n</parameter>\n""#,
        r#""<tool_call>\n<function=g>\n"   "</function>\n</tool_call>""#,
    ] {
        assert!(text.contains(rule), "expected {rule} in {text}");
    }
    let text = lark(ToolFormat::Gemma, &CallMode::Required, true, &[]);
    assert!(text.contains(r#""e:" ("<|\"|>a<|\"|>" | "<|\"|>b<|\"|>")"#), "{text}");
    let text = lark(ToolFormat::Pythonic, &CallMode::Required, true, &[]);
    assert!(text.contains(r#""[" rule"#) && text.contains(r#"(", " rule"#), "{text}");
}

#[test]
fn harmony_reasons_before_it_calls() {
    let control: Vec<(u32, String)> = crate::text::harmony::MARKS.iter().map(|mark| (1, (*mark).to_owned())).collect();
    let text = lark(ToolFormat::Harmony, &CallMode::Required, true, &control);
    assert!(text.contains(r#"<[1]> "analysis" <[1]> /(?s:.*)/ <[1]> <[1]> "assistant""#), "{text}");
    assert!(text.contains(r#"<[1]> "commentary to=functions.""#), "{text}");
}
