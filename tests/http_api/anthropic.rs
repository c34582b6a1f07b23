//! Anthropic's Messages API: answers whole and streamed, counts of tokens, and refusals in its own form.

use std::time::Duration;

use engine::generate::{Failure, Rejection};
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::client::{Answer, ask, connect, get, plain, post, read_until};
use crate::double::{MODEL, chat_tokens, expected, greedy, start_default_server, start_server};

async fn send(address: std::net::SocketAddr, body: &Value) -> Answer {
    ask(address, &post("/v1/messages?beta=true", body.to_string().as_bytes())).await
}

/// A greedy request of at most 12 tokens.
fn request(messages: &Value) -> Value {
    json!({"model": MODEL, "max_tokens": 12, "temperature": 0, "messages": messages})
}

fn go() -> Value {
    request(&json!([{"role": "user", "content": "go"}]))
}

/// The names and data of a stream's events.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let parse = |event: &str| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        (name.to_owned(), data)
    };
    answer.text().split_terminator("\n\n").map(parse).collect()
}

/// The error's type and message, after a check of the answer's shape.
fn refused(answer: &Answer, status: u16) -> (String, String) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["type", "error", "request_id"]);
    assert_eq!(body["type"], "error");
    assert_eq!(body["request_id"].as_str(), answer.header("request-id"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    let text = |key: &str| body["error"][key].as_str().unwrap().to_owned();
    (text("type"), text("message"))
}

#[tokio::test]
async fn a_conversation_is_answered_with_a_message() {
    let server = start_default_server().await;
    let mut body = request(&json!([
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Hm.", "signature": "x"},
            {"type": "text", "text": "ho"},
            {"type": "tool_use", "id": "c1", "name": "look", "input": {}}
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "c1", "content": "gone", "is_error": true},
            {"type": "text", "text": "again"}
        ]}
    ]));
    body["system"] = json!([{"type": "text", "text": "be brief"}]);
    body["metadata"] = json!({"user_id": "someone"});
    let answer = send(server.address, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let history =
        [("system", "be brief"), ("user", "hi"), ("assistant", "ho"), ("tool", "Error: gone"), ("user", "again")];
    let prompt = chat_tokens(&history);
    let (text, tokens, stopped) = expected(&prompt, &greedy(), 12);
    let mut message = answer.json();
    let fields = message.as_object_mut().unwrap();
    assert!(fields.remove("id").unwrap().as_str().unwrap().starts_with("msg_"));
    assert_eq!(fields.remove("timings").unwrap()["predicted_n"], tokens);
    let cached = prompt.len() / 2;
    let usage = json!({
        "input_tokens": prompt.len() - cached, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached, "output_tokens": tokens, "output_tokens_details": {"thinking_tokens": 0},
        "cache_creation": null, "inference_geo": null, "server_tool_use": null, "service_tier": "standard"
    });
    let text = json!({"type": "text", "text": text, "citations": null});
    let expected = json!({
        "type": "message", "role": "assistant", "model": MODEL, "content": [text], "usage": usage,
        "stop_reason": if stopped { "end_turn" } else { "max_tokens" }, "stop_sequence": null, "stop_details": null,
        "container": null
    });
    assert_eq!(message, expected);
}

