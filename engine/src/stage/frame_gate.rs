//! Admission of frames to a stage. Pure.
//!
//! A frame is for one generation and one slot, and the steps of an epoch come without a gap. If a step is missing, keys
//! and values were never written, so no later step may be computed.

use std::collections::BTreeMap;

use schema::frame::Hop;
use schema::record::Share;
use schema::{ClaimId, Epoch, Step};

use crate::share::Pool;

/// The decision about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Compute it.
    Take,
    /// Drop it: it comes from a replaced process, it is late, or it is a duplicate. No gateway waits for it.
    Drop(&'static str),
    /// Refuse it: the gateway learns that it cannot be computed.
    Refuse(String),
    /// Refuse it: its epoch is older than this one. The answer goes to the gateway that now has the slot, which may be
    /// another one than the sender.
    StaleEpoch(Epoch),
}

/// The shard that frames are for, and the gateway that they come from.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) id: ClaimId,
    /// Values of a row that the shard takes. 0: it takes token ids.
    pub(super) hidden: u32,
    /// The blocks of keys and values.
    pub(super) pool: Pool,
    /// The part of them that the gateway has, as the store shows it. `None` if the store shows no such gateway.
    pub(super) share: Option<Share>,
    /// The newest epoch that the gateway may have begun, as the store shows it.
    pub(super) newest: Epoch,
}

/// For each gateway, its epoch and next step.
#[derive(Debug, Default)]
pub(super) struct FrameGate {
    gateways: BTreeMap<u32, (Epoch, Step)>,
}

// === impl FrameGate ===

impl FrameGate {
    /// Forgets all gateways, because the shard was loaded anew.
    pub(super) fn reset(&mut self) {
        self.gateways.clear();
    }

    /// Checks a frame.
    ///
    /// Shares in the store never overlap, and a stage sees them change in the store's order. So once a stage has seen
    /// that a block belongs to another gateway, it computes nothing of the former owner in that block. Earlier contents
    /// are never read, because a gateway treats a block that it gains as empty.
    pub(super) fn check(&mut self, hop: &Hop, expected: &Expected) -> Verdict {
        let Expected { id, hidden, pool, share, newest } = expected;
        if hop.generation != id.generation {
            return Verdict::Drop("another generation");
        }
        if hop.slot != id.slot {
            return Verdict::Drop("another slot");
        }
        let Some(share) = *share else { return Verdict::Drop("a gateway that is not in the store") };
        let known = self.gateways.get(&hop.gateway).copied();
        let next = match known {
            Some((epoch, _)) if hop.epoch < epoch => return Verdict::StaleEpoch(epoch),
            Some((epoch, next)) if hop.epoch == epoch => next,
            _ => Step(0),
        };
        if hop.step < next {
            return Verdict::Drop("a duplicate");
        }
        if hop.step > next {
            return Verdict::Refuse(format!("step {} came: expected step {next} of this epoch", hop.step));
        }
        if let Some(block) = pool.foreign_block(hop, share) {
            return Verdict::Refuse(format!("block {block} came: expected those of the gateway's own share, {share}"));
        }
        if hop.hidden != *hidden {
            return Verdict::Refuse(format!("rows of {} values: expected {hidden}", hop.hidden));
        }
        // Otherwise a made-up epoch would end those of the gateway, which could not go above it.
        if known.is_none_or(|(epoch, _)| hop.epoch > epoch) && hop.epoch > *newest {
            return Verdict::Refuse(format!("epoch {} came: expected {newest} at most, by the store", hop.epoch));
        }
        self.gateways.insert(hop.gateway, (hop.epoch, next.next()));
        Verdict::Take
    }
}

#[cfg(test)]
mod tests {
    use schema::frame::Slice;
    use schema::{Generation, SequenceId};

    use super::*;
    use crate::testing;

