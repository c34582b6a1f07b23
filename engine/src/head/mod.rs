//! The gateway's side of the pipeline: it keeps the truth of every sequence and decides what the stages compute.

pub(crate) mod conductor;
mod draft;
mod driver;
mod fault;
mod flight;
mod handle;
mod holdings;
mod ledger;
mod meter;
mod patience;
mod scheduler;
mod sequence;
mod step_cost;

pub use fault::Fault;
pub use handle::{Head, HeadError, HeadSettings};
pub use ledger::{BlockLedger, Chain};
pub use scheduler::{Batch, Counts, Happened, Scheduler, Shape};
pub use sequence::StageLabel;
