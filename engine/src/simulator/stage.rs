//! A simulated stage process: the real member and the real worker, with the loop around them in virtual time.
//!
//! Joining and renewing the lease follow the real loops (`stage::join`, the lease's keeper) step by step.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use schema::Keyspace;
use schema::StageName;
use schema::frame::Frame;
use schema::record::{Speeds, StageRecord};

use super::depot::{Answer, Ask};
use super::lease::{Lease, RENEW_EVERY, RETRY_PAUSE};
use super::model;
use super::network::Way;
use super::surroundings::{Errand, Happening, MS, Moment, Party, SECOND, Surroundings, duration, micros};
use super::taken::Taken;
use super::thread::Thread;
use crate::limits::{GATEWAYS_MAX, SETTLE_LEFT, STORE_RETRY};
use crate::link::Absence;
use crate::route::RouteEvent;
use crate::runner::Loader;
use crate::stage::compute::{ComputeOrder, Done};
use crate::stage::member::{Event, Identity, Member, Order, Purpose};
use crate::store::{Committed, StoreError};

/// For how long a stage waits for its own name: as the real one does.
const NAME_PATIENCE: Duration = super::LEASE_TTL.saturating_mul(3);

/// The longest way to another stage and back, in the measure of a model whose layers take a few microseconds each.
const WAY_MAX: Moment = 400;

/// How far a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Joining { since: Moment },
    Serving,
}

/// One process.
pub(super) struct StageProcess {
    party: Party,
    endpoint: String,
    loader: Arc<dyn Loader>,
    member: Member,
    thread: Thread,
    /// What it finds the way to the next one to take, there and back.
    way: Duration,
    /// What it is going to measure of itself.
    speed: Option<Speeds>,
    phase: Phase,
    lease: Option<Lease>,
    joins: u64,
    has_served: bool,
    writes: u64,
    taken: Taken,
    /// What happened while it was joining.
    waiting: Vec<Happening>,
    /// Happenings until it looks at its lease again: after a sleep, timers may come last.
    blind: u64,
    /// True while it joins again and keeps what it holds, since the store has lost its data.
    keeps: bool,
    /// True if its member has ordered it to stop.
    stops: bool,
}

pub(super) fn name(party: Party) -> String {
    format!("s{}", party.0)
}

// === impl StageProcess ===

