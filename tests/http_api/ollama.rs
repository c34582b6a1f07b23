//! Ollama's API: answers whole and line by line, the model's details, and refusals in its own form.

use std::time::Duration;

use engine::generate::{Failure, PipelineStatus, Rejection};
use gateway::http::{ModelAlias, Settings};
use schema::frame::Sampling;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::client::{Answer, ask, connect, get, plain, post, read_until};
use crate::double::{
    CONTEXT_TOKENS, FIM, MODEL, RunningServer, chat_tokens, expected, greedy, start_default_server, start_server,
};

async fn send(server: &RunningServer, path: &str, body: &Value) -> Answer {
    ask(server.address, &post(path, body.to_string().as_bytes())).await
}

/// A greedy chat of at most 12 tokens, not streamed.
fn go() -> Value {
    json!({
        "model": MODEL, "messages": [{"role": "user", "content": "go"}], "stream": false,
        "options": {"temperature": 0, "num_predict": 12}
    })
}

/// `body` with other values at some keys.
fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The JSON of a stream's lines.
fn lines(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert!(answer.text().ends_with('\n'));
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The error's message, after a check of the answer's shape.
fn refused(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"]);
    body["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_chat_is_answered_with_a_message_counts_and_times() {
    let server = start_default_server().await;
    let history = [("system", "be brief"), ("user", "hi"), ("assistant", "ho"), ("user", "go")];
    let messages: Vec<_> = history.iter().map(|(role, content)| json!({"role": role, "content": content})).collect();
    let answer = send(&server, "/api/chat", &with(go(), &json!({"messages": messages, "keep_alive": "5m"}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let prompt = chat_tokens(&history);
    let (text, tokens, stopped) = expected(&prompt, &greedy(), 12);
    let mut body = answer.json();
    let fields = body.as_object_mut().unwrap();
    assert!(fields.remove("created_at").unwrap().as_str().unwrap().ends_with('Z'));
    assert!(fields.remove("total_duration").unwrap().as_u64().unwrap() > 0);
    let expected = json!({
        "model": MODEL, "message": {"role": "assistant", "content": text}, "done": true,
        "done_reason": if stopped { "stop" } else { "length" }, "load_duration": 3_000_000,
        "prompt_eval_count": prompt.len(), "prompt_eval_duration": 20_000_000, "eval_count": tokens,
        "eval_duration": 40_000_000
    });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn answers_are_streamed_line_by_line_unless_a_request_says_otherwise() {
    let server = start_default_server().await;
    let (text, tokens, stopped) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 12);
    for stream in [json!(null), json!(true)] {
        let answer = send(&server, "/api/chat", &with(go(), &json!({"stream": stream}))).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, None));
        let lines = lines(&answer);
        let (last, others) = lines.split_last().unwrap();
        let pieces: String = others.iter().map(|line| line["message"]["content"].as_str().unwrap()).collect();
        assert_eq!(pieces, text);
        for line in others {
            assert_eq!((&line["model"], &line["done"], line.get("eval_count")), (&json!(MODEL), &json!(false), None));
            assert_eq!(line["message"]["role"], "assistant");
        }
        assert_eq!((&last["done"], &last["message"]["content"]), (&json!(true), &json!("")));
        assert_eq!((&last["eval_count"], &last["eval_duration"]), (&json!(tokens), &json!(40_000_000)));
        assert_eq!(last["done_reason"], if stopped { "stop" } else { "length" });
    }
}

#[tokio::test]
async fn a_stream_without_news_sends_empty_lines_of_json() {
    let server = start_server(Settings { ping_period: Duration::from_millis(50), ..Settings::default() }, 0).await;
    let body = with(go(), &json!({"stream": true, "options": {"num_predict": 2}}));
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/api/chat", body.to_string().as_bytes())).await.unwrap();
    let waiting = read_until(&mut stream, "\"done\":false}\n").await;
    assert!(waiting.contains(r#""message":{"role":"assistant","content":""}"#), "{waiting}");
    server.pipeline.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    read_until(&mut stream, "\"done\":true").await;
}

#[tokio::test]
async fn options_reach_the_pipeline_and_their_defaults_are_ollamas() {
    let server = start_default_server().await;
    let options = json!({
        "temperature": 0.5, "top_k": 7, "top_p": 0.75, "min_p": 0.25, "typical_p": 0.5, "seed": 9, "num_predict": 3,
        "repeat_penalty": 1.5, "repeat_last_n": 16, "presence_penalty": 0.5, "frequency_penalty": 0.25,
        "stop": ["zz", "yy"], "num_ctx": 100_000
    });
    assert_eq!(send(&server, "/api/chat", &with(go(), &json!({"options": options}))).await.status, 200);
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let sampling = request.tokens.sampling;
    let wanted = Sampling { temperature: 0.5, top_k: 7, top_p: 0.75, min_p: 0.25, typical_p: 0.5, seed: 9, ..sampling };
    assert_eq!(sampling, wanted);
    let penalties = request.tokens.penalties;
    assert_eq!((penalties.repetition, penalties.last_tokens), (1.5, Some(16)));
    assert_eq!((penalties.presence, penalties.frequency, request.tokens_max), (0.5, 0.25, 3));

    assert_eq!(send(&server, "/api/chat", &with(go(), &json!({"options": null}))).await.status, 200);
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let sampling = request.tokens.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 0.9));
    assert_eq!(request.tokens_max, CONTEXT_TOKENS - request.prompt.len() as u32);
}

#[tokio::test]
async fn an_answer_without_a_limit_has_the_default_one_and_minus_one_lifts_it() {
    let server = start_server(Settings { default_max_tokens: 7, ..Settings::default() }, 10_000).await;
    for (predict, limit) in [(json!(null), 7), (json!(0), 7), (json!(-1), 500), (json!(-2), 500), (json!(30), 30)] {
        let body = with(go(), &json!({"options": {"num_predict": predict}}));
        assert_eq!(send(&server, "/api/chat", &body).await.status, 200);
        let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
        let limit = limit.min(CONTEXT_TOKENS - request.prompt.len() as u32);
        assert!(request.tokens_max == limit || limit > 400 && request.tokens_max > 400, "{predict}");
    }
}

#[tokio::test]
async fn a_stop_string_cuts_the_text() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 40);
    let stop = &whole[5..8];
    let body = with(go(), &json!({"options": {"temperature": 0, "stop": ["zzz", stop]}}));
    let json = send(&server, "/api/chat", &body).await.json();
    assert_eq!(json["message"]["content"], whole[..whole.find(stop).unwrap()]);
    assert_eq!(json["done_reason"], "stop");
}

#[tokio::test]
async fn the_model_has_its_name_with_and_without_a_tag() {
    let model_aliases: Vec<ModelAlias> = vec!["llama3:8b".parse().unwrap(), "phi".parse().unwrap()];
    let server = start_server(Settings { model_aliases, ..Settings::default() }, 10_000).await;
    for name in [MODEL, &format!("{MODEL}:latest"), "llama3:8b", "phi", "phi:latest"] {
        let answer = send(&server, "/api/chat", &with(go(), &json!({"model": name}))).await;
        assert_eq!((answer.status, &answer.json()["model"]), (200, &json!(name)));
    }
    for name in ["llama3", "phi:7b", "other:latest"] {
        let message = refused(&send(&server, "/api/chat", &with(go(), &json!({"model": name}))).await, 404);
        assert!(message.contains(name) && message.contains(MODEL), "{message}");
    }
    for name in [json!(null), json!("")] {
        let message = refused(&send(&server, "/api/chat", &with(go(), &json!({"model": name}))).await, 400);
        assert!(message.contains("'model'"), "{message}");
    }
}

#[tokio::test]
async fn a_prompt_is_answered_through_the_template_or_raw() {
    let server = start_default_server().await;
    let options = json!({"temperature": 0, "num_predict": 12});
    let body = json!({"model": MODEL, "prompt": "go", "stream": false, "options": options});
    let (text, ..) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 12);
    let json = send(&server, "/api/generate", &body).await.json();
    assert_eq!((&json["response"], &json["done"]), (&json!(text), &json!(true)));
    assert_eq!(json["prompt_eval_count"], chat_tokens(&[("user", "go")]).len());

    let (text, ..) = expected(&chat_tokens(&[("system", "be brief"), ("user", "go")]), &greedy(), 12);
    let json = send(&server, "/api/generate", &with(body.clone(), &json!({"system": "be brief"}))).await.json();
    assert_eq!(json["response"], text);

    let (text, ..) = expected(&[103, 111], &greedy(), 12);
    let raw = with(body, &json!({"raw": true, "stream": true, "context": [], "template": ""}));
    let lines = lines(&send(&server, "/api/generate", &raw).await);
    let pieces: String = lines.iter().map(|line| line["response"].as_str().unwrap()).collect();
    assert_eq!(pieces, text);
}

