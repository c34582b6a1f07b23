//! The tools of operators: metrics, alert rules and the Grafana dashboard, checked by promtool and by a real Prometheus
//! that scrapes a real cluster; and the support bundle of that cluster.
//!
//! Both programs come with Debian's package `prometheus` (`etc/prepare prometheus`).

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::cluster::Cluster;
use common::http::{GatewayClient, request, request_with};
use common::wait_for;
use serde_json::{Value, json};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Longest time until Prometheus has scraped twice.
const SCRAPE_TIME_MAX: Duration = Duration::from_secs(60);

fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("left out: {program} is not on this machine (etc/prepare prometheus)");
    }
    found
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("promtool");
    let command = command.args(arguments).current_dir(ROOT);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "promtool {arguments:?}: {text}");
    text
}

/// All texts under the key `expr`.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" => found.push(text.clone()),
                    _ => expressions(value, found),
                }
            }
        }
        _ => {}
    }
}

/// The queries of the dashboard, with Grafana's variables filled in.
fn panels() -> Vec<String> {
    let dashboard = fs::read(Path::new(ROOT).join("etc/grafana/grafana.json")).unwrap();
    let mut found = Vec::new();
    expressions(&serde_json::from_slice(&dashboard).unwrap(), &mut found);
    found.iter().map(|expr| expr.replace("$__rate_interval", "1m").replace("$instance", ".*")).collect()
}

/// The names of baton's metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("baton_")).map(str::to_owned).collect()
}

/// A Prometheus with the rules of etc/prometheus that scrapes one gateway every second.
struct Prometheus {
    process: Child,
    client: GatewayClient,
    _folder: tempfile::TempDir,
}

// === impl Prometheus ===

