//! A drill: an answer that is streamed twice with the same seed, once undisturbed and once with a fault in its middle,
//! and compared. It talks to a gateway as any client does, and to the operating system about processes of this machine.
//!
//! Whatever ends a drill, a frozen process goes on and a cut link is mended: [`Undo`] does that even if this process is
//! killed.

mod cluster_status;
mod error;
mod etcd;
mod fault;
mod gateway;
mod limits;
mod link_cut;
mod own_cluster;
mod plan;
mod process;
mod progress;
mod recording;
mod report;
mod run;
mod token_stream;
mod undo;
mod verdict;
mod victim;

pub use error::DrillError;
pub use fault::Fault;
pub use gateway::Gateway;
pub use limits::{DEFAULT_SEED, DEFAULT_TOKENS, TOKENS_MAX, TOKENS_MIN};
pub use own_cluster::{OwnCluster, OwnClusterSettings};
pub use plan::DrillPlan;
pub use progress::DrillProgress;
pub use report::{AnswerFigures, DrillReport};
pub use run::run;
pub use undo::Undo;
pub use verdict::{Difference, DrillVerdict};
