//! API keys: who gets in, how often, and under which name.

use std::num::NonZeroU32;
use std::time::Duration;

use gateway::http::{AccessControl, GivenKey, KeyLimits, KeyRing, Limit, Settings, parse_key, parse_key_file};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use crate::client::{Answer, answer, ask, connect, get, plain, post, read_until, with_headers};
use crate::double::{RunningServer, start_closed_server};

pub const ALICE: &str = "alice-alice-alice";
const BOB: &str = "bob-bob-bob-bob-bob";
const CHAT: &str = r#"{"messages":[{"role":"user","content":"go"}],"max_tokens":1}"#;
/// Longest time of an answer that comes at once.
const AT_ONCE: Duration = Duration::from_millis(500);

fn at_most(number: u32) -> Limit {
    Limit::AtMost(NonZeroU32::new(number).unwrap())
}

fn control(keys: Vec<GivenKey>, limits: KeyLimits) -> AccessControl {
    AccessControl::new(KeyRing::new(keys, limits).unwrap())
}

/// Two keys: alice's, and one of bob with a limit of its own.
pub fn two_keys(limits: KeyLimits) -> AccessControl {
    let bob = parse_key_file(&format!("bob:{BOB} requests_per_minute=2")).unwrap();
    control([vec![parse_key(&format!("alice:{ALICE}")).unwrap()], bob].concat(), limits)
}

async fn start(limits: KeyLimits, permits: usize) -> RunningServer {
    start_closed_server(Settings::default(), two_keys(limits), None, permits).await
}

pub fn bearer(secret: &str) -> String {
    format!("Authorization: Bearer {secret}\r\n")
}

