//! Stages and a gateway's pipeline together, with an in-memory store, real sockets and a runner that does real
//! arithmetic.
//!
//! The runner counts (`x = x * 31 + layer`, folded over all earlier positions read back from its blocks), so a skipped,
//! doubled or swapped layer, a lost row or a mixed-up sequence changes every token after it.

use std::sync::Arc;
use std::time::Duration;

use engine::core::{PipelineHandle, PipelineSettings};
use engine::generate::{Finish, Pipeline, Pooling, Rejection, Request, TokenEvent, TokenOptions};
use engine::link::Listen;
use engine::membership::{Publisher, write_model};
use engine::runner::{KV_BLOCK_TOKENS, LoadError, LoadedShard, Loader, Output, Runner, RunnerError, Work};
use engine::stage::StageSettings;
use engine::store::{MemoryStore, SharedStore};
use schema::frame::{Chosen, HiddenState};
use schema::record::{FormatSpeed, GatewayRecord, KvRoom, MemoryUse, ModelRecord, Speeds, StageRecord};
use schema::{Fingerprint, Keyspace, LayerRange};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const LEASE_TTL: Duration = Duration::from_secs(3);
const LAYERS: u32 = 6;
const HIDDEN: u32 = 2;
const MODULUS: u64 = 65_521;

struct Counting {
    layers: LayerRange,
    /// The inputs of the layers: for each layer, block and offset, the row of that position before the layer.
    kept: Vec<Vec<[u64; KV_BLOCK_TOKENS as usize]>>,
}

fn layer(kept: &[u64], row: u64, layer: u64) -> u64 {
    kept.iter().chain([&row]).fold(layer + 1, |sum, row| (sum * 31 + row + layer) % MODULUS)
}

/// The last layer's rows of the whole model, computed without blocks, stages or batches.
fn last_rows(history: &[u32]) -> Vec<u64> {
    let mut rows: Vec<u64> = history.iter().map(|token| u64::from(*token)).collect();
    for index in 0..u64::from(LAYERS) {
        rows = (0..rows.len()).map(|position| layer(&rows[..position], rows[position], index)).collect();
    }
    rows
}

/// The tokens that the whole model generates after a prompt.
fn reference(prompt: &[u32], count: usize) -> Vec<u32> {
    let mut history = prompt.to_vec();
    for _ in 0..count {
        history.push(*last_rows(&history).last().expect("a row") as u32);
    }
    history.split_off(prompt.len())
}

/// The hidden state of a row.
fn hidden_state(row: u64) -> Vec<f32> {
    vec![row as f32, -1.0]
}

impl Runner for Counting {
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError> {
        let mut rows: Vec<u64> = if self.layers.start() == 0 {
            work.slices.iter().flat_map(|slice| &slice.tokens).map(|token| u64::from(*token)).collect()
        } else {
            work.activations.chunks_exact(HIDDEN as usize).map(|row| row[0] as u64).collect()
        };
        let mut first = 0;
        let (mut chosen, mut hidden_states) = (Vec::new(), Vec::new());
        for slice in work.slices {
            let place = |position: u32| {
                let block = slice.blocks[(position / KV_BLOCK_TOKENS) as usize] as usize;
                (block, (position % KV_BLOCK_TOKENS) as usize)
            };
            for (index, kept) in (u64::from(self.layers.start())..).zip(&mut self.kept) {
                for offset in 0..slice.count {
                    let row = &mut rows[first + offset as usize];
                    let (block, place_in_block) = place(slice.position + offset);
                    kept[block][place_in_block] = *row;
                    let earlier: Vec<u64> = (0..slice.position + offset).map(place).map(|(b, o)| kept[b][o]).collect();
                    *row = layer(&earlier, *row, index);
                }
            }
            for offset in &slice.logits {
                chosen.push(Chosen {
                    sequence: slice.sequence,
                    attempt: slice.attempt,
                    position: slice.position + offset + 1,
                    token: rows[first + *offset as usize] as u32,
                    logprob: -1.0,
                    rank: 0,
                    alternatives: Vec::new(),
                });
            }
            for offset in &slice.hidden_states {
                let (sequence, attempt, position) = (slice.sequence, slice.attempt, slice.position + offset);
                let values = hidden_state(rows[first + *offset as usize]);
                hidden_states.push(HiddenState { sequence, attempt, position, values });
            }
            first += slice.count as usize;
        }
        if self.layers.end() == LAYERS {
            return Ok(Output::Tokens { chosen, hidden_states });
        }
        Ok(Output::Activations(rows.into_iter().flat_map(|row| [row as f32, 0.0]).collect()))
    }

