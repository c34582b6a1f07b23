//! Clients that close the connection or do not read.

use std::time::Duration;

use gateway::http::Settings;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::client::{connect, get, post, read_until};
use crate::double::{CONTEXT_TOKENS, open, open_wide};

fn request(stream: bool, choices: u32) -> Vec<u8> {
    let body = json!({"prompt": "ab", "stream": stream, "ignore_eos": true, "max_tokens": 400, "n": choices});
    post("/v1/completions", body.to_string().as_bytes())
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_stops_its_work() {
    let client = open(Settings::default(), 3).await;
    let mut stream = connect(client.address).await;
    stream.write_all(&request(true, 1)).await.unwrap();
    read_until(&mut stream, "data: ").await;
    drop(stream);
    client.until(|counts| counts.cancelled == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_a_whole_answer_stops_its_work() {
    let client = open(Settings::default(), 3).await;
    let mut stream = connect(client.address).await;
    stream.write_all(&request(false, 3)).await.unwrap();
    client.until(|counts| counts.started == 3).await;
    drop(stream);
    client.until(|counts| counts.cancelled == 3).await;
    assert_eq!(get(client.address, "/health").await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_with_more_requests_sent_stops_its_work() {
    let client = open(Settings::default(), 3).await;
    for streamed in [false, true] {
        let mut stream = connect(client.address).await;
        stream.write_all(&[request(streamed, 1), request(streamed, 1)].concat()).await.unwrap();
        let earlier = usize::from(streamed);
        client.until(|counts| counts.started == earlier + 1).await;
        drop(stream);
        client.until(|counts| counts.cancelled == earlier + 1).await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_only_itself_and_not_for_ever() {
    let client =
        open(Settings { stall_time: Duration::from_millis(300), ..Settings::default() }, usize::MAX >> 3).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut deaf = socket.connect(client.address).await.unwrap();
    // More events than all buffers on the way hold, so the sequences cannot finish unless the client reads.
    let body = json!({"prompt": vec!["ab"; 16], "stream": true, "ignore_eos": true, "max_tokens": CONTEXT_TOKENS});
    let request = post("/v1/completions", body.to_string().as_bytes());
    deaf.write_all(&request.repeat(8)).await.unwrap();
    client.until(|counts| counts.started >= 16).await;
    let other = post("/v1/completions", json!({"prompt": "b", "max_tokens": 4}).to_string().as_bytes());
    assert_eq!(crate::client::ask(client.address, &other).await.status, 200);
    client.until(|counts| counts.cancelled > 0 && counts.cancelled + counts.finished == counts.started).await;
    drop(deaf);
}

#[tokio::test]
async fn a_request_that_breaks_off_leaves_nothing_behind() {
    let client = open_wide().await;
    let whole = request(false, 1);
    for sent in [1, 20, whole.len() - 1] {
        let mut stream = connect(client.address).await;
        stream.write_all(&whole[..sent]).await.unwrap();
        drop(stream);
    }
    assert_eq!(get(client.address, "/health").await.status, 200);
    assert_eq!(client.pipeline.counts.borrow().started, 0);
}
