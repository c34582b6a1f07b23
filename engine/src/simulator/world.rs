//! A simulated cluster from its first moment to its last.

use schema::record::ClaimState;
use schema::{Key, Keyspace};

use super::clients::{Clients, Standing};
use super::depot::Depot;
use super::dice::Dice;
use super::faults::{self, Strike};
use super::head::HeadProcess;
use super::model::{self, Beads};
use super::network::{Malice, Network, who};
use super::stage::StageProcess;
use super::surroundings::{Event, HEAD, Happening, Look, MS, Moment, Party, SECOND, Surroundings, duration};
use super::tally::Tally;
use super::trace::Trace;
use crate::store::{Txn, Write};
use crate::view::ClusterView;

/// Faults come until then.
const PEACE: Moment = 12 * SECOND;
/// By then everything must be done: a few of the longest deadlines that a lost micro-batch has.
const END: Moment = 900 * SECOND;
/// After the last client, what the dead left behind must be gone within this.
const AFTERMATH: Moment = 9 * SECOND;
/// How often the store ends leases.
const EXPIRE_EVERY: Moment = 100 * MS;

/// A seed that broke a law.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) at: Moment,
    pub(super) law: String,
    pub(super) trace: String,
}

pub(super) struct World {
    around: Surroundings,
    keyspace: Keyspace,
    layers: u32,
    budget_bytes: u64,
    speculates: bool,
    head: Option<HeadProcess>,
    /// By number; the first is at 1.
    stages: Vec<Option<StageProcess>>,
    clients: Clients,
    peace: bool,
}

// === impl World ===

impl World {
    pub(super) fn new(seed: u64, trace: Trace) -> Self {
        let mut dice = Dice::new(seed);
        let stages = dice.within(2..6) as usize;
        let layers = dice.within(4..13) as u32;
        let kv_blocks = dice.within(5..20) as u32;
        let stages_min = dice.within(1..stages as u64 + 1) as u32;
        let record = model::record(layers, kv_blocks, stages_min);
        let capacity = u64::from(layers).div_ceil(stages as u64) + dice.within(0..u64::from(layers));
        let speculates = dice.permille(500);
        let keyspace = Keyspace::new(&"simulated".parse().expect("a legal name"));
        let depot = Depot::new(&keyspace, &record);
        let mut around = Surroundings::new(dice, depot, Network::default(), stages + 1, trace);
        for party in (0..=stages).map(Party) {
            let late = party != HEAD && around.dice.permille(200);
            let at = around.dice.within(0..if late { PEACE } else { SECOND });
            around.at(at, Event::Strikes(Strike::Starts(party)));
        }
        around.at(0, Event::Expires);
        faults::schedule(stages, PEACE, &mut around);
        let clients = Clients::new(layers, kv_blocks, PEACE, &mut around);
        around.note(|| {
            format!(
                "{stages} stages, {layers} layers, {kv_blocks} blocks, {} clients, guesses: {speculates}",
                clients.all.len()
            )
        });
        let budget_bytes = model::bytes(capacity as u32, record.kv_tokens);
        let stages = (0..=stages).map(|_| None).collect();
        Self { around, keyspace, layers, budget_bytes, speculates, head: None, stages, clients, peace: false }
    }

