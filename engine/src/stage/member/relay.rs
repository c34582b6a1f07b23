//! From frame to frame: which micro-batches are computed, where their results go, and what gateways are told of those that are
//! lost. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Chosen, Frame, Hop, Refusal, Spent, Tokens};
use schema::record::StageLoad;
use schema::{Epoch, Generation, Step};
use tracing::{debug, warn};

use super::event::Order;
use crate::limits::UNHEARD_MAX;
use crate::link::{Absence, Message, Unreachable, activations_to_bytes};
use crate::route::RouteEvent;
use crate::runner::Output;
use crate::share::Pool;
use crate::stage::compute::Stepped;
use crate::stage::frame_gate::{FrameGate, Verdict};
use crate::stage::held::{Held, Next};
use crate::stage::usage::StageUsage;
use crate::view::ClusterView;

/// A micro-batch, and the slot of the stage it was for.
#[derive(Clone, Copy)]
struct Passed {
    generation: Generation,
    epoch: Epoch,
    step: Step,
    slot: u32,
}

/// What is known of the frames that came and went.
#[derive(Default)]
pub(super) struct Relay {
    gate: FrameGate,
    /// The newest micro-batch of each gateway that has left this stage.
    passed_on: BTreeMap<u32, Passed>,
    /// Gateways that the store knows and that take no answers, and since when.
    unheard: BTreeMap<u32, Instant>,
    usage: StageUsage,
}

// === impl Relay ===

impl Relay {
    /// Another shard is held, or none: steps begin anew.
    pub(super) fn reset(&mut self) {
        self.gate.reset();
    }

    /// Nothing is held any more, and nothing that went on from here is waited for.
    pub(super) fn clear(&mut self) {
        self.gate.reset();
        self.passed_on.clear();
    }

    /// Forgets gateways that are gone, or have come back under another lease.
    pub(super) fn follow(&mut self, view: &ClusterView, last: &ClusterView) {
        self.passed_on.retain(|gateway, _| view.gateways.contains_key(gateway));
        let lease = |view: &ClusterView, slot: &u32| view.gateways.get(slot).map(|known| known.value.lease.clone());
        self.unheard.retain(|slot, _| lease(view, slot).is_some_and(|now| lease(last, slot) == Some(now)));
    }

    /// Judges a message that came while `held` was held, and counts it if it is not used.
    pub(super) fn arrived(
        &mut self,
        message: Message,
        held: Option<&Held>,
        view: &ClusterView,
        load: &mut StageLoad,
    ) -> Option<Order> {
        let Message { frame: Frame::Hop(hop), activations } = message else {
            return drop_frame("only hops come to a stage", load);
        };
        let Some(held) = held.filter(|held| held.is_ready()) else {
            return drop_frame("nothing is served here", load);
        };
        let model = view.model.as_ref().map(|model| &model.value);
        let hidden = if held.slot == 0 { 0 } else { model.map_or(0, |model| model.hidden) };
        let pool = model.map_or(Pool::default(), Pool::new);
        let share = view.gateways.get(&hop.gateway).map(|gateway| gateway.value.share);
        match self.gate.judge(&hop, (held.generation, held.slot, hidden), (pool, share)) {
            Verdict::Drop(reason) => drop_frame(reason, load),
            Verdict::Refuse(reason) => refuse(&hop, reason, true, view, load),
            Verdict::Behind(known) => {
                load.frames_refused += 1;
                let reason = format!("epoch {} came: expected {known} or a later one", hop.epoch);
                refusal(hop.gateway, Passed::of(&hop), reason, (true, known), view)
            }
            // A new epoch goes over the same link, which may carry another gateway's micro-batches.
            Verdict::Take => Some(Order::Compute(hop, activations)),
        }
    }

