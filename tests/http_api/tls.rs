//! https: a self-signed certificate, certificates that change, and clients that do not complete their handshake.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use gateway::client::{ClientStream, Connector, Scheme, TrustedCertificates};
use gateway::http::{AccessControl, KeyLimits, ServerTls, Settings, TlsError, TlsFiles, TlsNames, TlsSource};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::Instant;

use crate::api_keys::{ALICE, bearer, two_keys};
use crate::client::{answer, connect, get, plain, post, read_to_end, with_headers};
use crate::double::{RunningServer, start_closed_server};

/// Longer than the server takes to notice that its certificate has changed.
const RELOAD_WAIT_MAX: Duration = Duration::from_secs(20);

fn self_signed(folder: &Path) -> ServerTls {
    let names = TlsNames { host: "mini-1.lan".to_owned(), given: vec!["models.example".to_owned()] };
    ServerTls::open(&TlsSource::SelfSigned { folder: folder.to_owned() }, &names).unwrap()
}

async fn start(folder: &Path, settings: Settings, permits: usize) -> RunningServer {
    start_closed_server(settings, AccessControl::default(), Some(self_signed(folder)), permits).await
}

/// A client that trusts the certificate in `folder`, besides the public authorities.
fn client(folder: &Path) -> Connector {
    let trusted = TrustedCertificates { file: Some(folder.join("cert.pem")), own: None };
    Connector::new(Scheme::Https, &trusted).unwrap()
}

async fn health(stream: &mut ClientStream) -> u16 {
    stream.write_all(&plain("GET", "/health")).await.unwrap();
    answer(stream, false).await.status
}

#[tokio::test]
async fn a_client_that_trusts_the_self_signed_certificate_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), Settings::default(), 1000).await;
    let address = server.address.to_string();
    let mut stream = client(folder.path()).connect(&address).await.unwrap();
    // A kept connection, and a stream of events.
    assert_eq!([health(&mut stream).await, health(&mut stream).await], [200, 200]);
    let messages = json!([{"role": "user", "content": "go"}]);
    let body = json!({"messages": messages, "stream": true, "max_tokens": 20, "ignore_eos": true});
    stream.write_all(&post("/v1/chat/completions", body.to_string().as_bytes())).await.unwrap();
    let found = answer(&mut stream, false).await;
    assert_eq!((found.status, found.chunks().len() > 20), (200, true), "{}", found.text());

    let strangers = Connector::new(Scheme::Https, &TrustedCertificates::default()).unwrap();
    let Err(error) = strangers.connect(&address).await else { panic!("an unknown certificate was accepted") };
    assert!(error.to_string().contains("UnknownIssuer") && error.to_string().contains("BATON_CA_FILE"), "{error}");
    assert_eq!(health(&mut stream).await, 200);
}

#[tokio::test]
async fn a_large_body_and_a_refusal_pass_through_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), Settings::default(), 1000).await;
    let mut stream = client(folder.path()).connect(&server.address.to_string()).await.unwrap();
    stream.write_all(&post("/nowhere", &vec![b' '; 200_000])).await.unwrap();
    assert_eq!(answer(&mut stream, false).await.status, 404);
    assert_eq!(health(&mut stream).await, 200, "the connection is kept");
    let head = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..20 {
        stream.write_all(&[b' '; 1 << 20]).await.expect("the connection was reset under its sender");
    }
    let found = answer(&mut stream, false).await;
    assert_eq!((found.status, found.header("connection")), (404, Some("close")));
    assert_eq!(read_to_end(&mut stream).await, "");
}

#[tokio::test]
async fn a_client_that_speaks_http_is_told_to_speak_https() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), Settings::default(), 1000).await;
    let found = get(server.address, "/health").await;
    assert_eq!((found.status, &found.json()["error"]["code"]), (400, &json!("https_required")));
    let mut stream = connect(server.address).await;
    stream.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
    assert!(!read_to_end(&mut stream).await.contains("HTTP"), "it gets an alert of TLS");
    let mut stream = client(folder.path()).connect(&server.address.to_string()).await.unwrap();
    assert_eq!(health(&mut stream).await, 200);
}

#[tokio::test]
async fn a_handshake_has_a_timeout_and_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { head_time: Duration::from_millis(300), ..Settings::default() };
    let server = start(folder.path(), settings, 1000).await;
    for sent in [&b""[..], b"\x16\x03\x01"] {
        let mut stream = connect(server.address).await;
        let began = Instant::now();
        stream.write_all(sent).await.unwrap();
        assert_eq!(read_to_end(&mut stream).await, "");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    }
    let settings = Settings { drain_time: Duration::from_secs(10), ..Settings::default() };
    let server = start(folder.path(), settings, 1000).await;
    let _silent = connect(server.address).await;
    let mut idle = client(folder.path()).connect(&server.address.to_string()).await.unwrap();
    assert_eq!(health(&mut idle).await, 200);
    let began = Instant::now();
    server.stop.send(()).unwrap();
    server.serving.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_client_that_goes_away_ends_its_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), Settings::default(), 0).await;
    let mut stream = client(folder.path()).connect(&server.address.to_string()).await.unwrap();
    let body = json!({"messages": [{"role": "user", "content": "go"}], "stream": true});
    stream.write_all(&post("/v1/chat/completions", body.to_string().as_bytes())).await.unwrap();
    server.until(|counts| counts.started == 1).await;
    drop(stream);
    server.until(|counts| counts.cancelled == 1).await;
}

