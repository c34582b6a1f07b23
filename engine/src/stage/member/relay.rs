//! The path of frames through a stage: it decides which micro-batches are computed and where their results go, and
//! reports lost ones to their gateways. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::{Chosen, Frame, HiddenState, Hop, Refusal, Spent, Tokens};
use schema::record::{RefusedFrame, StageLoad};
use schema::{Epoch, Generation, Step};
use tracing::{debug, warn};

use super::event::Order;
use crate::epochs;
use crate::limits::UPSTREAM_SILENCE_MAX;
use crate::link::{Message, Unreachable, UnreachableKind, activations_to_bytes};
use crate::route::RouteEvent;
use crate::runner::Output;
use crate::share::Pool;
use crate::stage::done::Stepped;
use crate::stage::frame_gate::{Expected, FrameGate, Verdict};
use crate::stage::held::{Held, Next};
use crate::stage::usage::StageUsage;
use crate::view::ClusterView;

/// Characters of the reason for a refusal that a stage's load has.
const REASON_CHARS_MAX: usize = 200;

/// The identity of a micro-batch, and the slot of the stage that it was sent to.
#[derive(Clone, Copy)]
struct FrameId {
    generation: Generation,
    epoch: Epoch,
    step: Step,
    slot: u32,
}

/// The state of frames in and out.
#[derive(Default)]
pub(super) struct Relay {
    gate: FrameGate,
    /// For each gateway, the newest of its micro-batches that has left this stage.
    forwarded: BTreeMap<u32, FrameId>,
    /// Gateways that the store knows and that take no answers, each with the time of the first failure.
    silent_gateways: BTreeMap<u32, Instant>,
    usage: StageUsage,
}

// === impl Relay ===

impl Relay {
    /// The stage holds another shard, or none: steps begin anew.
    pub(super) fn reset(&mut self) {
        self.gate.reset();
    }

    /// The stage holds no shard any more, and waits for none of the micro-batches that it forwarded. Under the next one
    /// it may not be the last stage, and then it finds out no more whether a gateway takes answers.
    pub(super) fn clear(&mut self) {
        self.gate.reset();
        self.forwarded.clear();
        self.forget_silent_gateways();
    }

    /// Forgets which gateways have taken no answers.
    pub(super) fn forget_silent_gateways(&mut self) {
        self.silent_gateways.clear();
    }

    /// Forgets gateways that are gone or have come back under another lease.
    pub(super) fn follow(&mut self, view: &ClusterView, last: &ClusterView) {
        self.forwarded.retain(|gateway, _| view.gateways.contains_key(gateway));
        let lease = |view: &ClusterView, slot: &u32| view.gateways.get(slot).map(|known| known.value.lease.clone());
        self.silent_gateways.retain(|slot, _| lease(view, slot).is_some_and(|now| lease(last, slot) == Some(now)));
    }

