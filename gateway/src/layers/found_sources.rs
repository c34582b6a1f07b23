//! The addresses of other members that serve layers, as a task finds them in the store while a fetch asks for them.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The addresses. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct FoundSources(Arc<Found>);

#[derive(Debug, Default)]
struct Found {
    addresses: Mutex<Vec<String>>,
    wanted: Notify,
}

// === impl FoundSources ===

impl FoundSources {
    /// Waits until a fetch wants to know them.
    pub async fn wanted(&self) {
        self.0.wanted.notified().await;
    }

    /// They are these from now on.
    pub fn set(&self, addresses: Vec<String>) {
        *self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner) = addresses;
    }

    /// Asks for newer ones, and returns those that are known.
    pub(super) fn look(&self) -> Vec<String> {
        self.0.wanted.notify_one();
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
