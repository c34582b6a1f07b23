//! Calls of tools and reasoning in OpenAI's chats, whole and streamed.

use gateway::http::{Message, PromptEnding, Tool, ToolCall};
use serde_json::{Value, json};

use crate::client::chat;
use crate::double::{RunningServer, start_default_server};

/// An answer with reasoning, text, and two calls.
const ANSWER: &str = "<think>\nHm.\n</think>\n\nI look.\n\
                      <tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\":  \"sky\"}}\n\
                      </tool_call>\n<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";

fn tools() -> Value {
    json!([
        {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}},
        {"type": "function", "function": {"name": "now"}},
    ])
}

/// A server whose model answers with `script`.
async fn start(script: &str) -> RunningServer {
    let server = start_default_server().await;
    *server.pipeline.script.lock().unwrap() = Some(script.to_owned());
    server
}

/// Asks with `more` parameters.
async fn ask(server: &RunningServer, more: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "go"}], "tools": tools(), "enable_thinking": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let answer = chat(server.address, &body).await;
    if body["stream"] == true { answer.chunks().into() } else { answer.json() }
}

#[tokio::test]
async fn an_answer_has_its_reasoning_its_text_and_its_calls() {
    let server = start(ANSWER).await;
    let choice = ask(&server, json!({"seed": 7})).await["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    let message = &choice["message"];
    assert_eq!((&message["reasoning_content"], &message["reasoning"]), (&json!("Hm."), &json!("Hm.")));
    assert_eq!((&message["role"], &message["content"]), (&json!("assistant"), &json!("I look.")));
    let calls = message["tool_calls"].as_array().unwrap();
    let functions: Vec<_> = calls.iter().map(|call| (&call["type"], &call["function"])).collect();
    let look = json!({"name": "look", "arguments": "{\"at\":  \"sky\"}"});
    let now = json!({"name": "now", "arguments": "{}"});
    assert_eq!(functions, [(&json!("function"), &look), (&json!("function"), &now)]);
    let ids: Vec<_> = calls.iter().map(|call| call["id"].as_str().unwrap()).collect();
    assert!(ids[0] != ids[1] && ids.iter().all(|id| id.len() == 29 && id.starts_with("call_")), "{ids:?}");
    let again = ask(&server, json!({"seed": 7})).await["choices"][0].clone();
    assert_eq!(again["message"]["tool_calls"], message["tool_calls"], "ids depend on the request alone");
    let choices = ask(&server, json!({"seed": 7, "n": 2})).await["choices"].clone();
    assert_ne!(choices[0]["message"]["tool_calls"][0]["id"], choices[1]["message"]["tool_calls"][0]["id"]);
}

#[tokio::test]
async fn a_stream_has_the_same_in_openais_pieces() {
    let server = start(ANSWER).await;
    let whole = ask(&server, json!({"seed": 7})).await["choices"][0]["message"].clone();
    let chunks = ask(&server, json!({"seed": 7, "stream": true})).await;
    let chunks = chunks.as_array().unwrap();
    let deltas: Vec<_> = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]).collect();
    let joined = |key: &str| deltas.iter().filter_map(|delta| delta[key].as_str()).collect::<String>();
    for key in ["reasoning_content", "reasoning", "content"] {
        assert_eq!(joined(key), whole[key], "{key}");
    }
    let calls: Vec<_> = deltas.iter().filter_map(|delta| delta["tool_calls"].as_array()).flatten().collect();
    for (index, expected) in whole["tool_calls"].as_array().unwrap().iter().enumerate() {
        let mut own = calls.iter().filter(|call| call["index"] == index);
        let name = &expected["function"]["name"];
        let first = json!({
            "index": index, "id": expected["id"], "type": "function", "function": {"name": name, "arguments": ""}
        });
        assert_eq!(**own.next().unwrap(), first);
        let more: Vec<_> = own.collect();
        let keys = |call: &Value| call.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert!(more.iter().all(|call| keys(call) == ["index", "function"]), "{more:?}");
        let arguments: String = more.iter().map(|call| call["function"]["arguments"].as_str().unwrap()).collect();
        assert_eq!(arguments, expected["function"]["arguments"]);
    }
    assert!(calls.len() > 10, "arguments come as they are generated: {}", calls.len());
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn without_text_the_content_is_null() {
    let server = start("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>").await;
    let message = ask(&server, json!({})).await["choices"][0]["message"].clone();
    assert_eq!((&message["content"], message.get("reasoning_content")), (&Value::Null, None));
    assert_eq!(message["tool_calls"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn only_one_call_is_made_if_the_client_wants_no_parallel_ones() {
    for wish in [
        json!({"parallel_tool_calls": false}),
        json!({"tool_choice": {"type": "function", "function": {"name": "look"}}}),
    ] {
        let server = start(ANSWER).await;
        let choice = ask(&server, wish).await["choices"][0].clone();
        assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1);
        assert_eq!(choice["finish_reason"], "tool_calls");
        server.until(|counts| counts.cancelled == 1).await;
    }
}

#[tokio::test]
async fn a_choice_of_none_hides_the_tools_and_leaves_calls_as_text() {
    let server = start("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>").await;
    let choice = ask(&server, json!({"tool_choice": "none"})).await["choices"][0].clone();
    assert!(choice["message"]["content"].as_str().unwrap().contains("<tool_call>"));
    assert_eq!((choice["message"].get("tool_calls"), &choice["finish_reason"]), (None, &json!("stop")));
    assert!(server.text.chats.lock().unwrap()[0].tools.is_empty());
}

#[tokio::test]
async fn a_call_of_a_tool_that_is_not_allowed_is_text() {
    let server = start("<tool_call>{\"name\": \"look\", \"arguments\": {}}</tool_call>").await;
    let allowed = json!({"mode": "auto", "tools": [{"type": "function", "function": {"name": "now"}}]});
    let body = json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}});
    let choice = ask(&server, body).await["choices"][0].clone();
    assert!(choice["message"]["content"].as_str().unwrap().starts_with("<tool_call>"));
    assert_eq!(server.text.chats.lock().unwrap()[0].tools.len(), 2, "the model is shown all tools");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_in_a_call_ends_with_length() {
    let server = start(ANSWER).await;
    let choice = ask(&server, json!({"max_tokens": 80})).await["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["name"], "look");
}

#[tokio::test]
async fn a_stop_string_ends_the_text_but_neither_reasoning_nor_arguments() {
    let server = start("<think>stop</think>go stop there").await;
    let choice = ask(&server, json!({"stop": "stop"})).await["choices"][0].clone();
    assert_eq!((&choice["message"]["reasoning"], &choice["message"]["content"]), (&json!("stop"), &json!("go ")));
    *server.pipeline.script.lock().unwrap() = Some(ANSWER.to_owned());
    let choice = ask(&server, json!({"stop": "sky"})).await["choices"][0].clone();
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn log_probabilities_cover_all_tokens_in_order() {
    let server = start("<think>a</think>b").await;
    let whole = ask(&server, json!({"logprobs": true})).await["choices"][0]["logprobs"]["content"].clone();
    let text = |tokens: &Value| -> String {
        tokens.as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap()).collect()
    };
    assert_eq!(text(&whole), "<think>a</think>b");
    let chunks = ask(&server, json!({"logprobs": true, "stream": true})).await;
    let streamed = chunks.as_array().unwrap().iter().map(|chunk| &chunk["choices"][0]["logprobs"]["content"]);
    let streamed: Vec<Value> = streamed.filter_map(Value::as_array).flatten().cloned().collect();
    assert_eq!(Value::from(streamed), whole);
}

#[tokio::test]
async fn calls_and_their_results_go_back_to_the_model_as_they_came() {
    let server = start("done").await;
    let call = json!({
        "id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":  \"sky\"}"}
    });
    let messages = json!([
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "blue"},
    ]);
    let more = json!({"messages": messages, "reasoning_effort": "low", "chat_template_kwargs": {"x": 1}});
    let answer = ask(&server, more).await;
    assert_eq!(answer["choices"][0]["message"]["content"], "done");
    let chat = server.text.chats.lock().unwrap()[0].clone();
    let call =
        ToolCall { id: "call_1".to_owned(), name: "look".to_owned(), arguments: "{\"at\":  \"sky\"}".to_owned() };
    let assistant =
        Message { reasoning: Some("Hm.".to_owned()), tool_calls: vec![call], ..Message::text("assistant", "") };
    let result = Message { tool_call_id: Some("call_1".to_owned()), ..Message::text("tool", "blue") };
    assert_eq!(chat.messages, [Message::text("user", "go"), assistant, result]);
    let look = Tool {
        name: "look".to_owned(),
        description: Some("Looks.".to_owned()),
        parameters: Some(json!({"type": "object"})),
        strict: false,
    };
    assert_eq!(chat.tools, [look, Tool { name: "now".to_owned(), ..Tool::default() }]);
    let kwargs = json!({"reasoning_effort": "low", "enable_thinking": true, "thinking": true, "x": 1});
    assert_eq!(Value::Object(chat.template_kwargs), kwargs);
    assert_eq!(chat.ending, PromptEnding::Generation);
}

#[tokio::test]
async fn bad_tools_and_choices_are_refused_with_the_parameters_name() {
    let server = start_default_server().await;
    for (more, param) in [
        (json!({"tools": [{"type": "function", "function": {"name": "a b"}}]}), "tools[0].function.name"),
        (json!({"tool_choice": {"type": "function", "function": {"name": "x"}}}), "tool_choice.function.name"),
        (json!({"tools": null, "tool_choice": "required"}), "tools"),
        (json!({"parallel_tool_calls": 1}), "parallel_tool_calls"),
        (json!({"functions": [{"name": "f"}]}), "functions"),
        (json!({"reasoning_effort": "huge"}), "reasoning_effort"),
        (json!({"thinking_budget_tokens": 1.5}), "thinking_budget_tokens"),
        (json!({"chat_template_kwargs": {"messages": []}}), "chat_template_kwargs"),
    ] {
        let error = ask(&server, more.clone()).await;
        assert_eq!(
            (&error["error"]["param"], &error["error"]["type"]),
            (&json!(param), &json!("invalid_request_error")),
            "{more}"
        );
    }
    assert!(server.pipeline.requests.lock().unwrap().is_empty());
}
