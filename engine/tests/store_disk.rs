//! The embedded store with a file: what was acknowledged outlives kill -9 at any moment, leases go on with the time
//! that they have left, and a full disk loses nothing and keeps nobody from reading.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use engine::store::{
    Change, Committed, EmbeddedServer, EtcdStore, LeaseId, MemoryStore, Revision, Store, StoreError, Txn, Write,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

/// Far more than any step takes, so that a test that hangs fails with a message.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Names the file to serve, in the process that the test kills. Its port is written beside it.
const SERVED_FILE: &str = "STORE_DISK_FILE";
/// The number of times that the server is killed.
const KILLS: &str = "STORE_KILLS";
/// Tasks that write at the same time, so that batches have several writes.
const WRITERS: usize = 6;
/// Bytes of the largest values: batches are written in many pieces.
const VALUE_BYTES_MAX: usize = 20_000;

fn put(key: &str, value: &[u8], lease: Option<LeaseId>) -> Txn {
    Txn { compares: vec![], writes: vec![Write::Put { key: key.into(), value: value.to_vec(), lease }] }
}

async fn applied(store: &impl Store, txn: Txn) -> Result<Revision, StoreError> {
    match store.commit(txn).await? {
        Committed::Applied { revision } => Ok(revision),
        Committed::Refused => unreachable!("there was no condition"),
    }
}

// --- kill -9 ---

/// The process that is killed: this test program, with one test only.
struct Server(Child);

impl Server {
    async fn start(file: &Path) -> (Self, String) {
        let port = file.with_extension("port");
        let _ = std::fs::remove_file(&port);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "serves_a_file_until_it_is_killed", "--ignored", "--nocapture"])
            .env(SERVED_FILE, file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut server = Self(child);
        let started = Instant::now();
        loop {
            if let Ok(url) = std::fs::read_to_string(&port)
                && url.ends_with('\n')
            {
                return (server, url.trim().to_owned());
            }
            assert!(server.0.try_wait().unwrap().is_none() && started.elapsed() < WAIT_MAX, "it does not serve");
            sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "is the process that another test starts"]
async fn serves_a_file_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "the way in which a test tells its own program what to do")]
    let file = std::env::var_os(SERVED_FILE);
    let Some(file) = file else { return };
    let store = MemoryStore::open(file.as_ref()).unwrap();
    let server = EmbeddedServer::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), store).unwrap();
    let port = Path::new(&file).with_extension("port");
    std::fs::write(port.with_extension("new"), format!("{}\n", server.url())).unwrap();
    std::fs::rename(port.with_extension("new"), &port).unwrap();
    std::future::pending::<()>().await;
}

/// The keys of one writer, as it knows them.
#[derive(Default)]
struct Known {
    /// The value that was acknowledged last. `None` for a key that was deleted.
    acknowledged: BTreeMap<String, Option<Vec<u8>>>,
    /// The value of the one write that was not answered.
    unanswered: Option<(String, Option<Vec<u8>>)>,
    newest: u64,
    writes: u64,
}

