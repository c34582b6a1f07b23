//! A simulated gateway process: the real conductor, with its loop in virtual time.

use std::collections::VecDeque;
use std::time::Instant;

use schema::frame::Frame;
use schema::record::{ClaimState, GatewayRecord};
use schema::{Key, Keyspace};

use super::clients::{ClientState, Clients};
use super::environment::Environment;
use super::event::{Call, ProcessEvent};
use super::lease::{Lease, RENEW_EVERY, RETRY_PAUSE};
use super::network::Target;
use super::process_id::ProcessId;
use super::store::{StoreRequest, StoreResponse};
use super::time::{Moment, micros};
use super::transport::name;
use crate::core::conductor::Conductor;
use crate::core::event::{Event, Order, Purpose};
use crate::core::{PipelineFault, Scheduler};
use crate::generate::Rejection;
use crate::limits::{GATEWAY_TICK, SHARE_SETTLE, STORE_RETRY};
use crate::link::UnreachableKind;
use crate::membership::{restore, sign_gateway, write_gateway};
use crate::route::RouteEvent;
use crate::share::GatewayRegistration;
use crate::store::Committed;

/// One process.
pub(super) struct GatewayProcess {
    process: ProcessId,
    keyspace: Keyspace,
    endpoint: String,
    conductor: Conductor,
    lease: Option<Lease>,
    joins: u64,
    /// Its registration, and the one it tries to get.
    own: Option<GatewayRegistration>,
    next: Option<GatewayRegistration>,
    /// At this revision of the store.
    registered_at: u64,
    /// True while it waits for the answer to a registration.
    registers: bool,
    /// The time at which it last wrote a record again.
    rewritten: Option<Moment>,
    /// The time at which it is to be woken.
    wakes: Option<Instant>,
}

// === impl GatewayProcess ===

impl GatewayProcess {
    /// A new process, which begins to register.
    pub(super) fn start(process: ProcessId, keyspace: &Keyspace, speculates: bool, env: &mut Environment) -> Self {
        let endpoint = env.network.listen(process, env.states[process.0].incarnation);
        let view = env.state(process).view.clone();
        let conductor = Conductor::new(keyspace.clone(), Scheduler::new(speculates), view);
        env.schedule(0, process, ProcessEvent::Joins);
        env.schedule(0, process, ProcessEvent::Ticks);
        env.schedule(0, process, ProcessEvent::Sees);
        let keyspace = keyspace.clone();
        Self {
            process,
            keyspace,
            endpoint,
            conductor,
            lease: None,
            joins: 0,
            own: None,
            next: None,
            registered_at: 0,
            registers: false,
            rewritten: None,
            wakes: None,
        }
    }

