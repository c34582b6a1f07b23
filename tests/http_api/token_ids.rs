//! The ids of tokens in OpenAI's answers: `return_token_ids` and `return_tokens_as_token_ids`, as vLLM has them.

use schema::frame::Sampling;
use serde_json::{Value, json};

use crate::client::{Answer, chat, complete};
use crate::double::{END, chat_tokens, expected, greedy, start_default_server};

/// The tokens of the answer to `prompt`.
fn answer_tokens(prompt: &[u32], sampling: &Sampling, tokens_max: usize) -> Vec<u32> {
    let (text, _, stopped) = expected(prompt, sampling, tokens_max);
    text.bytes().map(u32::from).chain(stopped.then_some(END)).collect()
}

fn bytes(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

/// Of a stream, the values of `key` in the chunks (`true`) or in their choices, in order, by choice.
fn streamed(answer: &Answer, key: &str, choices: usize) -> Vec<Vec<u64>> {
    let mut found = vec![Vec::new(); choices];
    for chunk in answer.chunks() {
        for choice in chunk["choices"].as_array().unwrap() {
            let ids = choice[key].as_array().into_iter().flatten().map(|id| id.as_u64().unwrap());
            found[choice["index"].as_u64().unwrap() as usize].extend(ids);
        }
    }
    found
}

#[tokio::test]
async fn a_chat_has_the_tokens_of_its_prompt_and_of_each_choice() {
    let server = start_default_server().await;
    let mut body = json!({
        "messages": [{"role": "user", "content": "go"}], "n": 2, "seed": 5, "temperature": 0.7, "max_tokens": 90,
        "return_token_ids": true
    });
    let prompt = chat_tokens(&[("user", "go")]);
    let sampling = |choice| Sampling { temperature: 0.7, seed: 5, choice, ..greedy() };
    let tokens = [0, 1].map(|choice| answer_tokens(&prompt, &sampling(choice), 90));
    assert!(tokens.iter().any(|tokens| tokens.last() == Some(&END)), "choose another seed: no stop token comes");
    let json = chat(server.address, &body).await.json();
    assert_eq!(json["prompt_token_ids"], json!(prompt));
    for choice in [0, 1] {
        assert_eq!(json["choices"][choice]["token_ids"], json!(tokens[choice]));
        assert_eq!(json["choices"][choice].get("prompt_token_ids"), None);
    }
    body["stream"] = true.into();
    let stream = chat(server.address, &body).await;
    assert_eq!(json!(streamed(&stream, "token_ids", 2)), json!(tokens));
    let of_prompt: Vec<_> =
        stream.chunks().into_iter().filter_map(|chunk| chunk.get("prompt_token_ids").cloned()).collect();
    assert_eq!(of_prompt, [json!(prompt)], "once, for all choices");
}

#[tokio::test]
async fn a_completion_has_the_tokens_of_the_prompt_in_each_choice() {
    let server = start_default_server().await;
    let prompts = ["one", "two"].map(bytes);
    let mut body = json!({
        "prompt": prompts, "n": 2, "temperature": 0, "max_tokens": 8, "ignore_eos": true, "return_token_ids": true
    });
    let json = complete(server.address, &body).await.json();
    for choice in 0..4 {
        let prompt = &prompts[choice / 2];
        assert_eq!(json["choices"][choice]["prompt_token_ids"], json!(prompt));
        assert_eq!(json["choices"][choice]["token_ids"].as_array().unwrap().len(), 8);
    }
    assert_eq!(json.get("prompt_token_ids"), None);
    body["stream"] = true.into();
    let stream = complete(server.address, &body).await;
    let whole = |key: &str| Value::from_iter((0..4).map(|choice| json["choices"][choice][key].clone()));
    assert_eq!(json!(streamed(&stream, "token_ids", 4)), whole("token_ids"));
    assert_eq!(json!(streamed(&stream, "prompt_token_ids", 4)), whole("prompt_token_ids"));
}

#[tokio::test]
async fn the_tokens_of_calls_and_of_text_that_is_held_back_are_in_the_stream_too() {
    let server = start_default_server().await;
    let script = "Hm. <tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1}}\n</tool_call>";
    *server.pipeline.script.lock().unwrap() = Some(script.to_owned());
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "stream": true, "return_token_ids": true, "logprobs": true,
        "tools": [{"type": "function", "function": {"name": "add"}}]
    });
    let stream = chat(server.address, &body).await;
    let tokens: Vec<_> = script.bytes().map(u32::from).chain([END]).collect();
    assert_eq!(json!(streamed(&stream, "token_ids", 1)), json!([tokens]));
}

#[tokio::test]
async fn without_being_asked_for_no_answer_has_ids() {
    let server = start_default_server().await;
    for stream in [false, true] {
        let body = json!({
            "messages": [{"role": "user", "content": "go"}], "prompt": "go", "max_tokens": 3, "stream": stream,
            "return_token_ids": false
        });
        assert!(!chat(server.address, &body).await.text().contains("token_ids"));
        assert!(!complete(server.address, &body).await.text().contains("token_ids"));
    }
}

#[tokio::test]
async fn log_probabilities_name_tokens_by_their_ids_on_request() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "logprobs": true, "top_logprobs": 1, "temperature": 0,
        "max_tokens": 3, "ignore_eos": true, "return_tokens_as_token_ids": true
    });
    let json = chat(server.address, &body).await.json();
    for entry in json["choices"][0]["logprobs"]["content"].as_array().unwrap() {
        assert_eq!(entry["token"], format!("token_id:{}", entry["bytes"][0]));
        assert_eq!(entry["top_logprobs"][0]["token"], "token_id:97");
    }
    let body = json!({
        "prompt": "go", "logprobs": 1, "temperature": 0, "max_tokens": 3, "ignore_eos": true,
        "return_tokens_as_token_ids": true
    });
    let logprobs = complete(server.address, &body).await.json()["choices"][0]["logprobs"].clone();
    let names: Vec<_> = logprobs["token_ids"].as_array().unwrap().iter().map(|id| format!("token_id:{id}")).collect();
    assert_eq!(logprobs["tokens"], json!(names));
    assert_eq!(logprobs["text_offset"], json!([0, 1, 2]));
    assert!(logprobs["top_logprobs"][0].get("token_id:97").is_some(), "{logprobs}");
}
