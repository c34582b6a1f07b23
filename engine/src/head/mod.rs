//! The gateway's side of the pipeline: it keeps the truth of every sequence and decides what the stages compute.

mod driver;
mod handle;
mod ledger;
mod scheduler;
mod sequence;

pub use handle::{Head, HeadError, HeadSettings};
pub use ledger::BlockLedger;
pub use scheduler::{Batch, Fault, Happened, Scheduler, Shape};
pub use sequence::StageLabel;