impl StageProcess {
    /// A new process on `host`, which begins to join; it finds itself so many times slower than the fastest.
    pub(super) fn start(
        party: Party,
        keyspace: &Keyspace,
        (loader, host): (Arc<dyn Loader>, String),
        (pace, found): (u64, u64),
        around: &mut Surroundings,
    ) -> Self {
        let endpoint = around.network.listen(party, around.lives[party.0].incarnation);
        let record = StageRecord { endpoint: endpoint.clone(), host, ..loader.describe() };
        let stage: StageName = name(party).parse().expect("a legal name");
        let view = around.life(party).view.clone();
        let bound = loader.clone();
        let identity = Identity {
            keyspace: keyspace.clone(),
            name: stage,
            secret: around.depot.secret().cloned(),
            record,
            memory_bound: Box::new(move |layers, room| bound.memory_bound(layers, room)),
        };
        let member = Member::new(identity, view, around.instant());
        around.happens(0, party, Happening::Joins);
        Self {
            party,
            endpoint,
            member,
            thread: Thread::new(party, loader.clone(), pace),
            speed: Some(model::speed(found)),
            way: duration(around.dice.within(0..WAY_MAX)),
            loader,
            phase: Phase::Joining { since: around.now },
            lease: None,
            joins: 0,
            has_served: false,
            writes: 0,
            taken: Taken::default(),
            waiting: Vec::new(),
            blind: 0,
            keeps: false,
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

    /// Whether it has no lease under which it could hold something.
    pub(super) fn is_joining(&self) -> bool {
        self.phase != Phase::Serving
    }

    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// It slept; the first things that happen may come before it knows for how long.
    pub(super) fn woke(&mut self, around: &mut Surroundings) {
        self.blind = around.dice.within(0..4);
    }

    /// Gives its lease back and stops, as on a signal; whoever calls starts it anew or not.
    pub(super) fn stop(&mut self, around: &mut Surroundings) {
        self.take(Event::LeaseLost { is_forgotten: false }, around);
        if let Some(lease) = self.lease.take() {
            around.ask(self.party, Errand::Farewell, Ask::Revoke(lease.id));
        }
    }

    /// It is to stop, when others have taken over what it holds.
    pub(super) fn drain(&mut self, around: &mut Surroundings) {
        if !self.member.is_draining() {
            self.take(Event::Drain, around);
        }
    }

    /// Whether a process that is to stop has done so.
    fn has_drained(&mut self, around: &mut Surroundings) -> bool {
        if !self.member.is_draining() || !(self.is_joining() || self.stops) {
            return false;
        }
        let handed_over = !self.is_joining() && self.member.held().is_none();
        around.tally.add("a stage handed its layers over", handed_over.into());
        around.note(|| format!("{} has drained", name(self.party)));
        self.stop(around);
        true
    }

    /// What happens, and what follows from it. False when the process ends by itself.
    pub(super) fn handle(&mut self, happening: Happening, around: &mut Surroundings) -> bool {
        match happening {
            Happening::Joins => {
                self.phase = Phase::Joining { since: around.now };
                self.joins += 1;
                around.ask(self.party, Errand::Join(self.joins), Ask::Grant);
            }
            Happening::Registers(joins) if joins == self.joins => self.register(around),
            Happening::Renews => self.renew(around),
            Happening::ComputeDone => self.thread.done(around),
            Happening::Answered { errand: Errand::Join(joins), answer } if joins == self.joins => {
                return self.granted(&answer, around);
            }
            Happening::Answered { errand: Errand::Register(joins), answer } if joins == self.joins => {
                return self.registered(&answer, around);
            }
            Happening::Answered { errand: Errand::Renewal { lease }, answer } => {
                if self.lease.is_some_and(|own| own.id == lease) {
                    self.renewed(&answer, around);
                }
            }
            Happening::Answered { errand: Errand::Join(_) | Errand::Register(_) | Errand::Farewell, .. }
            | Happening::Registers(_) => {}
            other if self.phase != Phase::Serving => match other {
                // What does not wait in a queue is not missed either: serving begins with a look.
                Happening::Ticks | Happening::Sees => {}
                other => self.waiting.push(other),
            },
            other => self.serve(other, around),
        }
        !self.has_drained(around)
    }

    /// One turn of the loop.
    fn serve(&mut self, happening: Happening, around: &mut Surroundings) {
        if self.is_evicted() {
            self.waiting.push(happening);
            return self.leave(around);
        }
        match happening {
            Happening::Ticks => {
                around.happens(micros(SETTLE_LEFT), self.party, Happening::Ticks);
                self.take(Event::Tick(self.loader.memory()), around);
            }
            Happening::Sees => {
                let view = around.life(self.party).view.clone();
                for slot in (0..GATEWAYS_MAX).filter(|slot| !view.gateways.contains_key(slot)) {
                    around.network.close(self.party, Way::Gateway(slot));
                }
                self.take(Event::Viewed(view), around);
            }
            Happening::Answered { errand: Errand::Write { number, purpose }, answer: Answer::Committed(outcome) }
                if number == self.writes =>
            {
                let refused = matches!((purpose, &outcome), (Purpose::Claim(..), Ok(Committed::Refused)));
                around.tally.add("a claim was refused", refused.into());
                let lost = matches!((purpose, &outcome), (Purpose::Proposal, Ok(Committed::Refused)));
                around.tally.add("a proposal came too late", lost.into());
                if matches!(outcome, Err(StoreError::LeaseGone { .. })) {
                    return self.leave(around);
                }
                self.take(Event::Written(purpose, outcome), around);
            }
            Happening::Receives(message) => {
                let refused = self.member.record().load.frames_refused;
                self.take(Event::Arrived(message), around);
                around.tally.add("a stage did not take a frame", self.member.record().load.frames_refused - refused);
            }
            Happening::LinkEnded { way, link } => {
                let events = around.route_ended((self.party, way), link);
                events.into_iter().for_each(|event| self.take(on(way, event), around));
            }
            Happening::Dialled { way, number } => {
                let events = around.dialled((self.party, way), number);
                events.into_iter().for_each(|event| self.take(on(way, event), around));
            }
            Happening::Computed(done) => {
                match &done {
                    Done::Loaded { shard, .. } => {
                        self.taken = Taken::default();
                        if let Some(speed) = self.speed.take_if(|_| shard.is_ok()) {
                            let probed = Done::Probed { speed };
                            let measures = around.dice.within(300 * MS..3 * SECOND);
                            around.happens(measures, self.party, Happening::Computed(probed));
                        }
                    }
                    Done::Probed { .. } => around.tally.add("a stage measured itself", 1),
                    Done::ReadAhead { .. } | Done::Stepped(_) => {}
                }
                self.take(Event::Done(done), around);
            }
            _ => {}
        }
    }

    /// Feeds an event to the member and carries out its orders, as the real loop does.
    fn take(&mut self, event: Event, around: &mut Surroundings) {
        let mut events = VecDeque::from([event]);
        while let Some(mut event) = events.pop_front() {
            if let Event::Downstream(event) = &mut event {
                self.observe(event, around);
            }
            for order in self.member.handle(event, around.instant()) {
                self.perform(order, &mut events, around);
            }
        }
    }

    /// Counts what became of a frame to the next stage, and adds what the connection took there and back.
    fn observe(&self, event: &mut RouteEvent, around: &mut Surroundings) {
        match event {
            RouteEvent::Sent { round_trip, .. } => *round_trip = Some(self.way),
            RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found) => {
                let tally = match found.absence {
                    Absence::Refused => "a stage found the next one gone",
                    Absence::Silence => "a stage heard nothing of the next",
                    Absence::Barred => "a stage was barred from the next",
                };
                around.tally.add(tally, 1);
            }
            RouteEvent::Unsent { .. } | RouteEvent::Broke { .. } => {}
        }
    }

    // --- Lease ---

    fn is_evicted(&mut self) -> bool {
        if self.blind > 0 {
            self.blind -= 1;
            return false;
        }
        self.lease.is_none_or(|lease| lease.is_lost())
    }

    fn leave(&mut self, around: &mut Surroundings) {
        around.tally.add("a stage lost its lease", 1);
        around.note(|| format!("{} has lost its lease", name(self.party)));
        self.keeps = !around.depot.is_away_for(self.party) && self.member.outlives(&around.depot.raw());
        around.tally.add("a stage kept what it held for a store that lost its data", self.keeps.into());
        self.take(Event::LeaseLost { is_forgotten: self.keeps }, around);
        self.writes += 1; // Whatever comes of the write under way, nobody waits for it.
        if let Some(lease) = self.lease.take() {
            around.ask(self.party, Errand::Farewell, Ask::Revoke(lease.id));
        }
        self.phase = Phase::Joining { since: around.now };
        let delay = around.dice.within(MS..20 * MS);
        around.happens(delay, self.party, Happening::Joins);
    }

    fn granted(&mut self, answer: &Answer, around: &mut Surroundings) -> bool {
        let Answer::Granted(Some(id)) = answer else { return self.cannot_join(around) };
        if !matches!(self.phase, Phase::Joining { .. }) {
            return true;
        }
        self.lease = Some(Lease::new(*id));
        around.happens(RENEW_EVERY, self.party, Happening::Renews);
        self.register(around);
        true
    }

    fn register(&mut self, around: &mut Surroundings) {
        let Some(lease) = self.lease else { return };
        let txn = self.member.registration(lease.id);
        around.ask(self.party, Errand::Register(self.joins), Ask::Commit(txn));
    }

    fn registered(&mut self, answer: &Answer, around: &mut Surroundings) -> bool {
        let Phase::Joining { since } = self.phase else { return true };
        match answer {
            Answer::Committed(Ok(Committed::Applied { .. })) => {
                around.tally.add("a stage joined again", self.has_served.into());
                around.note(|| format!("{} has joined", name(self.party)));
                (self.phase, self.has_served, self.keeps) = (Phase::Serving, true, false);
                let view = around.life(self.party).view.clone();
                self.take(Event::Viewed(view), around);
                if let Some(lease) = self.lease {
                    self.take(Event::Joined(lease.id), around);
                }
                around.happens(0, self.party, Happening::Ticks);
                for happening in std::mem::take(&mut self.waiting) {
                    around.happens(0, self.party, happening);
                }
                true
            }
            Answer::Committed(Ok(Committed::Refused)) if around.now - since <= micros(NAME_PATIENCE) => {
                around.happens(micros(STORE_RETRY), self.party, Happening::Registers(self.joins));
                true
            }
            Answer::Committed(Err(StoreError::Unavailable { .. } | StoreError::LeaseGone { .. })) => {
                self.cannot_join(around)
            }
            _ => false,
        }
    }

    /// Whoever has served tries again; others end, and their supervisor starts them anew.
    fn cannot_join(&mut self, around: &mut Surroundings) -> bool {
        if let Some(lease) = self.lease.take() {
            around.ask(self.party, Errand::Farewell, Ask::Revoke(lease.id));
        }
        if self.has_served {
            around.happens(micros(STORE_RETRY), self.party, Happening::Joins);
        }
        self.has_served
    }

    fn renew(&mut self, around: &mut Surroundings) {
        let Some(lease) = self.lease.filter(|lease| !lease.is_lost()) else { return };
        around.ask(self.party, Errand::Renewal { lease: lease.id }, Ask::Renew(lease.id));
    }

    fn renewed(&mut self, answer: &Answer, around: &mut Surroundings) {
        let Some(lease) = &mut self.lease else { return };
        let pause = match answer {
            Answer::Renewed(Some(known)) if lease.renewed(*known) => RENEW_EVERY,
            Answer::Renewed(None) => RETRY_PAUSE,
            _ => return,
        };
        around.happens(pause, self.party, Happening::Renews);
    }

    // --- Orders ---

    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>, around: &mut Surroundings) {
        let party = self.party;
        match order {
            Order::Commit(purpose, txn) => {
                around.note(|| format!("{} writes: {purpose:?}", name(party)));
                self.writes += 1;
                around.ask(party, Errand::Write { number: self.writes, purpose }, Ask::Commit(txn));
            }
            Order::Load { number, layers, room, budget_bytes } => {
                self.thread.give(ComputeOrder::Load { number, layers, room, budget_bytes }, around);
            }
            Order::ReadAhead { number, .. } => {
                let takes = around.dice.within(10 * MS..600 * MS);
                around.happens(takes, party, Happening::Computed(Done::ReadAhead { number }));
            }
            Order::Unload => self.thread.give(ComputeOrder::Unload, around),
            Order::Disconnect => around.network.close(party, Way::Downstream),
            Order::Compute(hop, activations) => {
                let held = self.member.held().map(|held| (held.generation, held.slot, held.is_ready()));
                self.taken.check(party, &hop, held, around);
                if self.thread.is_full() {
                    return events.push_back(Event::Overloaded(hop));
                }
                self.thread.give(ComputeOrder::Step { hop, activations, arrived: around.instant() }, around);
            }
            Order::Forward { endpoint, hop, activations } => {
                let happened = around.route((party, Way::Downstream), &endpoint, Frame::Hop(hop), activations);
                events.extend(happened.into_iter().map(Event::Downstream));
            }
            Order::Answer { gateway, endpoint, frame } => {
                let way = Way::Gateway(gateway);
                let happened = around.route((party, way), &endpoint, frame, bytes::Bytes::new());
                events.extend(happened.into_iter().map(|event| on(way, event)));
            }
            Order::Stop => self.stops = true,
        }
    }
}

/// The event of a stage that something became of a frame on one of its ways.
fn on(way: Way, event: RouteEvent) -> Event {
    match way {
        Way::Downstream => Event::Downstream(event),
        Way::Gateway(slot) => Event::Upstream(slot, event),
    }
}
