//! Running the verbs that stay: `up`, `stage`, `gateway`.

mod gateway;
mod stage;
mod up;

pub use gateway::gateway;
pub use stage::stage;
pub use up::up;

/// Why a running verb ended badly.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The parts are not put together yet.
    #[error("not wired yet")]
    NotWired,
}
