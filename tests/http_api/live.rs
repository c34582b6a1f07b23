//! The live events and the pages for browsers, over a socket.

use std::time::Duration;

use engine::generate::PipelineStatus;
use gateway::http::Settings;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::client::{ask, connect, get, plain, post, with_headers};
use crate::double::{RunningServer, start_default_server, start_server};

/// A subscriber of events.
struct Subscriber {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

/// One event.
#[derive(Debug)]
struct Event {
    id: String,
    name: String,
    data: Value,
}

impl Subscriber {
    async fn open(server: &RunningServer, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let last = last.map(|id| format!("last-event-id: {id}\r\n")).unwrap_or_default();
        let head = format!("GET /distributed/events HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        Self { lines: BufReader::new(stream).lines() }
    }

    /// The next event of this name. The frames of the chunked body are skipped, since no field looks like one.
    async fn next(&mut self, name: &str) -> Event {
        let wanted = async {
            let mut event = Event { id: String::new(), name: String::new(), data: Value::Null };
            loop {
                let line = self.lines.next_line().await.unwrap().expect("the stream goes on");
                match line.split_once(": ") {
                    Some(("id", id)) => event.id = id.to_owned(),
                    Some(("event", name)) => event.name = name.to_owned(),
                    Some(("data", data)) => {
                        event.data = serde_json::from_str(data).unwrap();
                        if event.name == name {
                            return event;
                        }
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wanted).await.unwrap_or_else(|_| panic!("no event {name}"))
    }
}

#[tokio::test]
async fn events_begin_with_the_state_and_go_on_with_changes() {
    let server = start_default_server().await;
    let mut subscriber = Subscriber::open(&server, None).await;
    let state = subscriber.next("state").await.data;
    assert_eq!((&state["cluster"]["serving"], &state["requests"]), (&json!(true), &json!({})));
    assert_eq!((&state["controls"]["pins"], &state["series"]["columns"][0]), (&json!(false), &json!("t")));
    assert!(state["log"][0]["text"].as_str().unwrap().starts_with("This gateway started"), "{state}");
    *server.pipeline.status.lock().unwrap() =
        PipelineStatus { reason: "layers 3..6 are held by nobody".to_owned(), ..PipelineStatus::default() };
    let log = subscriber.next("log").await;
    assert_eq!(log.data[0]["text"], "The pipeline does not serve: layers 3..6 are held by nobody.");
    let patch = subscriber.next("patch").await;
    assert_eq!(patch.data["cluster"]["serving"], false);
    assert!(patch.data.get("requests").is_none(), "only what changed: {}", patch.data);
    let sample = subscriber.next("sample").await;
    assert_eq!(sample.data.as_array().unwrap().len(), state["series"]["columns"].as_array().unwrap().len());
}

#[tokio::test]
async fn a_subscriber_that_comes_back_goes_on_where_it_was() {
    let server = start_default_server().await;
    let state = Subscriber::open(&server, None).await.next("state").await;
    server.pipeline.status.lock().unwrap().serving = false;
    let mut back = Subscriber::open(&server, Some(&state.id)).await;
    let log = back.next("log").await;
    assert!(log.data[0]["text"].as_str().unwrap().starts_with("The pipeline does not serve"), "{log:?}");
    for unknown in ["nonsense", "0-1", &format!("{}99999", state.id)] {
        let mut again = Subscriber::open(&server, Some(unknown)).await;
        assert_eq!(again.next("state").await.data["cluster"]["serving"], false, "{unknown}");
    }
}

#[tokio::test]
async fn there_may_be_a_limited_number_of_subscribers() {
    let server = start_server(Settings::default(), 1).await;
    let mut subscribers = Vec::new();
    for _ in 0..128 {
        let mut subscriber = Subscriber::open(&server, None).await;
        subscriber.next("state").await;
        subscribers.push(subscriber);
    }
    let refused = get(server.address, "/distributed/events").await;
    assert_eq!(refused.status, 503);
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("128 streams"), "{}", refused.text());
    subscribers.pop();
    // The server may learn only a second later that a client has gone.
    let has_room = async {
        loop {
            let mut next = Subscriber::open(&server, None).await;
            if next.lines.next_line().await.unwrap().is_some_and(|status| status.ends_with("200 OK")) {
                return next.next("state").await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), has_room).await.expect("a place is free again");
}

#[tokio::test]
async fn browsers_get_the_dashboard_and_others_the_list() {
    let server = start_default_server().await;
    let page = ask(server.address, &with_headers(&plain("GET", "/"), "accept: text/html,*/*;q=0.8\r\n")).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("require-trusted-types-for 'script'"), "{policy}");
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    let tag = page.header("etag").unwrap().to_owned();
    let again = with_headers(&plain("GET", "/"), &format!("accept: text/html\r\nif-none-match: {tag}\r\n"));
    let (mut stream, mut start) = (connect(server.address).await, [0; 12]);
    stream.write_all(&again).await.unwrap();
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 304");
    assert_eq!(get(server.address, "/").await.header("content-type"), Some("text/plain; charset=utf-8"));
    for (path, kind) in [("/chat", "text/html"), ("/web/chat.js", "text/javascript"), ("/web/base.css", "text/css")] {
        let file = get(server.address, path).await;
        assert!(file.status == 200 && file.header("content-type").unwrap().starts_with(kind), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    assert_eq!(get(server.address, "/web/nothing.js").await.status, 404);
}

#[tokio::test]
async fn pins_are_not_written_where_the_setting_is_off() {
    let server = start_default_server().await;
    let body = br#"{"stage":"a","pin":{"layers":[0,4]},"seen":null}"#;
    let refused = ask(server.address, &post("/distributed/pins", body)).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("pins_not_allowed")));
    let plan = ask(server.address, &post("/distributed/plan", body)).await.json();
    assert_eq!(plan["plan"]["reason"], "the cluster has no model yet");
    let broken = ask(server.address, &post("/distributed/plan", b"{")).await;
    assert_eq!((broken.status, &broken.json()["error"]["code"]), (400, &json!("invalid_pin")));
}

#[tokio::test]
async fn drills_are_not_started_where_the_setting_is_off() {
    let server = start_default_server().await;
    let refused = ask(server.address, &post("/distributed/drill", br#"{"fault":"kill","stage":"a"}"#)).await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("drills_not_allowed")));
    assert_eq!(get(server.address, "/distributed/drill").await.json(), json!(null));
    let unknown = ask(server.address, &post("/distributed/drill", br#"{"fault":"cut"}"#)).await;
    assert_eq!((unknown.status, &unknown.json()["error"]["code"]), (400, &json!("invalid_drill")));
    let foreign = with_headers(&post("/distributed/drill", b"{}"), "origin: http://localhost:1\r\n");
    assert_eq!(ask(server.address, &foreign).await.json()["error"]["code"], "origin_not_allowed");
}
