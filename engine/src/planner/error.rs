//! The reasons for which there is no plan, as values with the needed and the found amounts. They name no remedies:
//! those take more plans and are left to `remedies`.

use std::fmt;

use schema::record::KvRoom;
use schema::{HumanBytes, LayerRange, StageName};

/// Stages and pins that a sentence names. It counts the rest.
const NAMED_MAX: usize = 4;

/// The reason for which there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The model record contradicts itself.
    #[error("the model record has {layers} layers and the sizes of {found}: delete it and start the cluster anew")]
    BrokenModel {
        /// The number of layers that it names.
        layers: u32,
        /// The number of layers of which it has the size.
        found: usize,
    },
    /// There is no stage to give layers to.
    #[error("no stage has joined")]
    NoStage,
    /// The first placement waits for more stages.
    #[error("{found} of at least {expected} stages {} joined: the first placement waits for {} more",
        if *found == 1 { "has" } else { "have" }, u64::from(*expected).saturating_sub(*found as u64))]
    TooFewStages {
        /// The number of live stages.
        found: usize,
        /// The model record's `stages_min`.
        expected: u32,
    },
    /// Stages are live, but all of them are about to leave.
    #[error("every stage is about to leave: {}", Named(stages))]
    Leaving {
        /// Their names.
        stages: Vec<StageName>,
    },
    /// Pins keep every stage from holding layers.
    #[error("no stage is left to hold the layers beside those that pins keep from it: {}", Named(pins))]
    PinnedOut {
        /// The stages that pins keep from holding layers.
        pins: Vec<StageName>,
    },
    /// The stages have too little memory.
    #[error(transparent)]
    Memory(Box<MemoryShortage>),
    /// No stage has room for these layers next to the pinned ranges.
    #[error(
        "layers {layers} would be held by nobody: the stages that are free to take them have no room beside what is \
         pinned ({})",
        Named(pinned)
    )]
    Gap {
        /// The layers.
        layers: LayerRange,
        /// The ranges that pins give to stages.
        pinned: Vec<PinnedRange>,
    },
    /// Two stages are to hold the same layers.
    #[error("layers {layers} of stage {stage} overlap layers {others} of stage {other}")]
    Overlap {
        /// The later range.
        layers: LayerRange,
        /// The stage that is to hold it.
        stage: StageName,
        /// The earlier range.
        others: LayerRange,
        /// The stage that is to hold the earlier range.
        other: StageName,
    },
    /// A stage is to hold more than its budget.
    #[error("layers {layers} need {}: stage {stage} may use {}", HumanBytes(*needed_bytes), HumanBytes(*budget_bytes))]
    OverBudget {
        /// The layers.
        layers: LayerRange,
        /// The stage.
        stage: StageName,
        /// Memory that they take there, in bytes.
        needed_bytes: u64,
        /// Memory that the stage may use, in bytes.
        budget_bytes: u64,
    },
    /// A stage is to hold layers that the model does not have.
    #[error("stage {stage} is to hold layers {layers}: the model has layers 0..{found}")]
    NoSuchLayers {
        /// The layers.
        layers: LayerRange,
        /// The stage.
        stage: StageName,
        /// The number of layers that the model has.
        found: u32,
    },
}

/// Layers that a pin gives to a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedRange {
    /// The stage.
    pub stage: StageName,
    /// The layers.
    pub layers: LayerRange,
}

/// Memory that one stage may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The stage.
    pub stage: StageName,
    /// The most it may use, in bytes.
    pub bytes: u64,
}

/// The memory that a model needs, and the memory that stages offer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct MemoryShortage {
    /// Weights of all layers and the head, in bytes.
    pub weights_bytes: u64,
    /// Keys and values in all layers, in bytes.
    pub kv_bytes: u64,
    /// The number of tokens that those are of, and their type.
    pub kv_room: KvRoom,
    /// Scratch on each stage that holds layers, in bytes.
    pub scratch_bytes: u64,
    /// The number of stages with room for more than scratch. At least one is counted.
    pub holders: usize,
    /// The first few budgets, in the plan's order.
    pub budgets: Vec<Budget>,
    /// The number of stages, with or without a budget in that list.
    pub stages: usize,
    /// The holders' budgets together, in bytes.
    pub offered_bytes: u64,
    /// Bytes by which those are too small. 0 if only the pieces are too small, since a layer is held whole.
    pub missing_bytes: u64,
    /// Layers for which no stage has room if each stage before takes as many as it can.
    pub left: LayerRange,
    /// Memory that those take on one stage, in bytes.
    pub left_bytes: u64,
}

/// Names in a sentence: the first few, and a count of the others.
struct Named<'a, T>(&'a [T]);

// === impl MemoryShortage ===

impl MemoryShortage {
    /// Budgets that are kept for the sentence.
    pub(super) const BUDGETS_MAX: usize = NAMED_MAX;

    /// Weights, keys and values, and scratch on every holder, in bytes.
    pub fn needed_bytes(&self) -> u64 {
        let scratch = self.scratch_bytes.saturating_mul(self.holders as u64);
        self.weights_bytes.saturating_add(self.kv_bytes).saturating_add(scratch)
    }
}

