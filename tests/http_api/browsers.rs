//! Web pages that a user of this machine visits. Pages of other sites can neither use the API nor pretend to be it.

use engine::view::ClusterView;
use gateway::http::{AllowedHost, AllowedOrigin, Settings};
use schema::{ClusterName, Keyspace};
use serde_json::json;

use crate::client::{Answer, ask};
use crate::cluster::entry;
use crate::double::{RunningServer, start_default_server, start_server};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"go"}],"max_tokens":1}"#;

async fn send(server: &RunningServer, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    ask(server.address, format!("{method} {path} HTTP/1.1\r\n{headers}{length}\r\n{body}").as_bytes()).await
}

async fn chat_from(server: &RunningServer, origin: &str) -> Answer {
    // A browser sends this content type without a preflight request.
    let headers = format!("Host: localhost:8100\r\nOrigin: {origin}\r\nContent-Type: text/plain\r\n");
    send(server, "POST", "/v1/chat/completions", &headers, CHAT).await
}

fn started(server: &RunningServer) -> usize {
    server.pipeline.counts.borrow().started
}

#[tokio::test]
async fn a_page_of_this_machine_may_use_the_api_and_read_the_answer() {
    let server = start_default_server().await;
    for origin in ["http://localhost", "https://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:5173"] {
        let found = chat_from(&server, origin).await;
        assert_eq!(found.status, 200, "{}", found.text());
        assert_eq!(found.header("access-control-allow-origin"), Some(origin));
        assert_eq!(found.header("vary"), Some("Origin"));
        assert!(found.header("access-control-expose-headers").unwrap().contains("x-request-id"));
    }
}

#[tokio::test]
async fn a_foreign_origin_is_refused_before_any_work_and_the_error_names_the_setting() {
    let server = start_default_server().await;
    for origin in ["https://evil.example", "null", "http://localhost.evil.example", "http://10.0.0.9"] {
        let found = chat_from(&server, origin).await;
        assert_eq!((found.status, &found.json()["error"]["code"]), (403, &json!("origin_not_allowed")), "{origin}");
        let message = found.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(origin) && message.contains("--allow-origin"), "{message}");
        assert_eq!((found.header("access-control-allow-origin"), found.header("vary")), (None, Some("Origin")));
    }
    assert_eq!(started(&server), 0);
    let read = send(&server, "GET", "/v1/models", "Host: localhost\r\nOrigin: https://evil.example\r\n", "").await;
    assert_eq!((read.status, read.header("access-control-allow-origin")), (200, None), "the browser hides it");
}

#[tokio::test]
async fn a_preflight_from_a_foreign_origin_gets_no_cors_headers() {
    let server = start_default_server().await;
    let preflight_headers = |origin: &str| {
        format!(
            "Host: localhost\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: POST\r\n\
             Access-Control-Request-Headers: x-stainless-os\r\n"
        )
    };
    let granted =
        send(&server, "OPTIONS", "/v1/chat/completions", &preflight_headers("http://localhost:3000"), "").await;
    assert_eq!((granted.status, granted.header("access-control-allow-origin")), (204, Some("http://localhost:3000")));
    let headers = granted.header("access-control-allow-headers").unwrap();
    for name in ["authorization", "content-type", "x-stainless-os"] {
        assert!(headers.contains(name), "{name} is not in {headers}");
    }
    let refused =
        send(&server, "OPTIONS", "/v1/chat/completions", &preflight_headers("https://evil.example"), "").await;
    assert_eq!((refused.status, refused.header("allow")), (204, Some("POST")));
    assert!(!refused.head.to_ascii_lowercase().contains("access-control"), "{}", refused.head);
}

#[tokio::test]
async fn listed_origins_are_allowed_and_a_star_allows_all() {
    let listed: Vec<AllowedOrigin> = ["https://chat.example", "app://notes"].map(|text| text.parse().unwrap()).into();
    let server = start_server(Settings { allowed_origins: listed, ..Settings::default() }, 100).await;
    for origin in ["https://chat.example", "app://notes"] {
        let found = chat_from(&server, origin).await;
        assert_eq!((found.status, found.header("access-control-allow-origin")), (200, Some(origin)));
    }
    assert_eq!(chat_from(&server, "https://evil.example").await.status, 403);
    let server = start_server(Settings { allowed_origins: vec![AllowedOrigin::Any], ..Settings::default() }, 100).await;
    let found = chat_from(&server, "null").await;
    assert_eq!((found.status, found.header("access-control-allow-origin")), (200, Some("*")));
}

