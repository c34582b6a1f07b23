//! Tests of the parsers of calls: every format, cut at every place.

use proptest::prelude::*;
use serde_json::json;

use super::{CallParser, KnownTools, ToolFormat};
use crate::text::answer_part::AnswerPart::{self, Arguments, Call, CallEnd, Text};
use crate::text::conversation::{Tool, ToolChoice};

/// Tools `f`, whose parameter `s` is text and `n` a number, and `get_time`.
fn tools() -> KnownTools {
    let parameters = json!({"properties": {"s": {"type": "string"}, "n": {"type": "integer"}}});
    let f = Tool { name: "f".to_owned(), parameters: Some(parameters), ..Tool::default() };
    let time = Tool { name: "get_time".to_owned(), ..Tool::default() };
    KnownTools::new(&[f, time], &ToolChoice::Auto)
}

fn parse(format: ToolFormat, pieces: &[&str]) -> Vec<AnswerPart> {
    let mut parser = CallParser::new(format, tools());
    let mut all = Vec::new();
    for piece in pieces {
        parser.push(piece, &mut all);
    }
    parser.finish(&mut all);
    let mut merged = Vec::new();
    all.into_iter().for_each(|part| part.add_to(&mut merged));
    merged
}

/// The parts of `text`, which have to be the same wherever it is cut.
fn parts(format: ToolFormat, text: &str) -> Vec<AnswerPart> {
    let whole = parse(format, &[text]);
    for (at, _) in text.char_indices() {
        assert_eq!(parse(format, &[&text[..at], &text[at..]]), whole, "{format:?} cut at {at}: {text:?}");
    }
    let characters: Vec<&str> = text.split("").filter(|character| !character.is_empty()).collect();
    assert_eq!(parse(format, &characters), whole, "{format:?} in characters: {text:?}");
    whole
}

fn call(name: &str, arguments: &str) -> Vec<AnswerPart> {
    vec![Call { name: name.to_owned() }, Arguments(arguments.to_owned()), CallEnd]
}

fn text(text: &str) -> Vec<AnswerPart> {
    vec![Text(text.to_owned())]
}

/// Asserts that `written` is two calls in `format`: `f` with `first`, and `get_time` with `second`.
fn assert_calls(format: ToolFormat, written: &str, first: &str, second: &str) {
    let calls = [call("f", first), call("get_time", second)].concat();
    assert_eq!(parts(format, written), calls, "{format:?}");
    let with_text = format!("Let me see.\n{written}");
    if !matches!(format, ToolFormat::Llama | ToolFormat::Pythonic) {
        assert_eq!(parts(format, &with_text), [text("Let me see."), calls].concat(), "{format:?} after text");
    }
    assert_eq!(parts(format, &format!("{written}\n")).len(), 6, "{format:?}: white space behind calls is no text");
}

#[test]
fn hermes() {
    let written = "<tool_call>\n\
                   {\"name\": \"f\", \"arguments\": {\"s\":  \"<a> </tool_call> \\\"}\", \"n\": [1, {}]}}\n\
                   </tool_call>\n<tool_call>\n{\"arguments\": {}, \"name\": \"get_time\"}\n</tool_call>";
    let first = "{\"s\":  \"<a> </tool_call> \\\"}\", \"n\": [1, {}]}";
    assert_calls(ToolFormat::Hermes, written, first, "{}");
    let nested =
        "<tool_call>{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"n\\\":1}\"}}</tool_call>";
    assert_eq!(parts(ToolFormat::Hermes, nested), call("f", "{\"n\":1}"));
}

#[test]
fn hermes_with_brackets_that_do_not_match() {
    let missing = "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1</tool_call> x";
    assert_eq!(parts(ToolFormat::Hermes, missing), [call("f", "{\"n\": 1"), text(" x")].concat());
    let too_many = "<tool_call>{\"name\": \"f\", \"arguments\": {\"n\": 1}}}\n</tool_call>";
    assert_eq!(parts(ToolFormat::Hermes, too_many), call("f", "{\"n\": 1}"));
}

