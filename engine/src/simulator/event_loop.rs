//! The loop of a seed: gives each event to those that it concerns and checks the invariants, to the end.

use super::clients::{ClientState, Clients};
use super::event::{Event, ProcessEvent};
use super::fault::Fault;
use super::gateway::GatewayProcess;
use super::process_id::ProcessId;
use super::stage::StageProcess;
use super::tally::Tally;
use super::time::{MS, Moment, SECOND, duration};
use super::world::World;

/// Time by which everything must be done: a few of the longest timeouts of a lost micro-batch.
const END: Moment = 900 * SECOND;
/// Time after the last client within which the records of dead processes must be gone.
const AFTERMATH: Moment = 9 * SECOND;
/// Interval at which the store expires leases.
const EXPIRE_EVERY: Moment = 100 * MS;

/// A violated invariant.
#[derive(Debug)]
pub(super) struct Violation {
    pub(super) at: Moment,
    pub(super) invariant: String,
    pub(super) trace: String,
}

impl World {
    /// Runs to the end, or to the first violated invariant.
    pub(super) fn run(mut self) -> Result<Tally, Violation> {
        let mut end = None;
        let mut placed = None;
        while self.env.violation.is_none() {
            let Some(event) = self.env.next() else { break };
            if end.is_some_and(|end| self.env.now >= end) {
                self.check_aftermath();
                break;
            }
            if self.env.now >= END {
                let unfinished = self.clients.unfinished();
                self.env.check(false, || format!("not all is done in time: {unfinished}"));
            }
            self.take(event);
            let is_moving = std::mem::replace(&mut placed, self.env.store.view.placed()) != placed;
            self.check_rest(is_moving);
            self.env.tally.add("layers moved without a cause", (is_moving && end.is_some()).into());
            end = match end {
                Some(_) if is_moving || !self.clients.are_done() => None,
                None if self.is_quiet() => Some((self.env.now + AFTERMATH).max(self.runs_until)),
                // A stage that had yet to learn that it was evicted.
                Some(_) if self.faults_over && (self.is_one_quarantined() || self.is_barred_stage_placed()) => None,
                end => end,
            };
        }
        match self.env.violation.take() {
            None => Ok(self.env.tally),
            Some(invariant) => Err(Violation { at: self.env.now, invariant, trace: self.env.trace.text() }),
        }
    }

    /// True if no work is left: a lost micro-batch is waited for until its deadline, a quarantined stage until it joins
    /// again, and a barred stage until the placement does without it.
    fn is_quiet(&self) -> bool {
        let is_back = |gateway: &GatewayProcess| gateway.conductor().scheduler().in_flight() == 0;
        let back = self.gateway_processes[..self.gateways].iter().all(|gateway| gateway.as_ref().is_some_and(is_back));
        self.faults_over
            && back
            && self.clients.are_done()
            && !self.is_one_quarantined()
            && !self.is_barred_stage_placed()
    }

    /// True if a stage other than the barred stage, whose quarantine never ends, is in quarantine.
    fn is_one_quarantined(&self) -> bool {
        let now = self.env.instant();
        let is_quarantined =
            |stage: &StageProcess| !self.is_barred(stage.endpoint()) && stage.member().is_quarantined(now);
        self.stages.iter().flatten().any(is_quarantined)
    }

    /// True if the placement gives layers to the barred stage.
    fn is_barred_stage_placed(&self) -> bool {
        let name = self.barred_stage.map(|stage| stage.to_string());
        let placement = self.env.store.view.placement.as_ref();
        let mut shards = placement.iter().flat_map(|placement| placement.value.shards());
        name.is_some_and(|name| shards.any(|shard| shard.stage.to_string() == name))
    }

    fn take(&mut self, event: Event) {
        let env = &mut self.env;
        match event {
            Event::Process(process, incarnation, event) => self.process_event(process, incarnation, event),
            Event::Missed(link) => self.env.missed(link),
            Event::Arrives(parcel) => env.arrives(parcel),
            Event::Asked(process, incarnation, call, request) => {
                env.asked(process, incarnation, call, request);
                self.check_claims();
                self.check_shares();
            }
            Event::Answered(process, incarnation, call, answer) => env.answered(process, incarnation, call, answer),
            Event::Shown(process, incarnation, view, serial) => {
                if env.states[process.0].incarnation == incarnation && !env.store.is_away_for(process) {
                    env.show(process, view, serial);
                }
            }
            Event::Notices(process, incarnation, notice) => self.notices(process, incarnation, notice),
            Event::Fault(fault) => self.inject(fault),
            Event::Expires => {
                env.after(EXPIRE_EVERY, Event::Expires);
                if !env.store.away {
                    env.store.state.expire(duration(env.now));
                    env.spread_news();
                    (0..env.states.len()).map(ProcessId).for_each(|process| env.forget(process));
                }
            }
            Event::Submits(number) if self.clients.all[number].state == ClientState::Submitting => {
                let gateway = ProcessId(env.rng.within(0..self.gateways as u64) as usize);
                if env.states[gateway.0].is_alive {
                    env.schedule(0, gateway, ProcessEvent::Submits(number));
                } else {
                    Clients::submit_again(number, env);
                }
            }
            Event::Submits(_) => {}
            Event::Leaves(number) => self.clients.leaves(number),
        }
    }

    fn process_event(&mut self, process: ProcessId, incarnation: u32, event: ProcessEvent) {
        let env = &mut self.env;
        let state = env.state(process);
        if !state.is_alive || state.incarnation != incarnation {
            if let ProcessEvent::Submits(number) = event {
                Clients::submit_again(number, env);
            }
            return;
        }
        if state.is_frozen {
            return state.backlog.push_back(event);
        }
        if process.is_gateway() {
            if let Some(gateway) = &mut self.gateway_processes[process.0] {
                let looks = matches!(event, ProcessEvent::Ticks);
                gateway.handle(event, &mut self.clients, env);
                if looks {
                    self.check_health(process);
                }
            }
            return;
        }
        let goes_on = self.stages[process.0].as_mut().is_some_and(|stage| stage.handle(event, env));
        if !goes_on {
            env.note(|| format!("{process} cannot join and ends"));
            self.crash(process);
            let pause = self.env.rng.within(300 * MS..2 * SECOND);
            self.env.after(pause, Event::Fault(Fault::Starts(process)));
        }
        self.check_shards();
    }
}
