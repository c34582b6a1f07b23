//! The verbs that keep running: `up`, `stage`, `gateway`. This module puts the crates together.

mod children;
mod error;
mod gateway;
mod gateway_server;
mod model;
mod reasons;
mod stage;
mod stop;
mod text;
mod up;

pub use error::RunError;
pub use gateway::gateway;
pub use stage::stage;
pub use up::up;