    fn hop(generation: u64, epoch: u64, step: u64) -> Hop {
        Hop {
            generation: Generation(generation),
            gateway: 0,
            epoch: Epoch(epoch),
            step: Step(step),
            slot: 1,
            rows: 1,
            hidden: 8,
            slices: vec![],
            spent: vec![],
        }
    }

    fn expected() -> Expected {
        let (id, pool) = (ClaimId::new(Generation(3), 1), Pool::new(&testing::model(&[1; 4], 0), 0));
        Expected { id, hidden: 8, pool, share: Some(Share::of(0..2)), newest: Epoch(9) }
    }

    #[test]
    fn foreign_blocks_and_unknown_gateways_are_not_computed() {
        let mut frame_gate = FrameGate::default();
        let slice = |blocks: Vec<u32>| Slice { position: 0, count: 1, blocks, ..Slice::empty(SequenceId(1)) };
        // 32 blocks, of which two are this gateway's.
        let foreign = Hop { slices: vec![slice(vec![1]), slice(vec![0, 2])], ..hop(3, 1, 0) };
        assert!(matches!(check(&mut frame_gate, &foreign), Verdict::Refuse(_)));
        let own = Hop { slices: vec![slice(vec![1, 0])], ..hop(3, 1, 0) };
        let gone = frame_gate.check(&own, &Expected { share: None, ..expected() });
        assert_eq!(gone, Verdict::Drop("a gateway that is not in the store"));
        assert_eq!(check(&mut frame_gate, &own), Verdict::Take);
    }

    fn check(frame_gate: &mut FrameGate, hop: &Hop) -> Verdict {
        frame_gate.check(hop, &expected())
    }

    #[test]
    fn steps_of_an_epoch_are_taken_once_and_in_order() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 0)), Verdict::Take);
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 1)), Verdict::Take);
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 1)), Verdict::Drop("a duplicate"));
        assert!(matches!(check(&mut frame_gate, &hop(3, 1, 3)), Verdict::Refuse(_)), "a gap was computed over");
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 2)), Verdict::Take);
    }

    #[test]
    fn a_new_epoch_begins_at_step_zero_and_ends_the_old_one() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 0)), Verdict::Take);
        assert!(matches!(check(&mut frame_gate, &hop(3, 2, 1)), Verdict::Refuse(_)));
        assert_eq!(check(&mut frame_gate, &hop(3, 2, 0)), Verdict::Take);
        assert_eq!(check(&mut frame_gate, &hop(3, 1, 1)), Verdict::StaleEpoch(Epoch(2)));
    }

    #[test]
    fn an_epoch_that_the_store_does_not_show_is_refused_and_ends_none() {
        let mut frame_gate = FrameGate::default();
        assert!(matches!(check(&mut frame_gate, &hop(3, u64::MAX, 0)), Verdict::Refuse(_)));
        assert_eq!(check(&mut frame_gate, &hop(3, 9, 0)), Verdict::Take);
        assert!(matches!(check(&mut frame_gate, &hop(3, 10, 0)), Verdict::Refuse(_)));
        assert_eq!(check(&mut frame_gate, &hop(3, 9, 1)), Verdict::Take, "it was taken before");
        // The store lost its data and shows less now: what runs goes on.
        let less = Expected { newest: Epoch(1), ..expected() };
        assert_eq!(frame_gate.check(&hop(3, 9, 2), &less), Verdict::Take);
    }

    #[test]
    fn another_generation_slot_or_width_is_not_computed() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(check(&mut frame_gate, &hop(2, 1, 0)), Verdict::Drop("another generation"));
        assert_eq!(check(&mut frame_gate, &hop(4, 1, 0)), Verdict::Drop("another generation"));
        assert_eq!(check(&mut frame_gate, &Hop { slot: 0, ..hop(3, 1, 0) }), Verdict::Drop("another slot"));
        assert!(matches!(check(&mut frame_gate, &Hop { hidden: 9, ..hop(3, 1, 0) }), Verdict::Refuse(_)));
    }
}
