//! The embedded store's port: the view of etcdctl, and the answers to foreign clients.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use engine::store::{Change, Committed, EmbeddedServer, EtcdStore, Revision, Store, StoreError, Txn, Write, limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);

async fn server() -> EmbeddedServer {
    EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap()
}

async fn client(server: &EmbeddedServer) -> EtcdStore {
    EtcdStore::connect(&[server.url()]).await.unwrap()
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    let write = Write::Put { key: key.into(), value: value.into(), lease: None };
    match store.commit(Txn { compares: vec![], writes: vec![write] }).await.unwrap() {
        Committed::Applied { revision } => revision,
        Committed::Refused => unreachable!("there was no condition"),
    }
}

// --- etcdctl ---

fn etcdctl(server: &EmbeddedServer) -> Command {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &server.local_addr().to_string()]);
    command
}

fn started<T>(result: std::io::Result<T>) -> T {
    result.unwrap_or_else(|error| {
        panic!("cannot run etcdctl: {error}; these tests need it (Debian: apt-get install etcd-client)")
    })
}

async fn run(server: &EmbeddedServer, words: &[&str], input: &str) -> Output {
    let mut command = tokio::process::Command::from(etcdctl(server));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = started(command.spawn());
    // The pipe is dropped at once, so that etcdctl sees the end of its input.
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = timeout(WAIT_MAX, child.wait_with_output()).await;
    output.unwrap_or_else(|_| panic!("etcdctl {words:?} did not end within {WAIT_MAX:?}")).unwrap()
}

/// The standard output of a command. The test fails if the command fails.
async fn ctl(server: &EmbeddedServer, words: &[&str]) -> String {
    ctl_with(server, words, "").await
}

