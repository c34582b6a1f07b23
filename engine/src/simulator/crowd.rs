//! A crowd: as many stages as nobody owns, which join at once and are then upgraded one after another. Counts what the
//! store has to do for them.
//!
//! Real are the members, what they decide and write, and the store's state machine. There is no gateway and no
//! computing: a shard is loaded after a moment. A process sees the store as a publisher shows it, whose views take a
//! share of the time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schema::record::{ModelRecord, StageRecord};
use schema::{Keyspace, StageName};

use super::model::{self, SimulatedLoader};
use super::number_from_environment;
use super::rng::Rng;
use super::time::{MS, Moment, SECOND, duration, micros};
use crate::limits::{LOADS_PER_SECOND_MAX, SETTLE_LEFT, VIEW_TIME_PARTS, VIEW_WAIT_MAX};
use crate::membership::{Mirror, write_model};
use crate::planner::Proposals;
use crate::runner::{KV_BLOCK_TOKENS, Loader};
use crate::stage::done::{Done, Loaded};
use crate::stage::member::{Event, Member, MemberSetup, Order, Purpose};
use crate::store::timed::TimedStore;
use crate::store::{Change, Committed, LeaseId, StoreError, Txn};
use crate::view::ClusterView;

/// Stages of a run, which takes ten seconds. `SIMULATOR_CROWD=2000` tries more.
const STAGES: u64 = 1000;
/// Layers of the model: as many as the largest models have.
const LAYERS: usize = 128;
/// Layers that a stage has memory for.
const LAYERS_EACH: u32 = 4;
/// Stages that are upgraded at a time.
const UPGRADED_AT_A_TIME: usize = 20;
/// Time to live of leases, and the time between renewals, as `baton` has them.
const LEASE_TTL: Duration = Duration::from_secs(5);
const RENEW_EVERY: Moment = micros(LEASE_TTL) / 3;
/// Time that a view takes for each stage in it.
const VIEW_COST: Moment = 10;
/// Interval at which views are made, for all processes whose turn has come: a view of each one's own would be most of
/// the work of a run. And views for which proposals are kept: a process that waits for its turn has an old one.
const VIEWS_EVERY: Moment = 10 * MS;
const VIEWS_KEPT: usize = 32;
/// Time in which a process stops and starts again.
const RESTART: Moment = SECOND;
/// Time without a change after which the crowd has settled.
const SETTLED: Moment = 3 * SECOND;
/// Time by which it must have settled.
const SETTLED_BY: Moment = 60 * SECOND;
/// Requests in any one second: etcd on three ordinary machines takes tens of thousands (etcd.io, "Performance").
const REQUESTS_MAX: u64 = 10_000;
/// Bytes of events in any one second, to all watchers together: half of what a link of 10 Gbit/s carries.
const EVENT_BYTES_MAX: u64 = 600 << 20;
/// Requests of a stage for joining and for its first claims, and for an upgrade, with the renewals of the time that
/// each takes.
const JOIN_REQUESTS_EACH: u64 = 16;
const UPGRADE_REQUESTS_EACH: u64 = 64;

/// The store's work in one second.
#[derive(Debug, Clone, Copy, Default)]
struct StoreLoad {
    requests: u64,
    /// Changes, times their watchers.
    events: u64,
    /// Bytes of these events.
    bytes: u64,
}

#[derive(Debug)]
enum CrowdEvent {
    Starts,
    Granted(LeaseId),
    Registered(Result<Committed, StoreError>),
    Ticks,
    Sees,
    Written(Purpose, Result<Committed, StoreError>),
    Done(Done),
    Renews,
    Drains,
}

/// A request of a stage, as it arrives at the store.
enum Request {
    Grant,
    Register(Txn),
    Commit(Purpose, Txn),
    Load(Txn),
    Renew,
    Revoke(LeaseId),
}

enum Happening {
    Process(usize, u32, CrowdEvent),
    Asked(usize, u32, Request),
}

struct Process {
    member: Option<Member>,
    lease: Option<LeaseId>,
    /// Number of its starts.
    incarnation: u32,
    /// The revision of the view that it has.
    seen: u64,
    /// Time before which it gets no other view.
    view_due: Moment,
    /// True if a view is on its way.
    is_informed: bool,
}

struct Crowd {
    now: Moment,
    origin: Instant,
    queue: BTreeMap<(Moment, u64), Happening>,
    scheduled: u64,
    rng: Rng,
    keyspace: Keyspace,
    record: ModelRecord,
    loader: Arc<dyn Loader>,
    /// Shared by all members: from one view each makes the same.
    proposals: Proposals,
    store: TimedStore,
    mirror: Mirror,
    leases: i64,
    /// The newest view, and whether the store has changed since.
    view: Arc<ClusterView>,
    is_stale: bool,
    changed_at: Moment,
    processes: Vec<Process>,
    /// Stages whose upgrade has not begun.
    upgrades: Vec<usize>,
    by_second: BTreeMap<u64, StoreLoad>,
}

