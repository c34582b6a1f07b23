//! A simulated gateway process: the real conductor, with the loop around it in virtual time.

use std::collections::VecDeque;
use std::time::Instant;

use schema::frame::Frame;
use schema::record::{ClaimState, GatewayRecord};
use schema::{Key, Keyspace};

use super::clients::{Clients, Standing};
use super::depot::{Answer, Ask};
use super::lease::{Lease, RENEW_EVERY, RETRY_PAUSE};
use super::network::{Way, name, who};
use super::surroundings::{Errand, Happening, Moment, Party, Surroundings, micros};
use crate::core::conductor::Conductor;
use crate::core::event::{Event, Order, Purpose};
use crate::core::{PipelineFault, Scheduler};
use crate::limits::{GATEWAY_TICK, SHARE_SETTLE, STORE_RETRY};
use crate::link::Absence;
use crate::membership::{put_back, sign_gateway, write_gateway};
use crate::route::RouteEvent;
use crate::share::Registered;
use crate::store::Committed;

/// One process.
pub(super) struct GatewayProcess {
    party: Party,
    keyspace: Keyspace,
    endpoint: String,
    conductor: Conductor,
    lease: Option<Lease>,
    joins: u64,
    /// Its registration, and the one it tries to get.
    own: Option<Registered>,
    next: Option<Registered>,
    /// At this revision of the store.
    registered_at: u64,
    /// True while it waits for the answer to a registration.
    registers: bool,
    /// The moment it wrote something again last.
    healed: Option<Moment>,
    /// The moment at which it has asked to be woken.
    wakes: Option<Instant>,
}

// === impl GatewayProcess ===

impl GatewayProcess {
    /// A new process, which begins to register.
    pub(super) fn start(party: Party, keyspace: &Keyspace, speculates: bool, around: &mut Surroundings) -> Self {
        let endpoint = around.network.listen(party, around.lives[party.0].incarnation);
        let view = around.life(party).view.clone();
        let conductor = Conductor::new(keyspace.clone(), Scheduler::new(speculates), view);
        around.happens(0, party, Happening::Joins);
        around.happens(0, party, Happening::Ticks);
        around.happens(0, party, Happening::Sees);
        let keyspace = keyspace.clone();
        Self {
            party,
            keyspace,
            endpoint,
            conductor,
            lease: None,
            joins: 0,
            own: None,
            next: None,
            registered_at: 0,
            registers: false,
            healed: None,
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

    /// What happens, and what follows from it.
    pub(super) fn handle(&mut self, happening: Happening, clients: &mut Clients, around: &mut Surroundings) {
        match happening {
            Happening::Joins => {
                self.joins += 1;
                around.ask(self.party, Errand::Join(self.joins), Ask::Grant);
            }
            Happening::Registers(joins) if joins == self.joins => self.register(around),
            Happening::Renews => self.renew(around),
            Happening::Answered { errand: Errand::Join(joins), answer } if joins == self.joins => {
                self.granted(&answer, around);
            }
            Happening::Answered { errand: Errand::Register(joins), answer } if joins == self.joins => {
                self.registered(&answer, clients, around);
            }
            Happening::Answered { errand: Errand::Renewal { lease }, answer } => {
                if self.lease.is_some_and(|own| own.id == lease) {
                    self.renewed(&answer, around);
                }
            }
            other => self.turn(other, clients, around),
        }
    }

    /// One turn of the loop.
    fn turn(&mut self, happening: Happening, clients: &mut Clients, around: &mut Surroundings) {
        match happening {
            Happening::Sees => {
                let view = around.life(self.party).view.clone();
                self.take(Event::Viewed(view), clients, around);
            }
            Happening::Receives(message) => self.take(Event::Arrived(message.frame), clients, around),
            Happening::Ticks => {
                around.happens(micros(GATEWAY_TICK), self.party, Happening::Ticks);
                for id in clients.left(self.party, around) {
                    self.take(Event::Left(id), clients, around);
                }
                self.take(Event::Tick, clients, around);
            }
            Happening::LinkEnded { way, link } => {
                let events = around.route_ended((self.party, way), link);
                events.into_iter().for_each(|event| self.take(Event::Route(event), clients, around));
            }
            Happening::Dialled { way, number } => {
                let events = around.dialled((self.party, way), number);
                events.into_iter().for_each(|event| self.take(Event::Route(event), clients, around));
            }
            Happening::Wakes => self.take(Event::Wake, clients, around),
            Happening::Answered { errand: Errand::Record, .. } => {
                self.take(Event::Written(Purpose::Record), clients, around);
            }
            Happening::Answered { errand: Errand::Eviction, .. } => {
                self.take(Event::Written(Purpose::Eviction), clients, around);
            }
            Happening::Submits(client) => self.submit(client, clients, around),
            _ => {}
        }
        self.keep_registered(around);
        if let Err(broken) = self.conductor.scheduler().audit() {
            around.law(false, || broken);
        }
    }

    /// Feeds an event to the conductor and carries out its orders, as the real loop does.
    fn take(&mut self, event: Event, clients: &mut Clients, around: &mut Surroundings) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if let Event::Route(RouteEvent::Unsent { found: Some(found), .. } | RouteEvent::Gone(found)) = &event {
                let tally = match found.absence {
                    Absence::Refused => "the gateway found the first stage gone",
                    Absence::Silence => "the gateway heard nothing of the first stage",
                    Absence::Barred => "the gateway was barred from the first stage",
                };
                around.tally.add(tally, 1);
            }
            for order in self.conductor.handle(event, around.instant()) {
                self.perform(order, &mut events, clients, around);
            }
        }
        let wakes = self.conductor.wakes_at();
        if let Some(at) = wakes.filter(|_| wakes != self.wakes) {
            let pause = at.saturating_duration_since(around.instant());
            around.happens(micros(pause), self.party, Happening::Wakes);
        }
        self.wakes = wakes;
    }