async fn ctl_with(server: &EmbeddedServer, words: &[&str], input: &str) -> String {
    let output = run(server, words, input).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {words:?} failed: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The standard error of a command. The test fails if the command succeeds.
async fn ctl_error(server: &EmbeddedServer, words: &[&str]) -> String {
    let output = run(server, words, "").await;
    assert!(!output.status.success(), "etcdctl {words:?} worked: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn etcdctl_puts_gets_and_deletes() {
    let server = server().await;
    assert_eq!(ctl(&server, &["put", "/b/1", "one"]).await, "OK\n");
    assert_eq!(ctl(&server, &["put", "/b/2", "two"]).await, "OK\n");
    assert_eq!(ctl(&server, &["put", "/c", "three"]).await, "OK\n");
    assert_eq!(ctl(&server, &["get", "--prefix", "/b/"]).await, "/b/1\none\n/b/2\ntwo\n");
    assert_eq!(ctl(&server, &["get", "", "--prefix", "--keys-only"]).await, "/b/1\n\n/b/2\n\n/c\n\n");
    assert_eq!(ctl(&server, &["get", "/b/2", "--from-key", "--print-value-only"]).await, "two\nthree\n");
    assert_eq!(ctl(&server, &["get", "/", "--prefix", "--limit=1", "--order=DESCEND"]).await, "/c\nthree\n");
    assert_eq!(
        ctl(&server, &["get", "/", "--prefix", "--sort-by=MODIFY", "--order=DESCEND", "--limit=1"]).await,
        "/c\nthree\n"
    );
    assert_eq!(ctl(&server, &["put", "--prev-kv", "/c", "four"]).await, "OK\n/c\nthree\n");
    // The store begins at revision 1, so the third put has revision 4. Old revisions can be read.
    assert_eq!(ctl(&server, &["get", "/c", "--rev=4"]).await, "/c\nthree\n");
    let json = ctl(&server, &["get", "/c", "-w", "json"]).await;
    assert!(
        json.contains(r#""revision":5"#) && json.contains(r#""create_revision":4,"mod_revision":5,"version":2"#),
        "{json}"
    );
    assert_eq!(ctl(&server, &["del", "--prefix", "/b/"]).await, "2\n");
    assert_eq!(ctl(&server, &["del", "/nothing"]).await, "0\n");
    assert_eq!(ctl(&server, &["get", "--prefix", "/"]).await, "/c\nfour\n");
    assert!(ctl_error(&server, &["get", "/c", "--rev=100"]).await.contains("required revision is a future revision"));
}

#[tokio::test]
async fn etcdctl_and_the_client_see_the_same_store() {
    let server = server().await;
    let store = client(&server).await;
    put(&store, "/baton/x", "from the client").await;
    assert_eq!(ctl(&server, &["get", "/baton/x", "--print-value-only"]).await, "from the client\n");
    ctl(&server, &["put", "/baton/x", "from etcdctl"]).await;
    assert_eq!(store.read("/baton/").await.unwrap().entries[0].value, b"from etcdctl");
    assert_eq!(server.store().read("/baton/").await.unwrap().entries[0].value, b"from etcdctl");
}

#[tokio::test]
async fn etcdctl_runs_transactions() {
    let server = server().await;
    let txn = "create(\"slot\") = \"0\"\n\nput slot mine\n\nget slot\n\n";
    assert_eq!(ctl_with(&server, &["txn"], txn).await.trim(), "SUCCESS\n\nOK");
    assert_eq!(ctl_with(&server, &["txn"], txn).await.trim(), "FAILURE\n\nslot\nmine");
    let by_value = "value(\"slot\") = \"mine\"\nversion(\"slot\") > \"0\"\nmod(\"slot\") < \"100\"\n\ndel slot\n\n\n";
    assert_eq!(ctl_with(&server, &["txn"], by_value).await.trim(), "SUCCESS\n\n1");
}

#[tokio::test]
async fn etcdctl_watches_a_prefix() {
    let server = server().await;
    let store = client(&server).await;
    let first = put(&store, "/w/past", "0").await;
    let mut command = tokio::process::Command::from(etcdctl(&server));
    command.args(["watch", "--prefix", "/w/", &format!("--rev={}", first.0)]);
    let mut child = started(command.stdout(Stdio::piped()).kill_on_drop(true).spawn());
    let mut output = child.stdout.take().unwrap();
    put(&store, "/elsewhere", "1").await;
    put(&store, "/w/a", "1").await;
    ctl(&server, &["del", "--prefix", "/w/"]).await;
    let expected = "PUT\n/w/past\n0\nPUT\n/w/a\n1\nDELETE\n/w/a\n\nDELETE\n/w/past\n\n";
    let mut seen = vec![0; expected.len()];
    timeout(WAIT_MAX, output.read_exact(&mut seen)).await.unwrap().unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), expected);
}

#[tokio::test]
async fn etcdctl_handles_leases() {
    let server = server().await;
    let granted = ctl(&server, &["lease", "grant", "60"]).await;
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    ctl(&server, &["put", "/l", "leased", &format!("--lease={id}")]).await;
    assert_eq!(ctl(&server, &["lease", "list"]).await, format!("found 1 leases\n{id}\n"));
    let left = ctl(&server, &["lease", "timetolive", &id, "--keys"]).await;
    assert!(left.starts_with(&format!("lease {id} granted with TTL(60s), remaining(")), "{left}");
    assert!(left.ends_with("attached keys([/l])\n"), "{left}");
    assert_eq!(
        ctl(&server, &["lease", "keep-alive", "--once", &id]).await,
        format!("lease {id} keepalived with TTL(60)\n")
    );
    assert_eq!(ctl(&server, &["lease", "revoke", &id]).await, format!("lease {id} revoked\n"));
    assert_eq!(ctl(&server, &["get", "/l"]).await, "");
    assert_eq!(ctl(&server, &["lease", "timetolive", &id]).await, format!("lease {id} already expired\n"));
    assert!(ctl_error(&server, &["lease", "revoke", &id]).await.contains("requested lease not found"));
    assert!(ctl_error(&server, &["put", "/l", "x", "--lease=abc"]).await.contains("requested lease not found"));
}

#[tokio::test]
async fn etcdctl_finds_a_healthy_member() {
    let server = server().await;
    let health = run(&server, &["endpoint", "health"], "").await;
    assert!(health.status.success(), "{health:?}");
    let status = ctl(&server, &["endpoint", "status"]).await;
    assert!(status.contains("3.4.0-baton-embedded"), "{status}");
    let members = ctl(&server, &["member", "list"]).await;
    assert!(members.contains("baton-embedded") && members.contains(&server.url()), "{members}");
    assert_eq!(ctl(&server, &["alarm", "list"]).await, "");
}

#[tokio::test]
async fn etcdctl_locks() {
    let server = server().await;
    assert_eq!(ctl(&server, &["lock", "door", "echo", "inside"]).await, "inside\n");
    assert_eq!(ctl(&server, &["get", "--prefix", "door"]).await, "");
}

#[tokio::test]
async fn etcdctl_compacts() {
    let server = server().await;
    for value in ["1", "2", "3"] {
        ctl(&server, &["put", "k", value]).await;
    }
    assert_eq!(ctl(&server, &["compact", "4"]).await, "compacted revision 4\n");
    assert!(ctl_error(&server, &["get", "k", "--rev=2"]).await.contains("required revision has been compacted"));
    assert!(ctl_error(&server, &["compact", "4"]).await.contains("required revision has been compacted"));
    assert_eq!(ctl(&server, &["get", "k", "--rev=4"]).await, "k\n3\n");
}

#[tokio::test]
async fn unsupported_calls_are_refused_with_a_sentence() {
    let server = server().await;
    for words in [
        vec!["user", "list"],
        vec!["member", "add", "x", "--peer-urls=http://127.0.0.1:1"],
        vec!["defrag"],
        vec!["endpoint", "hashkv"],
        vec!["auth", "enable"],
        vec!["--user=root:secret", "get", "k"],
    ] {
        let error = ctl_error(&server, &words).await;
        assert!(error.contains("baton's embedded store does not offer"), "{words:?}: {error}");
    }
}

// --- Start and end ---

#[tokio::test]
async fn a_port_that_other_machines_can_reach_is_refused() {
    let error = EmbeddedServer::bind(TcpListener::bind("0.0.0.0:0").await.unwrap()).unwrap_err();
    assert!(error.to_string().contains("expected a loopback address"), "{error}");
}

#[tokio::test]
async fn a_stopped_server_closes_its_port_and_ends_its_watches() {
    let server = server().await;
    let address = server.local_addr();
    let store = client(&server).await;
    let mut watch = store.watch("", Revision(1)).await.unwrap();
    put(&store, "k", "v").await;
    assert_eq!(
        timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap().iter().map(Change::key).collect::<Vec<_>>(),
        ["k"]
    );

    timeout(Duration::from_secs(2), server.shutdown()).await.expect("stopping takes no two seconds");
    assert!(TcpStream::connect(address).await.is_err(), "the port is still open");
    let error = timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error}");
    // The port can be bound again.
    EmbeddedServer::bind(TcpListener::bind(address).await.unwrap()).unwrap();
}