#[tokio::test]
async fn a_foreign_host_is_refused_and_the_error_names_the_setting() {
    let settings = Settings { own_hosts: vec!["Mini-1.lan".to_owned()], ..Settings::default() };
    let server = start_server(settings, 100).await;
    let port = server.address.port();
    for host in ["localhost", "127.0.0.1", "[::1]", "192.168.1.7", "[fd00::7]", "mini-1", "MINI-1.local", "mini-1.lan."]
    {
        for host in [host.to_owned(), format!("{host}:{port}")] {
            let found = send(&server, "GET", "/health", &format!("Host: {host}\r\n"), "").await;
            assert_eq!(found.status, 200, "{host}: {}", found.text());
        }
    }
    for host in ["evil.example", "localhost.evil.example:8100", "mini-2", "mini-1.evil.example", "127.0.0.1.nip.io"] {
        let found = send(&server, "POST", "/v1/chat/completions", &format!("Host: {host}\r\n"), CHAT).await;
        assert_eq!((found.status, &found.json()["error"]["code"]), (403, &json!("host_not_allowed")), "{host}");
        let message = found.json()["error"]["message"].as_str().unwrap().to_owned();
        let name = host.split(':').next().unwrap();
        assert!(message.contains(name) && message.contains(&format!("--allow-host {name}")), "{message}");
    }
    let found = send(&server, "GET", "http://evil.example/health", "Host: localhost\r\n", "").await;
    assert_eq!(found.status, 403, "the host of a whole address counts");
    assert_eq!(started(&server), 0);
}

#[tokio::test]
async fn listed_hosts_are_allowed_and_a_star_allows_all() {
    for (allowed, status) in [("chat.example", 200), ("*", 200), ("other.example", 403)] {
        let allowed_hosts: Vec<AllowedHost> = vec![allowed.parse().unwrap()];
        let server = start_server(Settings { allowed_hosts, ..Settings::default() }, 100).await;
        let found = send(&server, "GET", "/health", "Host: Chat.example\r\n", "").await;
        assert_eq!(found.status, status, "{allowed}");
    }
}

#[tokio::test]
async fn the_hosts_of_the_cluster_are_allowed() {
    let server = start_default_server().await;
    let stage = json!({
        "endpoint": "tcp://stage-address.example:7001", "host": "mini-2.lan", "pid": 42, "version": "0.1.0",
        "device": "cpu", "chip": "", "threads": 4, "memory_total_bytes": 16_000, "memory_budget_bytes": 12_000,
        "speed": {}, "load": {
            "memory": {"rss_bytes": 1, "pss_bytes": 1, "pss_file_bytes": 1, "pss_anonymous_bytes": 1,
                "weights_resident_bytes": 1},
            "tokens_total": 1, "tokens_per_second": 1.0, "busy": 0.5, "frames_refused": 1
        }
    });
    let gateway = json!({
        "endpoint": "tcp://[fd00::3]:7001", "url": "http://models.example:8100", "host": "mini-3", "pid": 7,
        "version": "0.1.0"
    });
    let entries = [("stages/a", stage.to_string()), ("gateways/0", gateway.to_string())];
    let entries = entries.map(|(key, value)| entry(key, value));
    let keyspace = Keyspace::new(&"home".parse::<ClusterName>().unwrap());
    let view = ClusterView::new(&keyspace, None, 9, &entries);
    assert_eq!((view.stages.len(), view.gateways.len()), (1, 1), "{:?}", view.complaints);
    for (host, known) in [
        ("models.example:8100", 200),
        ("mini-3.local", 200),
        ("mini-2", 200),
        ("stage-address.example", 200),
        ("mini-4", 403),
        ("example", 403),
    ] {
        let request = format!("Host: {host}\r\n");
        assert_eq!(send(&server, "GET", "/health", &request, "").await.status, 403, "{host} before it is known");
        *server.pipeline.view.lock().unwrap() = view.clone();
        assert_eq!(send(&server, "GET", "/health", &request, "").await.status, known, "{host}");
        *server.pipeline.view.lock().unwrap() = ClusterView::default();
    }
}

#[tokio::test]
async fn http_1_1_requires_exactly_one_host() {
    let server = start_default_server().await;
    for headers in ["", "Host: localhost\r\nHost: localhost\r\n", "Host: caf\u{e9}\r\n"] {
        let found = send(&server, "GET", "/health", headers, "").await;
        assert_eq!((found.status, &found.json()["error"]["code"]), (400, &json!("invalid_host")), "{headers:?}");
    }
    assert_eq!(ask(server.address, b"GET /health HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(send(&server, "GET", "/health", "Host:\r\n", "").await.status, 200, "no browser sends that");
}