#[tokio::test]
async fn over_the_cap_the_refusal_comes_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), Settings { connections_max: 1, ..Settings::default() }, 0).await;
    let (connector, address) = (client(folder.path()), server.address.to_string());
    let mut busy = connector.connect(&address).await.unwrap();
    let body = json!({"messages": [{"role": "user", "content": "go"}], "stream": true});
    busy.write_all(&post("/v1/chat/completions", body.to_string().as_bytes())).await.unwrap();
    server.until(|counts| counts.started == 1).await;
    let mut refused = connector.connect(&address).await.unwrap();
    refused.write_all(&plain("GET", "/health")).await.unwrap();
    let found = answer(&mut refused, false).await;
    assert_eq!((found.status, &found.json()["error"]["code"]), (503, &json!("too_many_connections")));
}

#[tokio::test]
async fn a_new_certificate_is_taken_and_a_broken_one_is_not() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    drop(self_signed(other.path()));
    let server = start(one.path(), Settings::default(), 1000).await;
    let address = server.address.to_string();
    let clients = [one.path(), other.path()].map(client);
    let mut open = clients[0].connect(&address).await.unwrap();

    // A certificate without its key is looked at, and the old pair stays.
    std::fs::copy(other.path().join("cert.pem"), one.path().join("cert.pem")).unwrap();
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(clients[0].connect(&address).await.is_ok() && clients[1].connect(&address).await.is_err());

    std::fs::copy(other.path().join("key.pem"), one.path().join("key.pem")).unwrap();
    let began = Instant::now();
    while clients[1].connect(&address).await.is_err() {
        assert!(began.elapsed() < RELOAD_WAIT_MAX, "the new certificate is not used");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(clients[0].connect(&address).await.is_err());
    assert_eq!(health(&mut open).await, 200, "an open connection keeps its certificate");
}

#[tokio::test]
async fn files_that_are_no_pair_are_refused_at_the_start() {
    let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    drop((self_signed(one.path()), self_signed(other.path())));
    let pair = |certificate: &Path, key: &Path| {
        let files = TlsFiles { certificate: certificate.to_owned(), key: key.to_owned() };
        ServerTls::open(&TlsSource::Files(files), &TlsNames::default())
    };
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| one.path().join(name));
    assert!(pair(&certificate, &key).is_ok());
    assert!(matches!(pair(&certificate, &other.path().join("key.pem")), Err(TlsError::Pair { .. })));
    assert!(matches!(pair(&key, &key), Err(TlsError::Pem { expected: "certificate", .. })));
    assert!(matches!(pair(&certificate, &certificate), Err(TlsError::Pem { expected: "private key", .. })));
    assert!(matches!(pair(&one.path().join("nothing"), &key), Err(TlsError::File { .. })));
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o604)).unwrap();
    assert!(matches!(pair(&certificate, &key), Err(TlsError::Open { mode: 0o604, .. })));
}

#[tokio::test]
async fn bench_measures_https_with_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let tls = self_signed(folder.path());
    let server = start_closed_server(Settings::default(), two_keys(KeyLimits::default()), Some(tls), 100_000).await;
    let bench = |key: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.arg("bench").arg(format!("https://{}", server.address));
        command.args(["--prompt-tokens", "150", "--output-tokens", "4", "--requests", "3", "--json"]);
        command.args(["--concurrency", "2"]);
        command.env("BATON_API_KEY", key).env("BATON_CA_FILE", folder.path().join("cert.pem"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    };
    let output = bench(&format!("alice:{ALICE}")).output().await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!((output.status.code(), &report["points"][0]["results"][0]["completed"]), (Some(0), &json!(3)));
    let output = bench("mallory-mallory-mallory").output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(4) && stderr.contains("answered 401"), "{stderr}");
}

#[tokio::test]
async fn keys_and_tls_go_together() {
    let folder = tempfile::tempdir().unwrap();
    let (access, tls) = (two_keys(KeyLimits::default()), self_signed(folder.path()));
    let server = start_closed_server(Settings::default(), access, Some(tls), 1000).await;
    let mut stream = client(folder.path()).connect(&server.address.to_string()).await.unwrap();
    stream.write_all(&plain("GET", "/v1/models")).await.unwrap();
    assert_eq!(answer(&mut stream, false).await.status, 401);
    stream.write_all(&with_headers(&plain("GET", "/v1/models"), &bearer(ALICE))).await.unwrap();
    assert_eq!(answer(&mut stream, false).await.status, 200);
}