    pub(super) fn conductor(&self) -> &Conductor {
        &self.conductor
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// Handles an event.
    pub(super) fn handle(&mut self, event: ProcessEvent, clients: &mut Clients, env: &mut Environment) {
        match event {
            ProcessEvent::Joins => {
                self.joins += 1;
                env.ask(self.process, Call::Join(self.joins), StoreRequest::Grant);
            }
            ProcessEvent::Registers(joins) if joins == self.joins => self.register(env),
            ProcessEvent::Renews => self.renew(env),
            ProcessEvent::Answered { call: Call::Join(joins), response: answer } if joins == self.joins => {
                self.granted(&answer, env);
            }
            ProcessEvent::Answered { call: Call::Register(joins), response: answer } if joins == self.joins => {
                self.registered(&answer, clients, env);
            }
            ProcessEvent::Answered { call: Call::Renewal { lease }, response: answer } => {
                if self.lease.is_some_and(|own| own.id == lease) {
                    self.renewed(&answer, env);
                }
            }
            other => self.turn(other, clients, env),
        }
    }

    /// One turn of the loop.
    fn turn(&mut self, event: ProcessEvent, clients: &mut Clients, env: &mut Environment) {
        match event {
            ProcessEvent::Sees => {
                let view = env.state(self.process).view.clone();
                self.take(Event::ViewChanged(view), clients, env);
            }
            ProcessEvent::Receives(message) => self.take(Event::Arrived(message.frame), clients, env),
            ProcessEvent::Ticks => {
                env.schedule(micros(GATEWAY_TICK), self.process, ProcessEvent::Ticks);
                for id in clients.left(self.process, env) {
                    self.take(Event::Cancelled(id), clients, env);
                }
                self.take(Event::Tick, clients, env);
            }
            ProcessEvent::LinkEnded { target, link } => {
                let events = env.route_ended(self.process, target, link);
                events.into_iter().for_each(|event| self.take(Event::Route(event), clients, env));
            }
            ProcessEvent::Dialled { target, number } => {
                let events = env.dialled(self.process, target, number);
                events.into_iter().for_each(|event| self.take(Event::Route(event), clients, env));
            }
            ProcessEvent::Wakes => self.take(Event::Wake, clients, env),
            ProcessEvent::Answered { call: Call::Record, .. } => {
                self.take(Event::Written(Purpose::Record), clients, env);
            }
            ProcessEvent::Answered { call: Call::Eviction, .. } => {
                self.take(Event::Written(Purpose::Eviction), clients, env);
            }
            ProcessEvent::Submits(client) => self.submit(client, clients, env),
            _ => {}
        }
        self.keep_registered(env);
        if let Err(broken) = self.conductor.scheduler().audit() {
            env.check(false, || broken);
        }
    }

    /// Feeds an event to the conductor and executes its orders, as the real loop does.
    fn take(&mut self, event: Event, clients: &mut Clients, env: &mut Environment) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Route(RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found)) = &event {
                let tally = match found.kind {
                    UnreachableKind::Refused => "the gateway found the first stage gone",
                    UnreachableKind::Silence => "the gateway got no answer from the first stage",
                    UnreachableKind::Barred => "the gateway was barred from the first stage",
                };
                env.tally.add(tally, 1);
            }
            for order in self.conductor.handle(event, env.instant()) {
                self.perform(order, &mut events, clients, env);
            }
        }
        let wakes = self.conductor.wakes_at();
        if let Some(at) = wakes.filter(|_| wakes != self.wakes) {
            let pause = at.saturating_duration_since(env.instant());
            env.schedule(micros(pause), self.process, ProcessEvent::Wakes);
        }
        self.wakes = wakes;
    }

    fn perform(&mut self, order: Order, events: &mut VecDeque<Event>, clients: &mut Clients, env: &mut Environment) {
        match order {
            Order::Send { endpoint, hop } => {
                let generation = hop.generation;
                let frame = Frame::Hop(hop);
                env.note(|| format!("{} sends {}", self.process, name(&frame)));
                self.check_traffic(generation, env);
                let route_events = env.route(self.process, Target::Downstream, &endpoint, frame, bytes::Bytes::new());
                events.extend(route_events.into_iter().map(Event::Route));
            }
            Order::NewEpoch(fault) => {
                env.network.close(self.process, Target::Downstream);
                match &fault {
                    Some(fault) => {
                        env.tally.add(kind(fault), 1);
                        env.note(|| format!("{} begins anew: {fault}", self.process));
                    }
                    None => {
                        env.tally.add("the cluster changed", 1);
                        let shape = self.conductor.scheduler().shape();
                        env.note(|| format!("{} begins anew: {shape:?}", self.process));
                    }
                }
            }
            Order::Returned(_) => {}
            Order::Reply { ticket, answer: Ok(id) } => {
                let number = ticket as usize;
                env.note(|| format!("client {number} is accepted as sequence {id} of {}", self.process));
                clients.accepted(number, self.process, id, env);
            }
            Order::Reply { ticket, answer: Err(_) } => Clients::submit_again(ticket as usize, env),
            Order::Deliver(id, event) => {
                if clients.receives(self.process, id, &event, env) {
                    events.push_back(Event::Cancelled(id));
                }
            }
            Order::Commit(Purpose::Record, txn) => {
                env.note(|| format!("{} writes its record", self.process));
                env.tally.add("a share changed hands", 1);
                env.ask(self.process, Call::Record, StoreRequest::Commit(txn));
            }
            Order::Commit(Purpose::Bookkeeping, txn) => env.ask(self.process, Call::Rewrite, StoreRequest::Commit(txn)),
            Order::Commit(Purpose::Eviction, txn) => env.ask(self.process, Call::Eviction, StoreRequest::Commit(txn)),
        }
    }

    /// A client whose number is the ticket sends its request.
    fn submit(&mut self, number: usize, clients: &mut Clients, env: &mut Environment) {
        let client = &clients.all[number];
        if client.state != ClientState::Submitting {
            return;
        }
        let request = client.request.clone();
        // A smaller share than usual would cut the answer short.
        match self.conductor.check(&request) {
            Ok(room) if room >= request.tokens_max => {
                self.take(Event::Submitted { ticket: number as u64, request }, clients, env);
            }
            Ok(_) | Err(Rejection::TooLong { .. }) if clients.gives_up(number, env) => {}
            _ => Clients::submit_again(number, env),
        }
    }

    /// Checks that micro-batches are sent only while every layer is served exactly once, as far as the gateway can
    /// know.
    fn check_traffic(&self, generation: schema::Generation, env: &mut Environment) {
        let view = self.conductor.view();
        let layers = view.model.as_ref().map_or(0, |model| model.value.layers);
        let mut served = vec![0; layers as usize];
        for (_, claim) in view.claims.iter().filter(|(id, _)| id.generation == generation) {
            if claim.value.state == ClaimState::Serving {
                let range = claim.value.layers;
                (range.start()..range.end()).for_each(|layer| served[layer as usize] += 1);
            }
        }
        env.check(served.iter().all(|times| *times == 1), || {
            format!("a micro-batch of generation {generation} was sent where layers are served {served:?} times")
        });
    }

    // --- Registration, as in the real gateway ---

    fn granted(&mut self, answer: &StoreResponse, env: &mut Environment) {
        match answer {
            StoreResponse::Granted(Some(id)) => {
                self.lease = Some(Lease::new(*id));
                env.schedule(RENEW_EVERY, self.process, ProcessEvent::Renews);
                self.register(env);
            }
            _ => env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Joins),
        }
    }

    fn register(&mut self, env: &mut Environment) {
        let Some(lease) = self.lease else { return };
        self.registers = true;
        let view = env.state(self.process).view.clone();
        let Some((next, share)) = GatewayRegistration::next(&view, self.own, lease.id) else {
            return env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Registers(self.joins));
        };
        self.next = Some(next);
        let slot = next.slot;
        let mut record = GatewayRecord {
            endpoint: self.endpoint.clone(),
            pid: env.state(self.process).incarnation,
            lease: lease.id.to_string(),
            share,
            ..GatewayRecord::new("here", "http://127.0.0.1:0".to_owned())
        };
        let key = Key::Gateway(slot);
        sign_gateway(&mut record, env.store.secret(), &self.keyspace.name(&key), lease.id);
        let txn = write_gateway(&self.keyspace, slot, &record, &view.gateway_revisions(), lease.id);
        env.ask(self.process, Call::Register(self.joins), StoreRequest::Commit(txn));
    }

    fn registered(&mut self, answer: &StoreResponse, clients: &mut Clients, env: &mut Environment) {
        self.registers = false;
        match answer {
            StoreResponse::Committed(Ok(Committed::Applied { revision })) => {
                self.registered_at = revision.0;
                env.note(|| format!("{} is registered", self.process));
                match self.lease {
                    Some(lease) if !lease.is_lost() => {
                        self.own = self.next.take().filter(|next| next.lease == lease.id).or(self.own);
                        self.own.into_iter().for_each(|own| self.take(Event::Registered(own), clients, env));
                    }
                    _ => self.lost(env),
                }
            }
            StoreResponse::Committed(Ok(Committed::Refused)) => {
                env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Registers(self.joins));
            }
            _ => {
                if let Some(lease) = self.lease.take() {
                    env.ask(self.process, Call::Revocation, StoreRequest::Revoke(lease.id));
                }
                env.schedule(micros(STORE_RETRY), self.process, ProcessEvent::Joins);
            }
        }
    }

    /// Registers again if the store has lost the gateway's record, and writes the model and the placement again.
    /// Follows the real loop (`Registration::keep_registered`).
    fn keep_registered(&mut self, env: &mut Environment) {
        let view = env.state(self.process).view.clone();
        let now = env.now;
        if !view.reachable
            || self.registers
            || self.rewritten.is_some_and(|rewritten| now < rewritten + micros(SHARE_SETTLE))
        {
            return;
        }
        let model = view.model.as_ref().zip(view.recalled.get(&Key::Model));
        let model = model.map(|(model, at)| restore(&self.keyspace, &Key::Model, &model.value, *at, None));
        let placement = view.placement.as_ref().zip(view.recalled.get(&Key::Placement));
        let placement = placement.map(|(own, at)| restore(&self.keyspace, &Key::Placement, &own.value, *at, None));
        for txn in model.into_iter().chain(placement) {
            self.rewritten = Some(now);
            env.ask(self.process, Call::Rewrite, StoreRequest::Commit(txn));
        }
        let is_later = |own: &GatewayRegistration| {
            view.revision >= self.registered_at || view.recalled.contains_key(&Key::Gateway(own.slot))
        };
        let is_lost = self.own.filter(is_later).is_some_and(|own| own.is_lost(&view));
        if is_lost && self.lease.is_some_and(|lease| !lease.is_lost()) {
            env.tally.add("a gateway wrote its record again", 1);
            self.rewritten = Some(now);
            self.register(env);
        }
    }

    fn renew(&mut self, env: &mut Environment) {
        match self.lease {
            Some(lease) if !lease.is_lost() => {
                env.ask(self.process, Call::Renewal { lease: lease.id }, StoreRequest::Renew(lease.id));
            }
            Some(_) => self.lost(env),
            None => {}
        }
    }

    fn renewed(&mut self, answer: &StoreResponse, env: &mut Environment) {
        let Some(lease) = &mut self.lease else { return };
        match answer {
            StoreResponse::Renewed(Some(known)) if lease.renewed(*known) => {
                env.schedule(RENEW_EVERY, self.process, ProcessEvent::Renews);
            }
            StoreResponse::Renewed(None) => env.schedule(RETRY_PAUSE, self.process, ProcessEvent::Renews),
            _ => self.lost(env),
        }
    }

    fn lost(&mut self, env: &mut Environment) {
        env.note(|| format!("{} has lost its lease", self.process));
        if let Some(lease) = self.lease.take() {
            env.ask(self.process, Call::Revocation, StoreRequest::Revoke(lease.id));
        }
        env.schedule(0, self.process, ProcessEvent::Joins);
    }
}

fn kind(fault: &PipelineFault) -> &'static str {
    match fault {
        PipelineFault::Gap { .. } => "an answer was missing",
        PipelineFault::Mismatch(_) => "an answer did not fit",
        PipelineFault::Overdue(_) => "an answer was overdue",
        PipelineFault::Broken(_) => "a link broke with frames in flight",
        PipelineFault::Refused { .. } => "a stage refused",
    }
}
