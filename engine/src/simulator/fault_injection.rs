//! The effects of the faults on a cluster. It does not know which of them a seed has.

use schema::{ClaimId, Key};

use super::event::{Event, StoreNotice};
use super::fault::Fault;
use super::gateway::GatewayProcess;
use super::network::FrameFaults;
use super::process_id::ProcessId;
use super::stage::StageProcess;
use super::time::{MS, Moment, SECOND, duration};
use super::world::World;
use crate::store::{Txn, Write};

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
        let delete = |id: &ClaimId| Write::Delete { key: self.keyspace.name(&Key::Claim(*id)) };
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
