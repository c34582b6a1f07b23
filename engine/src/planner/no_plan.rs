//! The reason for which the stages of a cluster can make no placement, and the remedies: shown to operators. Pure.

use std::fmt;

use schema::StageName;
use schema::record::ModelRecord;

use super::{Candidate, PlanError, Remedies, fits, in_order, pins};
use crate::view::ClusterView;

/// Stages named that do not count. More would hide the reason itself.
const UNUSABLE_NAMED_MAX: usize = 4;

/// The reason for which a cluster has no plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPlan {
    /// The planner's reason.
    pub error: PlanError,
    /// Changes of which each one alone would make a plan possible.
    pub remedies: Remedies,
    /// Stages that exist and do not count.
    pub unusable_stages: Vec<UnusableStage>,
}

/// A stage that a plan cannot count on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnusableStage {
    /// It is about to stop.
    Leaving(StageName),
    /// It crashed again and again, and waits before it joins.
    Crashed {
        /// The stage.
        stage: StageName,
        /// Its starts since it last ran for a while.
        starts: u32,
        /// The wait before it joins, in seconds.
        wait_s: u64,
    },
}

// === impl NoPlan ===

impl NoPlan {
    /// The reason for which the stages of `view` can make no plan for `model`. `None` if they can.
    pub fn find(view: &ClusterView, model: &ModelRecord) -> Option<Self> {
        let found = view.stages.len();
        let too_few = view.placement.is_none() && model.stages_min > 1 && found < model.stages_min as usize;
        let placed = view.placement.as_ref().map(|placement| placement.value.shards()).unwrap_or_default();
        let (candidates, _) = pins::apply(view, model, in_order(view.staying(), placed), placed);
        let error = if too_few {
            PlanError::TooFewStages { found, expected: model.stages_min }
        } else {
            refine(fits(model, &candidates).err()?, view)
        };
        let remedies = remedies(&error, model, &candidates);
        Some(Self { error, remedies, unusable_stages: unusable_stages(view) })
    }
}

/// A plan's error, with the part of its cause that only the view shows.
pub(super) fn refine(error: PlanError, view: &ClusterView) -> PlanError {
    match error {
        PlanError::NoStage if !view.stages.is_empty() => {
            PlanError::Leaving { stages: view.stages.keys().cloned().collect() }
        }
        error => error,
    }
}

fn remedies(error: &PlanError, model: &ModelRecord, candidates: &[Candidate]) -> Remedies {
    match error {
        PlanError::Memory(_) => Remedies::new(model, candidates),
        _ => Remedies::default(),
    }
}

fn unusable_stages(view: &ClusterView) -> Vec<UnusableStage> {
    let leaving = view.stages.iter().filter(|(_, stage)| stage.value.leaving);
    let leaving = leaving.map(|(stage, _)| UnusableStage::Leaving(stage.clone()));
    let crashed =
        view.starts.iter().filter(|(stage, starts)| starts.value.wait_s > 0 && !view.stages.contains_key(*stage));
    let crashed = crashed.map(|(stage, starts)| UnusableStage::Crashed {
        stage: stage.clone(),
        starts: starts.value.starts,
        wait_s: starts.value.wait_s,
    });
    leaving.chain(crashed).take(UNUSABLE_NAMED_MAX).collect()
}

impl fmt::Display for NoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        if !self.remedies.is_empty() {
            write!(f, "; what would help: {}", self.remedies)?;
        }
        // If all stages are leaving, the reason names them.
        let is_named = matches!(self.error, PlanError::Leaving { .. });
        let others =
            self.unusable_stages.iter().filter(|stage| !(is_named && matches!(stage, UnusableStage::Leaving(_))));
        others.into_iter().try_for_each(|stage| write!(f, "; {stage}"))
    }
}