    /// A micro-batch was computed, or not: sends its result on.
    pub(super) fn stepped(
        &mut self,
        stepped: Stepped,
        held: Option<&Held>,
        view: &ClusterView,
        load: &mut StageLoad,
    ) -> Option<Order> {
        let Stepped { mut hop, output, compute, queue } = stepped;
        if hop.rows > 0 {
            self.usage.computed(hop.rows, queue, compute);
        }
        let held = held.filter(|held| held.generation == hop.generation)?;
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let passed = Passed::of(&hop);
        hop.spent.push(Spent { slot: hop.slot, rows: hop.rows, compute_us: micros(compute), queue_us: micros(queue) });
        match (output, held.next(view)) {
            (Ok(None), Next::Gateway) => self.answer(hop, passed, Vec::new(), view),
            (Ok(None), Next::Stage { slot, endpoint }) => {
                Some(self.forward(hop, passed, (slot, endpoint), Bytes::new(), view))
            }
            (Err(error), _) => refuse(&hop, error.to_string(), false, view, load),
            (Ok(Some(Output::Tokens(chosen))), Next::Gateway) => self.answer(hop, passed, chosen, view),
            (Ok(Some(Output::Activations(rows))), Next::Stage { slot, endpoint }) => {
                Some(self.forward(hop, passed, (slot, endpoint), activations_to_bytes(&rows), view))
            }
            (Ok(_), next) => refuse(&hop, format!("no way on from here: {next:?}"), true, view, load),
        }
    }

    /// The last stage's answer to a micro-batch.
    fn answer(&mut self, hop: Hop, passed: Passed, chosen: Vec<Chosen>, view: &ClusterView) -> Option<Order> {
        let Hop { generation, epoch, step, spent, gateway, .. } = hop;
        self.passed_on.insert(gateway, passed);
        answer(gateway, Frame::Tokens(Tokens { generation, epoch, step, chosen, spent }), view)
    }

    /// A micro-batch for the next stage.
    fn forward(
        &mut self,
        mut hop: Hop,
        passed: Passed,
        (slot, endpoint): (u32, String),
        activations: Bytes,
        view: &ClusterView,
    ) -> Order {
        self.passed_on.insert(hop.gateway, passed);
        hop.slot = slot;
        hop.hidden = view.model.as_ref().map_or(0, |model| model.value.hidden);
        hop.slices.iter_mut().for_each(|slice| slice.tokens = Vec::new());
        Order::Forward { endpoint, hop, activations }
    }

    /// Tells the gateways what was lost on the way to the next stage.
    pub(super) fn downstream(&mut self, event: &RouteEvent, slot: u32, view: &ClusterView) -> Vec<Order> {
        match event {
            RouteEvent::Sent { bytes, waited, .. } => {
                self.usage.sent(*bytes, *waited);
                Vec::new()
            }
            RouteEvent::Unsent { frame, endpoint, bytes, waited, cause, .. } => {
                self.usage.sent(*bytes, *waited);
                warn!(endpoint, cause, "cannot reach the next stage");
                let Frame::Hop(hop) = frame else { return Vec::new() };
                let next = view.claims.values().rev().find(|claim| claim.value.endpoint == *endpoint);
                let next = next.map_or("the next stage".to_owned(), |next| format!("stage {}", next.value.stage));
                let reason = format!("it cannot reach {next} at {endpoint}: {cause}");
                // The frame is addressed to the next stage; the refusal is this one's.
                let passed = Passed { slot, ..Passed::of(hop) };
                refusal(hop.gateway, passed, reason, (true, Epoch(0)), view).into_iter().collect()
            }
            RouteEvent::Broke { .. } => {
                let passed_on = std::mem::take(&mut self.passed_on);
                passed_on.iter().filter_map(|(gateway, passed)| lost(*gateway, *passed, view)).collect()
            }
            RouteEvent::Gone(_) => Vec::new(),
        }
    }

