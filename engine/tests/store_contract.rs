//! The store's contract, clause by clause, against each implementation of `Store`.
//!
//! The numbers in the tests' names are those of the clauses on the `Store` trait.

mod common;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use common::Etcd;
use common::certificates::Certificates;
use engine::store::{
    Change, Committed, Compare, EmbeddedServer, EtcdAccess, EtcdStore, LeaseId, MemoryStore, Revision, SharedStore,
    Snapshot, StoreError, Txn, Watch, Write, limits,
};
use etcd_client::{Certificate, ConnectOptions, Identity, TlsOptions};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Address of a store. Through it a test does the things that only an operator does.
#[derive(Clone)]
enum StoreAddress {
    Memory(MemoryStore),
    Url(Box<EtcdAccess>),
}

/// A store under test, with two clients and the value that keeps it running.
struct TestStore {
    store: SharedStore,
    other: SharedStore,
    address: StoreAddress,
    running: Running,
}

enum Running {
    Here,
    Embedded(Option<EmbeddedServer>),
    /// The task that accepts clients of the embedded store by TLS.
    EmbeddedWithTls(JoinSet<()>),
    Etcd(Etcd),
}

impl StoreAddress {
    async fn connect(&self) -> SharedStore {
        match self {
            Self::Memory(store) => Arc::new(store.clone()),
            Self::Url(access) => Arc::new(EtcdStore::open(access).await.unwrap()),
        }
    }

    async fn operator(access: &EtcdAccess) -> etcd_client::Client {
        let tls = access.tls.authority.as_ref().map(|authority| {
            let (certificate, key) = access.tls.identity.as_ref().expect("a certificate for clients");
            let tls = TlsOptions::new().ca_certificate(Certificate::from_pem(authority));
            ConnectOptions::new().with_tls(tls.identity(Identity::from_pem(certificate, key)))
        });
        etcd_client::Client::connect(&access.endpoints, tls).await.unwrap()
    }

    /// Revokes a lease without its holder.
    async fn revoke(&self, id: LeaseId) {
        match self {
            Self::Memory(store) => store.revoke(id).await.unwrap(),
            Self::Url(access) => {
                Self::operator(access).await.lease_revoke(id.0).await.unwrap();
            }
        }
    }

    /// Deletes the history before `revision`.
    async fn compact(&self, revision: Revision) {
        match self {
            Self::Memory(store) => store.compact(revision).await.unwrap(),
            Self::Url(access) => {
                let revision = i64::try_from(revision.0).unwrap();
                Self::operator(access).await.compact(revision, None).await.unwrap();
            }
        }
    }
}

impl TestStore {
    async fn new(address: StoreAddress, running: Running) -> Self {
        Self { store: address.connect().await, other: address.connect().await, address, running }
    }

    async fn memory() -> Self {
        Self::new(StoreAddress::Memory(MemoryStore::new()), Running::Here).await
    }

    async fn embedded() -> Self {
        let server = EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        Self::new(StoreAddress::Url(Box::new(EtcdAccess::plain(&[server.url()]))), Running::Embedded(Some(server)))
            .await
    }

    async fn embedded_with_tls() -> Self {
        let server = EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let (certificates, service) = (Certificates::new(), server.service());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoints = vec![format!("https://{}", listener.local_addr().unwrap())];
        let acceptor = TlsAcceptor::from(Arc::new(certificates.server_config()));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), service.clone());
                clients.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        service.serve(stream).await;
                    }
                });
            }
        });
        let access = EtcdAccess { endpoints, tls: certificates.tls(), login: None };
        Self::new(StoreAddress::Url(Box::new(access)), Running::EmbeddedWithTls(tasks)).await
    }

    async fn etcd() -> Self {
        let etcd = Etcd::start().await;
        Self::new(StoreAddress::Url(Box::new(etcd.access(None))), Running::Etcd(etcd)).await
    }

    async fn etcd_with_tls() -> Self {
        let etcd = Etcd::start_with_tls().await;
        Self::new(StoreAddress::Url(Box::new(etcd.access(None))), Running::Etcd(etcd)).await
    }

    /// Makes the store unreachable.
    fn cut(&mut self) {
        match &mut self.running {
            Running::Here => unreachable!("a store in this process cannot be cut off"),
            Running::Embedded(server) => drop(server.take()),
            Running::EmbeddedWithTls(tasks) => tasks.abort_all(),
            Running::Etcd(etcd) => etcd.freeze(),
        }
    }
}

// --- Shorthands ---

fn put(key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.into(), lease: None }
}

