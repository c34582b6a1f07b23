//! A real `baton up` with API keys and TLS, and the program's own clients of it.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::http::request_with;

const SECRET: &str = "alice-alice-alice";

/// A file of keys that only its owner can read.
fn key_file(folder: &Path, text: &str) -> String {
    let path = folder.join("api.keys");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Status of `/metrics` for a request with this key.
fn status(cluster: &Cluster, secret: &str) -> u16 {
    let key = format!("authorization: Bearer {secret}\r\n");
    request_with(cluster.http, "GET", "/metrics", &key, "").unwrap().status
}

/// Exit status and output of `baton doctor` with this key and this folder for data.
fn doctor(cluster: &Cluster, key: Option<&str>, data: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    command.args(["doctor", "--etcd", &cluster.store]).env("XDG_DATA_HOME", data).env_remove("BATON_API_KEY");
    let output = command.envs(key.map(|key| ("BATON_API_KEY", key))).output().expect("baton runs");
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn with_a_key_the_api_is_closed_and_doctor_sends_it() {
    let folder = tempfile::tempdir().unwrap();
    let keys = format!("alice:{SECRET} requests_per_minute=1000\n");
    let cluster = Cluster::start(1, &["--api-key-file", &key_file(folder.path(), &keys)], &[]);
    assert_eq!((cluster.get("/health").status, cluster.get("/metrics").status), (200, 401));

    let (code, output) = doctor(&cluster, None, folder.path());
    assert!(code == Some(4) && output.contains("expected one in BATON_API_KEY"), "{output}");
    let (code, output) = doctor(&cluster, Some("mallory-mallory-mallory"), folder.path());
    assert!(code == Some(4) && output.contains("does not know the one in BATON_API_KEY"), "{output}");
    let (code, output) = doctor(&cluster, Some(&format!("alice:{SECRET}")), folder.path());
    assert_eq!(code, Some(0), "{output}");

    let key = format!("authorization: Bearer {SECRET}\r\n");
    let page = request_with(cluster.http, "GET", "/metrics", &key, "").unwrap();
    let answered = "baton_http_requests_total{code=\"200\",key=\"alice\"} ";
    assert!(page.body.contains(answered) && page.body.contains("baton_generated_tokens_total"), "{}", page.body);
}

#[test]
fn a_key_file_that_changes_is_read_again_while_requests_are_served() {
    const OTHER: &str = "robert-robert-robert";
    let folder = tempfile::tempdir().unwrap();
    let path = key_file(folder.path(), &format!("alice:{SECRET}\n"));
    let cluster = Cluster::start(1, &["--api-key-file", &path], &[]);
    assert_eq!((status(&cluster, SECRET), status(&cluster, OTHER)), (200, 401));

    std::fs::write(&path, format!("robert:{OTHER}\n")).unwrap();
    let began = Instant::now();
    while status(&cluster, OTHER) != 200 {
        assert!(began.elapsed() < Duration::from_secs(30), "the new key is not known after 30 s");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(status(&cluster, SECRET), 401, "the key that was taken out is refused");

    // A file that cannot be used changes nothing: it is looked at for longer than a change needs.
    std::fs::write(&path, "robert\n").unwrap();
    let looked = began.elapsed().max(Duration::from_secs(5)) * 2;
    let began = Instant::now();
    while began.elapsed() < looked {
        assert_eq!((status(&cluster, OTHER), status(&cluster, SECRET)), (200, 401));
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[cfg(feature = "tls")]
fn with_tls_doctor_trusts_the_certificate_that_its_user_s_gateway_made() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let variables = [("XDG_DATA_HOME", data.to_str().unwrap()), ("BATON_API_KEY", SECRET)];
    let cluster = Cluster::start(1, &["--tls"], &variables);
    let mode = |name: &str| std::fs::metadata(data.join("baton/tls").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("cert.pem"), mode("key.pem")), (0o600, 0o600));
    let refused = cluster.get("/health");
    assert!(refused.status == 400 && refused.body.contains("https_required"), "{refused:?}");

    let (code, output) = doctor(&cluster, Some(SECRET), &data);
    assert_eq!(code, Some(0), "{output}");
    let (code, output) = doctor(&cluster, Some(SECRET), &folder.path().join("elsewhere"));
    assert!(code == Some(4) && output.contains("BATON_CA_FILE"), "{output}");
}