impl Known {
    /// Writes until the server is gone.
    async fn write(mut self, url: String, writer: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let Ok(store) = EtcdStore::connect(&[url]).await else { return self };
        self.unanswered = None;
        loop {
            let key = format!("/w{writer}/{:02}", random.random_range(0..20));
            let value = (random.random_range(0..5) > 0).then(|| {
                let bytes = if random.random_range(0..8) == 0 { VALUE_BYTES_MAX } else { 200 };
                vec![random.random(); random.random_range(0..bytes)]
            });
            let txn = match &value {
                Some(value) => put(&key, value, None),
                None => Txn { compares: vec![], writes: vec![Write::Delete { key: key.clone() }] },
            };
            match applied(&store, txn).await {
                Ok(revision) => {
                    self.newest = self.newest.max(revision.0);
                    self.writes += 1;
                    self.acknowledged.insert(key, value);
                }
                Err(StoreError::Unavailable { .. }) => {
                    self.unanswered = Some((key, value));
                    return self;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Compares with what the store has. The write that was not answered may be there or not, and is known from now on.
    fn check(&mut self, found: &BTreeMap<String, Vec<u8>>, what: &str) {
        if let Some((key, value)) = self.unanswered.take()
            && found.get(&key) == value.as_ref()
        {
            self.acknowledged.insert(key, value);
        }
        for (key, value) in &self.acknowledged {
            assert_eq!(found.get(key), value.as_ref(), "{what}: {key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_at_random_moments_loses_nothing_that_was_acknowledged() {
    #[expect(clippy::disallowed_methods, reason = "a long run is asked for by hand")]
    let kills = std::env::var(KILLS).ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let mut known: Vec<Known> = (0..WRITERS).map(|_| Known::default()).collect();
    let mut random = StdRng::seed_from_u64(7);
    let (mut server, mut url) = Server::start(&file).await;
    let store = EtcdStore::connect(std::slice::from_ref(&url)).await.unwrap();
    let lease = store.lease(Duration::from_secs(3600)).await.unwrap();
    applied(&store, put("/leased", b"x", Some(lease.id()))).await.unwrap();
    let lease_id = lease.id();
    lease.let_expire();
    drop(store);
    for kill in 0..kills {
        let writing = known.drain(..).enumerate().map(|(at, known)| {
            let (url, seed) = (url.clone(), random.random());
            tokio::spawn(known.write(url, at, seed))
        });
        let writing: Vec<_> = writing.collect();
        sleep(Duration::from_micros(random.random_range(2_000..60_000))).await;
        drop(server);
        for writer in writing {
            known.push(timeout(WAIT_MAX, writer).await.unwrap().unwrap());
        }
        (server, url) = Server::start(&file).await;
        let store = EtcdStore::connect(std::slice::from_ref(&url)).await.unwrap();
        let snapshot = store.read("").await.unwrap();
        let newest = known.iter().map(|known| known.newest).max().unwrap();
        assert!(snapshot.revision.0 >= newest, "kill {kill}: revision {} after {newest}", snapshot.revision);
        assert_eq!(snapshot.get("/leased").expect("the leased key").lease, Some(lease_id), "kill {kill}");
        let found = snapshot.entries.into_iter().map(|entry| (entry.key, entry.value)).collect();
        known.iter_mut().for_each(|known| known.check(&found, &format!("kill {kill}")));
    }
    let writes: u64 = known.iter().map(|known| known.writes).sum();
    println!("{kills} kills, {writes} acknowledged writes, {} bytes of file", file.metadata().unwrap().len());
    assert!(writes > kills, "hardly anything was written between the kills");
}

// --- Restarts ---

async fn serve(file: &Path) -> (EmbeddedServer, EtcdStore) {
    // The file is free once the last write of the server before has ended.
    let opened = timeout(WAIT_MAX, async {
        loop {
            match MemoryStore::open(file) {
                Ok(store) => break store,
                Err(_) => sleep(Duration::from_millis(5)).await,
            }
        }
    });
    let store = opened.await.unwrap();
    let server = EmbeddedServer::serve(TcpListener::bind("127.0.0.1:0").await.unwrap(), store).unwrap();
    let store = EtcdStore::connect(&[server.url()]).await.unwrap();
    (server, store)
}

#[tokio::test]
async fn revisions_grow_over_a_restart_and_watches_go_on_or_say_that_history_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let (server, store) = serve(&file).await;
    let first = applied(&store, put("/a", b"1", None)).await.unwrap();
    let last = applied(&store, put("/a", b"2", None)).await.unwrap();
    server.shutdown().await;

    let (_server, store) = serve(&file).await;
    assert_eq!(store.read("").await.unwrap().revision, last);
    let mut old = store.watch("", first).await.unwrap();
    assert!(matches!(timeout(WAIT_MAX, old.next()).await.unwrap(), Err(StoreError::Compacted { .. })));
    let mut watch = store.watch("", last).await.unwrap();
    let next = applied(&store, put("/b", b"3", None)).await.unwrap();
    assert!(next > last);
    let changes = timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap();
    assert_eq!(changes.iter().map(Change::revision).collect::<Vec<_>>(), [next]);
}

#[tokio::test]
async fn leases_outlive_a_restart_and_none_by_more_than_its_time_to_live() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("store.redb");
    let (server, store) = serve(&file).await;
    let left = store.lease(Duration::from_secs(2)).await.unwrap();
    applied(&store, put("/left", b"", Some(left.id()))).await.unwrap();
    let (left_id, long) = (left.id(), store.lease(Duration::from_secs(3600)).await.unwrap());
    applied(&store, put("/long", b"", Some(long.id()))).await.unwrap();
    left.let_expire();
    let long_id = long.id();
    long.let_expire();
    server.shutdown().await;
    drop(store);

    let (_server, store) = serve(&file).await;
    let restarted = Instant::now();
    let snapshot = store.read("").await.unwrap();
    assert_eq!(snapshot.get("/left").unwrap().lease, Some(left_id));
    assert_eq!(snapshot.get("/long").unwrap().lease, Some(long_id));
    // A new lease never has the id of one that another process gave out.
    let new = store.lease(Duration::from_secs(60)).await.unwrap();
    assert!(new.id() != left_id && new.id() != long_id);
    let mut watch = store.watch("", snapshot.revision).await.unwrap();
    let changes = timeout(WAIT_MAX, watch.next()).await.unwrap().unwrap();
    assert_eq!(changes[0].key(), "/left");
    assert!(restarted.elapsed() < Duration::from_secs(3), "it outlived the restart by {:?}", restarted.elapsed());
    assert!(store.read("").await.unwrap().get("/long").is_some());
}

// --- A full disk ---

/// A file system of this size, which is unmounted when it is dropped. Needs root.
#[cfg(target_os = "linux")]
struct TinyDisk(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl TinyDisk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(folder.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(folder))
    }
}

#[cfg(target_os = "linux")]
impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily, because the thread that writes may still have its file open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_is_named_keeps_nobody_from_reading_and_loses_nothing() {
    let Some(disk) = TinyDisk::mount("size=6m") else {
        return eprintln!("SKIPPED: only root can mount a small disk");
    };
    let file = disk.0.path().join("store.redb");
    let (server, store) = serve(&file).await;
    let lease = store.lease(Duration::from_secs(2)).await.unwrap();
    applied(&store, put("/kept", b"old", Some(lease.id()))).await.unwrap();
    std::fs::write(disk.0.path().join("ballast"), vec![0; 3 << 20]).unwrap();
    let mut newest = Revision(0);
    let mut written = 0;
    let error = loop {
        match applied(&store, put(&format!("/fill/{written:04}"), &[7; 60_000], None)).await {
            Ok(revision) => (newest, written) = (revision, written + 1),
            Err(error) => break error,
        }
        assert!(written < 200, "the disk does not fill");
    };
    assert!(matches!(&error, StoreError::Full { reason } if reason.contains("No space left on device")), "{error}");
    // Reads go on, and show what was acknowledged.
    let snapshot = timeout(Duration::from_secs(2), store.read("")).await.unwrap().unwrap();
    assert_eq!((snapshot.revision, snapshot.entries.len()), (newest, written + 1));
    assert!(!store.alarms().await.unwrap().is_empty());
    // So do leases that are renewed, and writes are refused, not half made.
    sleep(Duration::from_secs(3)).await;
    assert!(!lease.is_lost());
    assert!(applied(&store, put("/kept", &[7; 60_000], None)).await.is_err());
    assert_eq!(store.read("/kept").await.unwrap().entries[0].value, b"old");

    std::fs::remove_file(disk.0.path().join("ballast")).unwrap();
    let taken = timeout(WAIT_MAX, async {
        while applied(&store, put("/kept", b"new", Some(lease.id()))).await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    taken.await.expect("it takes writes again once there is room");
    assert!(store.alarms().await.unwrap().is_empty());
    lease.let_expire();
    server.shutdown().await;
    drop(store);
    let (_server, store) = serve(&file).await;
    let snapshot = store.read("").await.unwrap();
    assert_eq!((snapshot.entries.len(), snapshot.get("/kept").unwrap().value.as_slice()), (written + 1, &b"new"[..]));
}
