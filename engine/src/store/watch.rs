//! A watch: the changes under a prefix, batch by batch. Where they come from is the source's affair.

use async_trait::async_trait;

use super::{Change, StoreError};

/// Where a watch gets its changes. `next` must lose nothing when its future is dropped.
#[async_trait]
pub(super) trait ChangeSource: Send {
    /// The next batch, or the reason why there will be none.
    async fn next(&mut self) -> Result<Vec<Change>, StoreError>;
}

/// A running watch; dropping it ends it.
pub struct Watch {
    source: Box<dyn ChangeSource>,
    ended: Option<StoreError>,
}

impl Watch {
    pub(super) fn new(source: impl ChangeSource + 'static) -> Self {
        Self { source: Box::new(source), ended: None }
    }

    /// Waits for the next changes: in order, never none. An error ends the watch: read again and watch anew.
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
