//! A simulated cluster from its first moment to its last.

use std::collections::BTreeSet;
use std::sync::Arc;

use schema::record::ModelRecord;
use schema::{Key, Keyspace, StageName};

use super::clients::{Clients, Standing};
use super::depot::Depot;
use super::dice::Dice;
use super::faults::{self, Fault};
use super::gateway::GatewayProcess;
use super::model::{self, Beads};
use super::network::{Network, who};
use super::stage::StageProcess;
use super::surroundings::{Event, GATEWAYS, Happening, MS, Moment, Party, SECOND, Surroundings, duration};
use super::tally::Tally;
use super::trace::Trace;
use crate::membership::{Recall, write_model};

/// Faults come until then.
pub(super) const PEACE: Moment = 12 * SECOND;
/// By then everything must be done: a few of the longest deadlines that a lost micro-batch has.
const END: Moment = 900 * SECOND;
/// After the last client, what the dead left behind must be gone within this.
const AFTERMATH: Moment = 9 * SECOND;
/// Some seeds last longer: until layers move for the sake of speed alone.
const LINGERS: Moment = 90 * SECOND;
/// By then every gateway has been inspected.
const INSPECTED: Moment = PEACE + 21 * SECOND;
/// How often the store ends leases.
const EXPIRE_EVERY: Moment = 100 * MS;

/// A seed that broke a law.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) at: Moment,
    pub(super) law: String,
    pub(super) trace: String,
}

