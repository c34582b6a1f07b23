//! A simulated stage process: the real member and the real worker, with its loop in virtual time.
//!
//! Joining and renewing the lease follow the real loops (`stage::join`, the lease's renewer) step by step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use schema::Keyspace;
use schema::StageName;
use schema::frame::Frame;
use schema::record::{Speeds, StageRecord};

use super::environment::Environment;
use super::event::{Call, ProcessEvent};
use super::lease::{LEASE_TTL, Lease, RENEW_EVERY, RETRY_PAUSE};
use super::model;
use super::network::Target;
use super::process_id::ProcessId;
use super::store::{StoreRequest, StoreResponse};
use super::taken::Taken;
use super::thread::Thread;
use super::time::{MS, Moment, SECOND, duration, micros};
use crate::limits::{GATEWAYS_MAX, SETTLE_LEFT, STORE_RETRY};
use crate::link::UnreachableKind;
use crate::planner::Proposals;
use crate::route::RouteEvent;
use crate::runner::Loader;
use crate::stage::compute::ComputeOrder;
use crate::stage::done::Done;
use crate::stage::held::Held;
use crate::stage::member::{Event, Member, MemberSetup, Order, Purpose};
use crate::store::{Committed, StoreError};

/// Time for which a stage waits for its own name, as in the real one.
const NAME_WAIT_MAX: Duration = LEASE_TTL.saturating_mul(3);

/// The longest round trip to another stage, in proportion to a model whose layers take a few microseconds each.
const ROUND_TRIP_MAX: Moment = 400;

/// The phase of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining { since: Moment },
    Serving,
}

/// One process.
pub(super) struct StageProcess {
    process: ProcessId,
    endpoint: String,
    loader: Arc<dyn Loader>,
    member: Member,
    thread: Thread,
    /// The round trip to the next stage that it measures.
    round_trip: Duration,
    /// The speeds that it is going to measure.
    speed: Option<Speeds>,
    phase: Phase,
    lease: Option<Lease>,
    joins: u64,
    has_served: bool,
    writes: u64,
    taken: Taken,
    /// Events that came while it was joining.
    waiting: Vec<ProcessEvent>,
    /// Events until it checks its lease again: after a freeze, timers may come last.
    unchecked: u64,
    /// True while it joins again and keeps its shard, because the store has lost its data.
    keeps_shard: bool,
    /// True if its member has ordered it to stop.
    stops: bool,
}

/// The machine that a stage runs on.
pub(super) struct Machine {
    pub(super) host: String,
    /// It takes so many times as long as the fastest one.
    pub(super) pace: u64,
    /// The pace that the stage measures.
    pub(super) measured_pace: u64,
}

// === impl StageProcess ===

impl StageProcess {
    /// A new process on `machine`, which begins to join.
    pub(super) fn start(
        process: ProcessId,
        keyspace: &Keyspace,
        loader: Arc<dyn Loader>,
        machine: Machine,
        env: &mut Environment,
    ) -> Self {
        let Machine { host, pace, measured_pace } = machine;
        let endpoint = env.network.listen(process, env.states[process.0].incarnation);
        let record = StageRecord { endpoint: endpoint.clone(), host, ..loader.describe() };
        let stage: StageName = process.to_string().parse().expect("a legal name");
        let view = env.state(process).view.clone();
        let bound = loader.clone();
        let setup = MemberSetup {
            keyspace: keyspace.clone(),
            name: stage,
            secret: env.store.secret().cloned(),
            record,
            memory_bound: Box::new(move |layers, room| bound.memory_bound(layers, room)),
            proposals: Proposals::default(),
        };
        let member = Member::new(setup, view, env.instant());
        env.schedule(0, process, ProcessEvent::Joins);
        Self {
            process,
            endpoint,
            member,
            thread: Thread::new(process, loader.clone(), pace),
            speed: Some(model::speed(measured_pace)),
            round_trip: duration(env.rng.within(0..ROUND_TRIP_MAX)),
            loader,
            phase: Phase::Joining { since: env.now },
            lease: None,
            joins: 0,
            has_served: false,
            writes: 0,
            taken: Taken::default(),
            waiting: Vec::new(),
            unchecked: 0,
            keeps_shard: false,
            stops: false,
        }
    }

    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// True if it has no lease under which it could hold a shard.
    pub(super) fn is_joining(&self) -> bool {
        self.phase != Phase::Serving
    }

