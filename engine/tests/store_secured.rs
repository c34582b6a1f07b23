//! A real etcd as companies run it: TLS with certificates on both sides, users with passwords, and roles.

mod common;

use std::time::Duration;

use common::Etcd;
use common::certificates::Certificates;
use engine::store::{Committed, Compare, EtcdAccess, EtcdStore, EtcdTls, LeaseId, Store, StoreError, Txn, Write};
use tokio::time::{sleep, timeout};

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The time after which the tests' etcd forgets a token that nobody used, and a second for its clock.
const TOKEN_TTL: Duration = Duration::from_secs(3);
const PREFIX: &str = "/baton/v1/home/";

fn put(key: &str, lease: Option<LeaseId>) -> Txn {
    let write = Write::Put { key: format!("{PREFIX}{key}"), value: b"v".to_vec(), lease };
    Txn { compares: vec![Compare::Absent { key: format!("{PREFIX}{key}") }], writes: vec![write] }
}

async fn error(access: &EtcdAccess) -> String {
    EtcdStore::open(access).await.expect_err("it was let in").to_string()
}

/// etcd with a user for each of `users`: a name, and the rights under the prefix.
async fn etcd_with(users: &[(&str, &[&str])]) -> Etcd {
    let mut etcd = Etcd::start_with_tls().await;
    etcd.enable_auth();
    for (name, rights) in users {
        let rights: Vec<_> = rights.iter().map(|right| (*right, PREFIX)).collect();
        etcd.add_user(name, "pw", &rights);
    }
    etcd
}

#[tokio::test]
async fn a_user_with_the_least_role_does_all_that_a_member_does_and_outlives_its_token() {
    let mut etcd = etcd_with(&[("baton", &["readwrite"])]).await;
    let store = EtcdStore::open(&etcd.access(Some(("baton", "pw")))).await.unwrap();
    let lease = store.lease(Duration::from_secs(2)).await.unwrap();
    let start = store.read(PREFIX).await.unwrap().revision;
    let mut watch = store.watch(PREFIX, start).await.unwrap();
    assert!(matches!(store.commit(put("a", Some(lease.id()))).await.unwrap(), Committed::Applied { .. }));
    assert_eq!(timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap().len(), 1);
    assert_eq!(store.alarms().await.unwrap(), Vec::<String>::new());

    // Keep-alives are the only calls, and etcd forgets the token.
    sleep(TOKEN_TTL).await;
    assert!(!lease.is_lost());
    assert!(matches!(store.commit(put("b", None)).await.unwrap(), Committed::Applied { .. }));
    sleep(TOKEN_TTL).await;
    let mut later = store.watch(PREFIX, start).await.unwrap();
    assert_eq!(timeout(WAIT_MAX, later.next()).await.unwrap().unwrap().len(), 2, "the watch has an old token");

    // An etcd that was started again has forgotten all tokens.
    etcd.kill();
    etcd.restart().await;
    let applied = timeout(WAIT_MAX, async {
        while store.commit(put("c", None)).await.is_err() {}
        store.read(PREFIX).await.unwrap().entries.len()
    });
    assert_eq!(applied.await.unwrap(), 3);
    sleep(lease.ttl() + Duration::from_secs(1)).await;
    assert!(!lease.is_lost() && store.read(PREFIX).await.unwrap().entries.len() == 3);
    lease.revoke().await;
    assert_eq!(store.read(PREFIX).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_user_with_less_gets_a_sentence_that_names_the_missing_permission() {
    let etcd = etcd_with(&[("reader", &["read"]), ("writer", &["write"]), ("nobody", &[])]).await;
    let grant = format!("needs `etcdctl role grant-permission ROLE readwrite --prefix=true {PREFIX}`");
    let reader = EtcdStore::open(&etcd.access(Some(("reader", "pw")))).await.unwrap();
    let start = reader.read(PREFIX).await.unwrap().revision;
    let text = reader.commit(put("a", None)).await.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("etcd's user reader may not write {PREFIX}a: ")) && text.contains(&grant),
        "{text}"
    );

    let nobody = EtcdStore::open(&etcd.access(Some(("nobody", "pw")))).await.unwrap();
    let text = nobody.read(PREFIX).await.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("etcd's user nobody may not read {PREFIX}: ")) && text.contains(&grant),
        "{text}"
    );
    let mut watch = nobody.watch(PREFIX, start).await.unwrap();
    let ended = timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap_err();
    assert!(matches!(&ended, StoreError::Denied { .. }) && ended.to_string().contains(&grant), "{ended}");

    // A compare reads, too.
    let writer = EtcdStore::open(&etcd.access(Some(("writer", "pw")))).await.unwrap();
    assert!(matches!(writer.commit(put("a", None)).await, Err(StoreError::Denied { .. })));
}

#[tokio::test]
async fn whoever_is_not_let_in_learns_why() {
    let etcd = etcd_with(&[("baton", &["readwrite"])]).await;
    let wrong = error(&etcd.access(Some(("baton", "other")))).await;
    assert!(wrong.contains("does not let the user baton in") && wrong.contains("etcd_password_file"), "{wrong}");
    let unknown = error(&etcd.access(Some(("stranger", "pw")))).await;
    assert!(unknown.contains("does not let the user stranger in"), "{unknown}");

    let right = etcd.access(Some(("baton", "pw")));
    let without = error(&EtcdAccess { tls: EtcdTls { identity: None, ..right.tls.clone() }, ..right.clone() }).await;
    // Etcd closes the connection when the handshake is over, and its reason may come too late.
    assert!(without.contains("expected etcd_cert and etcd_key"), "{without}");
    let other = error(&EtcdAccess { tls: Certificates::new().tls(), ..right.clone() }).await;
    assert!(other.contains("expected etcd_ca to name the authority"), "{other}");
    let public = error(&EtcdAccess { tls: EtcdTls::default(), ..right.clone() }).await;
    assert!(public.contains("expected etcd_ca to name the authority"), "{public}");
    let plain = error(&EtcdAccess::plain(&[etcd.url().replacen("https", "http", 1)])).await;
    assert!(plain.starts_with("cannot reach the store at http://"), "{plain}");
}

#[tokio::test]
async fn a_user_where_none_is_asked_for_is_refused_with_advice() {
    let etcd = Etcd::start().await;
    let text = error(&etcd.access(Some(("baton", "pw")))).await;
    assert!(text.contains("authentication is not enabled") && text.contains("leave etcd_user out"), "{text}");
}

#[tokio::test]
async fn of_several_members_one_that_is_down_keeps_nobody_out() {
    let etcd = etcd_with(&[("baton", &["readwrite"])]).await;
    let mut access = etcd.access(Some(("baton", "pw")));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    access.endpoints.insert(0, format!("https://{closed}"));
    let store = EtcdStore::open(&access).await.unwrap();
    assert!(matches!(store.commit(put("a", None)).await.unwrap(), Committed::Applied { .. }));
}