fn put_under(lease: LeaseId, key: &str, value: &str) -> Write {
    Write::Put { key: key.into(), value: value.into(), lease: Some(lease) }
}

fn delete(key: &str) -> Write {
    Write::Delete { key: key.into() }
}

fn absent(key: &str) -> Compare {
    Compare::Absent { key: key.into() }
}

fn when(compares: Vec<Compare>, writes: Vec<Write>) -> Txn {
    Txn { compares, writes }
}

async fn write(store: &SharedStore, writes: Vec<Write>) -> Revision {
    match store.commit(when(vec![], writes)).await.unwrap() {
        Committed::Applied { revision } => revision,
        Committed::Refused => panic!("a commit without conditions was refused"),
    }
}

fn texts(snapshot: &Snapshot) -> Vec<(&str, &str)> {
    snapshot.entries.iter().map(|entry| (entry.key.as_str(), std::str::from_utf8(&entry.value).unwrap())).collect()
}

fn shown(change: &Change) -> String {
    match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Change::Deleted { key, .. } => format!("-{key}"),
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(WAIT_MAX, future).await.unwrap_or_else(|_| panic!("{what}: nothing happened within {WAIT_MAX:?}"))
}

/// Reads batches until at least `count` changes came.
async fn collect(watch: &mut Watch, count: usize) -> Vec<Change> {
    let mut changes = Vec::new();
    while changes.len() < count {
        changes.extend(soon("a watch", watch.next()).await.unwrap());
    }
    changes
}

async fn shows(watch: &mut Watch, expected: &[&str]) {
    let changes = collect(watch, expected.len()).await;
    assert_eq!(changes.iter().map(shown).collect::<Vec<_>>(), expected);
}

// --- Reading ---

async fn clause_1_a_snapshot_holds_the_keys_under_its_prefix_in_byte_order(fixture: TestStore) {
    write(&fixture.store, vec![put("a/b", "2"), put("a/Z", "1"), put("a/ä", "4"), put("a0", "5"), put("a", "0")]).await;
    write(&fixture.store, vec![put("a/b/c", "3")]).await;
    let under = fixture.store.read("a/").await.unwrap();
    assert_eq!(texts(&under), [("a/Z", "1"), ("a/b", "2"), ("a/b/c", "3"), ("a/ä", "4")]);
    let all = fixture.store.read("").await.unwrap();
    assert_eq!(all.entries.len(), 6);
    assert_eq!(all.get("a/b/c").unwrap().value, b"3");
    assert!(fixture.store.read("b").await.unwrap().entries.is_empty());
}

async fn clause_2_an_answered_commit_is_in_every_later_snapshot(fixture: TestStore) {
    for round in 0..20 {
        let revision = write(&fixture.store, vec![put("k", &round.to_string())]).await;
        let snapshot = fixture.other.read("k").await.unwrap();
        assert_eq!(texts(&snapshot), [("k", round.to_string().as_str())]);
        assert_eq!(snapshot.entries[0].mod_revision, revision);
        assert!(snapshot.revision >= revision);
    }
}

// --- Committing ---

async fn clause_3_a_commit_applies_all_its_writes_or_none(fixture: TestStore) {
    let first = write(&fixture.store, vec![put("a", "1")]).await;
    let unchanged = || Compare::Unchanged { key: "a".into(), mod_revision: first };
    let nothing = Compare::NothingUnder { prefix: "b".into() };
    let both = when(vec![unchanged(), absent("b"), nothing], vec![put("b", "2"), delete("a")]);
    assert!(matches!(fixture.store.commit(both.clone()).await.unwrap(), Committed::Applied { .. }));
    let snapshot = fixture.store.read("").await.unwrap();
    assert_eq!(texts(&snapshot), [("b", "2")]);
    assert_eq!(snapshot.entries[0].mod_revision, snapshot.revision);

    for refused in [
        both,
        when(vec![Compare::Present { key: "b".into() }, unchanged()], vec![put("c", "3")]),
        when(vec![Compare::Present { key: "a".into() }], vec![put("c", "3")]),
        when(vec![absent("b")], vec![put("c", "3")]),
        when(vec![Compare::NothingUnder { prefix: "b".into() }], vec![put("c", "3")]),
    ] {
        assert_eq!(fixture.store.commit(refused).await.unwrap(), Committed::Refused);
    }
    assert_eq!(fixture.store.read("").await.unwrap(), snapshot);
}

async fn clause_4_revisions_grow_with_every_change_and_only_then(fixture: TestStore) {
    let first = write(&fixture.store, vec![put("a", "1"), put("b", "1")]).await;
    let second = write(&fixture.store, vec![put("a", "1")]).await;
    assert!(second > first, "{second} is not after {first}");
    assert_eq!(write(&fixture.store, vec![]).await, second);
    assert_eq!(write(&fixture.store, vec![delete("nothing")]).await, second);
    assert!(write(&fixture.store, vec![delete("b")]).await > second);
}