// === impl Crowd ===

impl Crowd {
    fn new(stages: usize) -> Self {
        let keyspace = Keyspace::new(&"crowd".parse().expect("a legal name"));
        let windows = vec![0; LAYERS];
        let record = model::record(&windows, 8, 1);
        let budget_bytes = model::bytes(LAYERS_EACH, record.kv_tokens);
        let mut store = TimedStore::new(keyspace.prefix());
        store.commit(write_model(&keyspace, &record, None)).expect("a model is written");
        let mut mirror = Mirror::new(keyspace.clone(), None, store.read(keyspace.prefix()).expect("the store is read"));
        store.changes().expect("nothing is compacted");
        let view = Arc::new(mirror.view(Instant::now()));
        let process =
            |_| Process { member: None, lease: None, incarnation: 0, seen: 0, view_due: 0, is_informed: false };
        let mut crowd = Self {
            now: 0,
            origin: Instant::now(),
            queue: BTreeMap::new(),
            scheduled: 0,
            rng: Rng::new(7),
            keyspace,
            record,
            loader: SimulatedLoader { windows, budget_bytes }.shared(),
            proposals: Proposals::keeping(VIEWS_KEPT),
            store,
            mirror,
            leases: 0,
            view,
            is_stale: false,
            changed_at: 0,
            processes: (0..stages).map(process).collect(),
            upgrades: Vec::new(),
            by_second: BTreeMap::new(),
        };
        for stage in 0..stages {
            let at = crowd.rng.within(0..200 * MS);
            crowd.schedule(at, stage, CrowdEvent::Starts);
        }
        crowd
    }

    fn at(&mut self, delay: Moment, happening: Happening) {
        self.scheduled += 1;
        self.queue.insert((self.now + delay, self.scheduled), happening);
    }

    fn schedule(&mut self, delay: Moment, stage: usize, event: CrowdEvent) {
        let incarnation = self.processes[stage].incarnation;
        self.at(delay, Happening::Process(stage, incarnation, event));
    }

    fn ask(&mut self, stage: usize, request: Request) {
        let (delay, incarnation) = (self.rng.within(100..3 * MS), self.processes[stage].incarnation);
        self.at(delay, Happening::Asked(stage, incarnation, request));
    }

    fn instant(&self) -> Instant {
        self.origin + duration(self.now)
    }

    /// Runs until every layer is served, no upgrade is left, and nothing has changed for a while. Returns the time of
    /// the last change.
    fn settle(&mut self) -> Moment {
        let began = self.now;
        loop {
            self.step();
            let is_quiet = self.now - self.changed_at > SETTLED && self.upgrades.is_empty();
            if is_quiet && self.processes.iter().all(|process| process.lease.is_some()) {
                assert!(self.newest_view().serving().is_ok(), "{:?}", self.view.serving());
                return self.changed_at - began;
            }
            assert!(self.now - began < SETTLED_BY, "not settled: {:?}", self.newest_view().serving());
        }
    }

    /// Takes the next event. Those of a process that has ended are dropped.
    fn step(&mut self) {
        let ((at, _), happening) = self.queue.pop_first().expect("ticks never end");
        self.now = at;
        match happening {
            Happening::Asked(stage, incarnation, request) => self.asked(stage, incarnation, request),
            Happening::Process(stage, incarnation, event) if self.processes[stage].incarnation == incarnation => {
                self.process(stage, event);
            }
            Happening::Process(..) => {}
        }
    }

    fn count(&mut self) -> &mut StoreLoad {
        self.by_second.entry(self.now / SECOND).or_default()
    }

    // --- The store ---

    fn asked(&mut self, stage: usize, incarnation: u32, request: Request) {
        self.store.expire(duration(self.now));
        self.count().requests += 1;
        let answer = match request {
            Request::Grant => {
                self.leases += 1;
                let lease = self.store.lease(LeaseId(self.leases), LEASE_TTL, duration(self.now));
                Some(CrowdEvent::Granted(lease.expect("a new lease")))
            }
            Request::Register(txn) => Some(CrowdEvent::Registered(self.store.commit(txn))),
            Request::Commit(purpose, txn) => Some(CrowdEvent::Written(purpose, self.store.commit(txn))),
            Request::Load(txn) => {
                let _ = self.store.commit(txn);
                None
            }
            Request::Renew => {
                let lease = self.processes[stage].lease;
                assert!(lease.is_none_or(|lease| self.store.renew(lease, duration(self.now))), "a lease ended");
                None
            }
            Request::Revoke(lease) => {
                self.store.revoke(lease);
                None
            }
        };
        self.spread();
        if let Some(answer) = answer.filter(|_| self.processes[stage].incarnation == incarnation) {
            let delay = self.rng.within(100..3 * MS);
            self.schedule(delay, stage, answer);
        }
    }

