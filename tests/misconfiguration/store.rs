//! An etcd that is shared, corrupted, emptied or set back.

use super::case::{Case, Expected, Mistake, WELL};
use super::common::etcd::{Etcd, etcdctl};
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays("store: two clusters with one key in one etcd", WELL, |fixture| {
            let (site, processes) = fixture.cluster("twin", &["2GiB"]);
            Ok(Mistake::of_nobody().at(site).holding(processes))
        }),
        Case::stays("store: the placement is spoilt", WELL, |fixture| spoil(fixture, "placement", "{broken")),
        Case::stays("store: the model is overwritten with another", WELL, |fixture| {
            let model = fixture.etcdctl(&["get", "--print-value-only", "/baton/v1/home/model"]);
            let mut model: serde_json::Value = serde_json::from_str(&model).expect("a model");
            model["fingerprint"] = "00".repeat(16).into();
            spoil(fixture, "model", &model.to_string())
        }),
        Case::stays("store: the key's mark is spoilt", WELL, |fixture| spoil(fixture, "key-mark", "{broken")),
        Case::stays("store: the cluster's prefix is deleted", WELL, |fixture| {
            fixture.etcdctl(&["del", "--prefix", "/baton/v1/home/"]);
            Ok(Mistake::of_nobody().undone_by(|fixture| {
                fixture.fleet.whole();
            }))
        }),
        Case::stays(
            "store: etcd is away",
            Expected {
                health: (200, "the store does not answer"),
                status: "cannot reach the store",
                doctor: (2, "cannot reach the store"),
                ..WELL
            },
            |fixture| {
                fixture.etcd.kill();
                Ok(Mistake::of_nobody().undone_by(|fixture| {
                    fixture.etcd.restart();
                    fixture.fleet.whole();
                }))
            },
        ),
        Case::stays("store: etcd has lost its data", WELL, |fixture| {
            fixture.etcd.forget();
            fixture.etcd.restart();
            Ok(Mistake::of_nobody().undone_by(|fixture| {
                fixture.fleet.whole();
            }))
        }),
        Case::stays("store: etcd is set back to an older snapshot", WELL, |fixture| {
            let snapshot = fixture.path("snapshot");
            fixture.etcd.save(&snapshot);
            // The snapshot does not contain the new placement and the pin's status.
            fixture.etcdctl(&["put", "/baton/v1/home/pins/s1", r#"{"layers":[]}"#]);
            super::common::wait_for("the layers move", std::time::Duration::from_secs(20), || {
                fixture.fleet.depth() == 1
            });
            fixture.etcd.set_back(&snapshot);
            fixture.etcd.restart();
            Ok(Mistake::of_nobody().undone_by(|fixture| {
                fixture.fleet.whole();
            }))
        }),
        Case::stays("store: etcd has no room left", Expected { health: (200, "no room"), ..WELL }, |fixture| {
            let etcd = Etcd::start_with(1, "127.0.0.1", &["--quota-backend-bytes", "4194304"]);
            let (site, processes) = fixture.cluster_at(&etcd.url, "full", &["2GiB"]);
            super::common::wait_for("it serves", std::time::Duration::from_secs(20), || site.health().0 == 200);
            let large = "x".repeat(100_000);
            let mut filled = 0;
            while etcdctl(&etcd.url, &["put", &format!("/elsewhere/{filled}"), &large]).0 {
                filled += 1;
                assert!(filled < 100, "etcd takes more than its quota");
            }
            Ok(Mistake::of_nobody().at(site).holding(processes).holding(etcd))
        }),
        Case::ends("store: an etcd that asks for a password", 1, "the store refused the request", |fixture| {
            let etcd = Etcd::start();
            for words in [&["user", "add", "root:a"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]]
            {
                assert!(etcdctl(&etcd.url, words).0, "{words:?}");
            }
            let mut stage = fixture.baton("stage");
            stage.args(["--etcd", &etcd.url]);
            Ok(fixture.start(stage)?.holding(etcd))
        }),
    ]
}

fn spoil(fixture: &mut Fixture, key: &str, value: &str) -> Result<Mistake, String> {
    fixture.etcdctl(&["put", &format!("/baton/v1/home/{key}"), value]);
    Ok(Mistake::of_nobody().undone_by(|fixture| {
        fixture.fleet.whole();
    }))
}
