//! The part of a runner that is the same on every device: its setup, the checks of a micro-batch, the tiles that its
//! rows are cut into, the list of a layer's tensors, and the outcome of a step.
//!
//! A runner (`cpu`, `accelerator`) adds the device's part: the storage of weights, keys and values, and the computation
//! of a tile. Nothing here computes or allocates for a device.

mod outcome;
mod setup;
mod slice_blocks;
mod tensors;
mod tile;
mod work_bounds;

pub(crate) use outcome::{Outcome, chosen, hidden_state, no_output_head, readout};
pub use setup::{RunnerSetup, SetupError};
pub(crate) use slice_blocks::SliceBlocks;
pub(crate) use tensors::{
    AttentionTensors, Backend, DenseTensors, ExpertNorms, ExpertTensors, FeedForwardTensors, GatesUps, LatentQuery,
    LatentTensors, LatentUp, LayerTensors, MixerTensors, OutputHeadTensors, PlainTensors, ShortConvTensors, SumNorm,
};
pub(crate) use tile::{RowRun, RowTile, TOKENS, TileRow};
pub(crate) use work_bounds::WorkBounds;