    /// Counts the changes and tells every process that there are some.
    fn spread(&mut self) {
        let changes = self.store.changes().expect("nothing is compacted");
        if changes.is_empty() {
            return;
        }
        let watchers = self.processes.iter().filter(|process| process.member.is_some()).count() as u64;
        let bytes: usize = changes.iter().map(size).sum();
        let events = changes.len() as u64;
        let load = self.count();
        load.events += events * watchers;
        load.bytes += bytes as u64 * watchers;
        self.mirror.apply(changes);
        (self.is_stale, self.changed_at) = (true, self.now);
        for stage in 0..self.processes.len() {
            let process = &mut self.processes[stage];
            if process.member.is_some() && !std::mem::replace(&mut process.is_informed, true) {
                let wait = process.view_due.saturating_sub(self.now);
                let due = self.now + wait.max(self.rng.within(200..8 * MS));
                self.schedule(due.next_multiple_of(VIEWS_EVERY) - self.now, stage, CrowdEvent::Sees);
            }
        }
    }

    fn newest_view(&mut self) -> Arc<ClusterView> {
        if std::mem::take(&mut self.is_stale) {
            self.view = Arc::new(self.mirror.raw());
        }
        self.view.clone()
    }

    // --- The processes ---

    fn process(&mut self, stage: usize, event: CrowdEvent) {
        match event {
            CrowdEvent::Starts => {
                self.processes[stage].incarnation += 1;
                let name: StageName = format!("s{stage:04}").parse().expect("a legal name");
                let record = StageRecord { host: format!("h{stage}"), ..self.loader.describe() };
                let loader = self.loader.clone();
                let setup = MemberSetup {
                    keyspace: self.keyspace.clone(),
                    name,
                    secret: None,
                    record,
                    memory_bound: Box::new(move |layers, room| loader.memory_bound(layers, room)),
                    proposals: self.proposals.clone(),
                };
                let view = self.newest_view();
                self.processes[stage].member = Some(Member::new(setup, view, self.instant()));
                self.ask(stage, Request::Grant);
            }
            CrowdEvent::Granted(lease) => {
                let txn = self.processes[stage].member.as_mut().expect("it has started").registration(lease);
                self.processes[stage].lease = Some(lease);
                self.ask(stage, Request::Register(txn));
            }
            CrowdEvent::Registered(outcome) => {
                assert!(matches!(outcome, Ok(Committed::Applied { .. })), "s{stage} cannot join: {outcome:?}");
                let lease = self.processes[stage].lease.expect("it was granted");
                self.take(stage, Event::Joined(lease));
                self.schedule(RENEW_EVERY, stage, CrowdEvent::Renews);
                let phase = self.rng.within(0..micros(SETTLE_LEFT));
                self.schedule(phase, stage, CrowdEvent::Ticks);
            }
            CrowdEvent::Ticks => {
                self.schedule(micros(SETTLE_LEFT), stage, CrowdEvent::Ticks);
                self.take(stage, Event::Tick(self.loader.memory()));
            }
            CrowdEvent::Sees => {
                let view = self.newest_view();
                let cost = VIEW_COST * view.stages.len() as u64;
                let process = &mut self.processes[stage];
                process.is_informed = false;
                let pause = (cost * u64::from(VIEW_TIME_PARTS - 1)).min(micros(VIEW_WAIT_MAX));
                process.view_due = self.now + cost + pause;
                if std::mem::replace(&mut process.seen, view.revision) != view.revision {
                    self.take(stage, Event::ViewChanged(view));
                }
            }
            CrowdEvent::Written(purpose, outcome) => self.take(stage, Event::Written(purpose, outcome)),
            CrowdEvent::Done(done) => self.take(stage, Event::Done(done)),
            CrowdEvent::Renews => {
                self.schedule(RENEW_EVERY, stage, CrowdEvent::Renews);
                self.ask(stage, Request::Renew);
            }
            CrowdEvent::Drains => self.take(stage, Event::Drain),
        }
    }

    fn take(&mut self, stage: usize, event: Event) {
        let now = self.instant();
        let Some(member) = &mut self.processes[stage].member else { return };
        let orders = member.handle(event, now);
        orders.into_iter().for_each(|order| self.perform(stage, order));
    }