    fn perform(
        &mut self,
        order: Order,
        events: &mut VecDeque<Event>,
        clients: &mut Clients,
        around: &mut Surroundings,
    ) {
        match order {
            Order::Send { endpoint, hop } => {
                let generation = hop.generation;
                let frame = Frame::Hop(hop);
                around.note(|| format!("{} sends {}", who(self.party), name(&frame)));
                self.check_traffic(generation, around);
                let happened = around.route((self.party, Way::Downstream), &endpoint, frame, bytes::Bytes::new());
                events.extend(happened.into_iter().map(Event::Route));
            }
            Order::BeginAnew(fault) => {
                around.network.close(self.party, Way::Downstream);
                match &fault {
                    Some(fault) => {
                        around.tally.add(kind(fault), 1);
                        around.note(|| format!("{} begins anew: {fault}", who(self.party)));
                    }
                    None => {
                        around.tally.add("the cluster changed", 1);
                        let shape = self.conductor.scheduler().shape();
                        around.note(|| format!("{} begins anew: {shape:?}", who(self.party)));
                    }
                }
            }
            Order::Returned(_) => {}
            Order::Reply { ticket, answer: Ok(id) } => {
                let number = ticket as usize;
                around.note(|| format!("client {number} is accepted as sequence {id} of {}", who(self.party)));
                clients.accepted(number, self.party, id);
            }
            Order::Reply { ticket, answer: Err(_) } => Clients::ask_again(ticket as usize, around),
            Order::Tell(id, event) => {
                if clients.hears(self.party, id, &event, around) {
                    events.push_back(Event::Left(id));
                }
            }
            Order::Commit(Purpose::Record, txn) => {
                around.note(|| format!("{} writes its record", who(self.party)));
                around.tally.add("a share changed hands", 1);
                around.ask(self.party, Errand::Record, Ask::Commit(txn));
            }
            Order::Commit(Purpose::Eviction, txn) => around.ask(self.party, Errand::Eviction, Ask::Commit(txn)),
        }
    }

    /// A client whose number is the ticket sends its request.
    fn submit(&mut self, number: usize, clients: &mut Clients, around: &mut Surroundings) {
        let client = &clients.all[number];
        if client.standing != Standing::Asking {
            return;
        }
        let request = client.request.clone();
        // A smaller share than usual would cut the answer short.
        match self.conductor.judge(&request) {
            Ok(room) if room >= request.tokens_max => {
                self.take(Event::Submitted { ticket: number as u64, request }, clients, around);
            }
            _ => Clients::ask_again(number, around),
        }
    }

    /// Traffic flows only while, as far as the head can know, every layer is served exactly once.
    fn check_traffic(&self, generation: schema::Generation, around: &mut Surroundings) {
        let view = self.conductor.view();
        let layers = view.model.as_ref().map_or(0, |model| model.value.layers);
        let mut served = vec![0; layers as usize];
        for ((_, _), claim) in view.claims.iter().filter(|((of, _), _)| *of == generation) {
            if claim.value.state == ClaimState::Serving {
                let range = claim.value.layers;
                (range.start()..range.end()).for_each(|layer| served[layer as usize] += 1);
            }
        }
        around.law(served.iter().all(|times| *times == 1), || {
            format!("a micro-batch of generation {generation} was sent where layers are served {served:?} times")
        });
    }

    // --- Registration, as the real head's ---

    fn granted(&mut self, answer: &Answer, around: &mut Surroundings) {
        match answer {
            Answer::Granted(Some(id)) => {
                self.lease = Some(Lease::new(*id));
                around.happens(RENEW_EVERY, self.party, Happening::Renews);
                self.register(around);
            }
            _ => around.happens(micros(STORE_RETRY), self.party, Happening::Joins),
        }
    }