async fn clause_5_of_commits_against_the_same_past_one_is_applied(fixture: TestStore) {
    let mut racers = Vec::new();
    for racer in 0..10 {
        let store = if racer % 2 == 0 { fixture.store.clone() } else { fixture.other.clone() };
        racers.push(tokio::spawn(async move {
            let txn = when(vec![absent("slot")], vec![put("slot", &racer.to_string())]);
            (racer, store.commit(txn).await.unwrap())
        }));
    }
    let mut winners = Vec::new();
    for racer in racers {
        if let (racer, Committed::Applied { .. }) = racer.await.unwrap() {
            winners.push(racer.to_string());
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(texts(&fixture.store.read("slot").await.unwrap()), [("slot", winners[0].as_str())]);
}

async fn clause_6_a_key_written_twice_in_one_commit_is_invalid(fixture: TestStore) {
    for writes in [vec![put("a", "1"), put("a", "2")], vec![put("a", "1"), delete("a")]] {
        let error = fixture.store.commit(when(vec![], writes)).await.unwrap_err();
        assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
        assert!(error.to_string().contains("duplicate key"), "{error}");
    }
    assert!(fixture.store.read("").await.unwrap().entries.is_empty());
}

async fn clause_7_a_transaction_that_is_too_large_is_refused(fixture: TestStore) {
    let half = "x".repeat(limits::REQUEST_BYTES_MAX / 2);
    let error = fixture
        .store
        .commit(when(vec![], vec![put("a", &half), put("b", &half), put("c", "this is too much")]))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Invalid { .. }), "{error}");
    assert!(fixture.store.read("").await.unwrap().entries.is_empty());
    // A transaction just below the bound, framing included, is accepted.
    write(&fixture.store, vec![put("a", &half), put("b", &half[..half.len() - 4096])]).await;
    assert_eq!(fixture.other.read("").await.unwrap().entries.len(), 2);
}

async fn clause_8_a_put_under_an_unknown_lease_is_refused(fixture: TestStore) {
    let unknown = LeaseId(0x1234);
    let error =
        fixture.store.commit(when(vec![], vec![put("b", "1"), put_under(unknown, "a", "1")])).await.unwrap_err();
    assert_eq!(error, StoreError::LeaseGone { id: unknown });
    assert!(fixture.store.read("").await.unwrap().entries.is_empty());
}

async fn clause_9_a_put_without_a_lease_frees_the_key(fixture: TestStore) {
    let lease = fixture.store.lease(Duration::from_secs(5)).await.unwrap();
    write(&fixture.store, vec![put_under(lease.id(), "kept", "1"), put_under(lease.id(), "lost", "1")]).await;
    assert_eq!(fixture.store.read("kept").await.unwrap().entries[0].lease, Some(lease.id()));
    write(&fixture.store, vec![put("kept", "2")]).await;
    assert_eq!(fixture.store.read("kept").await.unwrap().entries[0].lease, None);
    lease.revoke().await;
    assert_eq!(texts(&fixture.store.read("").await.unwrap()), [("kept", "2")]);
}

// --- Watching ---

async fn clause_10_a_watch_reports_every_later_change_in_order_and_once(fixture: TestStore) {
    let before = write(&fixture.store, vec![put("w/seen", "0")]).await;
    write(&fixture.store, vec![put("w/a", "1")]).await;
    write(&fixture.store, vec![put("elsewhere", "1")]).await;
    write(&fixture.store, vec![delete("w/a")]).await;
    let mut watch = fixture.other.watch("w/", before).await.unwrap();
    shows(&mut watch, &["w/a=1", "-w/a"]).await;
    for round in 0..50 {
        write(&fixture.store, vec![put("w/b", &round.to_string())]).await;
    }
    let changes = collect(&mut watch, 50).await;
    assert_eq!(changes.iter().map(shown).collect::<Vec<_>>(), (0..50).map(|n| format!("w/b={n}")).collect::<Vec<_>>());
    assert!(changes.is_sorted_by(|a, b| a.revision() < b.revision()));
    // No change comes twice: the next change to arrive is the next one that is made.
    let last = write(&fixture.store, vec![delete("w/b")]).await;
    let next = soon("the last change", watch.next()).await.unwrap();
    assert_eq!(next, [Change::Deleted { key: "w/b".into(), revision: last }]);
}

