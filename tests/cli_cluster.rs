//! `baton status` and `baton doctor` against a real etcd and a fake gateway that answers.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use common::etcd::{Etcd, etcdctl};
use schema::record::{ClaimRecord, ClaimState, GatewayRecord, ModelRecord, Placement, Shard, Share, StageRecord};
use schema::{ClaimId, Epoch, Generation, Key, Keyspace, LayerRange, Protocol};

fn put(etcd: &Etcd, key: &Key, record: &impl serde::Serialize) {
    let name = Keyspace::new(&"home".parse().unwrap()).name(key);
    assert!(etcdctl(&etcd.url, &["put", &name, &serde_json::to_string(record).unwrap()]).0);
}

fn layers(start: u32, end: u32) -> LayerRange {
    LayerRange::new(start, end).unwrap()
}

/// Writes the records of a cluster of two stages, both serving.
fn write_records(etcd: &Etcd, gateway: &str) {
    let model = ModelRecord {
        hidden: 64,
        context_tokens: 512,
        embedding_bytes: 1,
        head_bytes: 1,
        kv_bytes_per_token_layer: 1,
        kv_tokens: 32,
        scratch_bytes: 1,
        stages_min: 2,
        ..ModelRecord::new("small", vec![1; 4])
    };
    put(etcd, &Key::Model, &model);
    let shards = [("left", layers(0, 2)), ("right", layers(2, 4))];
    for (slot, (stage, range)) in (0u32..).zip(shards) {
        let record = StageRecord {
            endpoint: "ipc:///nowhere".to_owned(),
            pid: 1,
            version: "0.1.0".to_owned(),
            chip: "chip".to_owned(),
            memory_total_bytes: 1 << 30,
            ..StageRecord::new("here", 1 << 29)
        };
        let claim = ClaimRecord {
            stage: stage.parse().unwrap(),
            layers: range,
            endpoint: record.endpoint.clone(),
            state: ClaimState::Serving,
            memory_bound_bytes: 1 << 20,
            weights_bytes: 1,
            copied_bytes: 0,
            kv_blocks: 1,
            kv_block_tokens: 32,
            loads: 1,
        };
        put(etcd, &Key::Stage(stage.parse().unwrap()), &record);
        put(etcd, &Key::Claim(ClaimId::new(Generation(1), slot)), &claim);
    }
    let shards = shards.map(|(stage, layers)| Shard { layers, stage: stage.parse().unwrap() }).to_vec();
    put(etcd, &Key::Placement, &Placement::new(Generation(1), shards).unwrap());
    let gateway = GatewayRecord {
        endpoint: "ipc:///nowhere".to_owned(),
        addresses: Vec::new(),
        url: gateway.to_owned(),
        host: "here".to_owned(),
        pid: 1,
        version: "0.1.0".to_owned(),
        protocol: Protocol::CURRENT,
        lease: "1".to_owned(),
        proof: None,
        trouble: None,
        share: Share::of(0..64),
        epoch: Some(Epoch(0)),
        kv_tokens_needed: 0,
    };
    put(etcd, &Key::Gateway(0), &gateway);
}

/// A fake gateway that gives these answers, one per connection.
fn gateway(answers: Vec<(&'static str, String)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (status, body) in answers {
            let (mut stream, _) = listener.accept().unwrap();
            read_request(&mut stream);
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
        }
    });
    url
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    // The question is the only JSON in the request and ends with its closing brace.
    while !request.ends_with(b"}") {
        let count = stream.read(&mut chunk).unwrap();
        assert_ne!(count, 0, "the doctor hung up before it had asked");
        request.extend_from_slice(&chunk[..count]);
    }
    assert!(request.starts_with(b"POST /v1/chat/completions HTTP/1.1\r\n"));
}

fn answer(rows: [u64; 2]) -> String {
    let stage =
        |name, layers, rows| serde_json::json!({"stage": name, "layers": layers, "rows": rows, "compute_ms": 1.5});
    serde_json::json!({
        "choices": [{"message": {"role": "assistant", "content": "Paris"}}],
        "usage": {"prompt_tokens": 17, "completion_tokens": 1},
        "timings": {"stages": [stage("left", [0, 2], rows[0]), stage("right", [2, 4], rows[1])]},
    })
    .to_string()
}

/// `baton` with these arguments and the store.
fn command(etcd: &Etcd, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.env_clear().env("HOME", Path::new("/nonexistent")).env("BATON_ETCD", &etcd.url).args(arguments);
    command
}

/// Runs `baton` against the store. Returns the exit status and the standard output.
fn baton(etcd: &Etcd, arguments: &[&str]) -> (Option<i32>, String) {
    let output = command(etcd, arguments).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn status_and_doctor_show_the_contents_of_a_real_store() {
    let etcd = Etcd::start();
    let (code, text) = baton(&etcd, &["status"]);
    assert_eq!(code, Some(0));
    assert!(
        text.contains("cluster home: no model yet") && text.contains("not serving: the cluster has no model yet"),
        "{text}"
    );
    assert_eq!(baton(&etcd, &["doctor"]).0, Some(3));

    let url = gateway(vec![
        ("200 OK", answer([18, 18])),
        ("200 OK", answer([18, 0])),
        ("503 Service Unavailable", r#"{"error":{"message":"it is full"}}"#.to_owned()),
    ]);
    write_records(&etcd, &url);
    let (code, text) = baton(&etcd, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &status["serving"], &status["generation"]), (Some(0), &true.into(), &1.into()));
    assert_eq!(status["stages"][1]["layers"], serde_json::json!([2, 4]));
    // Another cluster in the same store does not see it.
    assert!(baton(&etcd, &["status", "--cluster", "other"]).1.contains("no model yet"));
    // A reader that goes away, as `head` does, ends what would go on.
    let watch = ["status", "--cluster", "other", "--watch"];
    let mut watch = command(&etcd, &watch).stdout(Stdio::piped()).spawn().unwrap();
    watch.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(watch.wait().unwrap().code(), Some(0));

    let (code, text) = baton(&etcd, &["doctor"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("every stage worked for it: 2 stages"), "{text}");
    let (code, text) = baton(&etcd, &["doctor"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("no work of right (layers 2..4)"), "{text}");
    let (code, text) = baton(&etcd, &["doctor", "--json"]);
    assert_eq!(code, Some(4), "{text}");
    assert!(text.contains("answered 503: it is full"), "{text}");

    assert!(etcdctl(&etcd.url, &["put", "/baton/v1/home/nonsense", "x"]).0);
    assert!(etcdctl(&etcd.url, &["del", "/baton/v1/home/stages/right"]).0);
    assert!(etcdctl(&etcd.url, &["put", "/baton/v1/home/claims/1/1", "{broken"]).0);
    let (code, text) = baton(&etcd, &["status"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("layers 2..4 are held by nobody: stage right is gone"), "{text}");
    assert!(text.contains("home/nonsense: unknown key") && text.contains("claims/1/1: unreadable value"), "{text}");
    assert_eq!(baton(&etcd, &["doctor"]).0, Some(3));
}
