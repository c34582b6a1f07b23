//! `baton stage`.

use super::RunError;
use crate::settings::StageSettings;

/// Runs `baton stage` until it is told to stop.
///
/// # Errors
/// [`RunError`] says why it could not start or go on.
pub async fn stage(settings: StageSettings) -> Result<(), RunError> {
    tracing::debug!(?settings, "settings resolved");
    Err(RunError::NotWired)
}
