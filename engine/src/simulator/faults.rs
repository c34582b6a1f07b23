//! The faults of a seed: their times, their targets and their effects.

use schema::record::ModelRecord;
use schema::{Generation, Key};

use super::environment::{Environment, Event, GATEWAYS, MS, Moment, ProcessId, SECOND, StoreNotice, duration};
use super::gateway::GatewayProcess;
use super::network::FrameFaults;
use super::operator::{PinTarget, PinValue};
use super::rng::Rng;
use super::stage::StageProcess;
use super::world::World;
use crate::store::{Txn, Write};

/// A fault, or its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    /// A process starts, unless it runs.
    Starts(ProcessId),
    /// It crashes.
    Crashes(ProcessId),
    /// It stops in good order, and revokes its lease.
    Stops(ProcessId),
    /// It freezes until it thaws.
    Freezes(ProcessId),
    Thaws(ProcessId),
    /// The store answers no process.
    StoreGoes,
    /// It is back. With `with_leases` it has kept all leases meanwhile.
    StoreComes {
        with_leases: bool,
    },
    /// A process does not reach the store.
    StoreCut(ProcessId),
    StoreMended(ProcessId),
    /// Nothing passes from one process to another.
    Cut {
        from: ProcessId,
        to: ProcessId,
        until: Moment,
    },
    /// Breaks a link.
    Breaks(u64),
    /// An operator revokes a lease.
    Revoked(ProcessId),
    /// An operator deletes all claims.
    ClaimsDeleted,
    /// The store comes back without its data.
    StoreEmptied,
    /// An operator deletes a value, or overwrites it with nonsense.
    Corrupted {
        choice: u64,
        deletes: bool,
    },
    /// A user without the cluster key writes the record of a stage.
    Forged,
    /// No other process completes a handshake with this one.
    Barred(ProcessId),
    Unbarred(ProcessId),
    /// A gateway is inspected: if it is healthy, it gets a request.
    Inspected(ProcessId),
    /// A request that was sent to a healthy gateway after the faults must be done by now.
    MustBeDone(usize),
    /// An operator puts a pin.
    Pinned(PinTarget, PinValue),
    Unpinned(PinTarget),
    /// Frames meet faults that a real link does not have.
    FrameFaults(FrameFaults),
    /// The faults end.
    End,
}

// === impl Fault ===

impl Fault {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Starts(_) => "a process started",
            Self::Crashes(process) if process.is_gateway() => "the gateway crashed",
            Self::Crashes(_) => "a stage crashed",
            Self::Stops(_) => "a stage stopped",
            Self::Freezes(process) if process.is_gateway() => "the gateway froze",
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
            Self::Corrupted { deletes: true, .. } => "a value was deleted",
            Self::Corrupted { .. } => "a value was corrupted",
            Self::Forged => "a record was forged",
            Self::Barred(_) => "a process was barred",
            Self::Unbarred(_) => "a process was unbarred",
            Self::Inspected(_) => "a gateway was inspected",
            Self::MustBeDone(_) => "a request was checked",
            Self::Pinned(..) => "a pin was put",
            Self::Unpinned(_) => "a pin was deleted",
            Self::FrameFaults(_) => "frames met faults",
            Self::End => "the faults ended",
        }
    }
}

/// Draws and schedules the faults until `faults_end` for a cluster of `gateways` and `stages` that serves `model`. A
/// barred stage is barred for good. No stage is pinned then, because pins could demand the barred stage.
pub(super) fn schedule(
    (gateways, stages): (usize, usize),
    model: &ModelRecord,
    barred_stage: Option<ProcessId>,
    faults_end: Moment,
    env: &mut Environment,
) {
    if let Some(barred_stage) = barred_stage {
        let at = env.rng.within(SECOND..faults_end);
        env.at(at, Event::Fault(Fault::Barred(barred_stage)));
    }
    env.at(faults_end, Event::Fault(Fault::End));
    if env.rng.permille(300) {
        let rng = &mut env.rng;
        let mut rarely = |most: u64| if rng.permille(500) { rng.within(1..most) } else { 0 };
        let frame_faults = FrameFaults { lost: rarely(8), doubled: rarely(60), overtaken: rarely(40) };
        env.at(SECOND, Event::Fault(Fault::FrameFaults(frame_faults)));
    }
    for _ in 0..env.rng.within(0..3) {
        let at = env.rng.within(SECOND..faults_end);
        let gateway = ProcessId(env.rng.within(0..gateways as u64) as usize);
        env.at(at, Event::Fault(Fault::Inspected(gateway)));
    }
    if barred_stage.is_none() && env.rng.permille(400) {
        schedule_pins(stages, model, faults_end, env);
    }
    for _ in 0..env.rng.within(0..7) {
        let at = env.rng.within(500 * MS..faults_end);
        let length = length(&mut env.rng);
        for (moment, fault) in draw((gateways, stages), at, length, &mut env.rng) {
            env.at(moment, Event::Fault(fault));
        }
    }
}

