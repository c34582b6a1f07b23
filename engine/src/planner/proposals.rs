//! The proposals for the newest views, each made once, however many decisions ask for it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use schema::record::{ModelRecord, Shard};
use schema::{LayerRange, StageName};

use super::Proposal;
use super::standby::{plans_after_losses, standby_ranges};
use crate::view::ClusterView;

/// Makes proposals and keeps those for the views that were asked about last. Clones share them: every stage makes the
/// same proposal from the same view, so the stages of a simulator may have it from one of them.
#[derive(Clone)]
pub(crate) struct Proposals(Arc<Mutex<Kept>>);

struct Kept {
    views_max: usize,
    /// The newest last.
    views: VecDeque<Made>,
}

/// The proposals for one view.
struct Made {
    view: Arc<ClusterView>,
    /// Without moves for speed alone, and with them.
    proposals: [Option<Arc<Proposal>>; 2],
    after_losses: Option<Vec<Vec<Shard>>>,
}

// === impl Proposals ===

impl Proposals {
    /// None yet. Those for the last `views_max` views will be kept.
    pub(crate) fn keeping(views_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Kept { views_max, views: VecDeque::new() })))
    }

    /// [`Proposal::new`] of this view.
    pub(crate) fn of(&self, view: &Arc<ClusterView>, model: &ModelRecord, speed_moves: bool) -> Arc<Proposal> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let proposal = &mut kept.about(view).proposals[usize::from(speed_moves)];
        proposal.get_or_insert_with(|| Arc::new(Proposal::new(view, model, speed_moves))).clone()
    }

    /// The ranges that a stage without layers would get if one of the others were lost, the likeliest first.
    pub(crate) fn standby_ranges(
        &self,
        view: &Arc<ClusterView>,
        model: &ModelRecord,
        me: &StageName,
    ) -> Vec<LayerRange> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let plans = &mut kept.about(view).after_losses;
        standby_ranges(plans.get_or_insert_with(|| plans_after_losses(view, model)), me)
    }
}

impl Default for Proposals {
    /// For one process, which asks about its newest view only.
    fn default() -> Self {
        Self::keeping(1)
    }
}

// === impl Kept ===

impl Kept {
    /// The proposals for this view, in the place of the oldest ones if they are new.
    fn about(&mut self, view: &Arc<ClusterView>) -> &mut Made {
        let known = self.views.iter().position(|made| Arc::ptr_eq(&made.view, view));
        let at = known.unwrap_or_else(|| {
            if self.views.len() >= self.views_max {
                self.views.pop_front();
            }
            self.views.push_back(Made { view: view.clone(), proposals: [None, None], after_losses: None });
            self.views.len() - 1
        });
        &mut self.views[at]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{model, name, stage};
    use crate::view::Versioned;

    #[test]
    fn one_view_has_one_proposal_and_another_view_its_own() {
        let (model, proposals) = (model(&[10; 4], 0), Proposals::keeping(2));
        let view = |stages: &[&str]| {
            let versioned = |at: &&str| (name(at), Versioned { value: stage(1000), mod_revision: 1 });
            Arc::new(ClusterView { stages: stages.iter().map(versioned).collect(), ..ClusterView::default() })
        };
        let views = [view(&["a"]), view(&["a", "b"]), view(&["c"])];
        let first = proposals.of(&views[0], &model, false);
        assert_eq!(*first, Proposal::new(&views[0], &model, false));
        assert_eq!(*proposals.of(&views[1], &model, true), Proposal::new(&views[1], &model, true));
        assert!(Arc::ptr_eq(&first, &proposals.clone().of(&views[0], &model, false)));
        assert_eq!(*proposals.of(&views[2], &model, false), Proposal::new(&views[2], &model, false));
        assert_eq!(proposals.0.lock().unwrap().views.len(), 2);
    }
}
