//! What goes wrong in a seed: when, with whom, and what that does to the world.

use schema::record::ModelRecord;
use schema::{Generation, Key};

use super::dice::Dice;
use super::gateway::GatewayProcess;
use super::network::Malice;
use super::operator::{Whose, Wish};
use super::stage::StageProcess;
use super::surroundings::{Event, GATEWAYS, Look, MS, Moment, Party, SECOND, Surroundings, duration};
use super::world::World;
use crate::store::{Txn, Write};

/// Something that goes wrong, or comes right again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A process starts, unless it runs.
    Starts(Party),
    /// It dies without a word.
    Crashes(Party),
    /// It gives its lease back and goes.
    Stops(Party),
    /// It does nothing until it thaws.
    Freezes(Party),
    Thaws(Party),
    /// The store answers nobody.
    StoreGoes,
    /// It is back; whether it kept the leases meanwhile.
    StoreComes {
        with_leases: bool,
    },
    /// A process does not reach the store.
    StoreCut(Party),
    StoreMended(Party),
    /// Nothing passes from one process to another.
    Cut {
        from: Party,
        to: Party,
        until: Moment,
    },
    /// A link breaks.
    Breaks(u64),
    /// An operator revokes a lease.
    Revoked(Party),
    /// An operator deletes all claims.
    ClaimsDeleted,
    /// The store comes back without its data.
    StoreEmptied,
    /// An operator deletes what is there, or writes nonsense over it.
    Spoilt {
        choice: u64,
        deletes: bool,
    },
    /// Somebody without the cluster key writes a stage of his own.
    Forged,
    /// Nobody can shake hands with a process.
    Barred(Party),
    Unbarred(Party),
    /// Somebody looks whether a gateway is healthy, and sends a request if it is.
    Inspected(Party),
    /// A request that was sent to a healthy gateway when there was peace must be done by now.
    MustBeDone(usize),
    /// An operator puts a pin.
    Pinned(Whose, Wish),
    Unpinned(Whose),
    /// Frames meet with worse than a real link does.
    Malice(Malice),
    /// From here on nothing goes wrong any more.
    Peace,
}

// === impl Fault ===

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starts(_) => "a process started",
            Self::Crashes(party) if party.is_gateway() => "the gateway crashed",
            Self::Crashes(_) => "a stage crashed",
            Self::Stops(_) => "a stage stopped",
            Self::Freezes(party) if party.is_gateway() => "the gateway froze",
            Self::Freezes(_) => "a stage froze",
            Self::Thaws(_) => "a process thawed",
            Self::StoreGoes => "the store went away",
            Self::StoreComes { .. } => "the store came back",
            Self::StoreCut(_) => "a process was cut off from the store",
            Self::StoreMended(_) => "a process found the store again",
            Self::Cut { .. } => "a link was cut",
            Self::Breaks(_) => "a link broke",
            Self::Revoked(_) => "a lease was revoked",
            Self::ClaimsDeleted => "claims were deleted",
            Self::StoreEmptied => "the store lost its data",
            Self::Spoilt { deletes: true, .. } => "a value was deleted",
            Self::Spoilt { .. } => "a value was spoilt",
            Self::Forged => "a record was forged",
            Self::Barred(_) => "a process was barred",
            Self::Unbarred(_) => "a process was let in again",
            Self::Inspected(_) => "a gateway was inspected",
            Self::MustBeDone(_) => "a request was looked after",
            Self::Pinned(..) => "a pin was put",
            Self::Unpinned(_) => "a pin was deleted",
            Self::Malice(_) => "frames met with malice",
            Self::Peace => "there was peace",
        }
    }
}