impl Prometheus {
    fn start(gateway: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let etc = Path::new(ROOT).join("etc/prometheus");
        let config = fs::read_to_string(etc.join("prometheus.yml")).unwrap();
        let config = config.replace("127.0.0.1:8100", gateway).replace("scrape_interval: 15s", "scrape_interval: 1s");
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        fs::copy(etc.join("rules.yml"), folder.path().join("rules.yml")).unwrap();
        let http = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={http}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let client = GatewayClient { http };
        let is_ready = || request(http, "GET", "/-/ready", "").is_ok_and(|answer| answer.status == 200);
        wait_for("prometheus is ready", SCRAPE_TIME_MAX, is_ready);
        Self { process, client, _folder: folder }
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.client.get(path).json();
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// The series that a query finds now.
    fn query(&self, text: &str) -> Vec<Value> {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}"))["result"].as_array().unwrap().clone()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn promtool_accepts_the_rules_and_their_tests_pass() {
    if is_there("promtool") {
        promtool(&["check", "config", "etc/prometheus/prometheus.yml"], "");
        promtool(&["test", "rules", "etc/prometheus/rules.test.yml"], "");
    }
}

#[test]
fn every_panel_and_rule_finds_its_metrics_in_a_prometheus_that_scrapes_a_cluster() {
    const SECRET: &str = "s3cr3t-of-the-house";
    const CLUSTER_KEY: &str = "5ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4e75ec4";
    let state = tempfile::tempdir().unwrap();
    let variables = [("BATON_CLUSTER_KEY", CLUSTER_KEY), ("XDG_STATE_HOME", state.path().to_str().unwrap())];
    let cluster = Cluster::start(2, &[], &variables);
    let chat = json!({"messages": [{"role": "user", "content": "Count from one to ten."}], "max_tokens": 8});
    for _ in 0..2 {
        assert_eq!(cluster.post("/v1/chat/completions", &chat).status, 200);
    }
    // A secret that a client sends where it is logged, at the worst.
    let header = format!("authorization: Bearer {SECRET}\r\nx-request-id: {SECRET}\r\n");
    let _ = request_with(cluster.http, "GET", "/v1/models", &header, "").unwrap();
    bundle_has_no_secret(&cluster, state.path(), &[SECRET, CLUSTER_KEY]);

    let page = cluster.get("/metrics").body;
    let exposed = names(&page);
    let rules = fs::read_to_string(Path::new(ROOT).join("etc/prometheus/rules.yml")).unwrap();
    let used = names(&(panels().join("\n") + &rules));
    let missing: Vec<_> = used.iter().filter(|name| !exposed.contains(*name)).collect();
    assert!(missing.is_empty() && used.len() > 30, "panels or rules name {missing:?}");

    if is_there("promtool") {
        // It reports names that break Prometheus's conventions, and ends with 3 then.
        promtool(&["check", "metrics"], &page);
    }
    if is_there("prometheus") {
        let prometheus = Prometheus::start(&cluster.http.to_string());
        let scraped = || prometheus.query("sum(count_over_time(baton_serving[1m]))").first().is_some_and(twice);
        wait_for("two scrapes", SCRAPE_TIME_MAX, scraped);
        assert_eq!(prometheus.query("up{job=\"baton\"} == 1").len(), 1);
        for panel in panels() {
            assert!(!prometheus.query(&panel).is_empty(), "{panel} finds nothing");
        }
        let groups = prometheus.get("/api/v1/rules");
        let loaded = groups["groups"][0]["rules"].as_array().unwrap();
        assert!(loaded.len() >= 10, "{groups}");
        for rule in loaded {
            let name = &rule["name"];
            assert!(matches!(rule["health"].as_str(), Some("ok" | "unknown")), "{name}: {rule}");
            assert_eq!(rule["state"], "inactive", "{name} fires for a cluster that is well");
        }
    }
}

/// True for a sum of two scrapes or more.
fn twice(series: &Value) -> bool {
    series["value"][1].as_str().and_then(|count| count.parse::<f64>().ok()).is_some_and(|count| count >= 2.0)
}

/// Writes the bundle of the cluster, and looks for secrets in it.
fn bundle_has_no_secret(cluster: &Cluster, state: &Path, secrets: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("api.keys");
    fs::write(&keys, "alice:planted-in-the-key-file\n").unwrap();
    let collector = "http://me:planted-password@collector:4318";
    let settings = format!("[gateway]\napi_key_file = {keys:?}\notlp_endpoint = {collector:?}\n");
    fs::write(folder.path().join("baton.toml"), settings).unwrap();
    let logs = state.join("baton/logs/home");
    let leak = json!({"timestamp": "2026-01-01T00:00:00Z", "fields": {"message": "planted-in-the-key-file"}});
    fs::write(logs.join("careless.1.log"), format!("{leak}\n")).unwrap();
    let bundle = folder.path().join("bundle.zip");
    let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
    let command = command.arg("support-bundle").args(["--etcd", &cluster.store]).arg(&bundle).env_clear();
    let command = command.env("HOME", folder.path()).env("XDG_STATE_HOME", state).env("BATON_API_KEY", secrets[0]);
    let command = command.env("BATON_CLUSTER_KEY", secrets[1]).env("HF_TOKEN", "planted-hub-token");
    let output = command.env("BATON_CONFIG", folder.path().join("baton.toml")).output().unwrap();
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{listed}{}", String::from_utf8_lossy(&output.stderr));

    let file = fs::File::open(&bundle).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut texts = std::collections::BTreeMap::new();
    for at in 0..archive.len() {
        let mut member = archive.by_index(at).unwrap();
        let name = member.name().to_owned();
        texts.insert(name, std::io::read_to_string(&mut member).unwrap());
    }
    for name in ["README.txt", "versions.json", "settings.json", "doctor.json", "status.json", "store.json"] {
        assert!(listed.contains(name) && texts.contains_key(name), "{name} is missing in {listed}");
    }
    let planted = ["planted-in-the-key-file", "planted-hub-token", "planted-password"];
    for (name, text) in &texts {
        for secret in secrets.iter().chain(&planted) {
            assert!(!text.contains(secret), "{name} has {secret}: {text}");
        }
    }
    let store = &texts["store.json"];
    assert!(store.contains("\"proof\": \"[redacted]\"") && store.contains("fingerprint"), "{store}");
    let doctor: Value = serde_json::from_str(&texts["doctor.json"]).unwrap();
    assert_eq!(doctor["result"], "ok", "{doctor}");
    assert!(texts["metrics-0.txt"].contains("baton_serving 1"), "{}", texts["metrics-0.txt"]);
    assert!(texts.keys().any(|name| name.starts_with("logs/up.")), "{listed}");
    assert!(texts["logs/careless.1.log"].contains("[redacted]"));
    // A second one does not overwrite it.
    let again = Command::new(env!("CARGO_BIN_EXE_baton")).arg("support-bundle").arg(&bundle).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
}
