//! `return_progress`, as llama.cpp's server has it: a stream says how much of its prompt is computed.

use std::sync::Arc;
use std::time::Duration;

use engine::generate::{SequencePhase, SequenceReport};
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use crate::client::{connect, post, read_until};
use crate::double::{RunningServer, SEQUENCE, start_server};

/// Reports that so many of the 100 tokens of a prompt are computed.
fn report(server: &RunningServer, computed_tokens: u32) {
    let report = SequenceReport {
        id: SEQUENCE,
        phase: SequencePhase::Prefill,
        prompt_tokens: 100,
        generated_tokens: 0,
        tokens_left: 10,
        sent_tokens: 100,
        computed_tokens,
        attempts: 1,
        age: Duration::ZERO,
        in_flight: 1,
        in_flight_for: Duration::ZERO,
        stages: Vec::new(),
    };
    *server.pipeline.reports.lock().unwrap() = Arc::new([report]);
}

async fn stream(server: &RunningServer, path: &str, body: Value) -> tokio::net::TcpStream {
    let mut stream = connect(server.address).await;
    stream.write_all(&post(path, body.to_string().as_bytes())).await.unwrap();
    stream
}

#[tokio::test]
async fn a_stream_that_asks_for_it_says_how_much_of_its_prompt_is_computed() {
    let chat = json!({"messages": [{"role": "user", "content": "go"}], "stream": true, "return_progress": true});
    let completion = json!({"prompt": "go", "stream": true, "return_progress": true});
    for (path, body) in [("/v1/chat/completions", chat), ("/v1/completions", completion)] {
        let server = start_server(Settings::default(), 0).await;
        report(&server, 40);
        let mut stream = stream(&server, path, body).await;
        let first = read_until(&mut stream, "\"processed\":40").await;
        assert!(first.contains("\"prompt_progress\":{\"total\":100,"), "{first}");
        report(&server, 80);
        // The same is not said twice: what comes next is new.
        let second = read_until(&mut stream, "\"processed\":80").await;
        assert!(!second.contains("\"processed\":40"), "{second}");
        server.pipeline.permits.add_permits(Semaphore::MAX_PERMITS / 2);
        let rest = read_until(&mut stream, "data: [DONE]").await;
        assert!(!rest.contains("prompt_progress") && rest.contains("\"finish_reason\":\""), "{rest}");
    }
}

#[tokio::test]
async fn nobody_else_hears_of_it_and_pings_go_on() {
    let server = start_server(Settings { ping_period: Duration::from_millis(600), ..Settings::default() }, 0).await;
    report(&server, 40);
    let body = json!({"messages": [{"role": "user", "content": "go"}], "stream": true});
    let silent = stream(&server, "/v1/chat/completions", body.clone());
    let found = read_until(&mut silent.await, ": ping\n\n").await;
    assert!(!found.contains("prompt_progress"), "{found}");
    // Once, and then pings, as nothing changes.
    let mut asking = body;
    asking["return_progress"] = json!(true);
    let found = read_until(&mut stream(&server, "/v1/chat/completions", asking).await, ": ping\n\n").await;
    assert_eq!(found.matches("prompt_progress").count(), 1, "{found}");
}
