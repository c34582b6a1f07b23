//! The errors that a client of etcd gets while etcd is away, and the operations that recover by themselves when it
//! returns.

mod common;

use std::time::{Duration, Instant};

use common::Etcd;
use engine::store::{Change, Committed, EtcdStore, LeaseId, Revision, Store, StoreError, Txn, Write};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);

async fn put(store: &EtcdStore, key: &str, value: &str, lease: Option<LeaseId>) -> Revision {
    let write = Write::Put { key: key.into(), value: value.into(), lease };
    match store.commit(Txn { compares: vec![], writes: vec![write] }).await.unwrap() {
        Committed::Applied { revision } => revision,
        Committed::Refused => unreachable!("there was no condition"),
    }
}

#[track_caller]
fn unavailable(error: &StoreError, url: &str) {
    let text = error.to_string();
    assert!(matches!(error, StoreError::Unavailable { .. }), "{text}");
    assert!(text.starts_with(&format!("cannot reach the store at {url}: ")), "{text}");
    assert!(text.ends_with("; is etcd running?"), "{text}");
}

/// Reads until a read succeeds.
async fn comes_back(store: &EtcdStore) {
    let back = async { while store.read("").await.is_err() {} };
    timeout(WAIT_MAX, back).await.expect("the client reaches the store again");
}

#[tokio::test]
async fn after_a_crash_of_etcd_the_watch_ends_and_everything_goes_on() {
    let mut etcd = Etcd::start().await;
    let store = EtcdStore::connect(&[etcd.url()]).await.unwrap();
    let lease = store.lease(Duration::from_secs(20)).await.unwrap();
    let written = put(&store, "mine", "1", Some(lease.id())).await;
    let mut watch = store.watch("", written).await.unwrap();

    etcd.kill();
    unavailable(&timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap_err(), &etcd.url());
    unavailable(&store.read("").await.unwrap_err(), &etcd.url());
    unavailable(&store.lease(Duration::from_secs(20)).await.unwrap_err(), &etcd.url());

    etcd.restart().await;
    comes_back(&store).await;
    // The watch goes on from the same revision, with the same lease and the same keys.
    let mut watch = store.watch("", written).await.unwrap();
    let next = put(&store, "theirs", "2", None).await;
    let changes = timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap();
    assert_eq!(changes.iter().map(Change::revision).collect::<Vec<_>>(), [next]);
    assert!(!lease.is_lost());
    assert_eq!(store.read("mine").await.unwrap().entries[0].lease, Some(lease.id()));
}

#[tokio::test]
async fn keep_alives_resume_after_a_crash_within_the_time_to_live() {
    let mut etcd = Etcd::start().await;
    let store = EtcdStore::connect(&[etcd.url()]).await.unwrap();
    let lease = store.lease(Duration::from_secs(6)).await.unwrap();
    put(&store, "mine", "1", Some(lease.id())).await;
    // Waits for one renewal, so that its stream is open when etcd dies.
    tokio::time::sleep(lease.ttl() / 2).await;
    etcd.kill();
    etcd.restart().await;
    // The pause is longer than the lease lives after its last renewal before the crash.
    tokio::time::sleep(lease.ttl() + lease.ttl() / 2).await;
    assert!(!lease.is_lost(), "no keep-alive was answered after the restart");
    assert_eq!(store.read("mine").await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_frozen_etcd_is_noticed() {
    let etcd = Etcd::start().await;
    let store = EtcdStore::connect(&[etcd.url()]).await.unwrap();
    let start = store.read("").await.unwrap().revision;
    let mut watch = store.watch("", start).await.unwrap();
    etcd.freeze();
    let frozen = Instant::now();
    unavailable(&store.read("").await.unwrap_err(), &etcd.url());
    unavailable(&timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap_err(), &etcd.url());
    eprintln!("a frozen etcd was noticed by call and watch after {:?}", frozen.elapsed());
    etcd.thaw();
    comes_back(&store).await;
}

#[tokio::test]
async fn without_a_listener_the_error_names_the_endpoint() {
    let url = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let error = EtcdStore::connect(std::slice::from_ref(&url)).await.unwrap_err();
    unavailable(&error, &url);
    assert!(error.to_string().to_lowercase().contains("connection refused"), "{error}");
}

#[tokio::test]
async fn with_another_server_the_error_comes_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The listener accepts the connection and never answers.
    let error = timeout(WAIT_MAX, EtcdStore::connect(std::slice::from_ref(&url))).await.unwrap().unwrap_err();
    unavailable(&error, &url);
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    for endpoints in [vec!["http://".to_owned()], vec!["no spaces please".to_owned()], vec![]] {
        let error = EtcdStore::connect(&endpoints).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{endpoints:?}: {error}");
    }
}

#[tokio::test]
async fn of_several_endpoints_one_that_serves_is_enough() {
    let etcd = Etcd::start().await;
    let dead = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    for endpoints in [[dead.clone(), etcd.url()], [etcd.url(), dead.clone()]] {
        let store = EtcdStore::connect(&endpoints).await.unwrap();
        let lease = store.lease(Duration::from_secs(2)).await.unwrap();
        let mut watch = store.watch("", put(&store, "k", "v", Some(lease.id())).await).await.unwrap();
        for _ in 0..20 {
            put(&store, "k", "v", Some(lease.id())).await;
        }
        timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap();
        tokio::time::sleep(lease.ttl() * 2).await;
        assert!(!lease.is_lost());
    }
}

#[tokio::test]
async fn when_the_endpoint_in_use_dies_calls_go_to_the_next() {
    // Two stores with one member each stand in for two members of one store. Only the endpoint that is asked matters.
    let (mut first, second) = (Etcd::start().await, Etcd::start().await);
    let store = EtcdStore::connect(&[first.url(), second.url()]).await.unwrap();
    put(&store, "where", "first", None).await;
    first.kill();
    // A call that was in progress when the store died may fail, once.
    let _ = store.read("where").await;
    assert!(store.read("where").await.unwrap().entries.is_empty());
    put(&store, "where", "second", None).await;
    let only_second = EtcdStore::connect(&[second.url()]).await.unwrap();
    assert_eq!(only_second.read("where").await.unwrap().entries[0].value, b"second");
}