/// Rolls and schedules the faults until `peace`, among so many gateways and stages that serve such a model; an outcast is
/// barred for good. No stage is pinned then, since pins could demand the outcast.
pub(super) fn schedule(
    (gateways, stages): (usize, usize),
    model: &ModelRecord,
    outcast: Option<Party>,
    peace: Moment,
    around: &mut Surroundings,
) {
    if let Some(outcast) = outcast {
        let at = around.dice.within(SECOND..peace);
        around.at(at, Event::Fault(Fault::Barred(outcast)));
    }
    around.at(peace, Event::Fault(Fault::Peace));
    if around.dice.permille(300) {
        let dice = &mut around.dice;
        let mut seldom = |most: u64| if dice.permille(500) { dice.within(1..most) } else { 0 };
        let malice = Malice { lost: seldom(8), doubled: seldom(60), overtaken: seldom(40) };
        around.at(SECOND, Event::Fault(Fault::Malice(malice)));
    }
    for _ in 0..around.dice.within(0..3) {
        let at = around.dice.within(SECOND..peace);
        let gateway = Party(around.dice.within(0..gateways as u64) as usize);
        around.at(at, Event::Fault(Fault::Inspected(gateway)));
    }
    if outcast.is_none() && around.dice.permille(400) {
        schedule_pins(stages, model, peace, around);
    }
    for _ in 0..around.dice.within(0..7) {
        let at = around.dice.within(500 * MS..peace);
        let length = length(&mut around.dice);
        for (moment, fault) in roll((gateways, stages), at, length, &mut around.dice) {
            around.at(moment, Event::Fault(fault));
        }
    }
}

/// Rolls and schedules what operators do until `peace`; some pins stay.
fn schedule_pins(stages: usize, model: &ModelRecord, peace: Moment, around: &mut Surroundings) {
    for _ in 0..around.dice.within(0..5) {
        let whose = Whose::roll(stages, &mut around.dice);
        let wish = Wish::roll(model.layers, model.kv_tokens, &mut around.dice);
        let at = around.dice.within(0..peace);
        around.at(at, Event::Fault(Fault::Pinned(whose, wish)));
        if around.dice.permille(600) {
            let end = at + length(&mut around.dice);
            around.at(end.min(peace), Event::Fault(Fault::Unpinned(whose)));
        }
    }
}

/// Short and long ones alike: from far below a lease to several.
fn length(dice: &mut Dice) -> Moment {
    if dice.permille(500) { dice.within(20 * MS..SECOND) } else { dice.within(SECOND..9 * SECOND) }
}