impl fmt::Display for MemoryShortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KvRoom { tokens, kv_type } = self.kv_room;
        write!(
            f,
            "the model needs {} (weights {}, keys and values of {tokens} tokens as {kv_type} {}, scratch {}{}), ",
            HumanBytes(self.needed_bytes()),
            HumanBytes(self.weights_bytes),
            HumanBytes(self.kv_bytes),
            HumanBytes(self.scratch_bytes),
            if self.holders > 1 { format!(" on each of {} stages", self.holders) } else { String::new() },
        )?;
        let (plural, offered) = (if self.stages == 1 { " offers" } else { "s offer" }, HumanBytes(self.offered_bytes));
        write!(f, "the stage{plural} {offered} ({}", Named(&self.budgets))?;
        if let more @ 1.. = self.stages.saturating_sub(self.budgets.len()) {
            write!(f, " and {more} more")?;
        }
        match self.missing_bytes {
            0 => {
                let (left, bytes) = (self.left, HumanBytes(self.left_bytes));
                write!(f, "), but layers {left} find no place: a layer is held whole, and they take {bytes}")
            }
            missing => write!(f, "): {} are missing", HumanBytes(missing)),
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stage, HumanBytes(self.bytes))
    }
}

impl fmt::Display for PinnedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.stage, self.layers)
    }
}

impl<T: fmt::Display> fmt::Display for Named<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().take(NAMED_MAX).enumerate() {
            write!(f, "{}{name}", if at == 0 { "" } else { ", " })?;
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::record::KvType;

    use super::*;
    use crate::testing::name;

    fn shortage() -> MemoryShortage {
        MemoryShortage {
            weights_bytes: 138 << 20,
            kv_bytes: 360 << 20,
            kv_room: KvRoom { tokens: 65_536, kv_type: KvType::F16 },
            scratch_bytes: 13 << 20,
            holders: 2,
            budgets: ["a", "b"].map(|stage| Budget { stage: name(stage), bytes: 74 << 20 }).into(),
            stages: 2,
            offered_bytes: 148 << 20,
            missing_bytes: 376 << 20,
            left: LayerRange::new(7, 30).unwrap(),
            left_bytes: 400 << 20,
        }
    }

    #[test]
    fn a_memory_shortage_names_the_parts_of_the_need() {
        insta::assert_snapshot!(shortage(),
            @"the model needs 524.0 MiB (weights 138.0 MiB, keys and values of 65536 tokens as f16 360.0 MiB, scratch \
            13.0 MiB on each of 2 stages), the stages offer 148.0 MiB (a 74.0 MiB, b 74.0 MiB): 376.0 MiB are missing"
        );
    }

    #[test]
    fn memory_in_pieces_that_are_too_small_names_the_layers_that_are_left() {
        let one = MemoryShortage { missing_bytes: 0, holders: 1, stages: 1, ..shortage() };
        insta::assert_snapshot!(MemoryShortage { budgets: one.budgets[..1].to_vec(), ..one },
            @"the model needs 511.0 MiB (weights 138.0 MiB, keys and values of 65536 tokens as f16 360.0 MiB, scratch \
            13.0 MiB), the stage offers 148.0 MiB (a 74.0 MiB), but layers 7..30 find no place: a layer is held \
            whole, and they take 400.0 MiB"
        );
    }

    #[test]
    fn a_sentence_names_the_first_stages_and_counts_the_others() {
        insta::assert_snapshot!(MemoryShortage { stages: 1000, holders: 998, ..shortage() },
            @"the model needs 13.2 GiB (weights 138.0 MiB, keys and values of 65536 tokens as f16 360.0 MiB, scratch \
            13.0 MiB on each of 998 stages), the stages offer 148.0 MiB (a 74.0 MiB, b 74.0 MiB and 998 more): 376.0 \
            MiB are missing"
        );
        let stages = (0..6).map(|at| name(&format!("s{at}"))).collect::<Vec<_>>();
        insta::assert_snapshot!(PlanError::Leaving { stages },
            @"every stage is about to leave: s0, s1, s2, s3 and 2 more"
        );
    }

    #[test]
    fn every_other_error_has_a_sentence_of_its_own() {
        let range = |start, end| LayerRange::new(start, end).unwrap();
        insta::assert_snapshot!(PlanError::BrokenModel { layers: 4_000_000_000, found: 2 },
            @"the model record has 4000000000 layers and the sizes of 2: delete it and start the cluster anew"
        );
        insta::assert_snapshot!(PlanError::NoStage, @"no stage has joined");
        insta::assert_snapshot!(PlanError::TooFewStages { found: 1, expected: 3 },
            @"1 of at least 3 stages has joined: the first placement waits for 2 more"
        );
        insta::assert_snapshot!(PlanError::TooFewStages { found: 0, expected: 2 },
            @"0 of at least 2 stages have joined: the first placement waits for 2 more"
        );
        insta::assert_snapshot!(PlanError::Leaving { stages: vec![name("a")] }, @"every stage is about to leave: a");
        insta::assert_snapshot!(PlanError::PinnedOut { pins: vec![name("a"), name("b")] },
            @"no stage is left to hold the layers beside those that pins keep from it: a, b"
        );
        let pinned = vec![PinnedRange { stage: name("a"), layers: range(0, 5) }];
        insta::assert_snapshot!(PlanError::Gap { layers: range(5, 6), pinned },
            @"layers 5..6 would be held by nobody: the stages that are free to take them have no room beside what is \
            pinned (a 0..5)"
        );
    }
}