    /// Runs to the end, or to the first law that is broken.
    pub(super) fn run(mut self) -> Result<Tally, Broken> {
        let mut end = None;
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
            if end.is_none() && self.is_quiet() {
                end = Some(self.around.now + AFTERMATH);
            }
        }
        match self.around.broken.take() {
            None => Ok(self.around.tally),
            Some(law) => Err(Broken { at: self.around.now, law, trace: self.around.trace.text() }),
        }
    }

    /// Whether nobody waits for anything: a micro-batch that was lost without a sign is waited for until its deadline.
    fn is_quiet(&self) -> bool {
        let back = self.head.as_ref().is_some_and(|head| head.conductor().scheduler().in_flight() == 0);
        self.peace && back && self.clients.are_done()
    }

    fn take(&mut self, event: Event) {
        let around = &mut self.around;
        match event {
            Event::Happens(party, incarnation, happening) => self.happens(party, incarnation, happening),
            Event::Arrives(parcel) => around.arrives(parcel),
            Event::Asked(party, incarnation, errand, ask) => {
                around.asked(party, incarnation, errand, ask);
                self.check_claims();
            }
            Event::Answered(party, incarnation, errand, answer) => around.answered(party, incarnation, errand, answer),
            Event::Told(party, incarnation, view) => {
                if around.lives[party.0].incarnation == incarnation && !around.depot.is_away_for(party) {
                    around.show(party, view);
                }
            }
            Event::Looks(party, incarnation, look) => self.looks(party, incarnation, look),
            Event::Strikes(strike) => self.strikes(strike),
            Event::Expires => {
                around.after(EXPIRE_EVERY, Event::Expires);
                if !around.depot.away {
                    around.depot.store.expire(duration(around.now));
                    around.spread_news();
                }
            }
            Event::Submits(number) if self.clients.all[number].standing == Standing::Asking => {
                if around.lives[HEAD.0].is_alive {
                    around.happens(0, HEAD, Happening::Submits(number));
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
        let now = around.now;
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
        if life.busy_until > now && happening.waits_for_loop() {
            let until = life.busy_until;
            return around.at(until, Event::Happens(party, incarnation, happening));
        }
        if party == HEAD {
            if let Some(head) = &mut self.head {
                head.handle(happening, &mut self.clients, around);
            }
            return;
        }
        let goes_on = self.stages[party.0].as_mut().is_some_and(|stage| stage.handle(happening, around));
        if !goes_on {
            around.note(|| format!("{} cannot join and ends", who(party)));
            self.crash(party);
            let pause = self.around.dice.within(300 * MS..2 * SECOND);
            self.around.after(pause, Event::Strikes(Strike::Starts(party)));
        }
        self.check_shards();
    }

    // --- Processes ---

    fn start(&mut self, party: Party) {
        let around = &mut self.around;
        if around.lives[party.0].is_alive {
            return;
        }
        if around.depot.is_away_for(party) {
            return around.after(SECOND, Event::Strikes(Strike::Starts(party)));
        }
        let view = around.depot.view.clone();
        let life = around.life(party);
        (life.is_alive, life.is_frozen, life.busy_until) = (true, false, 0);
        life.incarnation += 1;
        life.view = view;
        if party == HEAD {
            self.head = Some(HeadProcess::start(&self.keyspace, self.speculates, around));
        } else {
            let loader = Beads { layers: self.layers, budget_bytes: self.budget_bytes }.shared();
            self.stages[party.0] = Some(StageProcess::start(party, &self.keyspace, loader, around));
        }
    }

    fn crash(&mut self, party: Party) {
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
        self.around.network.hang_up(party);
        if party == HEAD {
            self.head = None;
            self.clients.gateway_died(&mut self.around);
        } else {
            self.stages[party.0] = None;
        }
    }

    fn thaw(&mut self, party: Party) {
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

    // --- Faults ---

    fn strikes(&mut self, strike: Strike) {
        let around = &mut self.around;
        around.tally.add(strike.name(), u64::from(!self.peace));
        around.note(|| format!("--- {strike:?}"));
        match strike {
            Strike::Starts(party) => self.start(party),
            Strike::Thaws(party) => self.thaw(party),
            Strike::StoreComes { with_leases } => self.store_comes(with_leases),
            Strike::StoreMended(party) => {
                around.depot.cut.remove(&party);
                self.look(party, Look::Again, 600 * MS);
            }
            Strike::Peace => self.make_peace(),
            _ if self.peace => {}
            Strike::Crashes(party) => self.crash(party),
            Strike::Stops(party) => {
                if around.lives[party.0].is_frozen {
                    return;
                }
                if let Some(stage) = &mut self.stages[party.0] {
                    stage.stop(around);
                }
                self.crash(party);
            }
            Strike::Freezes(party) => around.life(party).is_frozen = true,
            Strike::StoreGoes => {
                around.depot.away = true;
                for party in (0..around.lives.len()).map(Party) {
                    self.look(party, Look::Away, 2 * SECOND);
                }
            }
            Strike::StoreCut(party) => {
                around.depot.cut.insert(party);
                self.look(party, Look::Away, 2 * SECOND);
            }
            Strike::Cut { from, to, until } => drop(around.network.cuts.insert((from, to), until)),
            Strike::Breaks(choice) => around.network.break_one(choice),
            Strike::Revoked(party) => {
                let lease = self.stages[party.0].as_ref().and_then(StageProcess::lease).map(|lease| lease.id);
                if let Some(lease) = lease {
                    around.depot.store.revoke(lease);
                    around.spread_news();
                }
            }
            Strike::ClaimsDeleted => self.delete_claims(),
            Strike::Malice(malice) => around.network.malice = malice,
        }
    }

    fn store_comes(&mut self, with_leases: bool) {
        let around = &mut self.around;
        if !std::mem::replace(&mut around.depot.away, false) {
            return;
        }
        if with_leases {
            around.depot.store.renew_all(duration(around.now));
        }
        for party in (0..around.lives.len()).map(Party) {
            self.look(party, Look::Again, 600 * MS);
        }
    }

    /// A process looks at the store within some time.
    fn look(&mut self, party: Party, look: Look, within: Moment) {
        let incarnation = self.around.life(party).incarnation;
        let delay = self.around.dice.within(MS..within);
        self.around.after(delay, Event::Looks(party, incarnation, look));
    }

    fn looks(&mut self, party: Party, incarnation: u32, look: Look) {
        let around = &mut self.around;
        let away = around.depot.is_away_for(party);
        let life = &around.lives[party.0];
        if life.incarnation != incarnation || away != (look == Look::Away) {
            return;
        }
        let view = match look {
            Look::Away => std::sync::Arc::new(ClusterView { reachable: false, ..(*life.view).clone() }),
            Look::Again => around.depot.view.clone(),
        };
        around.show(party, view);
    }

    fn delete_claims(&mut self) {
        let around = &mut self.around;
        let claims = around.depot.view.claims.keys();
        let delete = |(generation, slot): &(schema::Generation, u32)| Write::Delete {
            key: self.keyspace.name(&Key::Claim(*generation, *slot)),
        };
        let writes: Vec<_> = claims.map(delete).collect();
        if !writes.is_empty() && !around.depot.away {
            around.depot.store.commit(Txn { compares: Vec::new(), writes }).expect("claims are deleted");
            around.spread_news();
        }
    }

    fn make_peace(&mut self) {
        self.peace = true;
        self.around.network.malice = Malice::default();
        self.around.network.cuts.clear();
        self.store_comes(true);
        for party in (0..self.around.lives.len()).map(Party) {
            self.around.depot.cut.remove(&party);
            self.look(party, Look::Again, 600 * MS);
            self.thaw(party);
            let delay = self.around.dice.within(0..2 * SECOND);
            self.around.after(delay, Event::Strikes(Strike::Starts(party)));
        }
    }

    // --- Laws ---

    /// No two processes with a lease have the same layer ready in the same generation.
    fn check_shards(&mut self) {
        let ready = |stage: &StageProcess| {
            let held = stage.member().held().filter(|held| held.is_ready())?;
            let lease = stage.lease().map(|lease| lease.id);
            Some((held.generation, held.shard.layers, lease, stage.endpoint().to_owned()))
        };
        let ready: Vec<_> = self.stages.iter().flatten().filter_map(ready).collect();
        let now = duration(self.around.now);
        for (index, (generation, layers, lease, endpoint)) in ready.iter().enumerate() {
            for (other_generation, other_layers, other_lease, other) in &ready[..index] {
                let overlap = layers.start() < other_layers.end() && other_layers.start() < layers.end();
                let store = &self.around.depot.store;
                let leased = [lease, other_lease].iter().all(|lease| lease.is_some_and(|id| store.knows(id, now)));
                self.around.law(generation != other_generation || !overlap || !leased, || {
                    format!("{endpoint} and {other} both serve some of {layers} in generation {generation}")
                });
            }
        }
    }

    /// No layer is served by two claims of one generation.
    fn check_claims(&mut self) {
        let view = self.around.depot.view.clone();
        let mut end = (schema::Generation(0), 0);
        for ((generation, slot), claim) in &view.claims {
            if claim.value.state != ClaimState::Serving {
                continue;
            }
            let layers = claim.value.layers;
            self.around.law(*generation != end.0 || layers.start() >= end.1, || {
                format!("slot {slot} of generation {generation} serves layers that another claim serves, too")
            });
            end = (*generation, layers.end());
        }
    }

    /// When all is done, the cluster serves, and nothing is left of what is gone.
    fn check_aftermath(&mut self) {
        let view = self.around.depot.view.clone();
        let Some(head) = &self.head else {
            return self.around.law(false, || "no gateway is there".to_owned());
        };
        let scheduler = head.conductor().scheduler();
        let (load, in_flight, free) = (scheduler.load(), scheduler.in_flight(), scheduler.free_blocks());
        let counts = scheduler.counts();
        let blocks = scheduler.shape().map(|shape| shape.kv_blocks as usize);
        let endpoints: Vec<_> = self.stages.iter().flatten().map(|stage| stage.endpoint().to_owned()).collect();
        let head_endpoint = head.endpoint().to_owned();
        let around = &mut self.around;
        around.tally.add("a sequence was preempted", counts.preempted);
        around.tally.add("a guess came true", counts.guessed_right);
        around.tally.add("a guess was wrong", counts.guessed - counts.guessed_right);
        around.law(load == (0, 0) && in_flight == 0, || format!("{load:?} sequences and {in_flight} batches are left"));
        around.law(blocks == Some(free), || format!("{free} blocks are free of {blocks:?}"));
        let serving = view.serving().map(|claims| claims.len());
        around.law(serving.is_ok(), || format!("the cluster does not serve: {serving:?}"));
        let stages: Vec<_> = view.stages.values().map(|stage| stage.value.endpoint.clone()).collect();
        around.law(stages == endpoints, || format!("stages in the store: {stages:?}, alive: {endpoints:?}"));
        let gateways: Vec<_> = view.gateways.values().map(|gateway| gateway.value.endpoint.clone()).collect();
        around.law(gateways == [head_endpoint], || format!("gateways in the store: {gateways:?}"));
        let placed = view.placement.as_ref().map(|placement| placement.value.generation());
        let stale: Vec<_> = view.claims.keys().filter(|(generation, _)| Some(*generation) != placed).collect();
        around.law(stale.is_empty(), || format!("claims of older generations are left: {stale:?}"));
        let leases = around.depot.store.leases();
        around.law(leases == endpoints.len() + 1, || format!("{leases} leases are left"));
    }
}