    /// Checks a message that came while the stage held `held`, and counts it if it is not used.
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
        let pool = model.map_or(Pool::default(), |model| Pool::new(model, held.kv_blocks()));
        let gateway = view.gateways.get(&hop.gateway);
        let (share, newest) = (gateway.map(|gateway| gateway.value.share), gateway.map(epochs::newest_taken));
        let expected = Expected { id: held.id(), hidden, pool, share, newest: newest.unwrap_or_default() };
        // They would spoil the keys and values, and be noticed by the last stage only.
        if hop.generation == held.generation && !are_finite(&activations) {
            return refuse(&hop, "rows with values that are not finite came".to_owned(), false, view, load);
        }
        match self.gate.check(&hop, &expected) {
            Verdict::Drop(reason) => drop_frame(reason, load),
            Verdict::Refuse(reason) => refuse(&hop, reason, true, view, load),
            Verdict::StaleEpoch(known) => {
                let reason = format!("epoch {} came: expected {known} or a later one", hop.epoch);
                count_refused(&reason, load);
                refusal(hop.gateway, FrameId::of(&hop), reason, true, known, view)
            }
            // A new epoch uses the same link, which may carry another gateway's micro-batches.
            Verdict::Take => Some(Order::Compute(hop, activations)),
        }
    }

    /// A micro-batch was computed, or could not be: sends its result on.
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
        let id = FrameId::of(&hop);
        hop.spent.push(Spent { slot: hop.slot, rows: hop.rows, compute_us: micros(compute), queue_us: micros(queue) });
        match (output, held.next(view)) {
            (Ok(None), Next::Gateway) => self.answer(hop, id, Vec::new(), Vec::new(), view),
            (Ok(None), Next::Stage { slot, endpoint }) => {
                Some(self.forward(Hop { slot, ..hop }, id, endpoint, Bytes::new(), view))
            }
            (Err(error), _) => refuse(&hop, error.to_string(), false, view, load),
            (Ok(Some(Output::Tokens { chosen, hidden_states })), Next::Gateway) => {
                self.answer(hop, id, chosen, hidden_states, view)
            }
            (Ok(Some(Output::Activations(rows))), Next::Stage { slot, endpoint }) => {
                Some(self.forward(Hop { slot, ..hop }, id, endpoint, activations_to_bytes(&rows), view))
            }
            (Ok(_), next) => refuse(&hop, format!("no way on from here: {next:?}"), true, view, load),
        }
    }

    /// The last stage's answer to a micro-batch.
    fn answer(
        &mut self,
        hop: Hop,
        id: FrameId,
        chosen: Vec<Chosen>,
        hidden_states: Vec<HiddenState>,
        view: &ClusterView,
    ) -> Option<Order> {
        let Hop { generation, epoch, step, spent, gateway, .. } = hop;
        self.forwarded.insert(gateway, id);
        answer(gateway, Frame::Tokens(Tokens { generation, epoch, step, chosen, spent, hidden_states }), view)
    }

    /// A micro-batch for the next stage, whose slot is in `hop`. `id` names it as it came.
    fn forward(
        &mut self,
        mut hop: Hop,
        id: FrameId,
        endpoint: String,
        activations: Bytes,
        view: &ClusterView,
    ) -> Order {
        self.forwarded.insert(hop.gateway, id);
        hop.hidden = view.model.as_ref().map_or(0, |model| model.value.hidden);
        hop.slices.iter_mut().for_each(|slice| slice.tokens = Vec::new());
        Order::Forward { endpoint, hop, activations }
    }

    /// Reports to the gateways the micro-batches that were lost on the route to the next stage.
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
                // The frame names the next stage's slot, but this stage refuses it.
                let id = FrameId { slot, ..FrameId::of(hop) };
                refusal(hop.gateway, id, reason, true, Epoch(0), view).into_iter().collect()
            }
            RouteEvent::Broke { .. } => {
                let forwarded = std::mem::take(&mut self.forwarded);
                forwarded.iter().filter_map(|(gateway, id)| report_lost(*gateway, *id, view)).collect()
            }
            RouteEvent::Gone(_) => Vec::new(),
        }
    }

    /// Handles the outcome of an answer to the gateway in `slot`. Returns the changes of the stage's record that
    /// follow.
    pub(super) fn upstream(&mut self, slot: u32, event: RouteEvent, view: &ClusterView, now: Instant) -> Upstream {
        match event {
            RouteEvent::Sent { frame, waited, round_trip, .. } => {
                self.silent_gateways.remove(&slot);
                let is_tokens = matches!(frame, Frame::Tokens(_));
                if is_tokens {
                    self.usage.sent(0, waited);
                }
                Upstream { trouble: Some(None), round_trip: round_trip.filter(|_| is_tokens), order: None }
            }
            RouteEvent::Unsent { endpoint, cause, found, .. } => {
                warn!(gateway = slot, cause, "cannot answer the gateway");
                match &found {
                    Some(Unreachable { kind: UnreachableKind::Silence | UnreachableKind::Barred, .. }) => {
                        self.silent_gateways.entry(slot).or_insert(now);
                    }
                    _ => drop(self.silent_gateways.remove(&slot)),
                }
                let trouble = found
                    .map(|found| format!("it cannot bring answers to gateway {slot} at {endpoint}: {}", found.cause));
                Upstream { trouble: Some(trouble), round_trip: None, order: None }
            }
            RouteEvent::Broke { .. } | RouteEvent::Gone(_) => {
                let order = self.forwarded.remove(&slot).and_then(|id| report_lost(slot, id, view));
                Upstream { trouble: None, round_trip: None, order }
            }
        }
    }

    /// A gateway that has taken no answers for [`UPSTREAM_SILENCE_MAX`], though the store knows it. Each is returned
    /// once.
    pub(super) fn take_silent_gateway(&mut self, now: Instant) -> Option<u32> {
        let is_late = |since: &Instant| now.saturating_duration_since(*since) >= UPSTREAM_SILENCE_MAX;
        let gateway = *self.silent_gateways.iter().find(|(_, since)| is_late(since))?.0;
        self.silent_gateways.clear();
        Some(gateway)
    }

    /// Adds the work of the `elapsed` time to `load`.
    pub(super) fn settle(&mut self, elapsed: Duration, load: &mut StageLoad) {
        self.usage.settle(elapsed, load);
    }
}

