//! Which frames a stage takes. Pure.
//!
//! A frame is for one generation and one slot, and the steps of an epoch come without a gap: a step that is skipped
//! means keys and values that were never written, so nothing after it may be computed.

use std::collections::BTreeMap;

use schema::frame::Hop;
use schema::record::Share;
use schema::{Epoch, Generation, Step};

use crate::share::Pool;

/// What to do with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Compute it.
    Take,
    /// Drop it: a zombie's, a latecomer or a duplicate. Nobody waits for it.
    Drop(&'static str),
    /// Tell the gateway that it cannot be computed.
    Refuse(String),
    /// Tell the gateway that its epoch is older than this one. A zombie is not told: the answer goes to whoever has its slot.
    Behind(Epoch),
}

/// What came from each gateway so far.
#[derive(Debug, Default)]
pub(super) struct FrameGate {
    gateways: BTreeMap<u32, (Epoch, Step)>,
}

// === impl FrameGate ===

impl FrameGate {
    /// Forgets all gateways: the shard was loaded anew.
    pub(super) fn reset(&mut self) {
        self.gateways.clear();
    }

    /// Judges a frame for the shard in `slot` of `generation`, which takes rows of `hidden` values (0: token ids); `share` is
    /// what the frame's gateway has of the `pool`, as the store shows it.
    ///
    /// What the store shows of shares never overlaps, and a stage sees it change in the store's order. So whatever it
    /// computes after it has seen that a block is another gateway's, is not the former one's; and what that one wrote before
    /// is never read, since a gateway takes nothing for known in a block that it has got.
    pub(super) fn judge(
        &mut self,
        hop: &Hop,
        (generation, slot, hidden): (Generation, u32, u32),
        (pool, share): (Pool, Option<Share>),
    ) -> Verdict {
        if hop.generation != generation {
            return Verdict::Drop("another generation");
        }
        if hop.slot != slot {
            return Verdict::Drop("another slot");
        }
        let Some(share) = share else { return Verdict::Drop("a gateway that is not in the store") };
        let known = self.gateways.get(&hop.gateway).copied();
        let expected = match known {
            Some((epoch, _)) if hop.epoch < epoch => return Verdict::Behind(epoch),
            Some((epoch, next)) if hop.epoch == epoch => next,
            _ => Step(0),
        };
        if hop.step < expected {
            return Verdict::Drop("a duplicate");
        }
        if hop.step > expected {
            return Verdict::Refuse(format!("step {} came: expected step {expected} of this epoch", hop.step));
        }
        if let Some(block) = pool.foreign(hop, share) {
            return Verdict::Refuse(format!("block {block} came: expected those of the gateway's own share, {share}"));
        }
        if hop.hidden != hidden {
            return Verdict::Refuse(format!("rows of {} values: expected {hidden}", hop.hidden));
        }
        self.gateways.insert(hop.gateway, (hop.epoch, expected.next()));
        Verdict::Take
    }
}

#[cfg(test)]
mod tests {
    use schema::frame::{Sampling, Slice};
    use schema::{Attempt, SequenceId};

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

    fn pool() -> Pool {
        Pool::new(&testing::model(&[1; 4], 0))
    }

    #[test]
    fn blocks_of_others_and_gateways_that_are_gone_are_not_computed_for() {
        let mut frame_gate = FrameGate::default();
        let slice = |blocks: Vec<u32>| Slice {
            sequence: SequenceId(1),
            attempt: Attempt(0),
            position: 0,
            count: 1,
            tokens: vec![],
            blocks,
            logits: vec![],
            sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, choice: 0 },
        };
        // 32 blocks, of which two are this gateway's.
        let foreign = Hop { slices: vec![slice(vec![1]), slice(vec![0, 2])], ..hop(3, 1, 0) };
        assert!(matches!(judge(&mut frame_gate, &foreign), Verdict::Refuse(_)));
        let own = Hop { slices: vec![slice(vec![1, 0])], ..hop(3, 1, 0) };
        let gone = frame_gate.judge(&own, (Generation(3), 1, 8), (pool(), None));
        assert_eq!(gone, Verdict::Drop("a gateway that is not in the store"));
        assert_eq!(judge(&mut frame_gate, &own), Verdict::Take);
    }

    fn judge(frame_gate: &mut FrameGate, hop: &Hop) -> Verdict {
        frame_gate.judge(hop, (Generation(3), 1, 8), (pool(), Some(Share::of(0..2))))
    }

    #[test]
    fn steps_of_an_epoch_are_taken_once_and_in_order() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 0)), Verdict::Take);
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 1)), Verdict::Take);
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 1)), Verdict::Drop("a duplicate"));
        assert!(matches!(judge(&mut frame_gate, &hop(3, 1, 3)), Verdict::Refuse(_)), "a gap was computed over");
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 2)), Verdict::Take);
    }

    #[test]
    fn a_new_epoch_begins_at_step_zero_and_ends_the_old_one() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 0)), Verdict::Take);
        assert!(matches!(judge(&mut frame_gate, &hop(3, 2, 1)), Verdict::Refuse(_)));
        assert_eq!(judge(&mut frame_gate, &hop(3, 2, 0)), Verdict::Take);
        assert_eq!(judge(&mut frame_gate, &hop(3, 1, 1)), Verdict::Behind(Epoch(2)));
    }

    #[test]
    fn another_generation_slot_or_width_is_not_computed() {
        let mut frame_gate = FrameGate::default();
        assert_eq!(judge(&mut frame_gate, &hop(2, 1, 0)), Verdict::Drop("another generation"));
        assert_eq!(judge(&mut frame_gate, &hop(4, 1, 0)), Verdict::Drop("another generation"));
        assert_eq!(judge(&mut frame_gate, &Hop { slot: 0, ..hop(3, 1, 0) }), Verdict::Drop("another slot"));
        assert!(matches!(judge(&mut frame_gate, &Hop { hidden: 9, ..hop(3, 1, 0) }), Verdict::Refuse(_)));
    }
}
