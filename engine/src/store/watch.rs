//! A watch: the changes under a prefix, batch by batch, from a [`ChangeSource`].

use async_trait::async_trait;

use super::{Change, StoreError};

/// The source of a watch's changes. `next` must lose nothing if its future is dropped.
#[async_trait]
pub(super) trait ChangeSource: Send {
    /// The next batch, or the reason for which there will be none.
    async fn next(&mut self) -> Result<Vec<Change>, StoreError>;
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    source: Box<dyn ChangeSource>,
    ended: Option<StoreError>,
}

impl Watch {
    pub(super) fn new(source: impl ChangeSource + 'static) -> Self {
        Self { source: Box::new(source), ended: None }
    }

    /// Waits for the next changes: in order, and at least one. An error ends the watch. Then read again and watch anew.
    pub async fn next(&mut self) -> Result<Vec<Change>, StoreError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        match self.source.next().await {
            Ok(changes) => Ok(changes),
            Err(error) => {
                self.ended = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("ended", &self.ended).finish_non_exhaustive()
    }
}
