//! Requests that are HTTP but cannot be served: each gets its status and an error body that names what is wrong.

use engine::generate::{Failure, Rejection};
use serde_json::{Value, json};

use crate::client::{Answer, ask, chat, complete, get, plain, post};
use crate::double::{RunningServer, start_default_server};

/// The error's `(param, code)`, after a check of its JSON shape.
fn refused(answer: &Answer, status: u16) -> (Value, Value) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let json = answer.json();
    let error = json["error"].as_object().unwrap();
    assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
    assert!(error["message"].as_str().unwrap().len() > 10 && error["type"].is_string(), "{json}");
    assert!(answer.header("x-request-id").is_some());
    (error["param"].clone(), error["code"].clone())
}

async fn still_serves(server: &RunningServer) {
    assert_eq!(get(server.address, "/health").await.status, 200);
    let body = json!({"messages": [{"role": "user", "content": "go"}], "max_tokens": 1});
    assert_eq!(chat(server.address, &body).await.status, 200);
}

#[tokio::test]
async fn bodies_that_are_not_a_json_object_are_refused_with_the_position() {
    let server = start_default_server().await;
    let deep = [b"{\"messages\":".to_vec(), b"[".repeat(10_000)].concat();
    let bodies: &[&[u8]] = &[
        b"",
        b"{",
        b"{\"messages\": }",
        b"{\"messages\": [}",
        b"{'messages': []}",
        b"{\"a\": 1} trailing",
        b"{\"temperature\": NaN}",
        b"{\"temperature\": Infinity}",
        b"{\"temperature\": 1e999}",
        b"{\"model\": \"\xff\xfe\"}",
        b"{\"model\": \"\\ud800\"}",
        b"\x00\x01\x02\x03",
        b"model=x&prompt=y",
        b"\xef\xbb\xbf{}",
        &deep,
    ];
    for body in bodies {
        let answer = ask(server.address, &post("/v1/chat/completions", body)).await;
        assert_eq!(refused(&answer, 400).1, "invalid_json", "{}", answer.text());
        let message = answer.json()["error"]["message"].to_string();
        assert!(message.contains("line 1 column"), "{message}");
    }
    // Parsed, each would take up to 144 times its bytes.
    for (what, part, count) in [("lists and objects", "[],", 100_000), ("values", "1,", 600_000)] {
        let body = format!("{{\"tools\": [{}1]}}", part.repeat(count));
        let answer = ask(server.address, &post("/v1/chat/completions", body.as_bytes())).await;
        assert_eq!(refused(&answer, 413).1, "request_too_large", "{what}");
        assert!(answer.text().contains(what), "{}", answer.text());
    }
    for body in ["[]", "\"text\"", "5", "null", "true"] {
        let answer = ask(server.address, &post("/v1/completions", body.as_bytes())).await;
        assert_eq!(refused(&answer, 400).1, "invalid_type", "{body}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn chat_parameters_of_a_wrong_type_or_range_are_named() {
    let server = start_default_server().await;
    let cases = [
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("many")),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!(1e300)),
        ("max_tokens", json!(18_446_744_073_709_551_615u64)),
        ("max_completion_tokens", json!([])),
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("temperature", json!("hot")),
        ("top_p", json!(1.01)),
        ("top_p", json!({})),
        ("top_k", json!(-2)),
        ("min_p", json!(7)),
        ("seed", json!(1.5)),
        ("seed", json!(1e30)),
        ("n", json!(0)),
        ("n", json!(17)),
        ("stop", json!(5)),
        ("stop", json!(["a", "b", "c", "d", "e"])),
        ("stop", json!("x".repeat(10_000))),
        ("stop_token_ids", json!(["a"])),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("model", json!(5)),
        ("logprobs", json!(3)),
        ("top_logprobs", json!(21)),
        ("prompt_logprobs", json!(21)),
        ("presence_penalty", json!(2.5)),
        ("logit_bias", json!(5)),
        ("repeat_last_n", json!("all")),
        ("messages", json!([])),
        ("messages", json!("hello")),
        ("messages", json!(null)),
    ];
    for (param, value) in cases {
        let mut body = json!({"messages": [{"role": "user", "content": "go"}]});
        body[param] = value;
        let answer = chat(server.address, &body).await;
        assert_eq!(refused(&answer, 400).0, param, "{body}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn unsupported_parameters_are_refused_and_never_ignored() {
    let server = start_default_server().await;
    let cases = [("functions", json!([{"name": "f"}])), ("echo", json!(true)), ("suffix", json!("x"))];
    for (param, value) in cases {
        let mut body = json!({"messages": [{"role": "user", "content": "go"}]});
        body[param] = value;
        let answer = chat(server.address, &body).await;
        assert_eq!(refused(&answer, 400), (json!(param), json!("unsupported_parameter")), "{body}");
    }
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for (param, value) in [
        ("tools", tools),
        ("suffix", json!(5)),
        ("best_of", json!(2)),
        ("logprobs", json!(6)),
        ("max_tokens", json!(0)),
    ] {
        let mut body = json!({"prompt": "ab", "stream": true});
        body[param] = value;
        assert_eq!(refused(&complete(server.address, &body).await, 400).0, param);
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn prompts_that_cannot_be_completed_are_named() {
    let server = start_default_server().await;
    for (prompt, param) in [
        (json!(null), "prompt"),
        (json!(""), "prompt"),
        (json!([""]), "prompt"),
        (json!([]), "prompt"),
        (json!({"a": 1}), "prompt"),
        (json!([1, "a"]), "prompt[1]"),
        (json!([[1], "a", 5]), "prompt[2]"),
        (json!([258]), "prompt[0]"),
        (json!([-1]), "prompt[0]"),
        (json!(vec!["a"; 17]), "prompt"),
    ] {
        let answer = complete(server.address, &json!({"prompt": prompt})).await;
        assert_eq!(refused(&answer, 400).0, param, "{prompt}");
    }
    let template = json!({"messages": [{"role": "tool", "content": "x"}]});
    assert_eq!(refused(&chat(server.address, &template).await, 400).0, "messages");
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_openais_message() {
    let server = start_default_server().await;
    let answer = complete(server.address, &json!({"prompt": "x".repeat(512)})).await;
    assert_eq!(refused(&answer, 400), (json!("prompt"), json!("context_length_exceeded")));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("This model's maximum context length is 512 tokens."), "{message}");
    let fits = complete(server.address, &json!({"prompt": "x".repeat(511)})).await.json();
    assert_eq!(fits["usage"]["completion_tokens"], 1);
    // Stages with little memory hold fewer tokens than the model supports.
    server.pipeline.status.lock().unwrap().context_tokens = 100;
    let answer = complete(server.address, &json!({"prompt": "x".repeat(100)})).await;
    assert_eq!(refused(&answer, 400).1, "context_length_exceeded");
    assert_eq!(server.pipeline.counts.borrow().refused, 2, "the pipeline counts them with those it refuses");
    assert_eq!(get(server.address, "/v1/models").await.json()["data"][0]["max_model_len"], 100);
}

#[tokio::test]
async fn another_model_an_unknown_page_and_a_wrong_method_have_their_own_errors() {
    let server = start_default_server().await;
    let other = json!({"model": "gpt-4", "messages": [{"role": "user", "content": "go"}]});
    assert_eq!(refused(&chat(server.address, &other).await, 404), (json!("model"), json!("model_not_found")));
    for path in ["/nowhere", "/v1", "/v1/chat", "/v1/audio", "/health/x", "/../etc/passwd", "/%00", "//"] {
        assert_eq!(refused(&get(server.address, path).await, 404).1, "not_found", "{path}");
    }
    for (method, path, allow) in [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/v1/completions", "POST"),
        ("GET", "/v1/embeddings", "POST"),
        ("GET", "/rerank", "POST"),
        ("DELETE", "/v1/models/x", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
        ("PATCH", "/", "GET, HEAD"),
        ("BREW", "/distributed/status", "GET, HEAD"),
    ] {
        let answer = ask(server.address, &plain(method, path)).await;
        assert_eq!(refused(&answer, 405).1, "method_not_allowed", "{method} {path}");
        assert_eq!(answer.header("allow"), Some(allow));
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn a_rejection_of_the_pipeline_has_its_status_and_retry_after() {
    let server = start_default_server().await;
    let not_serving = Rejection::NotServing { reason: "layers 4..8 are held by nobody".to_owned() };
    let too_long = Rejection::TooLong { context_tokens: 64, prompt_tokens: 80 };
    for (rejection, status, code, retried, words) in [
        (not_serving, 503, "not_serving", true, "layers 4..8"),
        (Rejection::Busy { waiting: 64 }, 429, "queue_full", true, "64 requests wait"),
        (too_long, 400, "context_length_exceeded", false, "maximum context length is 64 tokens"),
    ] {
        *server.pipeline.rejection.lock().unwrap() = Some(rejection);
        for stream in [false, true] {
            let answer = complete(server.address, &json!({"prompt": "ab", "stream": stream})).await;
            assert_eq!(refused(&answer, status).1, code);
            assert_eq!(answer.header("retry-after").is_some(), retried);
            assert!(answer.text().contains(words), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_failure_before_a_whole_answer_is_an_error_without_partial_text() {
    let server = start_default_server().await;
    for (failure, status, code) in [
        (Failure::Deadline { limit_s: 5 }, 504, "deadline_exceeded"),
        (Failure::Stopping, 503, "server_stopping"),
        (Failure::Stage { stage: "a".to_owned(), reason: "no".to_owned() }, 500, "stage_failed"),
    ] {
        *server.pipeline.failure.lock().unwrap() = Some((1, failure));
        let answer = complete(server.address, &json!({"prompt": "ab", "n": 2, "ignore_eos": true})).await;
        assert_eq!(refused(&answer, status).1, code);
    }
    server.until(|counts| counts.started == counts.finished + counts.cancelled).await;
}
