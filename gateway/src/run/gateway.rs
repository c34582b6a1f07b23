//! `baton gateway`.

use super::RunError;
use crate::settings::GatewaySettings;

/// Runs `baton gateway` until it is told to stop.
///
/// # Errors
/// [`RunError`] says why it could not start or go on.
pub async fn gateway(settings: GatewaySettings) -> Result<(), RunError> {
    tracing::debug!(?settings, "settings resolved");
    Err(RunError::NotWired)
}
