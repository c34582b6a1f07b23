//! The pages that llama-server and vLLM have beside OpenAI's API.

use engine::generate::PipelineStatus;
use serde_json::{Value, json};

use crate::client::{Answer, ask, get, post};
use crate::double::{BEGIN, CONTEXT_TOKENS, END, FIM, MODEL, RunningServer, expected, greedy, start_default_server};

async fn send(server: &RunningServer, path: &str, body: &Value) -> Answer {
    ask(server.address, &post(path, body.to_string().as_bytes())).await
}

/// The error's parameter and message, after a check of the status.
fn refused(answer: &Answer, status: u16) -> (Value, String) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let error = answer.json()["error"].clone();
    (error["param"].clone(), error["message"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_text_is_tokenised_as_llama_server_does() {
    let server = start_default_server().await;
    for (more, tokens) in [
        (json!({}), json!([97, END, 98])),
        (json!({"add_special": true}), json!([BEGIN, 97, END, 98])),
        (json!({"parse_special": false}), json!([97, 60, 69, 78, 68, 62, 98])),
    ] {
        let mut body = json!({"content": "a<END>b"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        assert_eq!(send(&server, "/tokenize", &body).await.json(), json!({"tokens": tokens}));
    }
    let pieces = send(&server, "/tokenize", &json!({"content": "é<END>", "with_pieces": true})).await.json();
    let expected = json!([{"id": 195, "piece": [195]}, {"id": 169, "piece": [169]}, {"id": END, "piece": "<END>"}]);
    assert_eq!(pieces, json!({"tokens": expected}));
    assert_eq!(send(&server, "/tokenize", &json!({"content": ""})).await.json(), json!({"tokens": []}));
}

#[tokio::test]
async fn a_text_or_chat_is_tokenised_as_vllm_does() {
    let server = start_default_server().await;
    let text = send(&server, "/tokenize", &json!({"model": MODEL, "prompt": "a b"})).await.json();
    let expected = json!({
        "count": 4, "max_model_len": CONTEXT_TOKENS, "tokens": [BEGIN, 97, 32, 98], "token_strs": null
    });
    assert_eq!(text, expected);
    let body = json!({"prompt": "a b", "add_special_tokens": false, "return_token_strs": true});
    assert_eq!(send(&server, "/tokenize", &body).await.json()["token_strs"], json!(["a", "Ġ", "b"]));
    let chat = json!({"messages": [{"role": "user", "content": "hi"}]});
    let tokens = send(&server, "/tokenize", &chat).await.json();
    assert_eq!(tokens["tokens"], json!(crate::double::chat_tokens(&[("user", "hi")])));
    assert_eq!(tokens["count"], tokens["tokens"].as_array().unwrap().len());
}

#[tokio::test]
async fn tokens_become_text_under_both_servers_names() {
    let server = start_default_server().await;
    let answer = send(&server, "/detokenize", &json!({"tokens": [BEGIN, 97, 195, 169, END, 255]})).await.json();
    assert_eq!(answer, json!({"content": "<BEGIN>aé<END>\u{fffd}", "prompt": "<BEGIN>aé<END>\u{fffd}"}));
    for (tokens, param) in [(json!(null), "tokens"), (json!("a"), "tokens"), (json!([258]), "tokens[0]")] {
        let answer = send(&server, "/detokenize", &json!({"tokens": tokens})).await;
        assert_eq!(refused(&answer, 400).0, param);
    }
    let many = json!({"tokens": vec![1; (1 << 18) + 1]});
    assert!(refused(&send(&server, "/detokenize", &many).await, 400).1.contains("at most 262144 token ids"));
}

#[tokio::test]
async fn the_form_of_a_tokenize_request_must_be_clear() {
    let server = start_default_server().await;
    let (param, message) = refused(&send(&server, "/tokenize", &json!({"content": "a", "prompt": "b"})).await, 400);
    assert_eq!(param, "prompt");
    assert!(message.contains("llama-server") && message.contains("vLLM"), "{message}");
    assert_eq!(refused(&send(&server, "/tokenize", &json!({})).await, 400).0, "content");
    let other = json!({"model": "gpt-4", "content": "a"});
    assert_eq!(refused(&send(&server, "/tokenize", &other).await, 404).0, "model");
    let template = json!({"messages": [{"role": "tool", "content": "x"}]});
    assert_eq!(refused(&send(&server, "/tokenize", &template).await, 400).0, "messages");
}

#[tokio::test]
async fn a_chat_becomes_the_text_of_its_prompt() {
    let server = start_default_server().await;
    let body = json!({"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]});
    let answer = send(&server, "/apply-template", &body).await.json();
    assert_eq!(answer, json!({"prompt": "<BEGIN>system:be brief<BEGIN>user:hi<BEGIN>"}));
    assert_eq!(refused(&send(&server, "/apply-template", &json!({})).await, 400).0, "messages");
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn a_gap_is_filled_between_prefix_and_suffix_with_files_before() {
    let server = start_default_server().await;
    let body = json!({
        "input_prefix": "ab", "input_suffix": "c", "prompt": "d", "temperature": 0, "n_predict": 6,
        "input_extra": [{"filename": "x", "text": "y"}], "samplers": ["top_k", "top_p", "infill"],
        "n_indent": 2, "t_max_predict_ms": 500, "cache_prompt": true
    });
    let answer = send(&server, "/infill", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let bytes = |text: &str| text.bytes().map(u32::from).collect::<Vec<_>>();
    let (repository, separator) = (FIM.repository.unwrap(), FIM.file_separator.unwrap());
    let prompt = [
        vec![BEGIN, repository],
        bytes("myproject\n"),
        vec![separator],
        bytes("x\ny"),
        vec![separator],
        bytes("filename\n"),
        vec![FIM.prefix],
        bytes("abd"),
        vec![FIM.suffix],
        bytes("c"),
        vec![FIM.middle],
    ]
    .concat();
    assert_eq!(request.prompt, prompt);
    let sampling = request.tokens.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (1.0, 40, 0.95), "samplers say what applies");
    assert_eq!((sampling.min_p, request.tokens_max), (0.0, 6));
}

#[tokio::test]
async fn the_text_of_a_gap_has_llama_servers_form() {
    let server = start_default_server().await;
    let body = json!({"input_prefix": "ab", "input_suffix": "c", "temperature": 0, "n_predict": 6, "ignore_eos": true});
    let whole = send(&server, "/infill", &body).await.json();
    let request = server.pipeline.requests.lock().unwrap().pop().unwrap();
    let (text, tokens, _) = expected(&request.prompt, &greedy(), 6);
    assert_eq!((&whole["content"], &whole["stop"], &whole["stop_type"]), (&json!(text), &json!(true), &json!("limit")));
    assert_eq!(
        (&whole["tokens_predicted"], &whole["tokens_evaluated"]),
        (&json!(tokens), &json!(request.prompt.len()))
    );
    assert_eq!((&whole["model"], &whole["truncated"]), (&json!(MODEL), &json!(false)));
    assert_eq!(whole["timings"]["predicted_n"], tokens);

    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let answer = send(&server, "/infill", &streamed).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let events: Vec<Value> = answer.events().iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let (last, others) = events.split_last().unwrap();
    let pieces: String = others.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(pieces, text);
    assert!(others.iter().all(|event| event["stop"] == false));
    assert_eq!((&last["stop"], &last["content"], &last["stop_type"]), (&json!(true), &json!(""), &json!("limit")));

    let mut stopped = body;
    stopped["stop"] = json!([text[2..4]]);
    let word = send(&server, "/infill", &stopped).await.json();
    assert_eq!((&word["stop_type"], &word["stopping_word"]), (&json!("word"), &json!(text[2..4])));
}

#[tokio::test]
async fn a_prompt_for_infilling_is_made_to_fit() {
    let server = start_default_server().await;
    let body = json!({
        "input_prefix": "p".repeat(2000), "input_suffix": "s".repeat(2000), "n_predict": 12,
        "input_extra": [{"text": "e".repeat(2000)}]
    });
    let answer = send(&server, "/infill", &body).await.json();
    assert_eq!(answer["truncated"], true);
    let prompt = server.pipeline.requests.lock().unwrap().pop().unwrap().prompt;
    assert_eq!(prompt.len() as u32, CONTEXT_TOKENS - 12);
    let count = |byte: u8| prompt.iter().filter(|token| **token == u32::from(byte)).count();
    assert_eq!((count(b's'), count(b'p'), count(b'e')), (124, 372, 0));
}

#[tokio::test]
async fn invalid_infill_requests_are_named() {
    let server = start_default_server().await;
    let good = json!({"input_prefix": "a", "input_suffix": "b"});
    for (key, value, param) in [
        ("input_prefix", json!(null), "input_prefix"),
        ("input_suffix", json!(5), "input_suffix"),
        ("prompt", json!([1]), "prompt"),
        ("input_extra", json!([{"filename": "x"}]), "input_extra[0].text"),
        ("samplers", json!(["magic"]), "samplers[0]"),
        ("n_predict", json!(-3), "n_predict"),
        ("grammar", json!("root ::= \"a\""), "grammar"),
        ("mirostat", json!(2), "mirostat"),
    ] {
        let mut body = good.clone();
        body[key] = value;
        assert_eq!(refused(&send(&server, "/infill", &body).await, 400).0, param);
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}

#[tokio::test]
async fn properties_slots_and_load_are_those_of_the_pipeline() {
    let server = start_default_server().await;
    *server.pipeline.status.lock().unwrap() =
        PipelineStatus { serving: true, running: 2, waiting: 1, ..PipelineStatus::default() };
    let props = get(server.address, "/props").await.json();
    assert_eq!((&props["model_alias"], &props["model_path"]), (&json!(MODEL), &json!("count-1.gguf")));
    assert_eq!(props["default_generation_settings"]["n_ctx"], CONTEXT_TOKENS);
    assert_eq!((&props["bos_token"], &props["eos_token"]), (&json!("<BEGIN>"), &json!("<END>")));
    assert_eq!(props["chat_template"], "{{ messages }}");
    let slots = get(server.address, "/slots").await.json();
    let slot = |id: u32| json!({"id": id, "n_ctx": CONTEXT_TOKENS, "is_processing": true});
    assert_eq!(slots, json!([slot(0), slot(1)]));
    assert_eq!(get(server.address, "/load").await.json(), json!({"server_load": 3}));
    let full = get(server.address, "/slots?fail_on_no_slot=1").await;
    assert!(refused(&full, 503).1.contains("1 wait already"));
    server.pipeline.status.lock().unwrap().waiting = 0;
    assert_eq!(get(server.address, "/slots?fail_on_no_slot=1").await.status, 200);
}

#[tokio::test]
async fn ping_is_empty_while_the_pipeline_serves() {
    let server = start_default_server().await;
    let pong = get(server.address, "/ping").await;
    assert_eq!((pong.status, pong.text().as_str()), (200, ""));
    let reason = "layers 3..6 are held by nobody".to_owned();
    *server.pipeline.status.lock().unwrap() = PipelineStatus { reason, ..PipelineStatus::default() };
    assert!(refused(&get(server.address, "/ping").await, 503).1.contains("layers 3..6"));
    let version = get(server.address, "/version").await.json();
    assert_eq!(version, json!({"version": env!("CARGO_PKG_VERSION")}));
}
