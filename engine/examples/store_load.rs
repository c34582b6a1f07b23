//! The load of a store under many stages: each joins as a real one, with its own connection to etcd, its own threads
//! and links, but with a model without weights.
//!
//! `cargo run --release --example store_load -- http://127.0.0.1:2379 200 30` lets 200 stages join at once, waits until
//! they serve, watches for 30 s, and prints what etcd counted per second. Start an empty etcd for it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::link::Listen;
use engine::membership::{Publisher, read_view, write_model};
use engine::runner::{LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};
use engine::stage::{StageError, StageSettings, run};
use engine::store::{EtcdStore, SharedStore};
use schema::record::{KvRoom, MemoryUse, ModelRecord, StageRecord};
use schema::{Fingerprint, Keyspace, LayerRange};

type Failure = Box<dyn std::error::Error>;

/// Layers of the model: as many as the largest models have.
const LAYERS: usize = 128;
/// Layers that a stage has memory for.
const LAYERS_EACH: u64 = 4;
const LAYER_BYTES: u64 = 1 << 20;
const LEASE_TTL: Duration = Duration::from_secs(5);
/// Longest wait until all layers are served.
const SERVING_TIMEOUT: Duration = Duration::from_secs(120);
/// Time without a change of the placement after which the cluster has settled.
const SETTLED: Duration = Duration::from_secs(5);
/// Counters of etcd, with the names under which they are printed.
const COUNTERS: [(&str, &str); 4] = [
    ("puts", "etcd_debugging_mvcc_put_total"),
    ("events sent", "etcd_debugging_mvcc_events_total"),
    ("bytes received", "etcd_network_client_grpc_received_bytes_total"),
    ("bytes sent", "etcd_network_client_grpc_sent_bytes_total"),
];

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, stages, seconds] = &arguments[..] else {
        return Err("expected the address of an etcd, a number of stages and a number of seconds".into());
    };
    let (stages, seconds): (u32, u64) = (stages.parse()?, seconds.parse()?);
    let store: SharedStore = Arc::new(EtcdStore::connect(std::slice::from_ref(url)).await?);
    let keyspace = Keyspace::new(&"crowd".parse()?);
    let model = ModelRecord {
        hidden: 2,
        context_tokens: 512,
        fingerprint: Fingerprint("00".to_owned()),
        kv_tokens: 32,
        ..ModelRecord::new("crowd", vec![LAYER_BYTES; LAYERS])
    };
    store.commit(write_model(&keyspace, &model, None)).await?;
    let (began, before) = (Instant::now(), count(url)?);
    for number in 0..stages {
        let (url, settings) = (url.clone(), settings(&keyspace, number)?);
        tokio::spawn(async move {
            let ended = join(&url, settings).await;
            eprintln!("stage {number} has ended: {ended:?}");
        });
    }
    let settled = settle(&store, &keyspace, stages).await?;
    let joined = began.elapsed();
    println!("{stages} stages join: all layers served and nothing moves after {settled:.1?}");
    print(before, count(url)?, joined);
    let before = count(url)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    println!("{stages} stages at rest for {seconds} s:");
    print(before, count(url)?, Duration::from_secs(seconds));
    Ok(())
}

/// Runs a stage for ever.
async fn join(url: &str, settings: StageSettings) -> Result<(), StageError> {
    let store: SharedStore = Arc::new(EtcdStore::connect(&[url.to_owned()]).await?);
    let publisher = Publisher::start(store.clone(), settings.keyspace.clone(), settings.key.clone()).await?;
    run(store, publisher, settings, Arc::new(Weightless::default()), never(), never()).await
}

/// Waits until all stages are there, all layers are served, and the placement has not changed for a while. Returns the
/// time of its last change.
async fn settle(store: &SharedStore, keyspace: &Keyspace, stages: u32) -> Result<Duration, Failure> {
    let began = Instant::now();
    let (mut placed, mut changed) = (None, Duration::ZERO);
    loop {
        let view = read_view(store, keyspace, None).await?;
        let is_complete = view.stages.len() == stages as usize && view.serving().is_ok();
        if std::mem::replace(&mut placed, view.placed()) != view.placed() || !is_complete {
            changed = began.elapsed();
        }
        if began.elapsed() - changed > SETTLED {
            return Ok(changed);
        }
        if began.elapsed() > SERVING_TIMEOUT {
            return Err(format!("{} stages are there: {:?}", view.stages.len(), view.serving()).into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn settings(keyspace: &Keyspace, number: u32) -> Result<StageSettings, Failure> {
    Ok(StageSettings {
        keyspace: keyspace.clone(),
        name: format!("s{number:04}").parse()?,
        listen: Listen::Ipc,
        key: None,
        lease_ttl: LEASE_TTL,
        fingerprint: Fingerprint("00".to_owned()),
    })
}

fn never() -> std::future::Pending<()> {
    std::future::pending()
}

fn print(before: [f64; COUNTERS.len()], after: [f64; COUNTERS.len()], time: Duration) {
    for (((name, _), before), after) in COUNTERS.iter().zip(before).zip(after) {
        println!("  {name}: {:.0}, {:.1} a second", after - before, (after - before) / time.as_secs_f64());
    }
}

/// The counters of etcd, as they are now.
fn count(url: &str) -> Result<[f64; COUNTERS.len()], Failure> {
    let address = url.strip_prefix("http://").ok_or("expected http://")?;
    let mut stream = TcpStream::connect(address)?;
    write!(stream, "GET /metrics HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(COUNTERS.map(|(_, counter)| {
        let line = page.lines().find_map(|line| line.strip_prefix(counter)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or(f64::NAN)
    }))
}

/// A device that holds layers without weights, and whose use of memory never stays the same, as that of a stage at
/// work.
#[derive(Debug, Default)]
struct Weightless(AtomicU64);

struct Idle;

impl Runner for Idle {
    fn step(&mut self, _: Work<'_>) -> Result<Output, RunnerError> {
        Err(RunnerError::Device("a stage without weights computes nothing".to_owned()))
    }
}

impl Loader for Weightless {
    fn memory_bound(&self, layers: LayerRange, _: KvRoom) -> u64 {
        u64::from(layers.count()) * LAYER_BYTES
    }

    fn load(&self, _: LayerRange, _: KvRoom, _: u64) -> Result<LoadedShard, LoadError> {
        Ok(LoadedShard { runner: Box::new(Idle), weights_bytes: 1, copied_bytes: 0, kv_blocks: 1 })
    }

    fn read_ahead(&self, _: LayerRange, _: u64, _: &dyn Fn() -> bool) -> u64 {
        0
    }

    fn describe(&self) -> StageRecord {
        let host = "here";
        StageRecord { chip: "none".to_owned(), ..StageRecord::new(host, LAYERS_EACH * LAYER_BYTES) }
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse { rss_bytes: self.0.fetch_add(1, Ordering::Relaxed), ..MemoryUse::default() }
    }
}
