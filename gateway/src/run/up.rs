//! `baton up`.

use super::RunError;
use crate::settings::UpSettings;

/// Runs `baton up` until it is told to stop.
///
/// # Errors
/// [`RunError`] says why it could not start or go on.
pub async fn up(settings: UpSettings) -> Result<(), RunError> {
    tracing::debug!(?settings, "settings resolved");
    Err(RunError::NotWired)
}