// --- Foreign clients ---

async fn connect(server: &EmbeddedServer) -> TcpStream {
    TcpStream::connect(server.local_addr()).await.unwrap()
}

/// The bytes that the server sends before it closes the connection.
async fn last_words(mut stream: TcpStream) -> String {
    let mut reply = Vec::new();
    // A reset counts as a close.
    let _ = timeout(WAIT_MAX, stream.read_to_end(&mut reply)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&reply).into_owned()
}

#[tokio::test]
async fn a_web_browser_gets_an_explanation() {
    let server = server().await;
    let mut stream = connect(&server).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let reply = last_words(stream).await;
    assert!(reply.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{reply}");
    assert!(reply.contains("baton's coordination store") && reply.contains("use etcdctl"), "{reply}");
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let server = server().await;
    let store = client(&server).await;
    // More connections than the server has room for. Those that it accepts time out. It closes the others at once.
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect(&server).await);
    }
    put(&store, "who", "was here before").await;
    for stream in silent {
        assert_eq!(last_words(stream).await, "");
    }
    put(&client(&server).await, "who", "came after").await;
}

#[tokio::test]
async fn a_request_beyond_the_limit_is_refused_and_the_connection_lives() {
    let server = server().await;
    let mut raw = etcd_client::Client::connect([server.url()], None).await.unwrap();
    let over_the_limit = raw.put("k", vec![0; limits::REQUEST_BYTES_MAX + 1], None).await.unwrap_err();
    assert!(over_the_limit.to_string().contains("request is too large"), "{over_the_limit}");
    let far_over_it = raw.put("k", vec![0; 8 << 20], None).await.unwrap_err();
    assert!(far_over_it.to_string().contains("too large"), "{far_over_it}");
    raw.put("k", "v", None).await.unwrap();
}