fn roll((gateways, stages): (usize, usize), at: Moment, length: Moment, dice: &mut Dice) -> Vec<(Moment, Fault)> {
    let processes = (gateways + stages) as u64;
    // Gateways' numbers, then the stages'.
    let party = |place: u64| Party(place as usize + if (place as usize) < gateways { 0 } else { GATEWAYS - gateways });
    let gateway = party(dice.within(0..gateways as u64));
    let stage = party(dice.within(gateways as u64..processes));
    let place = dice.within(0..processes);
    let anybody = party(place);
    let end = at + length;
    match dice.within(0..20) {
        0..=2 => vec![(at, Fault::Crashes(stage)), (end, Fault::Starts(stage))],
        3..=5 => vec![(at, Fault::Freezes(stage)), (end, Fault::Thaws(stage))],
        6 => vec![(at, Fault::Freezes(gateway)), (end, Fault::Thaws(gateway))],
        7 => vec![(at, Fault::Stops(stage)), (end, Fault::Starts(stage))],
        8 => {
            let with_leases = dice.permille(500);
            vec![(at, Fault::StoreGoes), (end, Fault::StoreComes { with_leases })]
        }
        9 | 10 => vec![(at, Fault::StoreCut(anybody)), (end, Fault::StoreMended(anybody))],
        11 | 12 => {
            let to = party((place + dice.within(1..processes)) % processes);
            let mut cuts = vec![(at, Fault::Cut { from: anybody, to, until: end })];
            if dice.permille(600) {
                cuts.push((at, Fault::Cut { from: to, to: anybody, until: end }));
            }
            cuts
        }
        13 => (0..dice.within(1..4)).map(|number| (at + number, Fault::Breaks(dice.within(0..1000)))).collect(),
        16 => vec![(at, Fault::Barred(anybody)), (end, Fault::Unbarred(anybody))],
        17 => vec![(at, Fault::StoreEmptied)],
        18 => vec![(at, Fault::Spoilt { choice: dice.within(0..1000), deletes: dice.permille(500) })],
        19 => vec![(at, Fault::Forged)],
        14 => vec![(at, if dice.permille(700) { Fault::Revoked(anybody) } else { Fault::ClaimsDeleted })],
        _ if dice.permille(400) => vec![(at, Fault::Crashes(gateway)), (end, Fault::Starts(gateway))],
        _ => vec![(at, Fault::Breaks(dice.within(0..1000)))],
    }
}

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        let around = &mut self.around;
        around.tally.add(fault.name(), u64::from(!self.peace));
        around.note(|| format!("--- {fault:?}"));
        match fault {
            Fault::Starts(party) => self.start(party),
            Fault::Thaws(party) => self.thaw(party),
            Fault::StoreComes { with_leases } => self.store_comes(with_leases),
            Fault::StoreMended(party) => {
                around.depot.cut.remove(&party);
                self.look(party, Look::Again, 600 * MS);
            }
            Fault::Unpinned(whose) => self.delete_pin(whose),
            Fault::Peace => self.make_peace(),
            Fault::Unbarred(party) if self.outcast == Some(party) => {}
            Fault::Unbarred(party) => drop(around.network.barred.remove(&party)),
            Fault::Inspected(gateway) => self.inspect(gateway),
            Fault::MustBeDone(number) => self.check_inspected(number),
            _ if self.peace => {}
            Fault::Crashes(party) => self.crash(party),
            Fault::Stops(party) => {
                if around.lives[party.0].is_frozen {
                    return;
                }
                if around.dice.within(0..2) == 0
                    && let Some(stage) = &mut self.stages[party.0]
                {
                    return stage.drain(around);
                }
                if let Some(stage) = &mut self.stages[party.0] {
                    stage.stop(around);
                }
                self.crash(party);
            }
            Fault::Freezes(party) => {
                around.life(party).is_frozen = true;
                around.falls_silent(|from, to| from == party || to == party);
            }
            Fault::StoreGoes => {
                around.depot.away = true;
                for party in (0..around.lives.len()).map(Party) {
                    self.look(party, Look::Away, 2 * SECOND);
                }
            }
            Fault::StoreCut(party) => {
                around.depot.cut.insert(party);
                self.look(party, Look::Away, 2 * SECOND);
            }
            Fault::Cut { from, to, until } => {
                around.network.cuts.insert((from, to), until);
                around.falls_silent(|one, other| (one, other) == (from, to) || (other, one) == (from, to));
            }
            Fault::Breaks(choice) => around.breaks(choice),
            Fault::Revoked(party) => {
                let head = self.gateway_processes.get(party.0).and_then(Option::as_ref).and_then(GatewayProcess::lease);
                let lease = self.stages[party.0].as_ref().and_then(StageProcess::lease).or(head).map(|lease| lease.id);
                if let Some(lease) = lease.filter(|_| !around.depot.away) {
                    around.depot.store.revoke(lease);
                    around.spread_news();
                }
            }
            Fault::Barred(party) => {
                around.network.barred.insert(party);
                around.hang_up(party);
            }
            Fault::StoreEmptied if around.depot.away => {}
            Fault::StoreEmptied => {
                around.depot.lose_everything();
                let view = around.depot.view.clone();
                around.spread(&view);
            }
            Fault::Spoilt { choice, deletes } => self.spoil(choice, deletes),
            Fault::Forged => self.forge(),
            Fault::ClaimsDeleted => self.delete_claims(),
            Fault::Pinned(whose, wish) => self.put_pin(whose, wish),
            Fault::Malice(malice) => around.network.malice = malice,
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

    pub(super) fn looks(&mut self, party: Party, incarnation: u32, look: Look) {
        let around = &mut self.around;
        let away = around.depot.is_away_for(party);
        let life = &around.lives[party.0];
        if life.incarnation != incarnation || away != (look == Look::Away) {
            return;
        }
        match look {
            Look::Away => around.show_away(party),
            Look::Again => {
                let (view, serial) = (around.depot.view.clone(), around.depot.serial);
                around.show(party, view, serial);
            }
        }
    }

    fn delete_claims(&mut self) {
        let around = &mut self.around;
        let claims = around.depot.view.claims.keys();
        let delete = |(generation, slot): &(Generation, u32)| Write::Delete {
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
        self.around.network.barred.retain(|party| self.outcast == Some(*party));
        self.store_comes(true);
        for party in (0..self.around.lives.len()).map(Party) {
            self.around.depot.cut.remove(&party);
            self.look(party, Look::Again, 600 * MS);
            self.thaw(party);
            if party.is_gateway() && party.0 >= self.gateways {
                continue;
            }
            let delay = self.around.dice.within(0..2 * SECOND);
            self.around.after(delay, Event::Fault(Fault::Starts(party)));
            if party.is_gateway() {
                let delay = self.around.dice.within(3 * SECOND..20 * SECOND);
                self.around.after(delay, Event::Fault(Fault::Inspected(party)));
            }
        }
    }
}
