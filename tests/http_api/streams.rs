//! Answers that are streamed as events.

use std::time::Duration;

use engine::generate::Failure;
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::client::{chat, complete, connect, post, read_to_end, read_until};
use crate::double::{MODEL, chat_tokens, expected, greedy, start_default_server, start_server, usage};

fn text_of(chunks: &[Value], choice: u64) -> String {
    let choices = chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
    let own = choices.filter(|one| one["index"] == choice);
    own.filter_map(|one| one["delta"]["content"].as_str().or(one["text"].as_str())).collect()
}

#[tokio::test]
async fn a_streamed_chat_is_the_whole_answer_in_pieces() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": 12, "stream": true
    });
    let answer = chat(server.address, &body).await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.header("content-length"), None);
    let chunks = answer.chunks();
    let (text, tokens, stopped) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 12);
    assert_eq!(text_of(&chunks, 0), text);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    for chunk in &chunks {
        assert_eq!((&chunk["object"], &chunk["model"]), (&json!("chat.completion.chunk"), &json!(MODEL)));
        assert_eq!((&chunk["id"], &chunk["created"]), (&chunks[0]["id"], &chunks[0]["created"]));
        assert_eq!(chunk["choices"].as_array().unwrap().len(), 1);
        assert!(chunk.get("usage").is_none());
    }
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk["choices"][0]["finish_reason"].is_null()));
    assert_eq!(last["choices"][0]["delta"], json!({}));
    assert_eq!(last["choices"][0]["finish_reason"], if stopped { "stop" } else { "length" });
    assert_eq!(last["timings"]["predicted_n"], tokens);
}

#[tokio::test]
async fn the_usage_comes_last_if_it_is_requested() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": 6, "n": 2,
        "stream": true, "stream_options": {"include_usage": true}
    });
    let chunks = chat(server.address, &body).await.chunks();
    let (text, tokens, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 6);
    assert_eq!((text_of(&chunks, 0), text_of(&chunks, 1)), (text.clone(), text));
    let (last, others) = chunks.split_last().unwrap();
    assert!(others.iter().all(|chunk| chunk["usage"].is_null() && chunk.get("usage").is_some()));
    assert_eq!(last["choices"], json!([]));
    let prompt = chat_tokens(&[("user", "go")]).len();
    assert_eq!(last["usage"], usage(&[prompt], 2, 2 * tokens));
    assert_eq!(last["timings"]["stages"][0]["stage"], "one");
    let endings = others.iter().filter(|chunk| !chunk["choices"][0]["finish_reason"].is_null()).count();
    assert_eq!(endings, 2);
}

