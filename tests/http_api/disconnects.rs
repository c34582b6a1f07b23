//! Clients that close the connection or do not read.

use std::time::Duration;

use gateway::http::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::client::{connect, get, post, read_until};
use crate::double::{CONTEXT_TOKENS, start_default_server, start_server};

fn request(stream: bool, choices: u32) -> Vec<u8> {
    let body = json!({"prompt": "ab", "stream": stream, "ignore_eos": true, "max_tokens": 400, "n": choices});
    post("/v1/completions", body.to_string().as_bytes())
}

#[tokio::test]
async fn a_disconnect_in_a_stream_cancels_the_sequence() {
    let server = start_server(Settings::default(), 3).await;
    let mut stream = connect(server.address).await;
    stream.write_all(&request(true, 1)).await.unwrap();
    read_until(&mut stream, "data: ").await;
    drop(stream);
    server.until(|counts| counts.cancelled == 1).await;
}

#[tokio::test]
async fn a_disconnect_before_a_whole_answer_cancels_the_sequences() {
    let server = start_server(Settings::default(), 3).await;
    let mut stream = connect(server.address).await;
    stream.write_all(&request(false, 3)).await.unwrap();
    server.until(|counts| counts.started == 3).await;
    drop(stream);
    server.until(|counts| counts.cancelled == 3).await;
    assert_eq!(get(server.address, "/health").await.status, 200);
}

#[tokio::test]
async fn a_disconnect_with_pipelined_requests_cancels_the_sequence() {
    let server = start_server(Settings::default(), 3).await;
    for streamed in [false, true] {
        let mut stream = connect(server.address).await;
        stream.write_all(&[request(streamed, 1), request(streamed, 1)].concat()).await.unwrap();
        let earlier = usize::from(streamed);
        server.until(|counts| counts.started == earlier + 1).await;
        drop(stream);
        server.until(|counts| counts.cancelled == earlier + 1).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stalls_only_itself_until_the_timeout() {
    let server =
        start_server(Settings { stall_time: Duration::from_millis(300), ..Settings::default() }, usize::MAX >> 3).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stalled = socket.connect(server.address).await.unwrap();
    // More events than all buffers on the way hold, so the sequences cannot finish unless the client reads.
    let body = json!({"prompt": vec!["ab"; 16], "stream": true, "ignore_eos": true, "max_tokens": CONTEXT_TOKENS});
    let request = post("/v1/completions", body.to_string().as_bytes());
    stalled.write_all(&request.repeat(8)).await.unwrap();
    server.until(|counts| counts.started >= 16).await;
    let other = post("/v1/completions", json!({"prompt": "b", "max_tokens": 4}).to_string().as_bytes());
    assert_eq!(crate::client::ask(server.address, &other).await.status, 200);
    server.until(|counts| counts.cancelled > 0 && counts.cancelled + counts.finished == counts.started).await;
    drop(stalled);
}

#[tokio::test]
async fn an_incomplete_request_starts_no_sequence() {
    let server = start_default_server().await;
    let whole = request(false, 1);
    for sent in [1, 20, whole.len() - 1] {
        let mut stream = connect(server.address).await;
        stream.write_all(&whole[..sent]).await.unwrap();
        drop(stream);
    }
    assert_eq!(get(server.address, "/health").await.status, 200);
    assert_eq!(server.pipeline.counts.borrow().started, 0);
}
