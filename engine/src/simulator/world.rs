//! A simulated cluster, from its start to its end.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::record::ModelRecord;
use schema::{Key, Keyspace, StageName};

use super::clients::{ClientState, Clients};
use super::environment::{Environment, Event, GATEWAYS, MS, Moment, ProcessEvent, ProcessId, SECOND, duration};
use super::faults::{self, Fault};
use super::gateway::GatewayProcess;
use super::model::{self, SimulatedLoader};
use super::network::{Network, label};
use super::rng::Rng;
use super::stage::StageProcess;
use super::store::SimulatedStore;
use super::tally::Tally;
use super::trace::Trace;
use crate::membership::{Recall, write_model};

/// Time at which faults end.
pub(super) const FAULTS_END: Moment = 12 * SECOND;
/// Time by which everything must be done: a few of the longest timeouts of a lost micro-batch.
const END: Moment = 900 * SECOND;
/// Time after the last client within which the records of dead processes must be gone.
const AFTERMATH: Moment = 9 * SECOND;
/// Some seeds last longer, until layers move for speed alone.
const LONG_RUN_END: Moment = 90 * SECOND;
/// Time by which every gateway has been inspected.
const INSPECTED_BY: Moment = FAULTS_END + 21 * SECOND;
/// Interval at which the store expires leases.
const EXPIRE_EVERY: Moment = 100 * MS;

/// A violated invariant.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) at: Moment,
    pub(super) invariant: String,
    pub(super) trace: String,
}

/// The cluster and its clients.
pub(super) struct World {
    pub(super) env: Environment,
    pub(super) keyspace: Keyspace,
    pub(super) layers: u32,
    record: ModelRecord,
    budget_bytes: u64,
    /// Each stage's time for the same work, as a multiple of the fastest stage's.
    paces: Vec<u64>,
    /// True if all stages are on one machine and measure wrong speeds.
    pub(super) one_machine: bool,
    /// The live stages, and the time of their last change.
    pub(super) live: (BTreeSet<StageName>, Moment),
    speculates: bool,
    /// Time until which the seed runs at least.
    runs_until: Moment,
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

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut rng = Rng::new(seed);
        let stages = rng.within(2..6) as usize;
        let layers = rng.within(4..13) as u32;
        // Most clusters have one gateway.
        let gateways = [1, 1, 2, 3][rng.within(0..4) as usize];
        let blocks_each = rng.within(5..20) as u32;
        let kv_blocks = blocks_each * gateways as u32;
        let stages_min = rng.within(1..stages as u64 + 1) as u32;
        let record = model::record(layers, kv_blocks, stages_min);
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
        faults::schedule((gateways, stages), &record, barred_stage, FAULTS_END, &mut env);
        let clients = Clients::new(layers, blocks_each, FAULTS_END, &mut env);
        env.note(|| {
            format!(
                "{gateways} gateways, {stages} stages, {layers} layers, {kv_blocks} blocks, {} clients, \
                 speculation: {speculates}",
                clients.all.len()
            )
        });
        let budget_bytes = model::bytes(capacity as u32, record.kv_tokens);
        let one_machine = env.rng.permille(500);
        let paces = (0..stages).map(|_| if one_machine { 1 } else { env.rng.within(1..5) }).collect();
        let runs_until = if env.rng.permille(150) { LONG_RUN_END } else { INSPECTED_BY };
        let stages = (0..GATEWAYS + stages).map(|_| None).collect();
        let gateway_processes = (0..GATEWAYS).map(|_| None).collect();
        Self {
            env,
            keyspace,
            layers,
            record,
            budget_bytes,
            paces,
            one_machine,
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

    /// Runs to the end, or to the first violated invariant.
    pub(super) fn run(mut self) -> Result<Tally, Violation> {
        let mut end = None;
        let mut placed = None;
        while self.env.violation.is_none() {
            let Some(event) = self.env.next() else { break };
            if end.is_some_and(|end| self.env.now >= end) {
                self.check_aftermath();
                break;
            }
            if self.env.now >= END {
                let unfinished = self.clients.unfinished();
                self.env.check(false, || format!("not all is done in time: {unfinished}"));
            }
            self.take(event);
            let is_moving = std::mem::replace(&mut placed, self.env.store.view.placed()) != placed;
            self.check_rest(is_moving);
            self.env.tally.add("layers moved without a cause", (is_moving && end.is_some()).into());
            end = match end {
                Some(_) if is_moving || !self.clients.are_done() => None,
                None if self.is_quiet() => Some((self.env.now + AFTERMATH).max(self.runs_until)),
                // A stage that had yet to learn that it was evicted.
                Some(_) if self.faults_over && (self.is_one_quarantined() || self.is_barred_stage_placed()) => None,
                end => end,
            };
        }
        match self.env.violation.take() {
            None => Ok(self.env.tally),
            Some(invariant) => Err(Violation { at: self.env.now, invariant, trace: self.env.trace.text() }),
        }
    }

    /// True if no work is left: a lost micro-batch is waited for until its deadline, a quarantined stage until it joins
    /// again, and a barred stage until the placement does without it.
    fn is_quiet(&self) -> bool {
        let is_back = |gateway: &GatewayProcess| gateway.conductor().scheduler().in_flight() == 0;
        let back = self.gateway_processes[..self.gateways].iter().all(|gateway| gateway.as_ref().is_some_and(is_back));
        self.faults_over
            && back
            && self.clients.are_done()
            && !self.is_one_quarantined()
            && !self.is_barred_stage_placed()
    }

    /// True if a stage other than the barred stage, whose quarantine never ends, is in quarantine.
    fn is_one_quarantined(&self) -> bool {
        let now = self.env.instant();
        let is_quarantined =
            |stage: &StageProcess| !self.is_barred(stage.endpoint()) && stage.member().is_quarantined(now);
        self.stages.iter().flatten().any(is_quarantined)
    }

    /// True if the placement gives layers to the barred stage.
    fn is_barred_stage_placed(&self) -> bool {
        let name = self.barred_stage.map(super::stage::name);
        let placement = self.env.store.view.placement.as_ref();
        let mut shards = placement.iter().flat_map(|placement| placement.value.shards());
        name.is_some_and(|name| shards.any(|shard| shard.stage.to_string() == name))
    }

    /// True if the stage with this endpoint is the barred stage.
    pub(super) fn is_barred(&self, endpoint: &str) -> bool {
        let barred_stage = self.barred_stage.and_then(|process| self.stages[process.0].as_ref());
        barred_stage.is_some_and(|stage| stage.endpoint() == endpoint)
    }

    fn take(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Process(process, incarnation, event) => self.process_event(process, incarnation, event),
            Event::Missed(link) => self.env.missed(link),
            Event::Arrives(parcel) => env.arrives(parcel),
            Event::Asked(process, incarnation, call, request) => {
                env.asked(process, incarnation, call, request);
                self.check_claims();
                self.check_shares();
            }
            Event::Answered(process, incarnation, call, answer) => env.answered(process, incarnation, call, answer),
            Event::Shown(process, incarnation, view, serial) => {
                if env.states[process.0].incarnation == incarnation && !env.store.is_away_for(process) {
                    env.show(process, view, serial);
                }
            }
            Event::Notices(process, incarnation, notice) => self.notices(process, incarnation, notice),
            Event::Fault(fault) => self.inject(fault),
            Event::Expires => {
                env.after(EXPIRE_EVERY, Event::Expires);
                if !env.store.away {
                    env.store.state.expire(duration(env.now));
                    env.spread_news();
                    (0..env.states.len()).map(ProcessId).for_each(|process| env.forget(process));
                }
            }
            Event::Submits(number) if self.clients.all[number].state == ClientState::Submitting => {
                let gateway = ProcessId(env.rng.within(0..self.gateways as u64) as usize);
                if env.states[gateway.0].is_alive {
                    env.schedule(0, gateway, ProcessEvent::Submits(number));
                } else {
                    Clients::submit_again(number, env);
                }
            }
            Event::Submits(_) => {}
            Event::Leaves(number) => self.clients.leaves(number),
        }
    }