    fn probe(&mut self) -> Option<Speeds> {
        Some(speeds())
    }
}

fn speeds() -> Speeds {
    let speed = FormatSpeed { bytes_per_second: 3, multiplications_per_second: 31 };
    Speeds::from([("counting".to_owned(), speed)])
}

struct CountingLoader {
    budget_bytes: u64,
}

impl Loader for CountingLoader {
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64 {
        u64::from(layers.count()) * u64::from(10 + room.tokens)
    }

    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError> {
        let needed_bytes = self.memory_bound(layers, room);
        if needed_bytes > budget_bytes {
            return Err(LoadError::OverBudget { layers, needed_bytes, budget_bytes });
        }
        let kv_blocks = room.tokens.div_ceil(KV_BLOCK_TOKENS);
        let block = [u64::MAX; KV_BLOCK_TOKENS as usize];
        let kept = vec![vec![block; kv_blocks as usize]; layers.count() as usize];
        let weights_bytes = u64::from(layers.count()) * 10;
        Ok(LoadedShard { runner: Box::new(Counting { layers, kept }), weights_bytes, copied_bytes: 0, kv_blocks })
    }

    fn read_ahead(&self, _layers: LayerRange, bytes_max: u64, _wanted: &dyn Fn() -> bool) -> u64 {
        bytes_max.min(10)
    }

    fn describe(&self) -> StageRecord {
        StageRecord { chip: "abacus".to_owned(), ..StageRecord::new("here", self.budget_bytes) }
    }

    fn memory(&self) -> MemoryUse {
        MemoryUse::default()
    }
}

fn keyspace() -> Keyspace {
    Keyspace::new(&"test".parse().unwrap())
}

fn model(kv_tokens: u32, stages_min: u32) -> ModelRecord {
    ModelRecord {
        architecture: "counting".to_owned(),
        hidden: HIDDEN,
        context_tokens: 512,
        kv_bytes_per_token_layer: 1,
        kv_tokens,
        stages_min,
        ..ModelRecord::new("counting", vec![10; LAYERS as usize])
    }
}

