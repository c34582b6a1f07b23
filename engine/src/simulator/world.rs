//! A simulated cluster: its clients, and its processes, which start, crash and thaw. Its events are taken in
//! `event_loop`.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::record::{KvGrowth, KvKinds, ModelRecord};
use schema::{Key, Keyspace, StageName};

use super::clients::Clients;
use super::environment::Environment;
use super::event::{Event, ProcessEvent};
use super::fault::Fault;
use super::fault_schedule::{self, ClusterSize};
use super::gateway::GatewayProcess;
use super::model::{self, SimulatedLoader};
use super::network::Network;
use super::process_id::{GATEWAYS, ProcessId};
use super::rng::Rng;
use super::stage::{Machine, StageProcess};
use super::store::SimulatedStore;
use super::time::{Moment, SECOND};
use super::trace::Trace;
use crate::membership::{Recall, write_model};
use crate::runner::KV_BLOCK_TOKENS;

/// Time at which faults end.
pub(super) const FAULTS_END: Moment = 12 * SECOND;
/// Some seeds last longer, until layers move for speed alone.
const LONG_RUN_END: Moment = 90 * SECOND;
/// Longest sequence that is asked for beyond the least room, in tokens: its expected tokens take time to compute.
const LONGEST_ASKED: u64 = 480;
/// Seeds whose room for keys and values follows the stages' memory, in thousandths, and what tells them apart.
const GROWING_PERMILLE: u64 = 500;
const GROWTH_SEED: u64 = (u32::MAX as u64) << 1;
/// Time by which every gateway has been inspected.
const INSPECTED_BY: Moment = FAULTS_END + 21 * SECOND;

/// The cluster and its clients.
pub(super) struct World {
    pub(super) env: Environment,
    pub(super) keyspace: Keyspace,
    pub(super) record: ModelRecord,
    /// The memory of each stage.
    budgets: Vec<u64>,
    /// Each stage's time for the same work, as a multiple of the fastest stage's.
    paces: Vec<u64>,
    /// True if all stages are on one machine and measure wrong speeds.
    pub(super) one_machine: bool,
    /// True once a gateway needed more than the least room for keys and values.
    pub(super) needed_room: bool,
    /// The live stages, and the time of their last change.
    pub(super) live: (BTreeSet<StageName>, Moment),
    speculates: bool,
    /// Time until which the seed runs at least.
    pub(super) runs_until: Moment,
    /// Number of gateways of the seed.
    pub(super) gateways: usize,
    /// By number.
    pub(super) gateway_processes: Vec<Option<GatewayProcess>>,
    /// By number; the first is at `GATEWAYS`.
    pub(super) stages: Vec<Option<StageProcess>>,
    pub(super) clients: Clients,
    /// True once the faults are over.
    pub(super) faults_over: bool,
    /// The stage with which no peer completes a handshake, not even after the faults.
    pub(super) barred_stage: Option<ProcessId>,
}

/// The windows of a seed's layers, its blocks for each gateway, and the longest sequence that is asked for, in tokens.
/// In half of the seeds no layer has a window, in a quarter some have one, and in a quarter all have. Sequences of the
/// last are longer than all of their blocks are. Drawn apart, so that windows change nothing else in a seed.
fn windows(seed: u64, layers: u32, blocks_each: u32) -> (Vec<u32>, u32, u64) {
    let mut rng = Rng::new(seed ^ u64::from(u32::MAX));
    let largest = rng.within(1..70);
    let kind = rng.within(0..4);
    let mut window = |layer: u32| {
        let is_full = match kind {
            0 | 1 => true,
            2 => (layer + 1).is_multiple_of(3),
            _ => false,
        };
        // One window in three is smaller than the largest.
        if is_full { 0 } else { [largest, largest, rng.within(1..largest + 1)][layer as usize % 3] as u32 }
    };
    let windows: Vec<u32> = (0..layers).map(&mut window).collect();
    let kinds = KvKinds::of(windows.iter().copied());
    let blocks_each = match kinds {
        KvKinds::Window(_) => kinds.blocks_needed(u32::MAX).window + blocks_each % 5,
        KvKinds::Full | KvKinds::Both(_) => blocks_each,
    };
    let longest = if kinds.has_full() { 160 } else { 320 };
    let room = kinds.sequence_tokens_max(kinds.pool(blocks_each * KV_BLOCK_TOKENS));
    (windows, blocks_each, u64::from(room).min(longest))
}

