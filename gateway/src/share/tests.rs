//! Joining over real sockets: who is let in, who is not and what they are told, and how long strangers may linger.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::link::ClusterKey;
use engine::store::{EmbeddedServer, EtcdAccess, EtcdStore, EtcdTls, Revision, Store, Txn, Write};
use schema::{ClusterName, Keyspace};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::limits::{HANDSHAKE_WAIT_MAX, STRANGERS_MAX};
use super::*;

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A shared cluster on loopback, and the folders of its machine and of one that joins.
struct Shared {
    address: String,
    cluster: ClusterName,
    key: ClusterKey,
    pin: AuthorityPin,
    state: tempfile::TempDir,
    server: EmbeddedServer,
    _port: SharedPort,
}

impl Shared {
    async fn start() -> Self {
        let state = tempfile::tempdir().unwrap();
        let cluster: ClusterName = "home".parse().unwrap();
        let folder = ClusterFolder::new(&state.path().join("first"), &cluster);
        let authority = Authority::ensure(&folder, &cluster).unwrap();
        let (pin, key) = (authority.pin(), ensure_cluster_key(&folder).unwrap());
        let server = EmbeddedServer::bind(TcpListener::bind("127.0.0.1:0").await.unwrap()).unwrap();
        let sharing = Sharing {
            authority,
            cluster_key: key.clone(),
            store: Arc::new(server.store()),
            keyspace: Keyspace::new(&cluster),
            service: StoreService::Embedded(server.service()),
            layers: Arc::default(),
        };
        let listener = ShareListener::bind("127.0.0.1", 0, false).await.unwrap();
        let address = listener.address().to_string();
        let port = listener.serve(sharing, &["localhost".to_owned()]).unwrap();
        Self { address, cluster, key, pin, state, server, _port: port }
    }

    fn keyspace(&self) -> Keyspace {
        Keyspace::new(&self.cluster)
    }

    fn second(&self) -> ClusterFolder {
        ClusterFolder::new(&self.state.path().join("second"), &self.cluster)
    }

    async fn token(&self, ttl: Option<Duration>) -> JoinToken {
        let token = JoinToken::generate(self.cluster.clone(), self.pin).unwrap();
        add(&self.server.store(), &self.keyspace(), &token, ttl).await.unwrap();
        token
    }

    async fn join(&self, token: &JoinToken) -> Result<(Membership, IpAddr), JoinError> {
        timeout(WAIT_MAX, join(&self.address, token, "mini-2", &self.second())).await.unwrap()
    }

    async fn refusal(&self, token: &JoinToken) -> String {
        self.join(token).await.expect_err("it was let in").to_string()
    }
}

#[tokio::test]
async fn a_machine_with_a_token_gets_the_key_and_a_certificate_that_opens_the_store() {
    let shared = Shared::start().await;
    let (membership, own) = shared.join(&shared.token(None).await).await.unwrap();
    assert_eq!((membership.cluster_key, own.is_loopback()), (shared.key.clone(), true));
    let store = EtcdStore::open(&membership.store).await.unwrap();
    assert_eq!(store.read("/baton/v1/home/tokens/").await.unwrap().entries.len(), 1);
    // The membership that was kept opens it again, without a token.
    let again = kept(&shared.cluster, &shared.second()).unwrap();
    EtcdStore::open(&again.store).await.unwrap();
}

