//! Follows the file of API keys: keys that are added open the pages, and those that are removed no longer do, while the
//! server runs.

use std::convert::Infallible;
use std::error::Error;

use tracing::{info, warn};

use crate::http::{AccessControl, FILE_WATCH_INTERVAL, KeyRing};
use crate::settings::{ApiKeysError, KeyFile};

/// Reads `file` again whenever it changes, and gives its keys to `access`. If they cannot be used, the old ones stay.
pub(super) async fn follow(file: Option<KeyFile>, access: &AccessControl) -> Infallible {
    let Some(mut file) = file else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(FILE_WATCH_INTERVAL);
    loop {
        ticks.tick().await;
        let Some((next, found)) = look(file).await else { return std::future::pending().await };
        file = next;
        match found {
            None => {}
            Some(Ok(ring)) => {
                info!(keys = ring.names().count(), "the file of API keys has changed");
                access.replace(ring);
            }
            Some(Err(error)) => {
                let error = &error as &(dyn Error + 'static);
                warn!(error, "the file of API keys has changed and cannot be used: the old keys stay");
            }
        }
    }
}

/// One look at the file. `None` if the runtime ends.
#[expect(clippy::disallowed_methods, reason = "reads a small file, which may lie on a slow disk")]
async fn look(mut file: KeyFile) -> Option<(KeyFile, Option<Result<KeyRing, ApiKeysError>>)> {
    let looking = tokio::task::spawn_blocking(move || {
        let found = file.look();
        (file, found)
    });
    looking.await.ok()
}
