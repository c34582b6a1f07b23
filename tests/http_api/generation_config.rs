//! The sampling that a model's file recommends: it counts in every dialect where a request says nothing.

use gateway::http::{AccessControl, GenerationConfig, Settings};
use serde_json::{Value, json};

use crate::client::{ask, get, post};
use crate::double::{MODEL, RunningServer, start_server_of};

const CONFIG: GenerationConfig = GenerationConfig {
    temperature: Some(0.6),
    top_k: Some(20),
    top_p: None,
    min_p: None,
    xtc_probability: None,
    xtc_threshold: None,
    repetition_penalty: Some(1.25),
    repeat_last_n: None,
};

/// The pages that generate, each with a body, and the values of `top_p` and of the penalty's window in its API.
fn pages() -> [(&'static str, Value, f32, Option<u32>); 7] {
    let messages = json!([{"role": "user", "content": "go"}]);
    let whole = json!({"model": MODEL, "stream": false, "messages": messages, "prompt": "go"});
    [
        ("/v1/chat/completions", json!({"messages": messages, "max_tokens": 2}), 1.0, None),
        ("/v1/completions", json!({"prompt": "go", "max_tokens": 2}), 1.0, None),
        ("/v1/responses", json!({"input": "go", "max_output_tokens": 2}), 1.0, None),
        ("/v1/messages", json!({"messages": messages, "max_tokens": 2}), 1.0, None),
        ("/api/chat", whole.clone(), 0.9, Some(64)),
        ("/api/generate", whole, 0.9, Some(64)),
        ("/infill", json!({"input_prefix": "a", "input_suffix": "b", "n_predict": 2}), 0.95, Some(64)),
    ]
}

async fn start() -> RunningServer {
    start_server_of(CONFIG, Settings::default(), AccessControl::default(), None, 10_000).await
}

#[tokio::test]
async fn a_request_that_says_nothing_has_the_models_sampling_and_else_that_of_its_api() {
    let server = start().await;
    for (path, body, top_p, last_tokens) in pages() {
        let answer = ask(server.address, &post(path, body.to_string().as_bytes())).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let tokens = server.pipeline.requests.lock().unwrap().pop().unwrap().tokens;
        let sampling = tokens.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.6, 20, top_p), "{path}");
        assert_eq!((tokens.penalties.repetition, tokens.penalties.last_tokens), (1.25, last_tokens), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_says_something_has_what_it_says() {
    let server = start().await;
    for (path, mut body, ..) in pages() {
        let said = json!({"temperature": 1, "top_k": 0, "repeat_penalty": 1, "seed": 3});
        match path.starts_with("/api/") {
            true => body["options"] = said,
            false => body.as_object_mut().unwrap().extend(said.as_object().unwrap().clone()),
        }
        let answer = ask(server.address, &post(path, body.to_string().as_bytes())).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let tokens = server.pipeline.requests.lock().unwrap().pop().unwrap().tokens;
        assert_eq!((tokens.sampling.temperature, tokens.sampling.top_k), (1.0, 0), "{path}");
        assert_eq!(tokens.penalties, engine::generate::Penalties::NONE, "{path}");
    }
}

#[tokio::test]
async fn clients_are_shown_the_models_sampling() {
    let server = start().await;
    let shown = json!({"temperature": 0.6, "top_k": 20, "repetition_penalty": 1.25});
    assert_eq!(get(server.address, &format!("/v1/models/{MODEL}")).await.json()["generation_config"], shown);
    assert_eq!(get(server.address, "/v1/models").await.json()["data"][0]["generation_config"], shown);
    let props = get(server.address, "/props").await.json();
    let params = &props["default_generation_settings"]["params"];
    assert_eq!((&params["temperature"], &params["top_k"]), (&json!(0.6), &json!(20)));
    assert_eq!((&params["repeat_penalty"], &params["repeat_last_n"]), (&json!(1.25), &json!(64)));
    let name = json!({"model": MODEL}).to_string();
    let show = ask(server.address, &post("/api/show", name.as_bytes())).await.json();
    let parameters = show["parameters"].as_str().unwrap();
    let words: Vec<_> = parameters.split_whitespace().collect();
    assert_eq!(words, ["temperature", "0.6", "top_k", "20", "repeat_penalty", "1.25"]);
    let body = json!({"input": "go", "max_output_tokens": 2, "top_p": 0.5}).to_string();
    let response = ask(server.address, &post("/v1/responses", body.as_bytes())).await.json();
    assert_eq!((&response["temperature"], &response["top_p"]), (&json!(0.6), &json!(0.5)));
}