impl fmt::Display for UnusableStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaving(stage) => write!(f, "stage {stage} is about to leave and does not count"),
            Self::Crashed { stage, starts, wait_s } => {
                write!(f, "stage {stage} was started {starts} times lately and waits {wait_s} s before it joins")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::record::{Pin, StartsRecord};

    use super::*;
    use crate::testing::{model, name, stage};
    use crate::view::Versioned;

    fn versioned<T>(value: T) -> Versioned<T> {
        Versioned { value, mod_revision: 7 }
    }

    fn view(stages: &[(&str, u64)]) -> ClusterView {
        let stages = stages.iter().map(|(stage_name, budget)| (name(stage_name), versioned(stage(*budget))));
        ClusterView { stages: stages.collect(), ..ClusterView::default() }
    }

    /// Four layers of 1 MiB, and 1 KiB of keys and values per token and layer.
    fn megabytes(stages_min: u32) -> ModelRecord {
        ModelRecord {
            kv_bytes_per_token_layer: 1024,
            scratch_bytes: 1 << 19,
            stages_min,
            ..model(&[1 << 20; 4], 1 << 20)
        }
    }

    fn found(view: &ClusterView, model: &ModelRecord) -> String {
        NoPlan::find(view, model).expect("no plan").to_string()
    }

    #[test]
    fn a_memory_shortage_is_named_with_its_remedies() {
        insta::assert_snapshot!(found(&view(&[("a", 3 << 20), ("b", 3 << 20)]), &megabytes(1)),
            @"the model needs 10.0 MiB (weights 5.0 MiB, keys and values of 1024 tokens as f16 4.0 MiB, scratch 512.0 \
            KiB on each of 2 stages), the stages offer 6.0 MiB (a 3.0 MiB, b 3.0 MiB): 4.0 MiB are missing; what \
            would help: one more stage that may use 9.5 MiB"
        );
        assert_eq!(NoPlan::find(&view(&[("a", 8 << 20), ("b", 8 << 20)]), &megabytes(1)), None);
    }

    #[test]
    fn too_few_stages_are_waited_for_only_before_the_first_placement() {
        insta::assert_snapshot!(found(&view(&[("a", 9 << 20)]), &megabytes(2)),
            @"1 of at least 2 stages has joined: the first placement waits for 1 more"
        );
        insta::assert_snapshot!(found(&view(&[]), &megabytes(1)),
            @"no stage has joined"
        );
    }

    #[test]
    fn stages_that_do_not_count_are_named() {
        let mut view = view(&[("a", 9 << 20), ("b", 3 << 20)]);
        view.stages.get_mut(&name("a")).unwrap().value.leaving = true;
        view.starts.insert(name("c"), versioned(StartsRecord { starts: 5, wait_s: 2 }));
        insta::assert_snapshot!(found(&view, &megabytes(1)),
            @"the model needs 9.5 MiB (weights 5.0 MiB, keys and values of 1024 tokens as f16 4.0 MiB, scratch 512.0 \
            KiB), the stage offers 3.0 MiB (b 3.0 MiB): 6.5 MiB are missing; what would help: one more stage that may \
            use 9.5 MiB; stage a is about to leave and does not count; stage c was started 5 times lately and waits 2 \
            s before it joins"
        );
        view.stages.remove(&name("b"));
        insta::assert_snapshot!(found(&view, &megabytes(1)),
            @"every stage is about to leave: a; stage c was started 5 times lately and waits 2 s before it joins"
        );
        // A stage that has joined after all counts.
        view.stages.insert(name("c"), versioned(stage(20 << 20)));
        assert_eq!(NoPlan::find(&view, &megabytes(1)), None);
    }

    #[test]
    fn a_pin_that_leaves_no_stage_is_not_obeyed_and_never_the_reason() {
        let mut view = view(&[("a", 20 << 20)]);
        view.pins.insert(name("a"), versioned(Pin::Excluded));
        assert_eq!(NoPlan::find(&view, &megabytes(1)), None);
    }

    #[test]
    fn a_thousand_stages_and_two_hundred_layers_take_some_milliseconds() {
        let names: Vec<_> = (0..1000).map(|at| format!("s{at:04}")).collect();
        let stages: Vec<_> = names.iter().map(|name| (name.as_str(), 3_u64 << 20)).collect();
        let model = ModelRecord { layers: 200, layer_bytes: vec![4 << 20; 200], ..megabytes(1) };
        let started = std::time::Instant::now();
        let no_plan = NoPlan::find(&view(&stages), &model).unwrap();
        assert!(no_plan.remedies.one_more_bytes.is_some());
        assert!(started.elapsed() < std::time::Duration::from_millis(250), "{:?}", started.elapsed());
    }
}