/// The bounds of the room for keys and values if it follows the stages' memory, as in half of the seeds; how often it
/// may hold the least room; and the bytes of each of `stages` stages beyond their layers with the least room: some have
/// none, some room for several times as many tokens. Drawn apart, too.
fn growth(seed: u64, record: &ModelRecord, stages: usize) -> (Option<KvGrowth>, u64, Vec<u64>) {
    let mut rng = Rng::new(seed ^ GROWTH_SEED);
    if !rng.permille(GROWING_PERMILLE) {
        return (None, 1, vec![0; stages]);
    }
    let times = rng.within(2..5);
    let growth = KvGrowth { tokens_max: record.kv_tokens * times as u32, scratch_bytes: 0 };
    let all = u64::from(record.layers) * u64::from(record.kv_tokens);
    let beyond = (0..stages).map(|_| if rng.permille(300) { 0 } else { rng.within(0..all * times) });
    (Some(growth), times, beyond.collect())
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let stages = rng.within(2..6) as usize;
        let layers = rng.within(4..13) as u32;
        // Most clusters have one gateway.
        let gateways = [1, 1, 2, 3][rng.within(0..4) as usize];
        let blocks_each = rng.within(5..20) as u32;
        // Small, so that some requests need more than the least room.
        let grows = Rng::new(seed ^ GROWTH_SEED).permille(GROWING_PERMILLE);
        let blocks_each = if grows { 5 + blocks_each % 4 } else { blocks_each };
        let (windows, blocks_each, room) = windows(seed, layers, blocks_each);
        let kv_blocks = blocks_each * gateways as u32;
        let stages_min = rng.within(1..stages as u64 + 1) as u32;
        let record = model::record(&windows, kv_blocks, stages_min);
        let (kv_growth, times, beyond) = growth(seed, &record, stages);
        let record = ModelRecord { kv_growth, ..record };
        let capacity = u64::from(layers).div_ceil(stages as u64) + rng.within(0..u64::from(layers));
        let speculates = rng.permille(500);
        let others_suffice = capacity * (stages as u64 - 1) >= u64::from(layers) && stages_min < stages as u32;
        let barred_stage = ProcessId(GATEWAYS + rng.within(0..stages as u64) as usize);
        let barred_stage = (others_suffice && rng.permille(150)).then_some(barred_stage);
        let keyspace = Keyspace::new(&"simulated".parse().expect("a legal name"));
        // The key is derived from the seed, too: a random one would differ from run to run.
        let secret = rng.permille(500).then(|| format!("{:064x}", seed + 1).parse().expect("64 digits"));
        let store = SimulatedStore::new(&keyspace, &record, secret);
        let mut env = Environment::new(rng, store, Network::default(), GATEWAYS + stages, trace);
        for process in (0..gateways).chain(GATEWAYS..GATEWAYS + stages).map(ProcessId) {
            let late = process != ProcessId(0) && env.rng.permille(200);
            let at = env.rng.within(0..if late { FAULTS_END } else { SECOND });
            env.at(at, Event::Fault(Fault::Starts(process)));
        }
        env.at(0, Event::Expires);
        fault_schedule::schedule(ClusterSize { gateways, stages }, &record, barred_stage, FAULTS_END, &mut env);
        // A part of the clients asks for more than the least room.
        let asked = (room * times).min(LONGEST_ASKED.max(room));
        let clients = Clients::new(&windows, room, asked, FAULTS_END, &mut env);
        env.note(|| {
            format!(
                "{gateways} gateways, {stages} stages, {layers} layers with windows {windows:?}, {kv_blocks} blocks, \
                 up to {times} times as many, {} clients, speculation: {speculates}",
                clients.all.len()
            )
        });
        let least = model::bytes(capacity as u32, record.kv_tokens);
        let budgets = beyond.into_iter().map(|beyond| least + beyond).collect();
        let one_machine = env.rng.permille(500);
        let paces = (0..stages).map(|_| if one_machine { 1 } else { env.rng.within(1..5) }).collect();
        let runs_until = if env.rng.permille(150) { LONG_RUN_END } else { INSPECTED_BY };
        let stages = (0..GATEWAYS + stages).map(|_| None).collect();
        let gateway_processes = (0..GATEWAYS).map(|_| None).collect();
        Self {
            env,
            keyspace,
            record,
            budgets,
            paces,
            one_machine,
            needed_room: false,
            live: (BTreeSet::new(), 0),
            runs_until,
            speculates,
            gateways,
            gateway_processes,
            stages,
            clients,
            faults_over: false,
            barred_stage,
        }
    }

    /// True if the stage with this endpoint is the barred stage.
    pub(super) fn is_barred(&self, endpoint: &str) -> bool {
        let barred_stage = self.barred_stage.and_then(|process| self.stages[process.0].as_ref());
        barred_stage.is_some_and(|stage| stage.endpoint() == endpoint)
    }

    pub(super) fn start(&mut self, process: ProcessId) {
        let env = &mut self.env;
        if env.states[process.0].is_alive {
            return;
        }
        if env.store.is_away_for(process) {
            return env.after(SECOND, Event::Fault(Fault::Starts(process)));
        }
        if env.store.view.model.is_none() {
            // It was started with one.
            let unusable = env.store.view.unusable_revision(&Key::Model);
            env.store.state.commit(write_model(&self.keyspace, &self.record, unusable)).expect("a model is written");
            env.spread_news();
        }
        let (view, serial, now) = (env.store.view.clone(), env.store.serial, env.instant());
        let state = env.state(process);
        // A process that starts has no memory.
        state.recall = Recall::default();
        (state.shown, state.serial) = (view.clone(), serial);
        let view = Arc::new(state.recall.complete((*view).clone(), now));
        (state.is_alive, state.is_frozen) = (true, false);
        state.incarnation += 1;
        state.view = view;
        if process.is_gateway() {
            self.gateway_processes[process.0] =
                Some(GatewayProcess::start(process, &self.keyspace, self.speculates, env));
        } else {
            let number = process.0 - GATEWAYS;
            let loader =
                SimulatedLoader { windows: self.record.layer_windows.clone(), budget_bytes: self.budgets[number] }
                    .shared();
            let pace = self.paces[number];
            let machine = if self.one_machine {
                Machine { host: "here".to_owned(), pace, measured_pace: env.rng.within(1..9) }
            } else {
                Machine { host: format!("h{}", process.0), pace, measured_pace: pace }
            };
            let stage = StageProcess::start(process, &self.keyspace, loader, machine, env);
            self.stages[process.0] = Some(stage);
        }
    }

    pub(super) fn crash(&mut self, process: ProcessId) {
        let state = self.env.state(process);
        if !state.is_alive {
            return;
        }
        state.is_alive = false;
        for event in std::mem::take(&mut state.backlog) {
            if let ProcessEvent::Submits(number) = event {
                Clients::submit_again(number, &mut self.env);
            }
        }
        self.env.end_links(process);
        if process.is_gateway() {
            self.gateway_processes[process.0] = None;
            self.clients.gateway_died(process, &mut self.env);
        } else {
            self.stages[process.0] = None;
        }
    }

    pub(super) fn thaw(&mut self, process: ProcessId) {
        let state = self.env.state(process);
        if !std::mem::replace(&mut state.is_frozen, false) || !state.is_alive {
            return;
        }
        let backlog = std::mem::take(&mut state.backlog);
        for (moment, event) in (0..).zip(backlog) {
            self.env.schedule(moment, process, event);
        }
        if let Some(stage) = &mut self.stages[process.0] {
            stage.woke(&mut self.env);
        }
    }
}
