//! The environment that all simulated processes share: the time, the queue of events, the random numbers, the store,
//! the network, and the state of each process. It does not know what a process does with an event.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use super::event::{Call, Event, ProcessEvent};
use super::network::Network;
use super::process_id::ProcessId;
use super::rng::Rng;
use super::store::{SimulatedStore, StoreRequest, StoreResponse};
use super::tally::Tally;
use super::time::{MS, Moment, SECOND, duration};
use super::trace::Trace;
use crate::membership::Recall;
use crate::store::Committed;
use crate::view::ClusterView;

/// The state of a process that the environment controls.
pub(super) struct ProcessState {
    /// Number of its starts.
    pub(super) incarnation: u32,
    pub(super) is_alive: bool,
    pub(super) is_frozen: bool,
    /// Events that came while it was frozen.
    pub(super) backlog: VecDeque<ProcessEvent>,
    /// The view as the process sees it, and its number.
    pub(super) view: Arc<ClusterView>,
    pub(super) serial: u64,
    /// Its memory of the records that the store showed, and the newest view.
    pub(super) recall: Recall,
    pub(super) shown: Arc<ClusterView>,
}

pub(super) struct Environment {
    pub(super) now: Moment,
    origin: Instant,
    queue: BTreeMap<(Moment, u64), Event>,
    scheduled: u64,
    pub(super) rng: Rng,
    pub(super) store: SimulatedStore,
    pub(super) network: Network,
    pub(super) states: Vec<ProcessState>,
    pub(super) trace: Trace,
    pub(super) tally: Tally,
    /// The first invariant that was violated.
    pub(super) violation: Option<String>,
}

// === impl Environment ===

impl Environment {
    pub(super) fn new(rng: Rng, store: SimulatedStore, network: Network, processes: usize, trace: Trace) -> Self {
        let state = || ProcessState {
            incarnation: 0,
            is_alive: false,
            is_frozen: false,
            backlog: VecDeque::new(),
            view: Arc::new(ClusterView::default()),
            serial: 0,
            recall: Recall::default(),
            shown: Arc::new(ClusterView::default()),
        };
        Self {
            now: 0,
            origin: Instant::now(),
            queue: BTreeMap::new(),
            scheduled: 0,
            rng,
            store,
            network,
            states: (0..processes).map(|_| state()).collect(),
            trace,
            tally: Tally::default(),
            violation: None,
        }
    }

    /// The time as an `Instant`, for the code under test.
    pub(super) fn instant(&self) -> Instant {
        self.origin + duration(self.now)
    }

    /// Takes the next event and sets the time to its time.
    pub(super) fn next(&mut self) -> Option<Event> {
        let ((moment, _), event) = self.queue.pop_first()?;
        self.now = moment;
        self.tally.tick(moment);
        Some(event)
    }

    pub(super) fn at(&mut self, moment: Moment, event: Event) {
        self.scheduled += 1;
        self.queue.insert((moment.max(self.now), self.scheduled), event);
    }

    pub(super) fn after(&mut self, delay: Moment, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn state(&mut self, process: ProcessId) -> &mut ProcessState {
        &mut self.states[process.0]
    }

    /// Schedules an event of a process in its current incarnation, after `delay`.
    pub(super) fn schedule(&mut self, delay: Moment, process: ProcessId, event: ProcessEvent) {
        let incarnation = self.state(process).incarnation;
        self.after(delay, Event::Process(process, incarnation, event));
    }

    /// Sends a process's request to the store.
    pub(super) fn ask(&mut self, process: ProcessId, call: Call, request: StoreRequest) {
        let incarnation = self.state(process).incarnation;
        let delay = self.rng.within(100..3 * MS);
        self.after(delay, Event::Asked(process, incarnation, call, request));
    }

    /// A request arrives at the store, or is lost.
    pub(super) fn asked(&mut self, process: ProcessId, incarnation: u32, call: Call, request: StoreRequest) {
        let (response, delay) = if self.store.is_away_for(process) {
            let unanswered = match request {
                StoreRequest::Grant => StoreResponse::Granted(None),
                StoreRequest::Commit(_) => StoreResponse::Committed(Ok(Committed::Refused)).lost(),
                StoreRequest::Renew(_) => StoreResponse::Renewed(None),
                StoreRequest::Revoke(_) => StoreResponse::Nothing,
            };
            (unanswered, self.rng.within(MS..SECOND))
        } else {
            let response = self.store.answer(request, self.now);
            self.spread_news();
            (response, self.rng.within(100..3 * MS))
        };
        self.after(delay, Event::Answered(process, incarnation, call, response));
    }

    /// A response arrives at its process, or is lost.
    pub(super) fn answered(&mut self, process: ProcessId, incarnation: u32, call: Call, response: StoreResponse) {
        let response = if self.store.is_away_for(process) { response.lost() } else { response };
        self.after(0, Event::Process(process, incarnation, ProcessEvent::Answered { call, response }));
    }

    /// Sends a new view to every process, if the store has changed.
    pub(super) fn spread_news(&mut self) {
        if let Some(view) = self.store.news() {
            self.spread(&view);
        }
    }

    /// Sends a view to every process.
    pub(super) fn spread(&mut self, view: &Arc<ClusterView>) {
        let serial = self.store.serial;
        for process in (0..self.states.len()).map(ProcessId) {
            let slow = self.rng.permille(20);
            let delay = self.rng.within(if slow { 20 * MS..400 * MS } else { 200..8 * MS });
            let incarnation = self.state(process).incarnation;
            self.after(delay, Event::Shown(process, incarnation, view.clone(), serial));
        }
    }

    /// Shows a process that the store is away.
    pub(super) fn show_away(&mut self, process: ProcessId) {
        let state = self.state(process);
        if state.view.reachable {
            state.view = Arc::new(ClusterView { reachable: false, ..(*state.view).clone() });
            self.schedule(0, process, ProcessEvent::Sees);
        }
    }

    /// Ends a process's memory of an emptied store, once its time is over.
    pub(super) fn forget(&mut self, process: ProcessId) {
        let now = self.instant();
        let state = self.state(process);
        if state.view.reachable && state.recall.ends().is_some_and(|ends| ends <= now) {
            let shown = (*state.shown).clone();
            state.view = Arc::new(state.recall.complete(shown, now));
            self.schedule(0, process, ProcessEvent::Sees);
        }
    }

    /// Shows a view to a process, unless it has a newer one.
    pub(super) fn show(&mut self, process: ProcessId, shown: Arc<ClusterView>, serial: u64) {
        let now = self.instant();
        let state = self.state(process);
        if serial < state.serial || serial == state.serial && state.view.reachable {
            return;
        }
        state.view = Arc::new(state.recall.complete((*shown).clone(), now));
        (state.shown, state.serial) = (shown, serial);
        self.schedule(0, process, ProcessEvent::Sees);
    }

    /// Checks an invariant of the system.
    pub(super) fn check(&mut self, holds: bool, message: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(message());
        }
    }

    pub(super) fn note(&mut self, text: impl FnOnce() -> String) {
        self.trace.note(self.now, text);
    }
}