    fn process_event(&mut self, process: ProcessId, incarnation: u32, event: ProcessEvent) {
        let env = &mut self.env;
        let state = env.state(process);
        if !state.is_alive || state.incarnation != incarnation {
            if let ProcessEvent::Submits(number) = event {
                Clients::submit_again(number, env);
            }
            return;
        }
        if state.is_frozen {
            return state.backlog.push_back(event);
        }
        if process.is_gateway() {
            if let Some(gateway) = &mut self.gateway_processes[process.0] {
                let looks = matches!(event, ProcessEvent::Ticks);
                gateway.handle(event, &mut self.clients, env);
                if looks {
                    self.check_health(process);
                }
            }
            return;
        }
        let goes_on = self.stages[process.0].as_mut().is_some_and(|stage| stage.handle(event, env));
        if !goes_on {
            env.note(|| format!("{} cannot join and ends", label(process)));
            self.crash(process);
            let pause = self.env.rng.within(300 * MS..2 * SECOND);
            self.env.after(pause, Event::Fault(Fault::Starts(process)));
        }
        self.check_shards();
    }

    // --- Processes ---

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
            let loader = SimulatedLoader { layers: self.layers, budget_bytes: self.budget_bytes }.shared();
            let pace = self.paces[process.0 - GATEWAYS];
            let (host, found) = if self.one_machine {
                ("here".to_owned(), env.rng.within(1..9))
            } else {
                (format!("h{}", process.0), pace)
            };
            let stage = StageProcess::start(process, &self.keyspace, (loader, host), (pace, found), env);
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