/// The cluster, and those who use it.
pub(super) struct World {
    pub(super) around: Surroundings,
    pub(super) keyspace: Keyspace,
    pub(super) layers: u32,
    record: ModelRecord,
    budget_bytes: u64,
    /// How many times longer than the fastest each stage takes for the same.
    paces: Vec<u64>,
    /// True if all are on one machine and find other speeds than they have.
    pub(super) alike: bool,
    /// The stages that are there, and since when.
    pub(super) live: (BTreeSet<StageName>, Moment),
    speculates: bool,
    /// The seed goes on until then at least.
    lingers: Moment,
    /// How many gateways the seed has.
    pub(super) gateways: usize,
    /// By number.
    pub(super) gateway_processes: Vec<Option<GatewayProcess>>,
    /// By number; the first is at `GATEWAYS`.
    pub(super) stages: Vec<Option<StageProcess>>,
    pub(super) clients: Clients,
    /// Whether the faults are over.
    pub(super) peace: bool,
    /// The stage with which no peer completes a handshake, not even when the faults are over.
    pub(super) outcast: Option<Party>,
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let stages = dice.within(2..6) as usize;
        let layers = dice.within(4..13) as u32;
        // Most clusters have one gateway.
        let gateways = [1, 1, 2, 3][dice.within(0..4) as usize];
        let blocks_each = dice.within(5..20) as u32;
        let kv_blocks = blocks_each * gateways as u32;
        let stages_min = dice.within(1..stages as u64 + 1) as u32;
        let record = model::record(layers, kv_blocks, stages_min);
        let capacity = u64::from(layers).div_ceil(stages as u64) + dice.within(0..u64::from(layers));
        let speculates = dice.permille(500);
        let others_suffice = capacity * (stages as u64 - 1) >= u64::from(layers) && stages_min < stages as u32;
        let outcast = Party(GATEWAYS + dice.within(0..stages as u64) as usize);
        let outcast = (others_suffice && dice.permille(150)).then_some(outcast);
        let keyspace = Keyspace::new(&"simulated".parse().expect("a legal name"));
        // From the seed, too: a key of the system's random numbers would be another one each time.
        let secret = dice.permille(500).then(|| format!("{:064x}", seed + 1).parse().expect("64 digits"));
        let depot = Depot::new(&keyspace, &record, secret);
        let mut around = Surroundings::new(dice, depot, Network::default(), GATEWAYS + stages, trace);
        for party in (0..gateways).chain(GATEWAYS..GATEWAYS + stages).map(Party) {
            let late = party != Party(0) && around.dice.permille(200);
            let at = around.dice.within(0..if late { PEACE } else { SECOND });
            around.at(at, Event::Fault(Fault::Starts(party)));
        }
        around.at(0, Event::Expires);
        faults::schedule((gateways, stages), &record, outcast, PEACE, &mut around);
        let clients = Clients::new(layers, blocks_each, PEACE, &mut around);
        around.note(|| {
            format!(
                "{gateways} gateways, {stages} stages, {layers} layers, {kv_blocks} blocks, {} clients, guesses: {speculates}",
                clients.all.len()
            )
        });
        let budget_bytes = model::bytes(capacity as u32, record.kv_tokens);
        let alike = around.dice.permille(500);
        let paces = (0..stages).map(|_| if alike { 1 } else { around.dice.within(1..5) }).collect();
        let lingers = if around.dice.permille(150) { LINGERS } else { INSPECTED };
        let stages = (0..GATEWAYS + stages).map(|_| None).collect();
        let gateway_processes = (0..GATEWAYS).map(|_| None).collect();
        Self {
            around,
            keyspace,
            layers,
            record,
            budget_bytes,
            paces,
            alike,
            live: (BTreeSet::new(), 0),
            lingers,
            speculates,
            gateways,
            gateway_processes,
            stages,
            clients,
            peace: false,
            outcast,
        }
    }

    /// Runs to the end, or to the first law that is broken.
    pub(super) fn run(mut self) -> Result<Tally, Broken> {
        let mut end = None;
        let mut placed = None;
        while self.around.broken.is_none() {
            let Some(event) = self.around.next() else { break };
            if end.is_some_and(|end| self.around.now >= end) {
                self.check_aftermath();
                break;
            }
            if self.around.now >= END {
                let unfinished = self.clients.unfinished();
                self.around.law(false, || format!("not all is done in time: {unfinished}"));
            }
            self.take(event);
            let is_moving = std::mem::replace(&mut placed, self.around.depot.view.placed()) != placed;
            self.check_rest(is_moving);
            self.around.tally.add("layers moved while nobody asked", (is_moving && end.is_some()).into());
            end = match end {
                Some(_) if is_moving || !self.clients.are_done() => None,
                None if self.is_quiet() => Some((self.around.now + AFTERMATH).max(self.lingers)),
                // A stage that was still to learn that it had been struck off.
                Some(_) if self.peace && (self.is_one_quarantined() || self.is_outcast_placed()) => None,
                end => end,
            };
        }
        match self.around.broken.take() {
            None => Ok(self.around.tally),
            Some(law) => Err(Broken { at: self.around.now, law, trace: self.around.trace.text() }),
        }
    }

    /// True if no work is left: a lost micro-batch is waited for until its deadline, a quarantined stage until it joins
    /// again, and an outcast until the placement does without it.
    fn is_quiet(&self) -> bool {
        let is_back = |head: &GatewayProcess| head.conductor().scheduler().in_flight() == 0;
        let back = self.gateway_processes[..self.gateways].iter().all(|head| head.as_ref().is_some_and(is_back));
        self.peace && back && self.clients.are_done() && !self.is_one_quarantined() && !self.is_outcast_placed()
    }

    /// True if a stage other than the outcast, whose quarantine never ends, is in quarantine.
    fn is_one_quarantined(&self) -> bool {
        let now = self.around.instant();
        let aside = |stage: &StageProcess| !self.is_outcast(stage.endpoint()) && stage.member().is_quarantined(now);
        self.stages.iter().flatten().any(aside)
    }

    /// True if the placement gives layers to the outcast.
    fn is_outcast_placed(&self) -> bool {
        let name = self.outcast.map(super::stage::name);
        let placement = self.around.depot.view.placement.as_ref();
        let mut shards = placement.iter().flat_map(|placement| placement.value.shards());
        name.is_some_and(|name| shards.any(|shard| shard.stage.to_string() == name))
    }

    /// True if the stage with this endpoint is the outcast.
    pub(super) fn is_outcast(&self, endpoint: &str) -> bool {
        let outcast = self.outcast.and_then(|party| self.stages[party.0].as_ref());
        outcast.is_some_and(|stage| stage.endpoint() == endpoint)
    }

    fn take(&mut self, event: Event) {
        let around = &mut self.around;
        match event {
            Event::Happens(party, incarnation, happening) => self.happens(party, incarnation, happening),
            Event::Missed(link) => self.around.missed(link),
            Event::Arrives(parcel) => around.arrives(parcel),
            Event::Asked(party, incarnation, errand, ask) => {
                around.asked(party, incarnation, errand, ask);
                self.check_claims();
                self.check_shares();
            }
            Event::Answered(party, incarnation, errand, answer) => around.answered(party, incarnation, errand, answer),
            Event::Told(party, incarnation, view, serial) => {
                if around.lives[party.0].incarnation == incarnation && !around.depot.is_away_for(party) {
                    around.show(party, view, serial);
                }
            }
            Event::Looks(party, incarnation, look) => self.looks(party, incarnation, look),
            Event::Fault(fault) => self.inject(fault),
            Event::Expires => {
                around.after(EXPIRE_EVERY, Event::Expires);
                if !around.depot.away {
                    around.depot.store.expire(duration(around.now));
                    around.spread_news();
                    (0..around.lives.len()).map(Party).for_each(|party| around.forget(party));
                }
            }
            Event::Submits(number) if self.clients.all[number].standing == Standing::Asking => {
                let gateway = Party(around.dice.within(0..self.gateways as u64) as usize);
                if around.lives[gateway.0].is_alive {
                    around.happens(0, gateway, Happening::Submits(number));
                } else {
                    Clients::ask_again(number, around);
                }
            }
            Event::Submits(_) => {}
            Event::Leaves(number) => self.clients.leaves(number),
        }
    }

    fn happens(&mut self, party: Party, incarnation: u32, happening: Happening) {
        let around = &mut self.around;
        let life = around.life(party);
        if !life.is_alive || life.incarnation != incarnation {
            if let Happening::Submits(number) = happening {
                Clients::ask_again(number, around);
            }
            return;
        }
        if life.is_frozen {
            return life.backlog.push_back(happening);
        }
        if party.is_gateway() {
            if let Some(head) = &mut self.gateway_processes[party.0] {
                let looks = matches!(happening, Happening::Ticks);
                head.handle(happening, &mut self.clients, around);
                if looks {
                    self.check_health(party);
                }
            }
            return;
        }
        let goes_on = self.stages[party.0].as_mut().is_some_and(|stage| stage.handle(happening, around));
        if !goes_on {
            around.note(|| format!("{} cannot join and ends", who(party)));
            self.crash(party);
            let pause = self.around.dice.within(300 * MS..2 * SECOND);
            self.around.after(pause, Event::Fault(Fault::Starts(party)));
        }
        self.check_shards();
    }

    // --- Processes ---

    pub(super) fn start(&mut self, party: Party) {
        let around = &mut self.around;
        if around.lives[party.0].is_alive {
            return;
        }
        if around.depot.is_away_for(party) {
            return around.after(SECOND, Event::Fault(Fault::Starts(party)));
        }
        if around.depot.view.model.is_none() {
            // It was given one.
            let spoilt = around.depot.view.spoilt(&Key::Model);
            around.depot.store.commit(write_model(&self.keyspace, &self.record, spoilt)).expect("a model is written");
            around.spread_news();
        }
        let (view, serial, now) = (around.depot.view.clone(), around.depot.serial, around.instant());
        let life = around.life(party);
        // Who starts remembers nothing.
        life.recall = Recall::default();
        (life.shown, life.serial) = (view.clone(), serial);
        let view = Arc::new(life.recall.complete((*view).clone(), now));
        (life.is_alive, life.is_frozen) = (true, false);
        life.incarnation += 1;
        life.view = view;
        if party.is_gateway() {
            self.gateway_processes[party.0] =
                Some(GatewayProcess::start(party, &self.keyspace, self.speculates, around));
        } else {
            let loader = Beads { layers: self.layers, budget_bytes: self.budget_bytes }.shared();
            let pace = self.paces[party.0 - GATEWAYS];
            let (host, found) = if self.alike {
                ("here".to_owned(), around.dice.within(1..9))
            } else {
                (format!("h{}", party.0), pace)
            };
            let stage = StageProcess::start(party, &self.keyspace, (loader, host), (pace, found), around);
            self.stages[party.0] = Some(stage);
        }
    }

    pub(super) fn crash(&mut self, party: Party) {
        let life = self.around.life(party);
        if !life.is_alive {
            return;
        }
        life.is_alive = false;
        for happening in std::mem::take(&mut life.backlog) {
            if let Happening::Submits(number) = happening {
                Clients::ask_again(number, &mut self.around);
            }
        }
        self.around.hang_up(party);
        if party.is_gateway() {
            self.gateway_processes[party.0] = None;
            self.clients.gateway_died(party, &mut self.around);
        } else {
            self.stages[party.0] = None;
        }
    }

    pub(super) fn thaw(&mut self, party: Party) {
        let life = self.around.life(party);
        if !std::mem::replace(&mut life.is_frozen, false) || !life.is_alive {
            return;
        }
        let backlog = std::mem::take(&mut life.backlog);
        for (moment, happening) in (0..).zip(backlog) {
            self.around.happens(moment, party, happening);
        }
        if let Some(stage) = &mut self.stages[party.0] {
            stage.woke(&mut self.around);
        }
    }
}
