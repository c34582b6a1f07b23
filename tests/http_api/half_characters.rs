//! Answers that end in the middle of a character, in every dialect.

use serde_json::{Value, json};

use crate::client::{ask, post};
use crate::double::{MODEL, start_default_server};

/// The text that the model writes, one token for each byte: 1, 4, 2 and 1.
const TEXT: &str = "a🙂éb";

/// A page that generates: its body without a limit, the parameter of the limit, and the text's place in an answer.
struct Page {
    path: &'static str,
    body: Value,
    limit: &'static str,
    text: &'static str,
}

fn pages() -> Vec<Page> {
    let messages = json!([{"role": "user", "content": "go"}]);
    let page = |path, body, limit, text| Page { path, body, limit, text };
    vec![
        page("/v1/chat/completions", json!({"messages": messages}), "/max_tokens", "/choices/0/message/content"),
        page("/v1/completions", json!({"prompt": "go"}), "/max_tokens", "/choices/0/text"),
        page("/v1/responses", json!({"input": "go"}), "/max_output_tokens", "/output/0/content/0/text"),
        page("/v1/messages", json!({"messages": messages}), "/max_tokens", "/content/0/text"),
        page("/api/chat", json!({"model": MODEL, "messages": messages}), "/options/num_predict", "/message/content"),
        page("/api/generate", json!({"model": MODEL, "prompt": "go"}), "/options/num_predict", "/response"),
        page("/infill", json!({"input_prefix": "go", "input_suffix": "on"}), "/n_predict", "/content"),
    ]
}

impl Page {
    fn request(&self, limit: usize, stream: bool) -> Vec<u8> {
        let mut body = self.body.clone();
        body["stream"] = stream.into();
        match self.limit.strip_prefix("/options/") {
            Some(option) => body["options"] = json!({option: limit}),
            None => body[&self.limit[1..]] = limit.into(),
        }
        post(self.path, body.to_string().as_bytes())
    }
}

#[tokio::test]
async fn half_a_character_at_the_limit_is_no_text() {
    let server = start_default_server().await;
    *server.pipeline.script.lock().unwrap() = Some(TEXT.to_owned());
    for page in pages() {
        for limit in 1..=TEXT.len() {
            let whole = (0..=limit).rev().find_map(|end| TEXT.get(..end)).unwrap();
            let answer = ask(server.address, &page.request(limit, false)).await;
            let json = answer.json();
            assert_eq!(answer.status, 200, "{}: {json}", page.path);
            assert_eq!(json.pointer(page.text), Some(&json!(whole)), "{} of {limit}: {json}", page.path);
            let stream = ask(server.address, &page.request(limit, true)).await.text();
            assert!(!stream.contains('\u{fffd}'), "{} of {limit}: {stream}", page.path);
            for character in TEXT.chars() {
                assert_eq!(stream.contains(&format!("\"{character}\"")), whole.contains(character), "{stream}");
            }
        }
    }
}

#[tokio::test]
async fn half_a_character_at_the_end_of_an_echoed_prompt_is_replaced_once_something_else_follows() {
    let server = start_default_server().await;
    *server.pipeline.script.lock().unwrap() = Some("é".to_owned());
    for (limit, text) in [(1, "a\u{fffd}"), (2, "a\u{fffd}é")] {
        let body = json!({"prompt": [97, 0xC3], "echo": true, "max_tokens": limit});
        let json = ask(server.address, &post("/v1/completions", body.to_string().as_bytes())).await.json();
        assert_eq!(json["choices"][0]["text"], text);
    }
}
