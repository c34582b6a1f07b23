//! The boundary between the dataflow and the arithmetic: a runner executes a shard.
//!
//! The engine decides when a shard runs and with which input. The runner computes. It never sees a socket or a store.

use schema::LayerRange;
use schema::frame::{Chosen, HiddenState, Slice};
pub use schema::record::KV_BLOCK_TOKENS;
use schema::record::{KvRoom, MemoryUse, Speeds, StageRecord};

/// A micro-batch as the runner sees it. Rows lie in the order of the slices.
#[derive(Debug)]
pub struct Work<'a> {
    /// The sequences. In the first stage they carry token ids.
    pub slices: &'a [Slice],
    /// `rows × hidden` activations from the stage before. Empty in the first stage.
    pub activations: &'a [f32],
}

/// The result of a micro-batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// For the next stage: `rows × hidden` activations.
    Activations(Vec<f32>),
    /// From the last stage, each in the order of slices and offsets.
    Tokens {
        /// A token for each position that wanted one.
        chosen: Vec<Chosen>,
        /// The hidden state of each token for which it was wanted.
        hidden_states: Vec<HiddenState>,
    },
}

/// The reason for which a runner did not do its work. The shard stays usable.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The work does not fit the shard.
    #[error("{field} is {found}: expected {expected}")]
    Work {
        /// The wrong field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
}

/// Runs one shard. Lives on the stage's compute thread and keeps the keys and values of all sequences in its blocks.
///
/// 1. `step` computes each row from its token (or activation), its position and the contents that earlier steps left in
///    the blocks of its sequence. Nothing else in the micro-batch changes a bit of it.
/// 2. Steps run in the order in which they are given. A later step may use a block for another sequence. A layer with a
///    window reads no token before it, so blocks of such layers are another sequence's once they lie before the window.
/// 3. After an error the blocks of the sequences in that step are undefined. All others are as before.
/// 4. `probe` takes about 10 ms at most, as a step may be waiting. It changes nothing that a later step sees.
pub trait Runner: Send {
    /// Computes one micro-batch.
    ///
    /// # Errors
    /// [`RunnerError::Work`] if the work does not fit the shard, [`RunnerError::Device`] if the device fails.
    fn step(&mut self, work: Work<'_>) -> Result<Output, RunnerError>;

    /// Measures the device's speeds for a moment. `None` if there is more to measure: then call it again. Speeds are
    /// never guessed. If nothing can be measured, the result is empty.
    fn probe(&mut self) -> Option<Speeds> {
        Some(Speeds::new())
    }
}

/// A shard that is ready.
pub struct LoadedShard {
    /// The runner that executes it.
    pub runner: Box<dyn Runner>,
    /// Weights mapped or copied to the device, in bytes.
    pub weights_bytes: u64,
    /// Bytes of those weights that are copies in another form than the file's, in the process's own memory.
    pub copied_bytes: u64,
    /// Blocks of keys and values of the room it was loaded with, of [`KV_BLOCK_TOKENS`] tokens each. Of each kind it
    /// has as many as [`schema::record::KvKinds::pool`] gives for that room.
    pub kv_blocks: u32,
}

/// The reason for which a shard could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It would take more memory than the stage may use.
    #[error("layers {layers} need {needed_bytes} bytes: expected at most the budget of {budget_bytes} bytes")]
    OverBudget {
        /// The layers.
        layers: LayerRange,
        /// The bound on their memory: weights, keys and values, scratch.
        needed_bytes: u64,
        /// The memory that the stage may use.
        budget_bytes: u64,
    },
    /// The file or the device failed. The text names the cause and a remedy.
    #[error("{0}")]
    Failed(String),
}

/// Makes runners for one model file on one device.
pub trait Loader: Send + Sync + 'static {
    /// The most memory the shard `layers` with `room` for keys and values can take, in bytes.
    fn memory_bound(&self, layers: LayerRange, room: KvRoom) -> u64;

    /// Maps exactly `layers`, fetched first where they are elsewhere, and makes `room` for keys and values (rounded up
    /// to blocks). Blocking.
    ///
    /// # Errors
    /// [`LoadError`] names the missing resource.
    fn load(&self, layers: LayerRange, room: KvRoom, budget_bytes: u64) -> Result<LoadedShard, LoadError>;

    /// Brings the weights of `layers`, which the stage has claimed and does not hold yet, onto this machine, as far as
    /// they are elsewhere, and only as long as `wanted` returns true. [`Loader::load`] does the same, and reports what
    /// fails. Blocking.
    fn fetch(&self, _layers: LayerRange, _wanted: &dyn Fn() -> bool) {}

    /// Reads the weights of `layers` into memory, so that loading them later does not wait for the disk. Reads at most
    /// `bytes_max` bytes, and only as long as `wanted` returns true. Returns the number of bytes read. Blocking.
    fn read_ahead(&self, layers: LayerRange, bytes_max: u64, wanted: &dyn Fn() -> bool) -> u64;

    /// Describes the device: all fields of a stage's record but its endpoint, speed and load.
    fn describe(&self) -> StageRecord;

    /// The memory that this process uses now. Blocking: the system counts page by page, which takes milliseconds for
    /// each gigabyte.
    fn memory(&self) -> MemoryUse;
}
