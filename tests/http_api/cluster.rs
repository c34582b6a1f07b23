//! The endpoints about the cluster. They show the state of the pipeline and of the store, and nothing else.

use engine::generate::PipelineStatus;
use engine::store::{Entry, Revision};
use engine::view::ClusterView;
use schema::record::KvBlocks;
use schema::{ClusterName, Keyspace};
use serde_json::{Value, json};

use crate::client::get;
use crate::double::{MODEL, start_default_server};

fn view() -> ClusterView {
    let keyspace = Keyspace::new(&"home".parse::<ClusterName>().unwrap());
    let stage = |host: &str| {
        json!({
            "endpoint": format!("tcp://{host}:7001"), "host": host, "pid": 42, "version": "0.1.0", "device": "metal",
            "chip": "Apple M4", "threads": 4, "memory_total_bytes": 16_000, "memory_budget_bytes": 12_000,
            "speed": {"Q4_1": {"bytes_per_second": 9_000, "multiplications_per_second": 70_000}},
            "load": {
                "memory": {
                    "rss_bytes": 900, "pss_bytes": 800, "pss_file_bytes": 700, "pss_anonymous_bytes": 100,
                    "weights_resident_bytes": 650
                },
                "tokens_total": 77, "tokens_per_second": 12.5, "busy": 0.5, "frames_refused": 1
            }
        })
    };
    let claim = json!({
        "stage": "a", "layers": [0, 3], "endpoint": "tcp://one:7001", "state": "serving", "memory_bound_bytes": 1000,
        "weights_bytes": 650, "copied_bytes": 50, "kv_blocks": 8, "kv_block_tokens": 32
    });
    let placement =
        json!({"generation": 4, "shards": [{"layers": [0, 3], "stage": "a"}, {"layers": [3, 6], "stage": "b"}]});
    let entries = [
        ("stages/a", stage("one").to_string()),
        ("stages/c", stage("three").to_string()),
        ("placement", placement.to_string()),
        ("claims/4/0", claim.to_string()),
        ("pins/a", r#"{"layers": [0, 3]}"#.to_owned()),
        ("pins/b", "{broken".to_owned()),
        ("pins-status/a", r#"{"honoured":false,"reason":"layer 9 is unhappy","pin_revision":9}"#.to_owned()),
    ];
    let entries = entries.map(|(key, value)| entry(key, value));
    ClusterView::new(&keyspace, None, 9, &entries)
}

/// The store's entry at `key` in the cluster `home`.
pub(crate) fn entry(key: &str, value: String) -> Entry {
    let key = format!("/baton/v1/home/{key}");
    Entry { key, value: value.into_bytes(), mod_revision: Revision(9), lease: None }
}

#[tokio::test]
async fn health_is_ok_exactly_when_the_pipeline_serves() {
    let server = start_default_server().await;
    let healthy = get(server.address, "/health").await;
    assert_eq!((healthy.status, healthy.json()), (200, json!({"status": "ok"})));
    server.pipeline.status.lock().unwrap().store_reachable = false;
    let without_store = get(server.address, "/health").await;
    assert_eq!(without_store.status, 200);
    assert!(without_store.json()["note"].as_str().unwrap().contains("store"));
    *server.pipeline.status.lock().unwrap() = PipelineStatus {
        reason: "layers 3..6 are held by nobody: stage b is gone".to_owned(),
        missing_layers: vec![[3, 6]],
        store_reachable: true,
        ..PipelineStatus::default()
    };
    let unavailable = get(server.address, "/health").await;
    assert_eq!((unavailable.status, unavailable.header("retry-after")), (503, Some("2")));
    assert_eq!(unavailable.json()["missing_layers"], json!([[3, 6]]));
    assert_eq!(unavailable.json()["error"]["type"], "unavailable_error");
    assert!(unavailable.json()["error"]["message"].as_str().unwrap().contains("layers 3..6 are held by nobody"));
}

#[tokio::test]
async fn the_status_shows_every_stage_with_what_it_measured() {
    let server = start_default_server().await;
    *server.pipeline.view.lock().unwrap() = view();
    {
        let mut status = server.pipeline.status.lock().unwrap();
        status.kv_blocks = KvBlocks { full: 9, window: 4 };
        status.kv_blocks_used = KvBlocks { full: 2, window: 1 };
    }
    let json = get(server.address, "/distributed/status").await.json();
    assert_eq!((&json["generation"], &json["store"]["reachable"]), (&json!(4), &json!(true)));
    assert_eq!(json["placement"]["shards"][1], json!({"slot": 1, "layers": [3, 6], "stage": "b"}));
    let states: Vec<_> =
        json["stages"].as_array().unwrap().iter().map(|stage| (&stage["name"], &stage["state"])).collect();
    let expected = [(json!("a"), json!("serving")), (json!("b"), json!("gone")), (json!("c"), json!("standby"))];
    assert_eq!(states, expected.iter().map(|(name, state)| (name, state)).collect::<Vec<_>>());
    let stage = &json["stages"][0];
    assert_eq!(
        (&stage["host"], &stage["layers"], &stage["pinned"]),
        (&json!("one"), &json!([0, 3]), &json!({"layers": [0, 3]}))
    );
    assert_eq!((&stage["memory"]["bound_bytes"], &stage["memory"]["copied_bytes"]), (&json!(1000), &json!(50)));
    assert_eq!(json["kv"], json!({"blocks": 9, "used": 2, "window_blocks": 4, "window_used": 1}));
    assert_eq!(
        stage["memory"]["used"],
        json!({
            "rss_bytes": 900, "pss_bytes": 800, "pss_file_bytes": 700, "pss_anonymous_bytes": 100,
            "weights_resident_bytes": 650
        })
    );
    assert_eq!(stage["tokens_per_second"], 12.5);
    assert_eq!(stage["speed"]["Q4_1"], json!({"bytes_per_second": 9_000, "multiplications_per_second": 70_000}));
    assert_eq!(json["stages"][1]["speed"], Value::Null);
    assert_eq!(json["stages"][1]["memory"]["used"], Value::Null);
    assert_eq!(json["complaints"][0]["key"], "/baton/v1/home/pins/b");
    let pins = &json["pins"];
    let expected = json!({"stage": "a", "pin": {"layers": [0, 3]}, "honoured": false, "reason": "layer 9 is unhappy"});
    assert_eq!(pins[0], expected);
    assert!(pins[1]["reason"].as_str().unwrap().contains("unreadable"), "{pins}");
}

#[tokio::test]
async fn the_devices_are_those_of_live_stages() {
    let server = start_default_server().await;
    *server.pipeline.view.lock().unwrap() = view();
    let json = get(server.address, "/distributed/gpu-info").await.json();
    let devices = json["devices"].as_array().unwrap();
    assert_eq!(devices.iter().map(|device| &device["stage"]).collect::<Vec<_>>(), ["a", "c"]);
    let device = &devices[0];
    assert_eq!(
        (&device["device"], &device["chip"], &device["threads"]),
        (&json!("metal"), &json!("Apple M4"), &json!(4))
    );
    assert_eq!(device["speed"]["Q4_1"]["bytes_per_second"], 9_000);
    assert_eq!((&device["memory_total_bytes"], &device["memory_budget_bytes"]), (&json!(16_000), &json!(12_000)));
}

#[tokio::test]
async fn an_empty_cluster_has_empty_lists() {
    let server = start_default_server().await;
    let json = get(server.address, "/distributed/status").await.json();
    assert_eq!((&json["stages"], &json["placement"], &json["model"]), (&json!([]), &Value::Null, &Value::Null));
    assert_eq!(get(server.address, "/distributed/gpu-info").await.json(), json!({"devices": []}));
}

#[tokio::test]
async fn the_front_page_names_the_model_and_every_page() {
    let server = start_default_server().await;
    let page = get(server.address, "/").await;
    assert_eq!(page.header("content-type"), Some("text/plain; charset=utf-8"));
    let apis = ["/v1/chat/completions", "/v1/models", "/v1/responses", "/v1/messages", "/api/chat", "/tokenize"];
    let apis = [&apis[..], &["/v1/embeddings", "/v1/rerank", "/api/embed"]].concat();
    let live = ["/distributed/events", "/distributed/plan", "/distributed/pins", "/distributed/drill", "/chat"];
    for word in [&[MODEL, "/health", "/distributed/gpu-info"], &live[..], &apis[..]].concat() {
        assert!(page.text().contains(word), "{word} is not there: {}", page.text());
    }
}

#[tokio::test]
async fn a_page_that_panics_is_a_500_and_the_server_goes_on() {
    let server = start_default_server().await;
    let pipeline = std::sync::Arc::clone(&server.pipeline);
    let poisoned = std::thread::spawn(move || {
        let _held = pipeline.view.lock().unwrap();
        panic!("poisons the lock that the page takes");
    });
    assert!(poisoned.join().is_err());
    let answer = get(server.address, "/distributed/status").await;
    assert_eq!((answer.status, &answer.json()["error"]["type"]), (500, &json!("server_error")));
    assert_eq!(get(server.address, "/health").await.status, 200);
}