    pub(super) fn keeps_shard(&self) -> bool {
        self.keeps_shard
    }

    /// It was frozen: the first events may come before it notices that its lease is lost.
    pub(super) fn woke(&mut self, env: &mut Environment) {
        self.unchecked = env.rng.within(0..4);
    }

    /// Revokes its lease and stops, as on a signal.
    pub(super) fn stop(&mut self, env: &mut Environment) {
        self.take(Event::LeaseLost { is_forgotten: false }, env);
        if let Some(lease) = self.lease.take() {
            env.ask(self.process, Call::Revocation, StoreRequest::Revoke(lease.id));
        }
    }

    /// Drains it: it stops once others have taken over its layers.
    pub(super) fn drain(&mut self, env: &mut Environment) {
        if !self.member.is_draining() {
            self.take(Event::Drain, env);
        }
    }

    /// Stops a draining process once it may. True if it has stopped.
    fn has_drained(&mut self, env: &mut Environment) -> bool {
        if !self.member.is_draining() || !(self.is_joining() || self.stops) {
            return false;
        }
        let handed_over = !self.is_joining() && self.member.held().is_none();
        env.tally.add("a stage handed its layers over", handed_over.into());
        env.note(|| format!("{} has drained", self.process));
        self.stop(env);
        true
    }

    /// Handles an event. False if the process ends by itself.
    pub(super) fn handle(&mut self, event: ProcessEvent, env: &mut Environment) -> bool {
        match event {
            ProcessEvent::Joins => {
                self.phase = Phase::Joining { since: env.now };
                self.joins += 1;
                env.ask(self.process, Call::Join(self.joins), StoreRequest::Grant);
            }
            ProcessEvent::Registers(joins) if joins == self.joins => self.register(env),
            ProcessEvent::Renews => self.renew(env),
            ProcessEvent::ComputeDone => self.thread.done(env),
            ProcessEvent::Answered { call: Call::Join(joins), response: answer } if joins == self.joins => {
                return self.granted(&answer, env);
            }
            ProcessEvent::Answered { call: Call::Register(joins), response: answer } if joins == self.joins => {
                return self.registered(&answer, env);
            }
            ProcessEvent::Answered { call: Call::Renewal { lease }, response: answer } => {
                if self.lease.is_some_and(|own| own.id == lease) {
                    self.renewed(&answer, env);
                }
            }
            ProcessEvent::Answered {
                call: Call::Join(_) | Call::Register(_) | Call::Revocation | Call::Load, ..
            }
            | ProcessEvent::Registers(_) => {}
            other if self.phase != Phase::Serving => match other {
                // Ticks and views need no queue: serving begins with the newest view.
                ProcessEvent::Ticks | ProcessEvent::Sees => {}
                other => self.waiting.push(other),
            },
            other => self.serve(other, env),
        }
        !self.has_drained(env)
    }

    /// One turn of the loop.
    fn serve(&mut self, event: ProcessEvent, env: &mut Environment) {
        if self.is_evicted() {
            self.waiting.push(event);
            return self.leave(env);
        }
        match event {
            ProcessEvent::Ticks => {
                env.schedule(micros(SETTLE_LEFT), self.process, ProcessEvent::Ticks);
                self.take(Event::Tick(self.loader.memory()), env);
            }
            ProcessEvent::Sees => {
                let view = env.state(self.process).view.clone();
                for slot in (0..GATEWAYS_MAX).filter(|slot| !view.gateways.contains_key(slot)) {
                    env.network.close(self.process, Target::Gateway(slot));
                }
                self.take(Event::ViewChanged(view), env);
            }
            ProcessEvent::Answered {
                call: Call::Write { number, purpose },
                response: StoreResponse::Committed(outcome),
            } if number == self.writes => {
                let refused = matches!((purpose, &outcome), (Purpose::Claim(..), Ok(Committed::Refused)));
                env.tally.add("a claim was refused", refused.into());
                let lost = matches!((purpose, &outcome), (Purpose::Proposal, Ok(Committed::Refused)));
                env.tally.add("a proposal came too late", lost.into());
                if matches!(outcome, Err(StoreError::LeaseGone { .. })) {
                    return self.leave(env);
                }
                self.take(Event::Written(purpose, outcome), env);
            }
            ProcessEvent::Receives(message) => {
                let refused = self.member.record().load.frames_refused;
                self.take(Event::Arrived(message), env);
                env.tally.add("a stage did not take a frame", self.member.record().load.frames_refused - refused);
            }
            ProcessEvent::LinkEnded { target, link } => {
                let events = env.route_ended(self.process, target, link);
                events.into_iter().for_each(|event| self.take(route_event(target, event), env));
            }
            ProcessEvent::Dialled { target, number } => {
                let events = env.dialled(self.process, target, number);
                events.into_iter().for_each(|event| self.take(route_event(target, event), env));
            }
            ProcessEvent::Computed(done) => {
                match &done {
                    Done::Loaded { shard, .. } => {
                        self.taken = Taken::default();
                        if let Some(speed) = self.speed.take_if(|_| shard.is_ok()) {
                            let probed = Done::Probed { speed };
                            let measures = env.rng.within(300 * MS..3 * SECOND);
                            env.schedule(measures, self.process, ProcessEvent::Computed(probed));
                        }
                    }
                    Done::Probed { .. } => env.tally.add("a stage measured itself", 1),
                    Done::ReadAhead { .. } | Done::Stepped(_) => {}
                }
                self.take(Event::Done(done), env);
            }
            _ => {}
        }
    }

