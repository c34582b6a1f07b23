//! Striking off who is gone: where nobody listens any more, the process has ended, and its lease would only say so later.

use std::collections::BTreeMap;
use std::time::Instant;

use schema::{Keyspace, StageName};

use super::writes::strike;
use crate::limits::STRIKE_AGAIN;
use crate::store::Txn;
use crate::view::ClusterView;

/// Who was struck off when: a stage that comes back is left alone for a while.
#[derive(Debug, Default)]
pub(crate) struct Strikes {
    last: BTreeMap<StageName, Instant>,
}

// === impl Strikes ===

impl Strikes {
    /// Strikes off the stage whose claim says that it takes frames at `endpoint`, where nobody listens. `None` when there
    /// is no such claim, or the stage was struck off a moment ago: then its lease has to tell.
    pub(crate) fn strike(
        &mut self,
        keyspace: &Keyspace,
        view: &ClusterView,
        endpoint: &str,
        now: Instant,
    ) -> Option<Txn> {
        self.last.retain(|_, last| now.saturating_duration_since(*last) < STRIKE_AGAIN);
        let (id, claim) = view.claims.iter().rev().find(|(_, claim)| claim.value.endpoint == endpoint)?;
        if self.last.contains_key(&claim.value.stage) {
            return None;
        }
        self.last.insert(claim.value.stage.clone(), now);
        Some(strike(keyspace, &claim.value.stage, *id, claim.mod_revision))
    }
}