#[tokio::test]
async fn a_full_store_reports_it_and_keeps_serving() {
    let server = server().await;
    let store = client(&server).await;
    let value = "v".repeat(1 << 20);
    for number in 0..limits::STORE_BYTES_MAX >> 20 {
        let write = Write::Put { key: format!("fill/{number}"), value: value.clone().into(), lease: None };
        let result = store.commit(Txn { compares: vec![], writes: vec![write] }).await;
        if let Err(error) = result {
            assert!(matches!(error, StoreError::Full { .. }), "{error}");
            assert!(error.to_string().contains(&limits::STORE_BYTES_MAX.to_string()), "{error}");
            put(&store, "small", "fits").await;
            ctl(&server, &["del", "--prefix", "fill/"]).await;
            put(&store, "fill/again", &value).await;
            return;
        }
    }
    panic!("the store took more than its bound");
}

/// A frame of HTTP/2: length, type, flags, stream.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection with calls for `key`, whose client takes no byte of any reply.
async fn unread_calls(address: std::net::SocketAddr, key: &str, calls: u32) -> TcpStream {
    // INITIAL_WINDOW_SIZE 0.
    let settings = [0, 4, 0, 0, 0, 0];
    let mut bytes = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(4, 0, 0, &settings)].concat();
    let headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/etcdserverpb.KV/Range"),
        (":authority", "store"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let mut block = Vec::new();
    for (name, value) in headers {
        // A literal without indexing.
        block.push(0);
        for text in [name, value] {
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    let request = [&[0x0a, key.len() as u8], key.as_bytes()].concat();
    let message = [&[0, 0, 0, 0, request.len() as u8], &request[..]].concat();
    for call in 0..calls {
        bytes.extend(frame(1, 4, 2 * call + 1, &block));
        bytes.extend(frame(0, 1, 2 * call + 1, &message));
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    stream
}

#[tokio::test]
async fn a_client_that_reads_no_reply_keeps_no_other_from_working() {
    let server = server().await;
    let store = client(&server).await;
    put(&store, "big", &"v".repeat(1 << 20)).await;
    // Enough for every permit that there is, many times over.
    let mut stalled = Vec::new();
    for _ in 0..64 {
        stalled.push(unread_calls(server.local_addr(), "big", 64).await);
    }
    let mut longest = Duration::ZERO;
    for turn in 0..20 {
        let started = std::time::Instant::now();
        timeout(WAIT_MAX, put(&store, "turn", &turn.to_string())).await.expect("it works");
        longest = longest.max(started.elapsed());
    }
    assert!(longest < Duration::from_secs(8), "a call waited for {longest:?}");
    // Those that held the permits were closed.
    let mut closed = 0;
    for stream in &mut stalled {
        let read_on = async { while stream.read(&mut [0; 4096]).await.is_ok_and(|count| count > 0) {} };
        closed += usize::from(timeout(Duration::from_millis(20), read_on).await.is_ok());
    }
    println!("{closed} of {} stalled connections were closed; the longest call took {longest:?}", stalled.len());
    assert!(closed > 0, "they held no permits");
    assert_eq!(ctl(&server, &["get", "turn", "--print-value-only"]).await, "19\n");
}
