//! The gateway's side of the pipeline: it holds the state of every sequence and decides what the stages compute.

mod batch_timeout;
pub(crate) mod conductor;
mod draft;
mod driver;
mod embedding;
pub(crate) mod event;
mod fault;
mod flight;
mod handle;
mod holdings;
mod kv_ledger;
mod ledger;
mod meter;
mod prefix_hash;
mod scheduler;
mod sequence;
mod step_cost;
pub(crate) mod token_rules;

pub use fault::PipelineFault;
pub use handle::{PipelineError, PipelineHandle, PipelineSettings};
pub use ledger::BlockLedger;
pub use prefix_hash::PrefixHash;
pub use scheduler::{Batch, Counts, Scheduler, SequenceEvents, Shape};
pub use sequence::StageLabel;