    /// Feeds an event to the member and executes its orders, as the real loop does.
    fn take(&mut self, event: Event, env: &mut Environment) {
        let mut events = VecDeque::from([event]);
        while let Some(mut event) = events.pop_front() {
            if let Event::Downstream(event) = &mut event {
                self.observe(event, env);
            }
            for order in self.member.handle(event, env.instant()) {
                self.perform(order, &mut events, env);
            }
        }
    }

    /// Counts the outcome of a frame to the next stage, and adds the round trip of the connection.
    fn observe(&self, event: &mut RouteEvent, env: &mut Environment) {
        match event {
            RouteEvent::Sent { round_trip, .. } => *round_trip = Some(self.round_trip),
            RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found) => {
                let tally = match found.kind {
                    UnreachableKind::Refused => "a stage found the next one gone",
                    UnreachableKind::Silence => "a stage got no answer from the next",
                    UnreachableKind::Barred => "a stage was barred from the next",
                };
                env.tally.add(tally, 1);
            }
            RouteEvent::Unsent { .. } | RouteEvent::Broke { .. } => {}
        }
    }

    // --- Lease ---

    fn is_evicted(&mut self) -> bool {
        if self.unchecked > 0 {
            self.unchecked -= 1;
            return false;
        }
        self.lease.is_none_or(|lease| lease.is_lost())
    }

    fn leave(&mut self, env: &mut Environment) {
        env.tally.add("a stage lost its lease", 1);
        env.note(|| format!("{} has lost its lease", self.process));
        self.keeps_shard = !env.store.is_away_for(self.process) && self.member.keeps_shard(&env.store.raw());
        env.tally.add("a stage kept its shard for a store that lost its data", self.keeps_shard.into());
        self.take(Event::LeaseLost { is_forgotten: self.keeps_shard }, env);
        self.writes += 1; // The outcome of the pending write is ignored.
        if let Some(lease) = self.lease.take() {
            env.ask(self.process, Call::Revocation, StoreRequest::Revoke(lease.id));
        }
        self.phase = Phase::Joining { since: env.now };
        let delay = env.rng.within(MS..20 * MS);
        env.schedule(delay, self.process, ProcessEvent::Joins);
    }

    fn granted(&mut self, answer: &StoreResponse, env: &mut Environment) -> bool {
        let StoreResponse::Granted(Some(id)) = answer else { return self.cannot_join(env) };
        if !matches!(self.phase, Phase::Joining { .. }) {
            return true;
        }
        self.lease = Some(Lease::new(*id));
        env.schedule(RENEW_EVERY, self.process, ProcessEvent::Renews);
        self.register(env);
        true
    }

    fn register(&mut self, env: &mut Environment) {
        let Some(lease) = self.lease else { return };
        let txn = self.member.registration(lease.id);
        env.ask(self.process, Call::Register(self.joins), StoreRequest::Commit(txn));
    }

    fn registered(&mut self, answer: &StoreResponse, env: &mut Environment) -> bool {
        let Phase::Joining { since } = self.phase else { return true };
        match answer {
            StoreResponse::Committed(Ok(Committed::Applied { .. })) => {
                env.tally.add("a stage joined again", self.has_served.into());
                env.note(|| format!("{} has joined", self.process));
                (self.phase, self.has_served, self.keeps_shard) = (Phase::Serving, true, false);
                let view = env.state(self.process).view.clone();
                self.take(Event::ViewChanged(view), env);
                if let Some(lease) = self.lease {
                    self.take(Event::Joined(lease.id), env);
                }
                env.schedule(0, self.process, ProcessEvent::Ticks);
                for event in std::mem::take(&mut self.waiting) {
                    env.schedule(0, self.process, event);
                }
                true
            }
            StoreResponse::Committed(Ok(Committed::Refused)) if env.now - since <= micros(NAME_WAIT_MAX) => {
                env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Registers(self.joins));
                true
            }
            StoreResponse::Committed(Err(StoreError::Unavailable { .. } | StoreError::LeaseGone { .. })) => {
                self.cannot_join(env)
            }
            _ => false,
        }
    }

    /// A process that has served tries again. Others end, and their supervisor starts them anew.
    fn cannot_join(&mut self, env: &mut Environment) -> bool {
        if let Some(lease) = self.lease.take() {
            env.ask(self.process, Call::Revocation, StoreRequest::Revoke(lease.id));
        }
        if self.has_served {
            env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Joins);
        }
        self.has_served
    }

    fn renew(&mut self, env: &mut Environment) {
        let Some(lease) = self.lease.filter(|lease| !lease.is_lost()) else { return };
        env.ask(self.process, Call::Renewal { lease: lease.id }, StoreRequest::Renew(lease.id));
    }

    fn renewed(&mut self, answer: &StoreResponse, env: &mut Environment) {
        let Some(lease) = &mut self.lease else { return };
        let pause = match answer {
            StoreResponse::Renewed(Some(known)) if lease.renewed(*known) => RENEW_EVERY,
            StoreResponse::Renewed(None) => RETRY_PAUSE,
            _ => return,
        };
        env.schedule(pause, self.process, ProcessEvent::Renews);
    }

    // --- Orders ---

    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>, env: &mut Environment) {
        let process = self.process;
        match order {
            Order::Commit(purpose, txn) => {
                env.note(|| format!("{process} writes: {purpose:?}"));
                self.writes += 1;
                env.ask(process, Call::Write { number: self.writes, purpose }, StoreRequest::Commit(txn));
            }
            Order::ReportLoad(txn) => env.ask(process, Call::Load, StoreRequest::Commit(txn)),
            Order::Load { number, layers, room, budget_bytes } => {
                self.thread.give(ComputeOrder::Load { number, layers, room, budget_bytes }, env);
            }
            Order::ReadAhead { number, .. } => {
                let takes = env.rng.within(10 * MS..600 * MS);
                env.schedule(takes, process, ProcessEvent::Computed(Done::ReadAhead { number }));
            }
            Order::Unload => self.thread.give(ComputeOrder::Unload, env),
            Order::Disconnect => env.network.close(process, Target::Downstream),
            Order::Compute(hop, activations) => {
                let ready = self.member.held().filter(|held| held.is_ready()).map(Held::id);
                self.taken.check(process, &hop, ready, env);
                if self.thread.is_full() {
                    return events.push_back(Event::Overloaded(hop));
                }
                self.thread.give(ComputeOrder::Step { hop, activations, arrived: env.instant() }, env);
            }
            Order::Forward { endpoint, hop, activations } => {
                let route_events = env.route(process, Target::Downstream, &endpoint, Frame::Hop(hop), activations);
                events.extend(route_events.into_iter().map(Event::Downstream));
            }
            Order::Answer { gateway, endpoint, frame } => {
                let target = Target::Gateway(gateway);
                let route_events = env.route(process, target, &endpoint, frame, bytes::Bytes::new());
                events.extend(route_events.into_iter().map(|event| route_event(target, event)));
            }
            Order::Stop => self.stops = true,
        }
    }
}

/// The stage event for an event of one of its routes.
fn route_event(target: Target, event: RouteEvent) -> Event {
    match target {
        Target::Downstream => Event::Downstream(event),
        Target::Gateway(slot) => Event::Upstream(slot, event),
    }
}