#[tokio::test]
async fn every_chunk_has_the_usage_so_far_if_it_is_requested() {
    let server = start_default_server().await;
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "max_tokens": 6, "stream": true,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}
    });
    let chunks = chat(server.address, &body).await.chunks();
    let (_, tokens, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 6);
    let counted: Vec<_> =
        chunks.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().expect("a count")).collect();
    assert_eq!((counted[0], counted.last().copied()), (0, Some(tokens as u64)));
    assert!(counted.is_sorted(), "{counted:?}");
    let prompt = chat_tokens(&[("user", "go")]).len();
    assert!(chunks.iter().all(|chunk| chunk["usage"]["prompt_tokens"] == prompt));
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!((&last["choices"], last["usage"].clone()), (&json!([]), usage(&[prompt], 1, tokens)));
    assert!(others.iter().all(|chunk| chunk["choices"].as_array().unwrap().len() == 1));
    let alone =
        json!({"prompt": "ab", "max_tokens": 2, "stream": true, "stream_options": {"continuous_usage_stats": true}});
    assert!(complete(server.address, &alone).await.chunks().iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_streamed_completion_has_text_and_its_tokens_offsets() {
    let server = start_default_server().await;
    let body = json!({"prompt": "ab", "temperature": 0, "max_tokens": 6, "stream": true, "logprobs": 0});
    let chunks = complete(server.address, &body).await.chunks();
    let (text, _, _) = expected(&[97, 98], &greedy(), 6);
    assert_eq!(text_of(&chunks, 0), text);
    let offsets: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["text_offset"][0].as_u64()).collect();
    assert_eq!(offsets, (0..text.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
async fn no_part_of_a_stop_string_is_sent_in_a_stream() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&chat_tokens(&[("user", "go")]), &greedy(), 40);
    let stop = &whole[5..9];
    let cut = whole.find(stop).unwrap();
    let body = json!({
        "messages": [{"role": "user", "content": "go"}], "temperature": 0, "stream": true, "stop": stop
    });
    let chunks = chat(server.address, &body).await.chunks();
    assert_eq!(text_of(&chunks, 0), whole[..cut]);
    let last = chunks.last().unwrap();
    assert_eq!(last["choices"][0]["finish_reason"], "stop");
    assert_eq!(last["timings"]["predicted_n"], cut + 4);
}

#[tokio::test]
async fn an_incomplete_stop_string_is_sent_at_the_end() {
    let server = start_default_server().await;
    let (whole, _, _) = expected(&[97, 98], &greedy(), 8);
    let stop = format!("{}#", &whole[whole.len() - 2..]);
    let body = json!({"prompt": "ab", "temperature": 0, "max_tokens": 8, "stream": true, "stop": [stop]});
    assert_eq!(text_of(&complete(server.address, &body).await.chunks(), 0), whole);
}

#[tokio::test]
async fn the_role_is_sent_before_the_first_token_and_pings_while_none_comes() {
    let server = start_server(Settings { ping_period: Duration::from_millis(50), ..Settings::default() }, 0).await;
    let body =
        json!({"messages": [{"role": "user", "content": "go"}], "stream": true, "max_tokens": 2, "ignore_eos": true});
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/chat/completions", body.to_string().as_bytes())).await.unwrap();
    let opening = read_until(&mut stream, ": ping\n\n").await;
    assert!(opening.contains(r#""role":"assistant""#), "{opening}");
    assert!(!opening.contains("finish_reason\":\"length"), "{opening}");
    server.pipeline.permits.add_permits(Semaphore::MAX_PERMITS / 2);
    let rest = read_until(&mut stream, "[DONE]").await;
    assert!(rest.contains("finish_reason\":\"length"), "{rest}");
}

#[tokio::test]
async fn a_failure_in_a_running_stream_is_an_event() {
    let server = start_default_server().await;
    let failure = Failure::Stage { stage: "two".to_owned(), reason: "out of memory".to_owned() };
    *server.pipeline.failure.lock().unwrap() = Some((2, failure));
    let body = json!({"prompt": "ab", "temperature": 0, "stream": true, "ignore_eos": true});
    let answer = complete(server.address, &body).await;
    assert_eq!(answer.status, 200);
    let chunks = answer.chunks();
    let error = &chunks.last().unwrap()["error"];
    assert_eq!(error["code"], "stage_failed");
    assert_eq!(error["message"], "Stage two could not compute: out of memory.");
    assert_eq!(chunks.len(), 3);
}

#[tokio::test]
async fn an_error_before_the_first_event_is_a_json_response() {
    let server = start_default_server().await;
    let body = json!({"messages": [{"role": "user", "content": "x".repeat(600)}], "stream": true});
    let answer = chat(server.address, &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/json")));
    assert_eq!(answer.json()["error"]["code"], "context_length_exceeded");
}

#[tokio::test]
async fn a_server_that_stops_lets_a_running_stream_end() {
    let server = start_server(Settings { drain_time: Duration::from_secs(10), ..Settings::default() }, 1).await;
    let body = json!({"prompt": "ab", "stream": true, "ignore_eos": true, "max_tokens": 4});
    let mut idle = connect(server.address).await;
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/completions", body.to_string().as_bytes())).await.unwrap();
    read_until(&mut stream, "data: ").await;
    server.stop.send(()).unwrap();
    // The idle connection is closed at once, so the server has received the order to stop.
    assert_eq!(read_to_end(&mut idle).await, "");
    assert!(!server.serving.is_finished());
    server.pipeline.permits.add_permits(100);
    let rest = read_to_end(&mut stream).await;
    assert!(rest.contains("[DONE]"), "{rest}");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn a_server_that_stops_cuts_off_a_stream_after_the_drain_time() {
    let server = start_server(Settings { drain_time: Duration::from_millis(50), ..Settings::default() }, 1).await;
    let body = json!({"prompt": "ab", "stream": true, "ignore_eos": true});
    let mut stream = connect(server.address).await;
    stream.write_all(&post("/v1/completions", body.to_string().as_bytes())).await.unwrap();
    read_until(&mut stream, "data: ").await;
    server.stop.send(()).unwrap();
    server.serving.await.unwrap();
    assert!(!read_to_end(&mut stream).await.contains("[DONE]"));
    let mut counts = server.pipeline.counts.subscribe();
    counts.wait_for(|counts| counts.cancelled == 1).await.unwrap();
}
