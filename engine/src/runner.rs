//! What executes a shard: the boundary between the dataflow and the arithmetic.
//!
//! The engine knows when and with what a shard runs; the runner knows how. It never sees a socket or a store.

use schema::LayerRange;
use schema::frame::{Chosen, Slice};
use schema::record::{KvRoom, MemoryUse, Speeds, StageRecord};

/// Tokens in one block of keys and values, on every stage alike.
pub const KV_BLOCK_TOKENS: u32 = 32;

/// A micro-batch as the runner sees it. Rows lie in the order of the slices.
#[derive(Debug)]
pub struct Work<'a> {
    /// The sequences; in the first stage they carry token ids.
    pub slices: &'a [Slice],
    /// `rows × hidden` activations from the stage before; empty in the first stage.
    pub activations: &'a [f32],
}

/// What a runner made of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For the next stage: `rows × hidden` activations.
    Activations(Vec<f32>),
    /// From the last stage: a token for each position that wanted one, in the order of slices and offsets.
    Tokens(Vec<Chosen>),
}

/// Why a runner did not do its work. The shard stays usable.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The work does not fit the shard.
    #[error("{field} is {found}: expected {expected}")]
    Work {
        /// What is wrong.
        field: &'static str,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Runs one shard. Lives on the stage's compute thread and keeps the keys and values of all sequences in its blocks.
///
/// 1. `step` computes each row from its token (or activation), its position and what earlier steps left in the blocks
///    of its sequence; nothing else in the micro-batch changes a bit of it.
/// 2. Steps run in the order they are given; a block may be handed to another sequence in a later step.
/// 3. After an error the blocks of the sequences in that step are undefined, all others are as before.
/// 4. `probe` takes about 10 ms at most, as a step may be waiting, and changes nothing that a later step sees.
pub trait Runner: Send {
    /// Computes one micro-batch.
    ///
    /// # Errors
    /// [`RunnerError::Work`] when the work does not fit the shard, [`RunnerError::Device`] when the device fails.
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError>;

    /// Measures for a moment how fast the device multiplies; `None` when there is more to measure, so that it is to be
    /// called again. Speeds are never guessed: where nothing can be measured there are none.
    fn probe(&mut self) -> Option<Speeds> {
        Some(Speeds::new())
    }
}

/// A shard that is ready.
pub struct LoadedShard {
    /// What runs it.
    pub runner: Box<dyn Runner>,
    /// Weights mapped or copied to the device, in bytes.
    pub weights_bytes: u64,
    /// Blocks of keys and values it has room for, of [`KV_BLOCK_TOKENS`] tokens each.
    pub kv_blocks: u32,
}

/// Why a shard could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It would take more than the stage may use.
    #[error("layers {layers} need {needed_bytes} bytes: expected at most the budget of {budget_bytes} bytes")]
    OverBudget {
        /// The layers.
        layers: LayerRange,
        /// The bound on what they take: weights, keys and values, scratch.
        needed_bytes: u64,
        /// What the stage may use.
        budget_bytes: u64,
    },
    /// The file or the device did not play along; the text says what and what to do.
    #[error("{0}")]
    Failed(String),
}

/// Makes runners: one model file on one device.
pub trait Loader: Send + Sync + 'static {
    /// The most memory the shard `layers` with `room` for keys and values can take, in bytes.
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64;

    /// Maps exactly `layers` and makes `room` for keys and values (rounded up to blocks). Blocking.
    ///
    /// # Errors
    /// [`LoadError`] says what is missing.
    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError>;

    /// Reads the weights of `layers` into memory, so that loading them later does not wait for the disk: at most `bytes_max`
    /// bytes, and only as long as `wanted`. How many bytes were read. Blocking.
    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64;

    /// Describes the device: everything of a stage's record but its endpoint, speed and load.
    fn describe(&self) -> StageRecord;

    /// This process's memory now. Blocking: the system counts page by page, which takes milliseconds for each gigabyte.
    fn memory(&self) -> MemoryUse;
}