async fn send(server: &RunningServer, method: &str, path: &str, headers: &str) -> Answer {
    let request = if method == "POST" { post(path, CHAT.as_bytes()) } else { plain(method, path) };
    ask(server.address, &with_headers(&request, headers)).await
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn without_a_right_key_every_page_but_health_is_closed() {
    let server = start(KeyLimits::default(), 1000).await;
    let wrong = bearer("mallory-mallory-mallory");
    for (method, path) in [
        ("GET", "/"),
        ("GET", "/metrics"),
        ("GET", "/v1/models"),
        ("GET", "/distributed/status"),
        ("GET", "/nowhere"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/completions"),
        ("DELETE", "/v1/models"),
    ] {
        for headers in ["", &wrong, "x-api-key: mallory-mallory-mallory\r\n", "Authorization: Basic YWxpY2U=\r\n"] {
            let found = send(&server, method, path, headers).await;
            assert_eq!(code(&found), (401, "invalid_api_key".to_owned()), "{method} {path} {headers:?}");
            assert_eq!(found.header("www-authenticate"), Some("Bearer"));
            assert_eq!(found.json()["error"]["type"], "invalid_request_error");
            assert!(found.header("x-request-id").is_some() && !found.text().contains("mallory"), "{}", found.text());
        }
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0);
    assert_eq!(get(server.address, "/health").await.status, 200);
    let head = send(&server, "HEAD", "/metrics", "").await;
    assert_eq!((head.status, head.header("www-authenticate")), (401, Some("Bearer")));
}

#[tokio::test]
async fn each_of_several_keys_opens_in_either_header() {
    let server = start(KeyLimits::default(), 1000).await;
    for headers in [bearer(ALICE), bearer(BOB), format!("X-Api-Key: {ALICE}\r\n")] {
        let found = send(&server, "POST", "/v1/chat/completions", &headers).await;
        assert_eq!(found.status, 200, "{headers:?}: {}", found.text());
    }
    assert_eq!(server.pipeline.counts.borrow().started, 3);
}

#[tokio::test]
async fn requests_are_counted_by_the_name_of_their_key() {
    let server = start(KeyLimits::default(), 1000).await;
    send(&server, "GET", "/v1/models", &bearer(ALICE)).await;
    send(&server, "GET", "/nowhere", &bearer(BOB)).await;
    send(&server, "GET", "/v1/models", &bearer(BOB)).await;
    send(&server, "GET", "/v1/models", &bearer(BOB)).await;
    send(&server, "GET", "/v1/models", "").await;
    get(server.address, "/health").await;
    let page = send(&server, "GET", "/metrics", &bearer(ALICE)).await.text();
    for line in [
        r#"baton_http_requests_total{code="200",key="alice"} 1"#,
        r#"baton_http_requests_total{code="404",key="bob"} 1"#,
        r#"baton_http_requests_total{code="200",key="bob"} 1"#,
        r#"baton_http_requests_total{code="429",key="bob"} 1"#,
        r#"baton_http_requests_limited_total{key="bob",limit="requests_per_minute"} 1"#,
        r#"baton_http_requests_total{code="401",key=""} 1"#,
        r#"baton_http_requests_total{code="200",key=""} 1"#,
        r#"baton_http_requests_running{key="alice"} 1"#,
        r#"baton_http_requests_running{key="bob"} 0"#,
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in {page}");
    }
    assert!(!page.contains(ALICE) && !page.contains(BOB));
}

#[tokio::test]
async fn a_key_over_its_rate_gets_429_and_the_other_keys_go_on() {
    let server = start(KeyLimits { requests_per_minute: at_most(3), ..KeyLimits::default() }, 1000).await;
    for (secret, limit, wait) in [(BOB, 2, 30), (ALICE, 3, 20)] {
        for _ in 0..limit {
            assert_eq!(send(&server, "GET", "/v1/models", &bearer(secret)).await.status, 200);
        }
        let refused = send(&server, "POST", "/v1/chat/completions", &bearer(secret)).await;
        assert_eq!(code(&refused), (429, "rate_limit_exceeded".to_owned()), "{}", refused.text());
        let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        // The machine may have taken a while for the requests before.
        assert!((wait - 5..=wait).contains(&retry_after), "{retry_after}");
        assert!(refused.text().contains(&format!("{limit} requests per minute")), "{}", refused.text());
    }
    assert_eq!(server.pipeline.counts.borrow().started, 0, "a refused request makes no work");
    assert_eq!(get(server.address, "/health").await.status, 200);
}

#[tokio::test]
async fn a_key_over_its_concurrency_gets_429_until_a_stream_has_ended() {
    let server = start(KeyLimits { concurrent_requests: at_most(2), ..KeyLimits::default() }, 0).await;
    let messages = json!([{"role": "user", "content": "go"}]);
    let body = json!({"messages": messages, "stream": true, "max_tokens": 3, "ignore_eos": true});
    let request = with_headers(&post("/v1/chat/completions", body.to_string().as_bytes()), &bearer(ALICE));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(server.address).await;
        stream.write_all(&request).await.unwrap();
        // The head is there, and the answer is not at its end.
        read_until(&mut stream, "\r\n\r\n").await;
        streams.push(stream);
    }
    let refused = send(&server, "GET", "/v1/models", &bearer(ALICE)).await;
    assert_eq!(code(&refused), (429, "rate_limit_exceeded".to_owned()), "{}", refused.text());
    assert!(refused.header("retry-after").is_some() && refused.text().contains("2 requests at the same time"));
    assert_eq!(send(&server, "GET", "/v1/models", &bearer(BOB)).await.status, 200, "another key has its own places");

    // A client that goes away gives its place back, and so does an answer that ends.
    drop(streams.pop());
    until_admitted(&server).await;
    server.pipeline.permits.add_permits(100);
    read_until(&mut streams[0], "data: [DONE]").await;
    until_admitted(&server).await;
    let page = send(&server, "GET", "/metrics", &bearer(ALICE)).await.text();
    assert!(page.contains(r#"limit="concurrent_requests""#), "{page}");
}

/// Waits until a request of alice is admitted. The server notices a closed connection within a second or two.
async fn until_admitted(server: &RunningServer) {
    let began = Instant::now();
    while send(server, "GET", "/v1/models", &bearer(ALICE)).await.status != 200 {
        assert!(began.elapsed() < Duration::from_secs(10), "its place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_request_without_a_key_is_refused_before_its_body_comes() {
    let server = start(KeyLimits::default(), 1000).await;
    for (bytes, kept) in [(100, true), (4_000_000, false), (100_000_000_000_u64, false)] {
        let mut stream = connect(server.address).await;
        let began = Instant::now();
        let head = format!("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let found = answer(&mut stream, false).await;
        assert_eq!(code(&found), (401, "invalid_api_key".to_owned()), "and not 413: {}", found.text());
        assert!(began.elapsed() < AT_ONCE, "{bytes}: {:?}", began.elapsed());
        assert_eq!(found.header("connection") != Some("close"), kept, "{bytes}");
    }
}

#[tokio::test]
async fn a_web_page_may_ask_before_it_sends_its_key_and_may_read_the_refusal() {
    let server = start(KeyLimits::default(), 1000).await;
    let origin = "Origin: http://localhost:3000\r\n";
    let preflight = send(
        &server,
        "OPTIONS",
        "/v1/chat/completions",
        &format!("{origin}Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: authorization\r\n"),
    )
    .await;
    assert_eq!(preflight.status, 204);
    let headers = preflight.header("access-control-allow-headers").unwrap();
    assert!(headers.contains("authorization") && headers.contains("x-api-key"), "{headers}");
    let refused = send(&server, "POST", "/v1/chat/completions", origin).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("http://localhost:3000")));
    let foreign =
        send(&server, "POST", "/v1/chat/completions", &format!("Origin: https://evil.example\r\n{}", bearer(BOB)))
            .await;
    assert_eq!(foreign.status, 403, "a key does not make a foreign page a known one");
    for _ in 0..2 {
        assert_eq!(send(&server, "GET", "/v1/models", &bearer(BOB)).await.status, 200, "that page used nothing up");
    }
}