#[test]
fn qwen_tags() {
    let written = "<tool_call>\n<function=f>\n<parameter=s>\na\n\"b\" < c\n\n</parameter>\n\
                   <parameter=n>\n5\n</parameter>\n\
                   <parameter=x>\n{\"y\": True}\n</parameter>\n</function>\n</tool_call>\n\
                   <tool_call>\n<function=get_time>\n</function>\n</tool_call>";
    let first = r#"{"s": "a\n\"b\" < c\n", "n": 5, "x": "{\"y\": True}"}"#;
    assert_calls(ToolFormat::QwenTags, written, first, "{}");
    let short = "<function=f><parameter=n>5</parameter></function>";
    assert_eq!(parts(ToolFormat::QwenTags, short), call("f", "{\"n\": 5}"));
}

#[test]
fn glm() {
    let written = "<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>5</arg_value>\n<arg_key>n</arg_key>\n\
                   <arg_value>5</arg_value>\n</tool_call>\n<tool_call>get_time</tool_call>";
    assert_calls(ToolFormat::Glm, written, r#"{"s": "5", "n": 5}"#, "{}");
    let written =
        "<tool_call>f<arg_key>s</arg_key><arg_value>a\n</arg_value></tool_call><tool_call>get_time\n</tool_call>";
    assert_calls(ToolFormat::Glm, written, r#"{"s": "a\n"}"#, "{}");
}

#[test]
fn llama() {
    let written = "{\"name\": \"f\", \"parameters\": {\"s\": \"a\"}}; {\"name\": \"get_time\", \"parameters\": {}}";
    assert_calls(ToolFormat::Llama, written, "{\"s\": \"a\"}", "{}");
    let tagged = "Wait <|python_tag|>{\"type\": \"function\", \"name\": \"f\", \"parameters\": {\"n\": 1}}";
    assert_eq!(parts(ToolFormat::Llama, tagged), [text("Wait"), call("f", "{\"n\": 1}")].concat());
    let later = "It is\n{\"name\": \"f\", \"parameters\": {}}";
    assert_eq!(parts(ToolFormat::Llama, later), text(later));
}

#[test]
fn mistral() {
    let written = "[TOOL_CALLS]f[ARGS]{\"s\": \"[ARGS]\"}[TOOL_CALLS]get_time[CALL_ID]123456789[ARGS]{}";
    assert_calls(ToolFormat::Mistral, written, "{\"s\": \"[ARGS]\"}", "{}");
    let without_marks = "[TOOL_CALLS]f{\"n\": 1}";
    assert_eq!(parts(ToolFormat::Mistral, without_marks), call("f", "{\"n\": 1}"));
}

#[test]
fn mistral_array() {
    let written = "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"s\": \"a]\"}, \"id\": \"123456789\"}, \
                   {\"name\": \"get_time\", \"arguments\": {}}]";
    assert_calls(ToolFormat::MistralArray, written, "{\"s\": \"a]\"}", "{}");
}

#[test]
fn deepseek() {
    let written = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"s\": \"a\"}<｜tool▁call▁end｜>\
                   <｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    assert_calls(ToolFormat::DeepSeek, written, "{\"s\": \"a\"}", "{}");
}

#[test]
fn deepseek_fenced() {
    let written = "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"s\": \"```\"}\n```\
                   <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{}\n```\
                   <｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    assert_calls(ToolFormat::DeepSeekFenced, written, "{\"s\": \"```\"}", "{}");
}

#[test]
fn deepseek_tags() {
    let written = "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"s\" string=\"true\">5\
                   </｜DSML｜parameter>\n<｜DSML｜parameter name=\"x\" string=\"false\">[1]</｜DSML｜parameter>\n\
                   </｜DSML｜invoke>\n<｜DSML｜invoke name=\"get_time\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>";
    assert_calls(ToolFormat::DeepSeekTags, written, r#"{"s": "5", "x": [1]}"#, "{}");
}

#[test]
fn kimi() {
    let written = "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{\"n\": 1}\
                   <|tool_call_end|><|tool_call_begin|>functions.get_time:1<|tool_call_argument_begin|>{}\
                   <|tool_call_end|><|tool_calls_section_end|>";
    assert_calls(ToolFormat::Kimi, written, "{\"n\": 1}", "{}");
}

#[test]
fn minimax_and_seed_oss() {
    let written = "<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"s\">a\n</parameter>\n\
                   <parameter name=\"n\">1</parameter>\n</invoke>\n<invoke name=\"get_time\">\n</invoke>\n\
                   </minimax:tool_call>";
    assert_calls(ToolFormat::MiniMax, written, r#"{"s": "a\n", "n": 1}"#, "{}");
    let written = "<seed:tool_call>\n<function=f>\n<parameter=s>a</parameter>\n</function>\n</seed:tool_call>\n\
                   <seed:tool_call>\n<function=get_time>\n</function>\n</seed:tool_call>";
    assert_calls(ToolFormat::SeedOss, written, r#"{"s": "a"}"#, "{}");
}

#[test]
fn gemma() {
    let written = "<|tool_call>call:f{n:-1.5,s:<|\"|>a \"}\n<|\"|>,x:{y:[true,<|\"|>z<|\"|>],w:null}}<tool_call|>\
                   <|tool_call>call:get_time{}<tool_call|>";
    let first = r#"{"n": -1.5, "s": "a \"}\n", "x": {"y": [true, "z"], "w": null}}"#;
    assert_calls(ToolFormat::Gemma, written, first, "{}");
    let written = "<start_function_call>call:f{s:<escape>a<escape>}<end_function_call>\
                   <start_function_call>call:get_time{}<end_function_call>";
    assert_calls(ToolFormat::FunctionGemma, written, r#"{"s": "a"}"#, "{}");
}

#[test]
fn pythonic() {
    let written = "[f(s=\"a)]\", n=[1, None]), get_time()]";
    assert_calls(ToolFormat::Pythonic, written, r#"{"s": "a)]", "n": [1, null]}"#, "{}");
    let marked = format!("<|tool_call_start|>{written}<|tool_call_end|>");
    assert_calls(ToolFormat::Lfm, &marked, r#"{"s": "a)]", "n": [1, null]}"#, "{}");
    for other in ["[1, 2]", "[f(x)]", "[f](http://x)"] {
        assert_eq!(parts(ToolFormat::Pythonic, other), text(other));
    }
}

#[test]
fn arrays_of_objects_between_marks() {
    let array = "[{\"name\": \"f\", \"arguments\": {\"n\": 1}}, {\"name\": \"get_time\", \"arguments\": {}}]";
    for (format, open, close) in [
        (ToolFormat::Phi, "<|tool_call|>", "<|/tool_call|>"),
        (ToolFormat::Phi, "<|tool_call|>", ""),
        (ToolFormat::Nemotron, "<TOOLCALL>", "</TOOLCALL>"),
        (ToolFormat::Jamba, "<tool_calls>", "</tool_calls>"),
    ] {
        assert_calls(format, &format!("{open}{array}{close}"), "{\"n\": 1}", "{}");
    }
    let cohere = "<|START_ACTION|>[\n    \
                  {\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"n\": 1}},\n    \
                  {\"tool_call_id\": \"1\", \"tool_name\": \"get_time\", \"parameters\": {}}\n]<|END_ACTION|>";
    assert_calls(ToolFormat::Cohere, cohere, "{\"n\": 1}", "{}");
}

#[test]
fn plain_json() {
    let written = "{\"name\": \"f\", \"arguments\": {\"n\": 1}}\n{\"name\": \"get_time\"}";
    assert_calls(ToolFormat::Json, written, "{\"n\": 1}", "{}");
    let fenced =
        "```json\n[{\"name\": \"f\", \"arguments\": {\"n\": 1}},\n{\"name\": \"get_time\", \"arguments\": null}]\n```";
    assert_calls(ToolFormat::Json, fenced, "{\"n\": 1}", "{}");
    for other in ["{\"city\": \"Paris\"}", "It is {\"name\": \"f\"}", "```json\n{\"a\": 1}\n```", "[a](b)\n\n{x"] {
        assert_eq!(parts(ToolFormat::Json, other), text(other));
    }
}

#[test]
fn what_is_no_call_of_a_known_tool_is_text() {
    for (format, written) in [
        (ToolFormat::Hermes, "a <tool_call> b\n"),
        (ToolFormat::Hermes, "<tool_call>\n{\"name\": \"other\", \"arguments\": {}}\n</tool_call>"),
        (ToolFormat::Hermes, " <tool_call>\n{\"name\": \"f\""),
        (ToolFormat::Hermes, "<tool_cal"),
        (ToolFormat::QwenTags, "<tool_call>\n<function=other>\n</function>\n</tool_call>"),
        (ToolFormat::Glm, "<tool_call>other</tool_call>"),
        (ToolFormat::Mistral, "[TOOL_CALLS]other[ARGS]{}"),
        (ToolFormat::DeepSeek, "<｜tool▁calls▁begin｜>\nno"),
        (ToolFormat::Kimi, "<|tool_calls_section_begin|><|tool_calls_section_end|>"),
        (ToolFormat::Gemma, "<|tool_call>call:other{}<tool_call|>"),
        (ToolFormat::Llama, "{\"name\": \"other\", \"parameters\": {}}"),
    ] {
        assert_eq!(parts(format, written), text(written), "{format:?}");
    }
}

#[test]
fn text_behind_calls_is_kept() {
    let written = "<tool_call>{\"name\": \"get_time\", \"arguments\": {}}</tool_call>\n\nDone.\n";
    assert_eq!(parts(ToolFormat::Hermes, written), [call("get_time", "{}"), text("\n\nDone.\n")].concat());
}

#[test]
fn arguments_that_are_cut_off_are_passed_on_as_far_as_they_go() {
    let begun = |arguments: &str| vec![Call { name: "f".to_owned() }, Arguments(arguments.to_owned())];
    assert_eq!(
        parts(ToolFormat::Hermes, "<tool_call>{\"name\": \"f\", \"arguments\": {\"s\": \"a"),
        begun("{\"s\": \"a")
    );
    assert_eq!(parts(ToolFormat::QwenTags, "<function=f><parameter=s>\na</par"), begun("{\"s\": \"a</par"));
    assert_eq!(parts(ToolFormat::Mistral, "[TOOL_CALLS]f[ARGS]{\"s\""), begun("{\"s\""));
    assert_eq!(parts(ToolFormat::Gemma, "<|tool_call>call:f{s:<|\"|>a"), begun("{\"s\": \"a"));
}

#[test]
fn arguments_are_passed_on_as_they_come() {
    let mut parser = CallParser::new(ToolFormat::QwenTags, tools());
    let mut pieces = Vec::new();
    for piece in ["<tool_call>\n<function=f>\n<parameter=s>\n", "one ", "two", "\n", "three\n", "</parameter>\n"] {
        let mut parts = Vec::new();
        parser.push(piece, &mut parts);
        pieces.push(parts);
    }
    let arguments = |text: &str| vec![Arguments(text.to_owned())];
    assert_eq!(pieces[1..], [arguments("one "), arguments("two"), vec![], arguments("\\nthree"), arguments("\"")]);
}

const FORMATS: &[ToolFormat] = &[
    ToolFormat::DeepSeekTags,
    ToolFormat::QwenTags,
    ToolFormat::Glm,
    ToolFormat::Kimi,
    ToolFormat::DeepSeekFenced,
    ToolFormat::Gemma,
    ToolFormat::Mistral,
    ToolFormat::Lfm,
    ToolFormat::Pythonic,
    ToolFormat::Phi,
    ToolFormat::Hermes,
    ToolFormat::Llama,
    ToolFormat::Json,
];

proptest! {
    #[test]
    fn any_text_ends_and_does_not_depend_on_how_it_is_cut(
        format in proptest::sample::select(FORMATS),
        pieces in proptest::collection::vec(
            proptest::sample::select(vec![
                "f", "(", ")", "=", "\"", "{", "}", "[", "]", ",", ":", "\n", " ", "a", "name", "arguments",
                "\"name\": \"f\"", "\"arguments\": {", "<tool_call>", "</tool_call>", "<function=f>", "</function>",
                "<parameter=s>", "</parameter>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
                "[TOOL_CALLS]", "[ARGS]",
                "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>", "```json\n", "```",
                "<|tool_call>", "call:f{", "<|\"|>", "<tool_call|>", "<|tool_call_start|>", "<|tool_call_end|>", "\\",
                "é",
            ]),
            0..24,
        ),
    ) {
        let pieces: Vec<&str> = pieces;
        let whole = pieces.concat();
        let parsed = parse(format, &[&whole]);
        prop_assert_eq!(&parse(format, &pieces), &parsed, "{:?}: {:?}", format, whole);
        let characters: Vec<&str> = whole.split("").filter(|character| !character.is_empty()).collect();
        prop_assert_eq!(&parse(format, &characters), &parsed, "{:?}: {:?}", format, whole);
        if !parsed.iter().any(|part| matches!(part, Call { .. })) {
            let expected = if whole.is_empty() { vec![] } else { text(&whole) };
            prop_assert_eq!(parsed, expected);
        }
    }
}