#[tokio::test]
async fn a_suffix_asks_for_the_text_of_a_gap() {
    let server = start_default_server().await;
    let body = json!({"model": MODEL, "prompt": "ab", "suffix": "c", "stream": false, "options": {"num_predict": 1}});
    assert_eq!(send(&server, "/api/generate", &body).await.status, 200);
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let begin = request.prompt[0];
    assert_eq!(request.prompt, [begin, FIM.prefix, 97, 98, FIM.suffix, 99, FIM.middle]);
}

#[tokio::test]
async fn a_request_without_a_prompt_loads_the_model_if_it_is_served() {
    let server = start_default_server().await;
    for (path, body) in [
        ("/api/chat", json!({"model": MODEL, "messages": []})),
        ("/api/chat", json!({"model": MODEL, "keep_alive": 0})),
        ("/api/generate", json!({"model": MODEL, "prompt": ""})),
        ("/api/generate", json!({"model": MODEL, "keep_alive": "10m"})),
    ] {
        let answer = send(&server, path, &body).await;
        let json = answer.json();
        assert_eq!((answer.status, &json["done"], &json["done_reason"]), (200, &json!(true), &json!("load")));
        assert_eq!(json.get("eval_count"), None);
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
    let reason = "layers 3..6 are held by nobody".to_owned();
    *server.pipeline.status.lock().unwrap() = PipelineStatus { reason, ..PipelineStatus::default() };
    let answer = send(&server, "/api/chat", &json!({"model": MODEL})).await;
    assert!(refused(&answer, 503).contains("layers 3..6"));
    assert_eq!(answer.header("retry-after"), Some("2"));
}

#[tokio::test]
async fn the_model_is_listed_and_described() {
    let server = start_default_server().await;
    let tagged = format!("{MODEL}:latest");
    let details = json!({
        "parent_model": "", "format": "gguf", "family": "count", "families": ["count"], "parameter_size": "134.52M",
        "quantization_level": "Q4_1"
    });
    let capabilities = json!(["completion", "tools", "insert"]);
    let tags = get(server.address, "/api/tags").await.json();
    let expected = json!([{
        "name": tagged, "model": tagged, "modified_at": "2023-11-14T22:13:20.000000Z", "size": 1_000_000,
        "digest": "c0ffee", "details": details, "capabilities": capabilities
    }]);
    assert_eq!(tags["models"], expected);

    let served = get(server.address, "/api/ps").await.json();
    assert_eq!((&served["models"][0]["name"], &served["models"][0]["size_vram"]), (&json!(tagged), &json!(0)));
    assert_eq!(served["models"][0]["context_length"], CONTEXT_TOKENS);
    *server.pipeline.status.lock().unwrap() = PipelineStatus::default();
    assert_eq!(get(server.address, "/api/ps").await.json(), json!({"models": []}));

    let shown = send(&server, "/api/show", &json!({"name": MODEL})).await.json();
    assert_eq!((&shown["details"], &shown["capabilities"]), (&details, &capabilities));
    assert_eq!(shown["template"], "{{ messages }}");
    assert_eq!(shown["model_info"]["count.context_length"], CONTEXT_TOKENS);
    assert_eq!(shown["model_info"]["general.architecture"], "count");
    let message = refused(&send(&server, "/api/show", &json!({"model": "unknown"})).await, 404);
    assert!(message.contains("unknown"), "{message}");

    let version = get(server.address, "/api/version").await.json();
    assert!(version["version"].as_str().unwrap().starts_with("0."));
    assert_eq!(ask(server.address, &plain("HEAD", "/api/tags")).await.status, 200);
}

#[tokio::test]
async fn unsupported_and_invalid_parameters_are_refused_by_name() {
    let server = start_default_server().await;
    for (path, more, word) in [
        ("/api/chat", json!({"messages": [{"role": "user", "content": "x", "images": ["aGk="]}]}), "Images"),
        ("/api/chat", json!({"messages": [{"role": "robot", "content": "x"}]}), "messages[0].role"),
        ("/api/chat", json!({"messages": "hi"}), "'messages'"),
        ("/api/chat", json!({"messages": [{"role": "tool", "content": "x"}]}), "cannot be encoded"),
        ("/api/chat", json!({"tools": [{"type": "function"}]}), "tools[0].function"),
        ("/api/chat", json!({"format": "yaml"}), "'format'"),
        ("/api/chat", json!({"format": "json"}), "'format'"),
        ("/api/chat", json!({"think": true}), "does not support thinking"),
        ("/api/chat", json!({"think": "hard"}), "'think'"),
        ("/api/chat", json!({"stream": "yes"}), "'stream'"),
        ("/api/chat", json!({"keep_alive": true}), "'keep_alive'"),
        ("/api/chat", json!({"options": {"temperature": -1}}), "'options.temperature'"),
        ("/api/chat", json!({"options": {"mirostat": 2}}), "'options.mirostat'"),
        ("/api/generate", json!({"prompt": "x", "images": ["aGk="]}), "Images"),
        ("/api/generate", json!({"prompt": "x", "template": "{{ .Prompt }}"}), "'template'"),
        ("/api/generate", json!({"prompt": "x", "context": [1, 2]}), "'context'"),
        ("/api/generate", json!({"prompt": "x", "raw": true, "system": "y"}), "'system'"),
        ("/api/generate", json!({"prompt": "x", "raw": true, "suffix": "y"}), "'suffix'"),
        ("/api/generate", json!({"prompt": "x", "suffix": "y", "system": "z"}), "'system'"),
        ("/api/generate", json!({"prompt": 5}), "'prompt'"),
    ] {
        let message = refused(&send(&server, path, &with(go(), &more)).await, 400);
        assert!(message.contains(word), "{path} {more}: {message}");
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn every_error_under_api_has_ollamas_form() {
    let server = start_default_server().await;
    assert!(refused(&ask(server.address, &post("/api/chat", b"{")).await, 400).contains("JSON"));
    assert!(refused(&get(server.address, "/api/chat").await, 405).contains("POST"));
    assert!(refused(&send(&server, "/api/pull", &json!({"model": "x"})).await, 404).contains("/api/pull"));
    let foreign = b"POST /api/chat HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 2\r\n\r\n{}";
    assert!(refused(&ask(server.address, foreign).await, 403).contains("--allow-host"));
    let long = json!([{"role": "user", "content": "x".repeat(600)}]);
    for stream in [false, true] {
        let body = with(go(), &json!({"messages": long, "stream": stream}));
        assert!(refused(&send(&server, "/api/chat", &body).await, 400).contains("maximum context length"));
    }
    *server.pipeline.rejection.lock().unwrap() = Some(Rejection::Busy { waiting: 64 });
    assert!(refused(&send(&server, "/api/chat", &go()).await, 429).contains("64 requests wait"));
    *server.pipeline.rejection.lock().unwrap() = None;
    let panic = json!({"messages": [{"role": "user", "content": "panic"}]});
    let message = refused(&send(&server, "/api/chat", &with(go(), &panic)).await, 500);
    assert!(!message.is_empty());
    assert_eq!(get(server.address, "/v1/nothing").await.json()["error"]["code"], "not_found", "OpenAI's stays");
}

#[tokio::test]
async fn a_failure_in_a_running_stream_is_a_line() {
    let server = start_default_server().await;
    let failure = Failure::Stage { stage: "two".to_owned(), reason: "out of memory".to_owned() };
    *server.pipeline.failure.lock().unwrap() = Some((2, failure));
    let body = json!({"model": MODEL, "prompt": "ab", "raw": true, "options": {"temperature": 0}});
    let answer = send(&server, "/api/generate", &body).await;
    assert_eq!(answer.status, 200);
    let lines = lines(&answer);
    assert_eq!(*lines.last().unwrap(), json!({"error": "Stage two could not compute: out of memory."}));
    let whole = send(&server, "/api/generate", &with(body, &json!({"stream": false}))).await;
    assert_eq!(refused(&whole, 500), "Stage two could not compute: out of memory.");
}
