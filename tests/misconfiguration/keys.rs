//! Wrong cluster keys, API keys and certificates.

use super::case::{Case, Mistake};
use super::fixture::Fixture;

/// A key that no other process has.
const ANOTHER: &str = "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::ends("keys: a stage with another key", 6, "the cluster has another key", |fixture| {
            with_key(fixture, "stage", Some(ANOTHER))
        }),
        Case::ends("keys: a stage without a key", 6, "the cluster has a key", |fixture| {
            with_key(fixture, "stage", None)
        }),
        Case::ends("keys: a gateway with another key", 6, "the cluster has another key", |fixture| {
            with_key(fixture, "gateway", Some(ANOTHER))
        }),
        Case::ends("keys: a gateway without a key", 6, "the cluster has a key", |fixture| {
            with_key(fixture, "gateway", None)
        }),
        Case::ends("keys: a key where the others have none", 6, "of the same cluster have none", |fixture| {
            let record = fixture.etcdctl(&["get", "--print-value-only", "/baton/v1/home/stages/s0"]);
            let record = record.trim().replace("\"proof\"", "\"no_proof\"");
            fixture.etcdctl(&["put", "/baton/v1/keyless/stages/a", &record]);
            let mut stage = fixture.baton("stage");
            stage.args(["--cluster", "keyless"]);
            fixture.start(stage)
        }),
        Case::ends("keys: 63 digits", 64, "64 hex digits", |fixture| with_key(fixture, "stage", Some(&ANOTHER[1..]))),
        Case::ends("keys: a file that others can read", 64, "chmod 600", |fixture| {
            key_file(fixture, "open", Some(0o644))
        }),
        Case::ends("keys: a file that is not there", 64, "No such file", |fixture| key_file(fixture, "absent", None)),
        Case::ends("keys: none, but an address for others", 64, "`baton key`", |fixture| {
            let mut stage = fixture.baton("stage");
            stage.env_remove("BATON_CLUSTER_KEY").args(["--advertise", "192.0.2.1"]);
            fixture.start(stage)
        }),
        Case::ends("keys: an API key that is too short", 64, "expected 16 to 256", |fixture| {
            let mut gateway = fixture.baton("gateway");
            gateway.env("BATON_API_KEY", "alice:short");
            fixture.start(gateway)
        }),
        Case::ends("keys: a file of API keys that others can read", 64, "chmod 600", |fixture| {
            api_key_file(fixture, "open.keys", "alice:0123456789abcdef\n", 0o644)
        }),
        Case::ends("keys: a file of API keys without a key", 64, "it holds no key", |fixture| {
            api_key_file(fixture, "empty.keys", "# nobody yet\n", 0o600)
        }),
        Case::ends("keys: a limit for API keys and no key", 64, "limits API keys, and there is none", |fixture| {
            let mut gateway = fixture.baton("gateway");
            gateway.args(["--key-requests-per-minute", "60"]);
            fixture.start(gateway)
        }),
        Case::ends("keys: a certificate without its key", 64, "expected tls_cert and tls_key together", |fixture| {
            let mut gateway = fixture.baton("gateway");
            gateway.args(["--tls-cert", "cert.pem"]);
            fixture.start(gateway)
        }),
        Case::ends("keys: a certificate that is not there", 1, "No such file", |fixture| {
            let mut gateway = fixture.baton("gateway");
            gateway.args(["--tls-cert", "/nowhere/cert.pem", "--tls-key", "/nowhere/key.pem"]);
            fixture.start(gateway)
        }),
    ]
}

fn api_key_file(fixture: &mut Fixture, name: &str, text: &str, mode: u32) -> Result<Mistake, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = fixture.path(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    let mut gateway = fixture.baton("gateway");
    gateway.arg("--api-key-file").arg(path);
    fixture.start(gateway)
}

fn with_key(fixture: &mut Fixture, verb: &str, key: Option<&str>) -> Result<Mistake, String> {
    let mut command = fixture.baton(verb);
    match key {
        Some(key) => command.env("BATON_CLUSTER_KEY", key),
        None => command.env_remove("BATON_CLUSTER_KEY"),
    };
    fixture.start(command)
}

fn key_file(fixture: &mut Fixture, name: &str, mode: Option<u32>) -> Result<Mistake, String> {
    use std::os::unix::fs::PermissionsExt;
    let path = fixture.path(name);
    if let Some(mode) = mode {
        std::fs::write(&path, ANOTHER).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    }
    let mut stage = fixture.baton("stage");
    stage.env_remove("BATON_CLUSTER_KEY").arg("--cluster-key-file").arg(path);
    fixture.start(stage)
}