#[tokio::test]
async fn each_token_that_is_not_taken_has_its_own_sentence() {
    let shared = Shared::start().await;
    let expired = shared.token(Some(Duration::from_secs(1))).await;
    let revoked = shared.token(None).await;
    revoke(&shared.server.store(), &shared.keyspace(), &revoked.id).await.unwrap();
    assert!(shared.refusal(&revoked).await.contains("was revoked"));
    let unknown = JoinToken::generate(shared.cluster.clone(), shared.pin).unwrap();
    assert!(shared.refusal(&unknown).await.contains("does not know this token"));
    let other_secret = JoinToken { id: expired.id.clone(), ..unknown };
    assert!(shared.refusal(&other_secret).await.contains("does not know this token"));
    let wrong_pin = JoinToken { pin: AuthorityPin([3; 32]), ..shared.token(None).await };
    assert!(shared.refusal(&wrong_pin).await.contains("its authority is another one"));
    sleep(Duration::from_millis(1100)).await;
    assert!(shared.refusal(&expired).await.contains("has expired"));
    let nobody = join("127.0.0.1:1", &expired, "mini-2", &shared.second()).await.unwrap_err().to_string();
    assert!(nobody.contains("is `baton up --share` running there?"), "{nobody}");
    // The store's own port speaks no TLS.
    let plain = join(&shared.server.local_addr().to_string(), &expired, "mini-2", &shared.second()).await;
    assert!(plain.unwrap_err().to_string().contains("expected the port that `baton up --share` prints"));
    assert!(matches!(kept(&shared.cluster, &shared.second()), Err(JoinError::NotJoined { .. })), "it kept something");
}

#[tokio::test]
async fn without_a_certificate_of_the_authority_the_store_is_closed() {
    let shared = Shared::start().await;
    let (membership, _) = shared.join(&shared.token(None).await).await.unwrap();
    let anonymous = EtcdTls { identity: None, ..membership.store.tls.clone() };
    EtcdStore::open(&EtcdAccess { tls: anonymous, ..membership.store.clone() }).await.unwrap_err();
    // One of another cluster's authority.
    let other = Shared::start().await;
    let (stranger, _) = other.join(&other.token(None).await).await.unwrap();
    let foreign = EtcdTls { identity: stranger.store.tls.identity.clone(), ..membership.store.tls.clone() };
    EtcdStore::open(&EtcdAccess { tls: foreign, ..membership.store.clone() }).await.unwrap_err();
    EtcdStore::open(&membership.store).await.unwrap();
}

#[tokio::test]
async fn members_that_make_no_call_make_room_for_others_and_one_that_watches_stays() {
    let shared = Shared::start().await;
    let (membership, _) = shared.join(&shared.token(None).await).await.unwrap();
    let first = EtcdStore::open(&membership.store).await.unwrap();
    let mut watch = first.watch("/b/", Revision(1)).await.unwrap();
    // More than the port has places for members.
    let mut idle = Vec::new();
    for _ in 0..140 {
        idle.push(EtcdStore::open(&membership.store).await.expect("one without a call made room"));
    }
    let write = Write::Put { key: "/b/1".into(), value: b"x".to_vec(), lease: None };
    idle[139].commit(Txn { compares: vec![], writes: vec![write] }).await.unwrap();
    assert_eq!(timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap().len(), 1);
}

#[tokio::test]
async fn strangers_that_say_nothing_or_nonsense_are_cut_off_and_members_go_on() {
    let shared = Shared::start().await;
    let token = shared.token(None).await;
    let (membership, _) = shared.join(&token).await.unwrap();
    let store = EtcdStore::open(&membership.store).await.unwrap();
    let started = Instant::now();
    let mut strangers = Vec::new();
    for at in 0..STRANGERS_MAX {
        let mut stream = TcpStream::connect(&shared.address).await.unwrap();
        // Half of them begin a handshake and never end it.
        if at % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
        }
        strangers.push(stream);
    }
    sleep(Duration::from_millis(100)).await;
    // One more takes the place of the oldest, and members that are connected do not notice.
    timeout(HANDSHAKE_WAIT_MAX / 2, shared.join(&token)).await.expect("it does not wait for strangers").unwrap();
    let closed = timeout(HANDSHAKE_WAIT_MAX / 2, strangers[0].read(&mut [0; 1])).await.expect("the oldest is closed");
    assert!(!matches!(closed, Ok(1..)));
    store.read("/baton/").await.unwrap();
    for mut stranger in strangers {
        let mut rest = Vec::new();
        let _ = timeout(WAIT_MAX, stranger.read_to_end(&mut rest)).await.expect("it is cut off");
    }
    assert!(started.elapsed() < HANDSHAKE_WAIT_MAX + Duration::from_secs(3), "{:?}", started.elapsed());
    shared.join(&token).await.unwrap();
}
