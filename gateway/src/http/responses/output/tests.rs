use super::*;
use crate::http::generation::token_logprob::{TokenLogprob, TokenScore};
use serde_json::{Value, json};

fn output() -> Output {
    let namespaced = HashMap::from([("maps__find".to_owned(), ("maps".to_owned(), "find".to_owned()))]);
    Output::new(Ids::from_seed(1), namespaced, true)
}

fn text(text: &str) -> Delta {
    Delta { text: text.to_owned(), ..Delta::default() }
}

fn reasoning(text: &str) -> Delta {
    Delta { reasoning: text.to_owned(), ..Delta::default() }
}

fn call(index: usize, name: Option<&str>, arguments: &str) -> Delta {
    let id = name.map(|name| format!("call_{name}"));
    let call = ToolCallDelta { index, id, name: name.map(str::to_owned), arguments: arguments.to_owned() };
    Delta { tool_calls: vec![call], ..Delta::default() }
}

/// The events of an answer that consists of `deltas`, and its items.
fn stream(deltas: &[Delta], ended: Ended) -> (Vec<Value>, Vec<Item>) {
    let (mut output, mut events) = (output(), Vec::new());
    for delta in deltas {
        output.push(delta, &mut events);
    }
    output.finish(Some(ended), &mut events);
    let json = |event: &Event| {
        let mut json = serde_json::to_value(&event.detail).unwrap();
        json["type"] = json!(event.name.strip_prefix("response.").unwrap());
        json
    };
    (events.iter().map(json).collect(), output.items())
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

const MESSAGE: &str = "msg_00000000000000000000000000000001";

#[test]
fn a_text_is_one_message_with_one_part() {
    let (events, items) = stream(&[text("Hel"), text("lo")], Ended::Stop);
    let empty = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
    let part = json!({"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []});
    let item = |status: &str, content: Value| {
        let role = "assistant";
        json!({"type": "message", "id": MESSAGE, "status": status, "role": role, "content": content})
    };
    let at = |event_type: &str, fields: Value| {
        let mut event = json!({"type": event_type, "item_id": MESSAGE, "output_index": 0, "content_index": 0});
        event.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        event
    };
    let expected = [
        json!({"type": "output_item.added", "output_index": 0, "item": item("in_progress", json!([]))}),
        at("content_part.added", json!({"part": empty})),
        at("output_text.delta", json!({"delta": "Hel", "logprobs": []})),
        at("output_text.delta", json!({"delta": "lo", "logprobs": []})),
        at("output_text.done", json!({"text": "Hello", "logprobs": []})),
        at("content_part.done", json!({"part": part})),
        json!({"type": "output_item.done", "output_index": 0, "item": item("completed", json!([part]))}),
    ];
    assert_eq!(events, expected);
    assert_eq!(serde_json::to_value(items).unwrap(), json!([item("completed", json!([part]))]));
}

#[test]
fn reasoning_is_an_item_before_the_message() {
    let (events, items) = stream(&[reasoning("hm"), reasoning("m"), text("Yes.")], Ended::Stop);
    assert_eq!(
        types(&events),
        [
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
            "content_part.added",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
            "output_item.done",
        ]
    );
    assert_eq!(events[1]["part"], json!({"type": "reasoning_text", "text": ""}));
    assert_eq!((&events[4]["text"], &events[4]["output_index"]), (&json!("hmm"), &json!(0)));
    assert!(events[7..].iter().all(|event| event["output_index"] == 1));
    let items = serde_json::to_value(items).unwrap();
    assert_eq!(items[0]["content"], json!([{"type": "reasoning_text", "text": "hmm"}]));
    assert_eq!((&items[0]["summary"], &items[1]["content"][0]["text"]), (&json!([]), &json!("Yes.")));
}

#[test]
fn parallel_calls_are_items_one_after_the_other() {
    let deltas = [
        text("Looking."),
        call(0, Some("weather"), ""),
        call(0, None, "{\"of\":"),
        call(0, None, "1}"),
        call(1, Some("maps__find"), "{}"),
        call(2, Some("clock"), ""),
    ];
    let (events, items) = stream(&deltas, Ended::ToolCalls);
    assert_eq!(
        types(&events)[6..],
        [
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.delta",
            "function_call_arguments.done",
            "output_item.done",
            "output_item.added",
            "function_call_arguments.done",
            "output_item.done",
        ]
    );
    let first = json!({
        "type": "function_call", "id": "fc_00000000000000000000000000000002", "status": "in_progress",
        "call_id": "call_weather", "name": "weather", "arguments": ""
    });
    assert_eq!(events[6]["item"], first);
    let done = json!({
        "type": "function_call_arguments.done", "item_id": "fc_00000000000000000000000000000002", "output_index": 1,
        "name": "weather", "arguments": "{\"of\":1}"
    });
    assert_eq!(events[9], done);
    let items = serde_json::to_value(items).unwrap();
    assert_eq!((&items[2]["namespace"], &items[2]["name"]), (&json!("maps"), &json!("find")));
    assert_eq!((&items[3]["call_id"], &items[3]["arguments"]), (&json!("call_clock"), &json!("")));
    assert!(items.as_array().unwrap().iter().all(|item| item["status"] == "completed"));
}

#[test]
fn the_item_in_which_an_answer_is_cut_off_is_incomplete() {
    let (events, items) = stream(&[reasoning("hm"), text("So")], Ended::Length);
    assert_eq!(events.last().unwrap()["item"]["status"], "incomplete");
    let items = serde_json::to_value(items).unwrap();
    assert_eq!((&items[0]["status"], &items[1]["status"]), (&json!("completed"), &json!("incomplete")));
    let (events, _) = stream(&[reasoning("hm")], Ended::Length);
    assert_eq!(events.last().unwrap()["item"]["status"], "incomplete");
    let (events, _) = stream(&[call(0, Some("f"), "{")], Ended::Length);
    assert_eq!(events.last().unwrap()["item"]["status"], "incomplete");
}

#[test]
fn an_answer_without_tokens_is_an_empty_message() {
    let (events, items) = stream(&[], Ended::Stop);
    let expected =
        ["output_item.added", "content_part.added", "output_text.done", "content_part.done", "output_item.done"];
    assert_eq!(types(&events), expected);
    assert_eq!(items.len(), 1);
}

#[test]
fn the_items_before_a_failure_are_there_and_the_last_one_is_incomplete() {
    let (mut output, mut events) = (output(), Vec::new());
    output.push(&reasoning("hm"), &mut events);
    output.push(&text("So"), &mut events);
    let items = serde_json::to_value(output.items()).unwrap();
    assert_eq!((&items[0]["status"], &items[1]["status"]), (&json!("completed"), &json!("incomplete")));
    assert_eq!(items[1]["content"][0]["text"], "So");
}

#[test]
fn log_probabilities_belong_to_the_text() {
    let score = |token: &str, logprob| TokenScore { token: 5, bytes: token.into(), logprob: Some(logprob) };
    let token = TokenLogprob { token: score("a", -0.5), rank: Some(2), alternatives: vec![score("b", -0.25)] };
    let with_logprobs = Delta { logprobs: vec![token.clone()], ..text("a") };
    let (events, items) = stream(&[with_logprobs], Ended::Stop);
    let top = json!([{"token": "b", "logprob": -0.25, "bytes": [98]}]);
    let body = json!([{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top}]);
    assert_eq!((&events[2]["logprobs"], &events[3]["logprobs"]), (&body, &body));
    assert_eq!(serde_json::to_value(items).unwrap()[0]["content"][0]["logprobs"], body);
    let of_reasoning = Delta { logprobs: vec![token], ..reasoning("a") };
    let (_, items) = stream(&[of_reasoning, text("b")], Ended::Stop);
    assert_eq!(serde_json::to_value(items).unwrap()[1]["content"][0]["logprobs"], json!([]));
}

#[test]
fn a_whole_answer_has_the_items_of_the_stream() {
    let deltas = [reasoning("hm"), text("Looking."), call(0, Some("weather"), "{}"), call(1, Some("maps__find"), "{}")];
    let (_, streamed) = stream(&deltas, Ended::ToolCalls);
    let tool_call =
        |name: &str| ToolCall { id: format!("call_{name}"), name: name.to_owned(), arguments: "{}".to_owned() };
    let choice = Choice {
        text: "Looking.".to_owned(),
        reasoning: "hm".to_owned(),
        tool_calls: vec![tool_call("weather"), tool_call("maps__find")],
        ended: Some(Ended::ToolCalls),
        ..Choice::default()
    };
    assert_eq!(output().whole(choice), streamed);
}
