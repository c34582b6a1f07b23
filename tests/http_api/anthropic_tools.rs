//! Calls of tools and thinking in Anthropic's Messages, whole and streamed.

use gateway::http::{Message, PromptEnding, Tool, ToolCall};
use serde_json::{Value, json};

use crate::client::{ask, post};
use crate::double::{RunningServer, start_default_server};

/// An answer with thinking, text, and two calls.
const ANSWER: &str = "<think>\nHm.\n</think>\n\nI look.\n\
                      <tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": \"sky\"}}\n</tool_call>\n\
                      <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";

/// A server whose model answers with `script`.
async fn start(script: &str) -> RunningServer {
    let server = start_default_server().await;
    *server.pipeline.script.lock().unwrap() = Some(script.to_owned());
    server
}

/// The text of the answer to a request with `more` parameters.
async fn send(server: &RunningServer, more: Value) -> String {
    let schema = json!({"type": "object"});
    let mut body = json!({
        "max_tokens": 400, "seed": 7, "thinking": {"type": "adaptive"},
        "messages": [{"role": "user", "content": "go"}],
        "tools": [
            {"name": "look", "description": "Looks.", "input_schema": schema}, {"name": "now", "input_schema": schema}
        ],
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = ask(server.address, &post("/v1/messages", body.to_string().as_bytes())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

async fn whole(server: &RunningServer, more: Value) -> Value {
    serde_json::from_str(&send(server, more).await).unwrap()
}

/// The message that a client puts together from the events of a stream, and the number of its deltas of blocks.
async fn streamed(server: &RunningServer, more: Value) -> (Value, usize) {
    let mut more = more;
    more["stream"] = json!(true);
    let (mut message, mut inputs, mut deltas) = (Value::Null, Vec::new(), 0);
    for event in send(server, more).await.split_terminator("\n\n") {
        let (_, data) = event.split_once("\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        let index = event["index"].as_u64().unwrap_or(0) as usize;
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(index, inputs.len());
                message["content"].as_array_mut().unwrap().push(event["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                deltas += 1;
                let (block, delta) = (&mut message["content"][index], &event["delta"]);
                let mut append = |key: &str| {
                    block[key] = json!(block[key].as_str().unwrap().to_owned() + delta[key].as_str().unwrap());
                };
                match delta["type"].as_str().unwrap() {
                    "thinking_delta" => append("thinking"),
                    "signature_delta" => append("signature"),
                    "text_delta" => append("text"),
                    "input_json_delta" => inputs[index].push_str(delta["partial_json"].as_str().unwrap()),
                    other => panic!("a delta of type {other}"),
                }
            }
            "content_block_stop" if !inputs[index].is_empty() => {
                message["content"][index]["input"] = serde_json::from_str(&inputs[index]).unwrap();
            }
            "message_delta" => {
                for key in ["stop_reason", "stop_sequence"] {
                    message[key] = event["delta"][key].clone();
                }
                message["usage"] = event["usage"].clone();
            }
            _ => {}
        }
    }
    (message, deltas)
}

#[tokio::test]
async fn an_answer_has_blocks_of_thinking_text_and_calls() {
    let server = start(ANSWER).await;
    let message = whole(&server, json!({})).await;
    assert_eq!(message["stop_reason"], "tool_use");
    let content = message["content"].as_array().unwrap();
    let types: Vec<_> = content.iter().map(|block| &block["type"]).collect();
    assert_eq!(types, ["thinking", "text", "tool_use", "tool_use"]);
    assert_eq!((&content[0]["thinking"], &content[1]["text"]), (&json!("Hm."), &json!("I look.")));
    assert!(!content[0]["signature"].as_str().unwrap().is_empty());
    let calls: Vec<_> = content[2..].iter().map(|call| (&call["name"], &call["input"])).collect();
    assert_eq!(calls, [(&json!("look"), &json!({"at": "sky"})), (&json!("now"), &json!({}))]);
    assert_ne!(content[2]["id"], content[3]["id"]);
    assert!(message["usage"]["output_tokens_details"]["thinking_tokens"].as_u64().unwrap() > 2);
}

#[tokio::test]
async fn a_stream_makes_the_same_message() {
    let server = start(ANSWER).await;
    let expected = whole(&server, json!({})).await;
    let (message, deltas) = streamed(&server, json!({})).await;
    for key in ["content", "stop_reason", "stop_sequence", "usage", "role", "model"] {
        assert_eq!(message[key], expected[key], "{key}");
    }
    assert!(deltas > 15, "the answer comes as it is generated: {deltas}");
}

#[tokio::test]
async fn thinking_can_be_omitted_but_not_its_block() {
    let server = start("<think>\nHm.\n</think>\n\nYes.").await;
    let more = json!({"thinking": {"type": "adaptive", "display": "omitted"}});
    let expected = whole(&server, more.clone()).await;
    assert_eq!((&expected["content"][0]["thinking"], &expected["content"][1]["text"]), (&json!(""), &json!("Yes.")));
    assert_eq!(streamed(&server, more).await.0["content"], expected["content"]);
}

#[tokio::test]
async fn one_call_is_made_if_the_client_wants_no_parallel_ones() {
    let server = start(ANSWER).await;
    let more = json!({"tool_choice": {"type": "any", "disable_parallel_tool_use": true}});
    let message = whole(&server, more.clone()).await;
    assert_eq!((message["content"].as_array().unwrap().len(), &message["stop_reason"]), (3, &json!("tool_use")));
    assert_eq!(streamed(&server, more).await.0["content"], message["content"]);
    server.until(|counts| counts.cancelled == 2).await;
}

#[tokio::test]
async fn a_call_that_is_cut_off_keeps_its_text() {
    let server = start(ANSWER).await;
    let message = whole(&server, json!({"max_tokens": 80})).await;
    assert_eq!(message["stop_reason"], "max_tokens");
    let input = &message["content"][2]["input"];
    assert!(input["INVALID_JSON"].as_str().unwrap().starts_with('{'), "{input}");
}

#[tokio::test]
async fn a_choice_of_none_hides_the_tools() {
    let server = start("I look.").await;
    let message = whole(&server, json!({"tool_choice": {"type": "none"}})).await;
    assert_eq!(message["content"], json!([{"type": "text", "text": "I look.", "citations": null}]));
    assert!(server.text.chats.lock().unwrap()[0].tools.is_empty());
}

#[tokio::test]
async fn a_conversation_reaches_the_template_with_all_its_parts() {
    let server = start("Blue.").await;
    let messages = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "unsigned"},
            {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "sky"}}
        ]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "blue"}]},
        {"role": "assistant", "content": "The sky is"}
    ]);
    let more = json!({"messages": messages, "output_config": {"effort": "low"}});
    assert_eq!(whole(&server, more).await["content"][0]["text"], "Blue.");
    let chat = server.text.chats.lock().unwrap()[0].clone();
    let call = ToolCall { id: "call_1".to_owned(), name: "look".to_owned(), arguments: r#"{"at": "sky"}"#.to_owned() };
    let assistant =
        Message { reasoning: Some("Hm.".to_owned()), tool_calls: vec![call], ..Message::text("assistant", "") };
    let (tool_call_id, name) = (Some("call_1".to_owned()), Some("look".to_owned()));
    let result = Message { tool_call_id, name, ..Message::text("tool", "blue") };
    let expected = [Message::text("user", "go"), assistant, result, Message::text("assistant", "The sky is")];
    assert_eq!((chat.messages, chat.ending), (expected.into(), PromptEnding::Continued));
    let look = Tool {
        name: "look".to_owned(),
        description: Some("Looks.".to_owned()),
        parameters: Some(json!({"type": "object"})),
        strict: false,
    };
    assert_eq!((chat.tools.len(), &chat.tools[0]), (2, &look));
    let kwargs = json!({"enable_thinking": true, "thinking": true, "reasoning_effort": "low"});
    assert_eq!(Value::Object(chat.template_kwargs), kwargs);
}