    /// Notes how an answer to the gateway in `slot` went; returns what to say of it in the store, if that changes.
    pub(super) fn upstream(&mut self, slot: u32, event: RouteEvent, view: &ClusterView, now: Instant) -> Upstream {
        match event {
            RouteEvent::Sent { frame, waited, round_trip, .. } => {
                self.unheard.remove(&slot);
                let is_tokens = matches!(frame, Frame::Tokens(_));
                if is_tokens {
                    self.usage.sent(0, waited);
                }
                Upstream { trouble: Some(None), round_trip: round_trip.filter(|_| is_tokens), order: None }
            }
            RouteEvent::Unsent { endpoint, cause, found, .. } => {
                warn!(gateway = slot, cause, "cannot answer the gateway");
                match &found {
                    Some(Unreachable { absence: Absence::Silence | Absence::Barred, .. }) => {
                        self.unheard.entry(slot).or_insert(now);
                    }
                    _ => drop(self.unheard.remove(&slot)),
                }
                let trouble = found
                    .map(|found| format!("it cannot bring answers to gateway {slot} at {endpoint}: {}", found.cause));
                Upstream { trouble: Some(trouble), round_trip: None, order: None }
            }
            RouteEvent::Broke { .. } | RouteEvent::Gone(_) => {
                let order = self.passed_on.remove(&slot).and_then(|passed| lost(slot, passed, view));
                Upstream { trouble: None, round_trip: None, order }
            }
        }
    }

    /// A gateway that has taken no answers for [`UNHEARD_MAX`], though the store knows it. Each is named once.
    pub(super) fn take_unheard(&mut self, now: Instant) -> Option<u32> {
        let is_late = |since: &Instant| now.saturating_duration_since(*since) >= UNHEARD_MAX;
        let gateway = *self.unheard.iter().find(|(_, since)| is_late(since))?.0;
        self.unheard.clear();
        Some(gateway)
    }

    /// Writes what was done in the `elapsed` time into `load`.
    pub(super) fn settle(&mut self, elapsed: Duration, load: &mut StageLoad) {
        self.usage.settle(elapsed, load);
    }
}

/// What follows from an event on the way to a gateway.
pub(super) struct Upstream {
    /// The record's new trouble; `None` if it stays as it is.
    pub(super) trouble: Option<Option<String>>,
    pub(super) round_trip: Option<Duration>,
    pub(super) order: Option<Order>,
}

/// Counts a frame that is not used; no gateway waits for it.
pub(super) fn drop_frame(reason: &str, load: &mut StageLoad) -> Option<Order> {
    load.frames_refused += 1;
    debug!(reason, "a frame was refused");
    None
}

/// Tells the gateway that the compute thread has no room for `hop`.
pub(super) fn overloaded(hop: &Hop, view: &ClusterView) -> Option<Order> {
    let reason = "the queue of the compute thread is full".to_owned();
    refusal(hop.gateway, Passed::of(hop), reason, (true, Epoch(0)), view)
}

/// Tells the gateway that a micro-batch is not computed; `passing` if the cause is not the micro-batch itself.
fn refuse(hop: &Hop, reason: String, passing: bool, view: &ClusterView, load: &mut StageLoad) -> Option<Order> {
    warn!(step = %hop.step, epoch = %hop.epoch, reason, "refusing a micro-batch");
    load.frames_refused += 1;
    refusal(hop.gateway, Passed::of(hop), reason, (passing, Epoch(0)), view)
}

/// Tells a gateway that a micro-batch, and those before it, may not arrive.
fn lost(gateway: u32, passed: Passed, view: &ClusterView) -> Option<Order> {
    refusal(gateway, passed, "the link it went over broke".to_owned(), (true, Epoch(0)), view)
}

fn refusal(
    gateway: u32,
    passed: Passed,
    reason: String,
    (passing, epoch_known): (bool, Epoch),
    view: &ClusterView,
) -> Option<Order> {
    let Passed { generation, epoch, step, slot } = passed;
    answer(gateway, Frame::Refusal(Refusal { generation, epoch, step, slot, reason, passing, epoch_known }), view)
}

/// An answer to a gateway, unless the store does not know it.
fn answer(gateway: u32, frame: Frame, view: &ClusterView) -> Option<Order> {
    let Some(known) = view.gateways.get(&gateway) else {
        warn!(gateway, "no such gateway in the store: its answer is dropped");
        return None;
    };
    Some(Order::Answer { gateway, endpoint: known.value.endpoint.clone(), frame })
}

// === impl Passed ===

impl Passed {
    fn of(hop: &Hop) -> Self {
        Self { generation: hop.generation, epoch: hop.epoch, step: hop.step, slot: hop.slot }
    }
}