async fn clause_11_a_commit_comes_in_one_batch_and_no_batch_is_empty(fixture: TestStore) {
    let start = fixture.store.read("").await.unwrap().revision;
    let mut watch = fixture.store.watch("w/", start).await.unwrap();
    // The values are so long that a server would split the batch.
    let value = "v".repeat(20_000);
    for _ in 0..5 {
        write(&fixture.other, vec![put("not/ours", "1")]).await;
        write(&fixture.other, (0..50).map(|n| put(&format!("w/{n:02}"), &value)).collect()).await;
    }
    let mut seen = 0;
    while seen < 250 {
        let batch = soon("a batch", watch.next()).await.unwrap();
        assert!(!batch.is_empty());
        assert_eq!(batch.len() % 50, 0, "a commit of 50 changes was split");
        seen += batch.len();
    }
}

async fn clause_12_dropping_the_wait_for_a_batch_loses_nothing(fixture: TestStore) {
    let start = fixture.store.read("").await.unwrap().revision;
    let mut watch = fixture.store.watch("w/", start).await.unwrap();
    let writer = tokio::spawn({
        let store = fixture.other.clone();
        async move {
            for round in 0..100 {
                write(&store, vec![put("w/k", &round.to_string())]).await;
            }
        }
    });
    let mut seen = Vec::new();
    soon("a hundred changes", async {
        while seen.len() < 100 {
            tokio::select! {
                biased;
                batch = watch.next() => seen.extend(batch.unwrap().iter().map(shown)),
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    writer.await.unwrap();
    assert_eq!(seen, (0..100).map(|n| format!("w/k={n}")).collect::<Vec<_>>());
}

async fn clause_13_a_watch_from_forgotten_history_ends_and_reading_again_helps(fixture: TestStore) {
    let old = write(&fixture.store, vec![put("w/a", "0")]).await;
    for round in 1..10 {
        write(&fixture.store, vec![put("w/a", &round.to_string())]).await;
    }
    let snapshot = fixture.store.read("w/").await.unwrap();
    fixture.address.compact(snapshot.revision).await;

    let mut watch = fixture.store.watch("w/", old).await.unwrap();
    let error = soon("the end of the watch", watch.next()).await.unwrap_err();
    assert_eq!(error, StoreError::Compacted { oldest: snapshot.revision });
    assert_eq!(soon("an ended watch", watch.next()).await.unwrap_err(), error);

    let mut watch = fixture.store.watch("w/", snapshot.revision).await.unwrap();
    write(&fixture.store, vec![put("w/a", "new")]).await;
    shows(&mut watch, &["w/a=new"]).await;
}

// --- Leases ---

async fn clause_14_a_held_lease_outlives_its_time_to_live(fixture: TestStore) {
    let lease = fixture.store.lease(limits::LEASE_TTL_MIN).await.unwrap();
    write(&fixture.store, vec![put_under(lease.id(), "k", "1")]).await;
    tokio::time::sleep(lease.ttl() + lease.ttl() / 2).await;
    assert!(!lease.is_lost());
    assert_eq!(fixture.other.read("k").await.unwrap().entries[0].lease, Some(lease.id()));
}

async fn clause_15_revoking_a_lease_deletes_its_keys(fixture: TestStore) {
    let start = fixture.store.read("").await.unwrap().revision;
    let mut watch = fixture.other.watch("k", start).await.unwrap();
    let revoked = fixture.store.lease(Duration::from_secs(60)).await.unwrap();
    write(&fixture.store, vec![put_under(revoked.id(), "k/1", "1"), put_under(revoked.id(), "k/2", "1")]).await;
    revoked.revoke().await;
    assert!(fixture.other.read("k").await.unwrap().entries.is_empty());
    shows(&mut watch, &["k/1=1", "k/2=1", "-k/1", "-k/2"]).await;

    let dropped = fixture.store.lease(Duration::from_secs(60)).await.unwrap();
    write(&fixture.store, vec![put_under(dropped.id(), "k/3", "1")]).await;
    drop(dropped);
    shows(&mut watch, &["k/3=1", "-k/3"]).await;
}

async fn clause_16_a_holder_that_dies_silently_loses_its_keys(fixture: TestStore) {
    let start = fixture.store.read("").await.unwrap().revision;
    let mut watch = fixture.other.watch("k", start).await.unwrap();
    let address = fixture.address.clone();
    // The holder's runtime is shut down: none of its tasks runs any more, and none revokes the lease.
    let (gone, is_gone) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let holder = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let lease = holder.block_on(async {
            let store = address.connect().await;
            let lease = store.lease(limits::LEASE_TTL_MIN).await.unwrap();
            write(&store, vec![put_under(lease.id(), "k", "1")]).await;
            lease
        });
        drop(holder);
        drop(lease);
        gone.send(()).unwrap();
    });
    is_gone.await.expect("the holder lived until its end");
    shows(&mut watch, &["k=1", "-k"]).await;
    assert!(fixture.store.read("k").await.unwrap().entries.is_empty());
}

async fn clause_17_a_holder_whose_lease_was_taken_away_learns_it(fixture: TestStore) {
    let lease = fixture.store.lease(Duration::from_secs(3)).await.unwrap();
    write(&fixture.store, vec![put_under(lease.id(), "k", "1")]).await;
    fixture.address.revoke(lease.id()).await;
    assert!(fixture.other.read("k").await.unwrap().entries.is_empty());
    soon("the loss of a lease", lease.lost()).await;
    assert!(lease.is_lost());
    soon("the loss of a lease, asked again", lease.lost()).await;
    lease.revoke().await;
}

async fn clause_18_a_holder_that_cannot_reach_the_store_keeps_its_lease(mut fixture: TestStore) {
    let lease = fixture.store.lease(limits::LEASE_TTL_MIN).await.unwrap();
    tokio::time::sleep(lease.ttl()).await;
    assert!(!lease.is_lost());
    fixture.cut();
    tokio::time::sleep(lease.ttl() + lease.ttl() / 2).await;
    assert!(!lease.is_lost());
}

async fn clause_19_times_to_live_are_rounded_up(fixture: TestStore) {
    let ttl = |asked| {
        let store = fixture.store.clone();
        async move { store.lease(asked).await.unwrap().ttl() }
    };
    assert_eq!(ttl(Duration::from_millis(10)).await, limits::LEASE_TTL_MIN);
    assert_eq!(ttl(Duration::from_millis(4001)).await, Duration::from_secs(5));
    assert_eq!(ttl(Duration::from_secs(7)).await, Duration::from_secs(7));
}

macro_rules! contract {
    ($($clause:ident)*) => {
        mod memory {
            use super::TestStore;
            $(#[tokio::test] async fn $clause() { super::$clause(TestStore::memory().await).await })*
        }
        mod embedded {
            use super::TestStore;
            $(#[tokio::test] async fn $clause() { super::$clause(TestStore::embedded().await).await })*
            #[tokio::test]
            async fn clause_18_a_holder_that_cannot_reach_the_store_keeps_its_lease() {
                let store = TestStore::embedded().await;
                super::clause_18_a_holder_that_cannot_reach_the_store_keeps_its_lease(store).await;
            }
        }
        mod embedded_with_tls {
            use super::TestStore;
            $(#[tokio::test] async fn $clause() { super::$clause(TestStore::embedded_with_tls().await).await })*
        }
        mod real_etcd {
            use super::TestStore;
            $(#[tokio::test] async fn $clause() { super::$clause(TestStore::etcd().await).await })*
            #[tokio::test]
            async fn clause_18_a_holder_that_cannot_reach_the_store_keeps_its_lease() {
                super::clause_18_a_holder_that_cannot_reach_the_store_keeps_its_lease(TestStore::etcd().await).await;
            }
        }
        mod real_etcd_with_tls {
            use super::TestStore;
            $(#[tokio::test] async fn $clause() { super::$clause(TestStore::etcd_with_tls().await).await })*
        }
    };
}

contract! {
    clause_1_a_snapshot_holds_the_keys_under_its_prefix_in_byte_order
    clause_2_an_answered_commit_is_in_every_later_snapshot
    clause_3_a_commit_applies_all_its_writes_or_none
    clause_4_revisions_grow_with_every_change_and_only_then
    clause_5_of_commits_against_the_same_past_one_is_applied
    clause_6_a_key_written_twice_in_one_commit_is_invalid
    clause_7_a_transaction_that_is_too_large_is_refused
    clause_8_a_put_under_an_unknown_lease_is_refused
    clause_9_a_put_without_a_lease_frees_the_key
    clause_10_a_watch_reports_every_later_change_in_order_and_once
    clause_11_a_commit_comes_in_one_batch_and_no_batch_is_empty
    clause_12_dropping_the_wait_for_a_batch_loses_nothing
    clause_13_a_watch_from_forgotten_history_ends_and_reading_again_helps
    clause_14_a_held_lease_outlives_its_time_to_live
    clause_15_revoking_a_lease_deletes_its_keys
    clause_16_a_holder_that_dies_silently_loses_its_keys
    clause_17_a_holder_whose_lease_was_taken_away_learns_it
    clause_19_times_to_live_are_rounded_up
}