#[tokio::test]
async fn a_stop_sequence_ends_the_text_and_is_named() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 40);
    let stop = &whole[5..8];
    let cut = whole.find(stop).unwrap();
    let mut body = go();
    body["max_tokens"] = json!(500);
    body["stop_sequences"] = json!(["zzz", stop]);
    let message = send(server.address, &body).await.json();
    assert_eq!(message["content"], json!([{"type": "text", "text": whole[..cut], "citations": null}]));
    assert_eq!((&message["stop_reason"], &message["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    body["stream"] = json!(true);
    let streamed = events(&send(server.address, &body).await);
    let (_, last) = streamed.iter().find(|(name, _)| name == "message_delta").unwrap();
    assert_eq!(last["delta"], json!({"stop_reason": "stop_sequence", "stop_sequence": stop}));
    server.until(|counts| counts.cancelled + counts.finished == 2).await;
}

#[tokio::test]
async fn a_streamed_answer_is_the_whole_one_in_named_events() {
    let server = start_default_server().await;
    let whole = send(server.address, &go()).await.json();
    let mut body = go();
    body["stream"] = json!(true);
    let answer = send(server.address, &body).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    let events = events(&answer);
    let (middle, ends) = (&events[2..events.len() - 3], [&events[..2], &events[events.len() - 3..]].concat());
    let names: Vec<_> = ends.iter().map(|(name, _)| name.as_str()).collect();
    let expected = ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"];
    assert_eq!(names, expected);
    let prompt_tokens = chat_tokens(&[("user", "go")]).len();
    let start = &ends[0].1["message"];
    assert_eq!((&start["role"], &start["model"]), (&json!("assistant"), &json!(MODEL)));
    assert_eq!((&start["content"], &start["stop_reason"]), (&json!([]), &Value::Null));
    assert_eq!((&start["usage"]["input_tokens"], &start["usage"]["output_tokens"]), (&json!(prompt_tokens), &json!(0)));
    let text = |(name, data): &(String, Value)| {
        assert_eq!((name.as_str(), &data["index"]), ("content_block_delta", &json!(0)));
        assert_eq!(data["delta"]["type"], "text_delta");
        data["delta"]["text"].as_str().unwrap().to_owned()
    };
    let text: String = middle.iter().map(text).collect();
    assert_eq!(whole["content"], json!([{"type": "text", "text": text, "citations": null}]));
    let last = &ends[3].1;
    assert_eq!((&last["delta"]["stop_reason"], &last["usage"]), (&whole["stop_reason"], &whole["usage"]));
    assert!(last["timings"].is_object());
}

#[tokio::test]
async fn the_message_is_sent_before_the_first_token_and_pings_while_none_comes() {
    let server = start_server(Settings { ping_period: Duration::from_millis(50), ..Settings::default() }, 0).await;
    let mut body = go();
    body["stream"] = json!(true);
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/messages", body.to_string().as_bytes())).await.unwrap();
    let opening = read_until(&mut stream, "event: ping\ndata: {\"type\":\"ping\"}\n\n").await;
    assert!(opening.contains("event: message_start"), "{opening}");
    assert!(!opening.contains("content_block"), "{opening}");
    server.pipeline.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    read_until(&mut stream, "event: message_stop").await;
}

#[tokio::test]
async fn a_failure_is_an_error_before_the_answer_and_an_event_in_a_stream() {
    let server = start_default_server().await;
    let failure = Failure::Stage { stage: "two".to_owned(), reason: "out of memory".to_owned() };
    *server.pipeline.failure.lock().unwrap() = Some((1, failure));
    let words = "Stage two could not compute: out of memory.";
    let mut body = go();
    let whole = send(server.address, &body).await;
    assert_eq!(refused(&whole, 500), ("api_error".to_owned(), words.to_owned()));
    body["stream"] = json!(true);
    let events = events(&send(server.address, &body).await);
    let (name, data) = events.last().unwrap();
    let error = json!({"type": "api_error", "message": words});
    assert_eq!((name.as_str(), data), ("error", &json!({"type": "error", "error": error})));
}

#[tokio::test]
async fn tokens_are_counted_without_generating() {
    let server = start_default_server().await;
    let mut body = go();
    body.as_object_mut().unwrap().remove("max_tokens");
    body["system"] = json!("be brief");
    body["tools"] = json!([{"name": "look", "input_schema": {"type": "object"}}]);
    let answer = ask(server.address, &post("/v1/messages/count_tokens", body.to_string().as_bytes())).await;
    let tokens = chat_tokens(&[("system", "be brief"), ("user", "go")]).len();
    assert_eq!((answer.status, answer.json()), (200, json!({"input_tokens": tokens})));
    assert_eq!(server.pipeline.counts.borrow().started, 0);
    let broken = ask(server.address, &post("/v1/messages/count_tokens", b"{\"messages\": []}")).await;
    assert_eq!(refused(&broken, 400).0, "invalid_request_error");
}

#[tokio::test]
async fn a_request_that_is_not_valid_is_refused_by_name() {
    let server = start_default_server().await;
    let broken = ask(server.address, &post("/v1/messages", b"{")).await;
    assert_eq!(refused(&broken, 400).0, "invalid_request_error");
    let image = json!({"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}});
    for (key, value, words) in [
        ("max_tokens", json!(null), "'max_tokens': expected a whole number from 1"),
        ("temperature", json!(1.5), "'temperature': expected a number from 0 to 1"),
        ("messages", json!([{"role": "user", "content": [image]}]), "'messages[0].content[0].type': blocks of type"),
        ("messages", json!([{"role": "tool", "content": "x"}]), "'messages[0].role'"),
        (
            "tools",
            json!([{"type": "web_search_20250305", "name": "web_search"}]),
            "tools of type 'web_search_20250305'",
        ),
        ("thinking", json!({"type": "enabled"}), "'thinking.budget_tokens'"),
        ("mcp_servers", json!([{}]), "'mcp_servers' is not supported"),
    ] {
        let mut body = go();
        body[key] = value;
        let (kind, message) = refused(&send(server.address, &body).await, 400);
        assert_eq!(kind, "invalid_request_error");
        assert!(message.contains(words), "{message}");
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn refusals_of_every_room_have_anthropics_form() {
    let server = start_default_server().await;
    let mut other = go();
    other["model"] = json!("claude-sonnet-5");
    let (kind, message) = refused(&send(server.address, &other).await, 404);
    assert_eq!(kind, "not_found_error");
    assert!(message.contains("--model-alias claude-sonnet-5"), "{message}");
    let long = request(&json!([{"role": "user", "content": "x".repeat(600)}]));
    let prompt_tokens = chat_tokens(&[("user", &"x".repeat(600))]).len();
    let (kind, message) = refused(&send(server.address, &long).await, 400);
    assert_eq!(kind, "invalid_request_error");
    assert_eq!(message, format!("prompt is too long: {prompt_tokens} tokens > 511 maximum"));
    let wrong_method = ask(server.address, &plain("GET", "/v1/messages")).await;
    assert_eq!(refused(&wrong_method, 405).0, "invalid_request_error");
    assert_eq!(wrong_method.header("allow"), Some("POST"));
    let foreign = b"POST /v1/messages HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(refused(&ask(server.address, foreign).await, 403).0, "permission_error");
    let panics = request(&json!([{"role": "user", "content": "panic"}]));
    assert_eq!(refused(&send(server.address, &panics).await, 500).0, "api_error");
    let not_serving = Rejection::NotServing { reason: "layers 4..8 are held by nobody".to_owned() };
    for (rejection, status, kind) in
        [(not_serving, 503, "overloaded_error"), (Rejection::Busy { waiting: 64 }, 429, "rate_limit_error")]
    {
        *server.pipeline.rejection.lock().unwrap() = Some(rejection);
        for stream in [false, true] {
            let mut body = go();
            body["stream"] = json!(stream);
            let answer = send(server.address, &body).await;
            assert_eq!(refused(&answer, status).0, kind);
            assert!(answer.header("retry-after").is_some());
        }
    }
}

#[tokio::test]
async fn a_model_answers_to_its_aliases_in_every_api() {
    let model_aliases = vec!["claude-sonnet-5".parse().unwrap()];
    let server = start_server(Settings { model_aliases, ..Settings::default() }, 1000).await;
    for (path, name, status) in [
        ("/v1/messages", "claude-sonnet-5", 200),
        ("/v1/messages", MODEL, 200),
        ("/v1/messages", "claude-haiku-5", 404),
        ("/v1/chat/completions", "claude-sonnet-5", 200),
        ("/v1/chat/completions", "gpt-4", 404),
    ] {
        let mut body = go();
        body["model"] = json!(name);
        let answer = ask(server.address, &post(path, body.to_string().as_bytes())).await;
        assert_eq!(answer.status, status, "{path} {name}");
        assert!(status == 404 || answer.json()["model"] == MODEL, "{}", answer.text());
    }
    let list = get(server.address, "/v1/models").await.json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| (&model["id"], &model["root"])).collect();
    assert_eq!(ids, [(&json!(MODEL), &json!(MODEL)), (&json!("claude-sonnet-5"), &json!(MODEL))]);
    assert_eq!(get(server.address, "/v1/models/claude-sonnet-5").await.json()["id"], "claude-sonnet-5");
    let any = start_server(Settings { model_aliases: vec!["*".parse().unwrap()], ..Settings::default() }, 1000).await;
    let mut body = go();
    body["model"] = json!("anything");
    assert_eq!(send(any.address, &body).await.status, 200);
}