    fn register(&mut self, around: &mut Surroundings) {
        let Some(lease) = self.lease else { return };
        self.registers = true;
        let view = around.life(self.party).view.clone();
        let Some((next, share)) = Registered::next(&view, self.own, lease.id) else {
            return around.happens(micros(STORE_RETRY), self.party, Happening::Registers(self.joins));
        };
        self.next = Some(next);
        let slot = next.slot;
        let mut record = GatewayRecord {
            endpoint: self.endpoint.clone(),
            url: "http://127.0.0.1:0".to_owned(),
            host: "here".to_owned(),
            pid: around.life(self.party).incarnation,
            version: "0".to_owned(),
            lease: lease.id.to_string(),
            proof: None,
            trouble: None,
            share,
        };
        let key = Key::Gateway(slot);
        sign_gateway(&mut record, around.depot.secret(), (&self.keyspace, &key), lease.id);
        let txn = write_gateway(&self.keyspace, slot, &record, &view.gateway_revisions(), lease.id);
        around.ask(self.party, Errand::Register(self.joins), Ask::Commit(txn));
    }

    fn registered(&mut self, answer: &Answer, clients: &mut Clients, around: &mut Surroundings) {
        self.registers = false;
        match answer {
            Answer::Committed(Ok(Committed::Applied { revision })) => {
                self.registered_at = revision.0;
                around.note(|| format!("{} is registered", who(self.party)));
                match self.lease {
                    Some(lease) if !lease.is_lost() => {
                        self.own = self.next.take().filter(|next| next.lease == lease.id).or(self.own);
                        self.own.into_iter().for_each(|own| self.take(Event::Registered(own), clients, around));
                    }
                    _ => self.lost(around),
                }
            }
            Answer::Committed(Ok(Committed::Refused)) => {
                around.happens(micros(STORE_RETRY), self.party, Happening::Registers(self.joins));
            }
            _ => {
                if let Some(lease) = self.lease.take() {
                    around.ask(self.party, Errand::Farewell, Ask::Revoke(lease.id));
                }
                around.happens(micros(STORE_RETRY), self.party, Happening::Joins);
            }
        }
    }

    /// Registers again where the store has lost the gateway's record, and writes again what every member knows; follows the real
    /// loop (`Registration::stay`).
    fn keep_registered(&mut self, around: &mut Surroundings) {
        let view = around.life(self.party).view.clone();
        let now = around.now;
        if !view.reachable || self.registers || self.healed.is_some_and(|healed| now < healed + micros(SHARE_SETTLE)) {
            return;
        }
        let model = view.model.as_ref().zip(view.recalled.get(&Key::Model));
        let model = model.map(|(model, at)| put_back(&self.keyspace, &Key::Model, &model.value, *at, None));
        let placement = view.placement.as_ref().zip(view.recalled.get(&Key::Placement));
        let placement = placement.map(|(own, at)| put_back(&self.keyspace, &Key::Placement, &own.value, *at, None));
        for txn in model.into_iter().chain(placement) {
            self.healed = Some(now);
            around.ask(self.party, Errand::Heal, Ask::Commit(txn));
        }
        let is_later = |own: &Registered| {
            view.revision >= self.registered_at || view.recalled.contains_key(&Key::Gateway(own.slot))
        };
        let is_lost = self.own.filter(is_later).is_some_and(|own| own.is_lost(&view));
        if is_lost && self.lease.is_some_and(|lease| !lease.is_lost()) {
            around.tally.add("a gateway wrote its record again", 1);
            self.healed = Some(now);
            self.register(around);
        }
    }

    fn renew(&mut self, around: &mut Surroundings) {
        match self.lease {
            Some(lease) if !lease.is_lost() => {
                around.ask(self.party, Errand::Renewal { lease: lease.id }, Ask::Renew(lease.id));
            }
            Some(_) => self.lost(around),
            None => {}
        }
    }

    fn renewed(&mut self, answer: &Answer, around: &mut Surroundings) {
        let Some(lease) = &mut self.lease else { return };
        match answer {
            Answer::Renewed(Some(known)) if lease.renewed(*known) => {
                around.happens(RENEW_EVERY, self.party, Happening::Renews);
            }
            Answer::Renewed(None) => around.happens(RETRY_PAUSE, self.party, Happening::Renews),
            _ => self.lost(around),
        }
    }

    fn lost(&mut self, around: &mut Surroundings) {
        around.note(|| format!("{} has lost its lease", who(self.party)));
        if let Some(lease) = self.lease.take() {
            around.ask(self.party, Errand::Farewell, Ask::Revoke(lease.id));
        }
        around.happens(0, self.party, Happening::Joins);
    }
}

fn kind(fault: &PipelineFault) -> &'static str {
    match fault {
        PipelineFault::Gap { .. } => "an answer was missing",
        PipelineFault::Mismatch(_) => "an answer did not fit",
        PipelineFault::Overdue(_) => "an answer was overdue",
        PipelineFault::Broken(_) => "a link broke under way",
        PipelineFault::Refused { .. } => "a stage refused",
    }
}