/// Draws and schedules the operator's commands until `faults_end`. Some pins stay.
fn schedule_pins(stages: usize, model: &ModelRecord, faults_end: Moment, env: &mut Environment) {
    for _ in 0..env.rng.within(0..5) {
        let target = PinTarget::draw(stages, &mut env.rng);
        let value = PinValue::draw(model.layers, model.kv_tokens, &mut env.rng);
        let at = env.rng.within(0..faults_end);
        env.at(at, Event::Fault(Fault::Pinned(target, value)));
        if env.rng.permille(600) {
            let end = at + length(&mut env.rng);
            env.at(end.min(faults_end), Event::Fault(Fault::Unpinned(target)));
        }
    }
}

/// Draws the length of a fault: from far below the time of a lease to several of them.
fn length(rng: &mut Rng) -> Moment {
    if rng.permille(500) { rng.within(20 * MS..SECOND) } else { rng.within(SECOND..9 * SECOND) }
}

fn draw((gateways, stages): (usize, usize), at: Moment, length: Moment, rng: &mut Rng) -> Vec<(Moment, Fault)> {
    let processes = (gateways + stages) as u64;
    // Gateways' numbers, then the stages'.
    let process =
        |place: u64| ProcessId(place as usize + if (place as usize) < gateways { 0 } else { GATEWAYS - gateways });
    let gateway = process(rng.within(0..gateways as u64));
    let stage = process(rng.within(gateways as u64..processes));
    let place = rng.within(0..processes);
    let any_process = process(place);
    let end = at + length;
    match rng.within(0..20) {
        0..=2 => vec![(at, Fault::Crashes(stage)), (end, Fault::Starts(stage))],
        3..=5 => vec![(at, Fault::Freezes(stage)), (end, Fault::Thaws(stage))],
        6 => vec![(at, Fault::Freezes(gateway)), (end, Fault::Thaws(gateway))],
        7 => vec![(at, Fault::Stops(stage)), (end, Fault::Starts(stage))],
        8 => {
            let with_leases = rng.permille(500);
            vec![(at, Fault::StoreGoes), (end, Fault::StoreComes { with_leases })]
        }
        9 | 10 => vec![(at, Fault::StoreCut(any_process)), (end, Fault::StoreMended(any_process))],
        11 | 12 => {
            let to = process((place + rng.within(1..processes)) % processes);
            let mut cuts = vec![(at, Fault::Cut { from: any_process, to, until: end })];
            if rng.permille(600) {
                cuts.push((at, Fault::Cut { from: to, to: any_process, until: end }));
            }
            cuts
        }
        13 => (0..rng.within(1..4)).map(|number| (at + number, Fault::Breaks(rng.within(0..1000)))).collect(),
        16 => vec![(at, Fault::Barred(any_process)), (end, Fault::Unbarred(any_process))],
        17 => vec![(at, Fault::StoreEmptied)],
        18 => vec![(at, Fault::Corrupted { choice: rng.within(0..1000), deletes: rng.permille(500) })],
        19 => vec![(at, Fault::Forged)],
        14 => vec![(at, if rng.permille(700) { Fault::Revoked(any_process) } else { Fault::ClaimsDeleted })],
        _ if rng.permille(400) => vec![(at, Fault::Crashes(gateway)), (end, Fault::Starts(gateway))],
        _ => vec![(at, Fault::Breaks(rng.within(0..1000)))],
    }
}