    fn perform(&mut self, stage: usize, order: Order) {
        match order {
            Order::Commit(purpose, txn) => self.ask(stage, Request::Commit(purpose, txn)),
            Order::ReportLoad(txn) => self.ask(stage, Request::Load(txn)),
            Order::Load { number, layers, .. } => {
                let kv_blocks = self.record.kv_tokens / KV_BLOCK_TOKENS;
                let shard = Loaded { weights_bytes: u64::from(layers.count()), copied_bytes: 0, kv_blocks };
                let takes = self.rng.within(10 * MS..100 * MS);
                self.schedule(takes, stage, CrowdEvent::Done(Done::Loaded { number, shard: Ok(shard) }));
            }
            Order::ReadAhead { number, .. } => {
                let takes = self.rng.within(10 * MS..100 * MS);
                self.schedule(takes, stage, CrowdEvent::Done(Done::ReadAhead { number }));
            }
            Order::Stop => self.stop(stage),
            Order::Unload | Order::Disconnect => {}
            Order::Compute(..) | Order::Forward { .. } | Order::Answer { .. } => panic!("there is no gateway"),
        }
    }

    /// A stage stops in good order and starts again, and the next one is told to.
    fn stop(&mut self, stage: usize) {
        let process = &mut self.processes[stage];
        process.incarnation += 1;
        process.member = None;
        process.is_informed = false;
        if let Some(lease) = process.lease.take() {
            self.ask(stage, Request::Revoke(lease));
        }
        self.schedule(RESTART, stage, CrowdEvent::Starts);
        if let Some(next) = self.upgrades.pop() {
            self.schedule(0, next, CrowdEvent::Drains);
        }
    }

    fn upgrade(&mut self) {
        self.upgrades = (0..self.processes.len()).rev().collect();
        for _ in 0..UPGRADED_AT_A_TIME {
            if let Some(next) = self.upgrades.pop() {
                self.schedule(0, next, CrowdEvent::Drains);
            }
        }
    }

    /// The largest counts of a second since `from`, and their sums.
    fn peaks(&self, from: Moment) -> (StoreLoad, StoreLoad) {
        let mut peak = StoreLoad::default();
        let mut sum = StoreLoad::default();
        for load in self.by_second.range(from / SECOND..).map(|(_, load)| load) {
            peak.requests = peak.requests.max(load.requests);
            peak.events = peak.events.max(load.events);
            peak.bytes = peak.bytes.max(load.bytes);
            sum.requests += load.requests;
            sum.events += load.events;
            sum.bytes += load.bytes;
        }
        (peak, sum)
    }
}

/// Bytes of a change on its way to a watcher.
fn size(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Deleted { key, .. } => key.len(),
    }
}

/// Checks the work of the busiest second, and the number of all requests.
fn check(peak: StoreLoad, sum: StoreLoad, requests_max: u64) {
    assert!(peak.requests <= REQUESTS_MAX, "{peak:?}");
    assert!(peak.bytes <= EVENT_BYTES_MAX, "{peak:?}");
    assert!(sum.requests <= requests_max, "{sum:?}");
}

#[test]
fn a_crowd_that_joins_at_once_and_is_upgraded_settles_within_a_minute_each() {
    let stages = number_from_environment("SIMULATOR_CROWD").unwrap_or(STAGES);
    let mut crowd = Crowd::new(stages as usize);
    let joined = crowd.settle();
    let (peak, sum) = crowd.peaks(0);
    println!("{stages} stages join: settled after {:?}; in a second {peak:?}; in all {sum:?}", duration(joined));
    check(peak, sum, stages * JOIN_REQUESTS_EACH);
    let began = crowd.now;
    crowd.upgrade();
    let upgraded = crowd.settle();
    let (peak, sum) = crowd.peaks(began);
    println!("all are upgraded: settled after {:?}; in a second {peak:?}; in all {sum:?}", duration(upgraded));
    check(peak, sum, stages * UPGRADE_REQUESTS_EACH);

    // At rest nothing that is watched changes, and loads are written at their rate.
    let at_rest = crowd.now;
    while crowd.now < at_rest + 10 * SECOND {
        crowd.step();
    }
    let (_, sum) = crowd.peaks(at_rest + SECOND);
    let renewals = stages * 10 * SECOND / RENEW_EVERY;
    println!("ten seconds at rest: {sum:?}, of which about {renewals} renewals");
    assert_eq!((sum.events, sum.bytes), (0, 0));
    assert!(sum.requests <= renewals * 3 / 2 + 10 * u64::from(LOADS_PER_SECOND_MAX) + stages, "{sum:?}");
}