struct RunningStage {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

fn start_stage(store: &SharedStore, name: &str, budget_bytes: u64) -> RunningStage {
    let settings = StageSettings {
        keyspace: keyspace(),
        name: name.parse().unwrap(),
        listen: Listen::Ipc,
        key: None,
        lease_ttl: LEASE_TTL,
        fingerprint: Fingerprint("00".to_owned()),
    };
    let (stop, stopped) = oneshot::channel();
    let store = store.clone();
    let task = tokio::spawn(async move {
        let loader = Arc::new(CountingLoader { budget_bytes });
        let publisher = Publisher::start(store.clone(), keyspace(), None).await.unwrap();
        engine::stage::run(store, publisher, settings, loader, std::future::pending(), async { drop(stopped.await) })
            .await
            .unwrap();
    });
    RunningStage { stop, task }
}

async fn start_gateway(store: &SharedStore) -> PipelineHandle {
    let record = GatewayRecord::new("here", "http://127.0.0.1:0".to_owned());
    let settings = PipelineSettings {
        keyspace: keyspace(),
        listen: Listen::Ipc,
        key: None,
        record,
        lease_ttl: LEASE_TTL,
        alone: false,
        speculates: true,
    };
    PipelineHandle::start(store.clone(), settings).await.unwrap()
}

async fn serving(gateway: &PipelineHandle, stages: usize) {
    let ready = async {
        let mut statuses = gateway.statuses();
        statuses.wait_for(|status| status.serving).await.unwrap();
        while gateway.view().serving().map_or(0, |served| served.claims.len()) != stages || !gateway.status().serving {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ready).await.unwrap_or_else(|_| panic!("{:?}", gateway.status()));
}

fn request(prompt: &[u32], tokens_max: u32) -> Request {
    let tokens = TokenOptions::GREEDY;
    let deadline = Duration::from_secs(60);
    Request { prompt: prompt.to_vec(), tokens_max, tokens, stop_tokens: vec![], deadline, priority: 0, pooling: None }
}

async fn tokens(gateway: &PipelineHandle, prompt: &[u32], tokens_max: u32) -> Vec<u32> {
    let mut generation = gateway.generate(request(prompt, tokens_max)).await.unwrap();
    let mut tokens = Vec::new();
    loop {
        match generation.next().await {
            Some(TokenEvent::Started { cached_tokens }) => {
                assert!((cached_tokens as usize) < prompt.len() && tokens.is_empty());
            }
            Some(TokenEvent::Token(score)) => tokens.push(score.token),
            Some(TokenEvent::Finished { finish, timings }) => {
                assert_eq!(finish, Finish::Length);
                assert!(timings.stages.iter().all(|stage| stage.rows > 0), "an idle stage: {timings:?}");
                return tokens;
            }
            other => panic!("after {} tokens: {other:?}", tokens.len()),
        }
    }
}

async fn memory_store(model: ModelRecord) -> SharedStore {
    let store: SharedStore = Arc::new(MemoryStore::new());
    store.commit(write_model(&keyspace(), &model, None)).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_stages_gives_the_same_tokens() {
    for stages in [1, 2, 3, 6] {
        let store = memory_store(model(1024, stages)).await;
        let running: Vec<_> = (0..stages).map(|index| start_stage(&store, &format!("s{index}"), u64::MAX)).collect();
        let gateway = start_gateway(&store).await;
        serving(&gateway, stages as usize).await;
        let prompts: [&[u32]; 3] = [&[1], &[5, 6, 7], &[9; 300]];
        for prompt in prompts {
            assert_eq!(tokens(&gateway, prompt, 40).await, reference(prompt, 40), "{stages} stages");
        }
        for stage in running {
            stage.stop.send(()).unwrap();
            stage.task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_embedding_comes_through_any_number_of_stages_and_may_fill_the_context() {
    for stages in [1, 3] {
        let store = memory_store(model(512, stages)).await;
        let _running: Vec<_> = (0..stages).map(|index| start_stage(&store, &format!("s{index}"), u64::MAX)).collect();
        let gateway = start_gateway(&store).await;
        serving(&gateway, stages as usize).await;
        for count in [1, 300, 512] {
            let prompt: Vec<u32> = (0..count).map(|index| index * 7 % 500).collect();
            let rows: Vec<f64> = last_rows(&prompt).into_iter().map(|row| row as f64).collect();
            let mean = rows.iter().sum::<f64>() / rows.len() as f64;
            for (pooling, row) in
                [(Pooling::Mean, mean), (Pooling::Cls, rows[0]), (Pooling::Last, rows[rows.len() - 1])]
            {
                let request = Request { pooling: Some(pooling), ..request(&prompt, 0) };
                let mut events = gateway.generate(request).await.unwrap();
                assert!(matches!(events.next().await, Some(TokenEvent::Started { .. })));
                match events.next().await {
                    Some(TokenEvent::Embedded { vector, .. }) => assert_eq!(vector, [row as f32, -1.0], "{pooling:?}"),
                    other => panic!("{other:?}"),
                }
                assert_eq!(events.next().await, None);
            }
        }
        let request = Request { pooling: Some(Pooling::Last), ..request(&[1; 513], 0) };
        let error = gateway.generate(request).await.unwrap_err();
        assert_eq!(error, Rejection::TooLong { context_tokens: 512, prompt_tokens: 513 });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_measured_speeds_of_a_stage_are_in_its_record() {
    let store = memory_store(model(1024, 2)).await;
    let _running: Vec<_> = (0..2).map(|index| start_stage(&store, &format!("s{index}"), u64::MAX)).collect();
    let gateway = start_gateway(&store).await;
    serving(&gateway, 2).await;
    let measured = async {
        while !gateway.view().stages.values().all(|stage| stage.value.speed == speeds()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), measured).await.expect("the speeds are in the store");
    assert_eq!(tokens(&gateway, &[1, 2], 10).await, reference(&[1, 2], 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_at_once_with_too_few_blocks_all_end_with_their_own_tokens() {
    let store = memory_store(model(512, 3)).await;
    let _running: Vec<_> = (0..3).map(|index| start_stage(&store, &format!("s{index}"), u64::MAX)).collect();
    let gateway = Arc::new(start_gateway(&store).await);
    serving(&gateway, 3).await;
    let requests = (0..24_u32).map(|seed| {
        let gateway = gateway.clone();
        let prompt: Vec<u32> = (0..30 + seed * 7).map(|index| (index * 31 + seed) % 500).collect();
        tokio::spawn(async move { assert_eq!(tokens(&gateway, &prompt, 60).await, reference(&prompt, 60)) })
    });
    for request in requests.collect::<Vec<_>>() {
        request.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_that_joins_and_one_that_leaves_change_no_token() {
    let store = memory_store(model(1024, 1)).await;
    let first = start_stage(&store, "a", u64::MAX);
    let gateway = Arc::new(start_gateway(&store).await);
    serving(&gateway, 1).await;
    let long = {
        let gateway = gateway.clone();
        tokio::spawn(async move { tokens(&gateway, &[3, 4, 5], 500).await })
    };
    let _second = start_stage(&store, "b", u64::MAX);
    serving(&gateway, 2).await;
    first.stop.send(()).unwrap();
    first.task.await.unwrap();
    serving(&gateway, 1).await;
    assert_eq!(long.await.unwrap(), reference(&[3, 4, 5], 500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_stage_is_named_and_new_requests_are_refused() {
    let store = memory_store(model(100, 2)).await;
    // Each stage can hold three of the six layers, so neither can take over from the other.
    let first = start_stage(&store, "a", 330);
    let _second = start_stage(&store, "b", 330);
    let gateway = start_gateway(&store).await;
    serving(&gateway, 2).await;
    first.stop.send(()).unwrap();
    first.task.await.unwrap();
    let mut statuses = gateway.statuses();
    let status = statuses.wait_for(|status| !status.serving).await.unwrap().clone();
    assert_eq!(status.missing_layers, [[0, 3]]);
    assert!(status.reason.contains("layers 0..3") && status.reason.contains("stage a is gone"), "{}", status.reason);
    assert!(matches!(gateway.generate(request(&[1], 4)).await, Err(Rejection::NotServing { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prompt_beyond_the_context_is_refused_and_a_long_answer_ends_with_it() {
    let store = memory_store(model(64, 1)).await;
    let _stage = start_stage(&store, "a", u64::MAX);
    let gateway = start_gateway(&store).await;
    serving(&gateway, 1).await;
    let error = gateway.generate(request(&[1; 64], 1)).await.unwrap_err();
    assert_eq!(error, Rejection::TooLong { context_tokens: 64, prompt_tokens: 64 });
    assert_eq!(tokens(&gateway, &[1; 60], 1000).await, reference(&[1; 60], 4));
}