impl World {
    pub(super) fn inject(&mut self, fault: Fault) {
        let env = &mut self.env;
        env.tally.add(fault.name(), u64::from(!self.faults_over));
        env.note(|| format!("--- {fault:?}"));
        match fault {
            Fault::Starts(process) => self.start(process),
            Fault::Thaws(process) => self.thaw(process),
            Fault::StoreComes { with_leases } => self.store_comes(with_leases),
            Fault::StoreMended(process) => {
                env.store.cut.remove(&process);
                self.schedule_notice(process, StoreNotice::Back, 600 * MS);
            }
            Fault::Unpinned(target) => self.delete_pin(target),
            Fault::End => self.end_faults(),
            Fault::Unbarred(process) if self.barred_stage == Some(process) => {}
            Fault::Unbarred(process) => drop(env.network.barred.remove(&process)),
            Fault::Inspected(gateway) => self.inspect(gateway),
            Fault::MustBeDone(number) => self.check_inspected(number),
            _ if self.faults_over => {}
            Fault::Crashes(process) => self.crash(process),
            Fault::Stops(process) => {
                if env.states[process.0].is_frozen {
                    return;
                }
                if env.rng.within(0..2) == 0
                    && let Some(stage) = &mut self.stages[process.0]
                {
                    return stage.drain(env);
                }
                if let Some(stage) = &mut self.stages[process.0] {
                    stage.stop(env);
                }
                self.crash(process);
            }
            Fault::Freezes(process) => {
                env.state(process).is_frozen = true;
                env.falls_silent(|from, to| from == process || to == process);
            }
            Fault::StoreGoes => {
                env.store.away = true;
                for process in (0..env.states.len()).map(ProcessId) {
                    self.schedule_notice(process, StoreNotice::Away, 2 * SECOND);
                }
            }
            Fault::StoreCut(process) => {
                env.store.cut.insert(process);
                self.schedule_notice(process, StoreNotice::Away, 2 * SECOND);
            }
            Fault::Cut { from, to, until } => {
                env.network.cuts.insert((from, to), until);
                env.falls_silent(|one, other| (one, other) == (from, to) || (other, one) == (from, to));
            }
            Fault::Breaks(choice) => env.breaks(choice),
            Fault::Revoked(process) => {
                let gateway =
                    self.gateway_processes.get(process.0).and_then(Option::as_ref).and_then(GatewayProcess::lease);
                let lease =
                    self.stages[process.0].as_ref().and_then(StageProcess::lease).or(gateway).map(|lease| lease.id);
                if let Some(lease) = lease.filter(|_| !env.store.away) {
                    env.store.state.revoke(lease);
                    env.spread_news();
                }
            }
            Fault::Barred(process) => {
                env.network.barred.insert(process);
                env.end_links(process);
            }
            Fault::StoreEmptied if env.store.away => {}
            Fault::StoreEmptied => {
                env.store.lose_everything();
                let view = env.store.view.clone();
                env.spread(&view);
            }
            Fault::Corrupted { choice, deletes } => self.corrupt(choice, deletes),
            Fault::Forged => self.forge(),
            Fault::ClaimsDeleted => self.delete_claims(),
            Fault::Pinned(target, value) => self.put_pin(target, value),
            Fault::FrameFaults(frame_faults) => env.network.frame_faults = frame_faults,
        }
    }

    fn store_comes(&mut self, with_leases: bool) {
        let env = &mut self.env;
        if !std::mem::replace(&mut env.store.away, false) {
            return;
        }
        if with_leases {
            env.store.state.renew_all(duration(env.now));
        }
        for process in (0..env.states.len()).map(ProcessId) {
            self.schedule_notice(process, StoreNotice::Back, 600 * MS);
        }
    }

    /// Schedules that a process notices the state of the store, within `within`.
    fn schedule_notice(&mut self, process: ProcessId, notice: StoreNotice, within: Moment) {
        let incarnation = self.env.state(process).incarnation;
        let delay = self.env.rng.within(MS..within);
        self.env.after(delay, Event::Notices(process, incarnation, notice));
    }

    pub(super) fn notices(&mut self, process: ProcessId, incarnation: u32, notice: StoreNotice) {
        let env = &mut self.env;
        let away = env.store.is_away_for(process);
        let state = &env.states[process.0];
        if state.incarnation != incarnation || away != (notice == StoreNotice::Away) {
            return;
        }
        match notice {
            StoreNotice::Away => env.show_away(process),
            StoreNotice::Back => {
                let (view, serial) = (env.store.view.clone(), env.store.serial);
                env.show(process, view, serial);
            }
        }
    }

    fn delete_claims(&mut self) {
        let env = &mut self.env;
        let claims = env.store.view.claims.keys();
        let delete = |(generation, slot): &(Generation, u32)| Write::Delete {
            key: self.keyspace.name(&Key::Claim(*generation, *slot)),
        };
        let writes: Vec<_> = claims.map(delete).collect();
        if !writes.is_empty() && !env.store.away {
            env.store.state.commit(Txn { compares: Vec::new(), writes }).expect("claims are deleted");
            env.spread_news();
        }
    }

    fn end_faults(&mut self) {
        self.faults_over = true;
        self.env.network.frame_faults = FrameFaults::default();
        self.env.network.cuts.clear();
        self.env.network.barred.retain(|process| self.barred_stage == Some(*process));
        self.store_comes(true);
        for process in (0..self.env.states.len()).map(ProcessId) {
            self.env.store.cut.remove(&process);
            self.schedule_notice(process, StoreNotice::Back, 600 * MS);
            self.thaw(process);
            if process.is_gateway() && process.0 >= self.gateways {
                continue;
            }
            let delay = self.env.rng.within(0..2 * SECOND);
            self.env.after(delay, Event::Fault(Fault::Starts(process)));
            if process.is_gateway() {
                let delay = self.env.rng.within(3 * SECOND..20 * SECOND);
                self.env.after(delay, Event::Fault(Fault::Inspected(process)));
            }
        }
    }
}