/// True if each of these f32 values is finite.
fn are_finite(activations: &[u8]) -> bool {
    const EXPONENT: u32 = 0x7f80_0000;
    let values = activations
        .chunks_exact(size_of::<f32>())
        .map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    // Without a branch for each value, it takes the time of reading them.
    values.fold(true, |finite, value| finite & (value & EXPONENT != EXPONENT))
}

/// The consequences of an event on the route to a gateway.
pub(super) struct Upstream {
    /// The record's new trouble. `None` if it stays as it is.
    pub(super) trouble: Option<Option<String>>,
    pub(super) round_trip: Option<Duration>,
    pub(super) order: Option<Order>,
}

/// Counts a frame that is not used. No gateway waits for it.
pub(super) fn drop_frame(reason: &str, load: &mut StageLoad) -> Option<Order> {
    count_refused(reason, load);
    debug!(reason, "a frame was refused");
    None
}

/// Counts a frame that was refused. Whoever received it knows the sender.
fn count_refused(reason: &str, load: &mut StageLoad) {
    load.frames_refused += 1;
    load.frame_refused =
        Some(RefusedFrame { from: String::new(), reason: reason.chars().take(REASON_CHARS_MAX).collect() });
}

/// Refuses `hop` because the compute thread has no room for it.
pub(super) fn overloaded(hop: &Hop, view: &ClusterView) -> Option<Order> {
    let reason = "the queue of the compute thread is full".to_owned();
    refusal(hop.gateway, FrameId::of(hop), reason, true, Epoch(0), view)
}

/// Refuses a micro-batch. `passing` is true if the cause is not the micro-batch itself.
fn refuse(hop: &Hop, reason: String, passing: bool, view: &ClusterView, load: &mut StageLoad) -> Option<Order> {
    warn!(step = %hop.step, epoch = %hop.epoch, reason, "refusing a micro-batch");
    count_refused(&reason, load);
    refusal(hop.gateway, FrameId::of(hop), reason, passing, Epoch(0), view)
}

/// Tells a gateway that a micro-batch, and those before it, may be lost.
fn report_lost(gateway: u32, id: FrameId, view: &ClusterView) -> Option<Order> {
    refusal(gateway, id, "the link it went over broke".to_owned(), true, Epoch(0), view)
}

fn refusal(
    gateway: u32,
    id: FrameId,
    reason: String,
    passing: bool,
    epoch_known: Epoch,
    view: &ClusterView,
) -> Option<Order> {
    let FrameId { generation, epoch, step, slot } = id;
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

// === impl FrameId ===

impl FrameId {
    fn of(hop: &Hop) -> Self {
        Self { generation: hop.generation, epoch: hop.epoch, step: hop.step, slot: hop.slot }
    }
}
