//! A simulated gateway process: the real conductor, with the loop around it in virtual time.

use schema::record::{ClaimState, GatewayRecord};
use schema::{Key, Keyspace};

use super::clients::{Clients, Standing};
use super::depot::{Answer, Ask};
use super::lease::{Lease, RENEW_EVERY, RETRY_PAUSE};
use super::network::{Way, name, unreachable, who};
use super::surroundings::{Errand, Happening, Moment, Party, Surroundings, micros};
use crate::core::conductor::{Arrival, Conductor};
use crate::core::{Happened, PipelineFault, Scheduler};
use crate::limits::{GATEWAY_TICK, REFUSAL_PAUSE, SHARE_SETTLE, STORE_RETRY};
use crate::link::Absence;
use crate::membership::{put_back, sign_gateway, write_gateway};
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
}

// === impl GatewayProcess ===

impl GatewayProcess {
    /// A new process, which begins to register.
    pub(super) fn start(party: Party, keyspace: &Keyspace, speculates: bool, around: &mut Surroundings) -> Self {
        let endpoint = around.network.listen(party, around.lives[party.0].incarnation);
        let view = around.life(party).view.clone();
        let conductor = Conductor::new(Scheduler::new(speculates), view);
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
                self.registered(&answer, around);
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
        let now = around.instant();
        match happening {
            Happening::Sees => {
                let view = around.life(self.party).view.clone();
                if self.conductor.see(view) {
                    around.network.close(self.party, Way::Downstream);
                    around.tally.add("the cluster changed", 1);
                    around
                        .note(|| format!("{} begins anew: {:?}", who(self.party), self.conductor.scheduler().shape()));
                }
            }
            Happening::Receives(message) => {
                let arrival = self.conductor.arrived(&message.frame, now);
                self.arrival(arrival, clients, around);
            }
            Happening::Ticks => {
                around.happens(micros(GATEWAY_TICK), self.party, Happening::Ticks);
                for id in clients.left(self.party, around) {
                    self.conductor.cancel(id);
                }
                let arrival = self.conductor.tick(now);
                self.arrival(arrival, clients, around);
            }
            Happening::LinkEnded { link, .. } => self.link_ended(link, around),
            Happening::Recovers(fault) => {
                around.note(|| format!("{} begins anew: {fault}", who(self.party)));
                around.network.close(self.party, Way::Downstream);
                self.conductor.recover(&fault, now);
            }
            Happening::Submits(client) => self.submit(client, clients, around),
            _ => {}
        }
        self.keep_registered(around);
        if around.life(self.party).busy_until <= around.now {
            self.send_batches(around);
        }
        if let Some(txn) = self.conductor.next_write(&self.keyspace, now) {
            around.note(|| format!("{} writes its share", who(self.party)));
            around.tally.add("a share changed hands", 1);
            around.ask(self.party, Errand::Share, Ask::Commit(txn));
        }
        if let Err(broken) = self.conductor.scheduler().audit() {
            around.law(false, || broken);
        }
    }

    fn arrival(&mut self, arrival: Arrival, clients: &mut Clients, around: &mut Surroundings) {
        let Arrival { happened, fault, pause } = arrival;
        self.tell(&happened, clients, around);
        let Some(fault) = fault else { return };
        around.tally.add(kind(&fault), 1);
        let pause = if pause { micros(REFUSAL_PAUSE) } else { 0 };
        let until = around.now + pause;
        around.life(self.party).busy_until = until;
        if pause > 0 {
            around.happens(pause, self.party, Happening::Recovers(fault));
        } else {
            around.note(|| format!("{} begins anew: {fault}", who(self.party)));
            around.network.close(self.party, Way::Downstream);
            self.conductor.recover(&fault, around.instant());
        }
    }

    fn tell(&mut self, happened: &Happened, clients: &mut Clients, around: &mut Surroundings) {
        for (id, event) in happened {
            if clients.hears(self.party, *id, event, around) {
                self.conductor.cancel(*id);
            }
        }
    }

    fn submit(&mut self, number: usize, clients: &mut Clients, around: &mut Surroundings) {
        let client = &clients.all[number];
        if client.standing != Standing::Asking {
            return;
        }
        let request = client.request.clone();
        match self.conductor.judge(&request) {
            // A smaller share than usual would cut the answer short.
            Ok(room) if room >= request.tokens_max => {
                let id = self.conductor.admit(request, room, around.instant());
                around.note(|| format!("client {number} is accepted as sequence {id} of {}", who(self.party)));
                clients.accepted(number, self.party, id);
            }
            _ => Clients::ask_again(number, around),
        }
    }

    fn send_batches(&mut self, around: &mut Surroundings) {
        let now = around.instant();
        while let Some((endpoint, hop)) = self.conductor.next_hop(now) {
            let endpoint = endpoint.to_owned();
            let generation = hop.generation;
            let frame = schema::frame::Frame::Hop(hop);
            around.note(|| format!("{} sends {}", who(self.party), name(&frame)));
            self.check_traffic(generation, around);
            let sent = around.send(self.party, Way::Downstream, &endpoint, &frame, bytes::Bytes::new());
            if sent.is_err() {
                around.note(|| format!("{} cannot reach the first stage", who(self.party)));
            }
            match sent {
                Ok(()) => self.conductor.reached_first(),
                Err(absence) => return self.finds_deserted(&endpoint, absence, around),
            }
        }
    }

    fn finds_deserted(&mut self, endpoint: &str, absence: Absence, around: &mut Surroundings) {
        let found = unreachable(endpoint, absence);
        self.conductor.cannot_reach_first(endpoint, &found.cause);
        if let Some(txn) = self.conductor.evict(&self.keyspace, &found, around.instant()) {
            let found = match absence {
                Absence::Refused => "the head found the first stage gone",
                Absence::Silence => "the head heard nothing of the first stage",
                Absence::Barred => "the head was barred from the first stage",
            };
            around.tally.add(found, 1);
            around.ask(self.party, Errand::Eviction, Ask::Commit(txn));
        }
    }

    /// The link it has is no more, unless it has another one by now.
    fn link_ended(&mut self, link: u64, around: &mut Surroundings) {
        let Some(endpoint) = around.network.leads(self.party, Way::Downstream, link) else { return };
        match around.connect(self.party, Way::Downstream, &endpoint) {
            Ok(_) => {
                if let Some(fault) = self.conductor.link_broke() {
                    self.recover(&fault, around);
                }
            }
            Err(absence) => self.finds_deserted(&endpoint, absence, around),
        }
    }

    fn recover(&mut self, fault: &PipelineFault, around: &mut Surroundings) {
        around.tally.add(kind(fault), 1);
        around.note(|| format!("{} begins anew: {fault}", who(self.party)));
        around.network.close(self.party, Way::Downstream);
        self.conductor.recover(fault, around.instant());
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

    fn registered(&mut self, answer: &Answer, around: &mut Surroundings) {
        self.registers = false;
        match answer {
            Answer::Committed(Ok(Committed::Applied { revision })) => {
                self.registered_at = revision.0;
                around.note(|| format!("{} is registered", who(self.party)));
                match self.lease {
                    Some(lease) if !lease.is_lost() => {
                        self.own = self.next.take().filter(|next| next.lease == lease.id).or(self.own);
                        self.own.into_iter().for_each(|own| self.conductor.enroll(own));
                        around.happens(0, self.party, Happening::Sees);
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
            around.ask(self.party, Errand::Eviction, Ask::Commit(txn));
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
