//! Keys and values of all sequences on the device, in blocks, as `kernels/heads.h` lays them out.

use schema::record::{KvBlocks, KvType};

use super::device::{Gpu, GpuError};
use crate::model::AttentionSpec;
use crate::shard::TOKENS;

/// One layer's keys and values.
#[derive(Debug)]
pub(super) struct LayerKv<B> {
    pub(super) keys: B,
    pub(super) values: B,
    /// Scales of keys and of values, in 8 bits.
    pub(super) scales: Option<[B; 2]>,
}

// === impl LayerKv ===

impl<B> LayerKv<B> {
    /// Room for the layer's blocks of `pool`.
    ///
    /// # Errors
    /// [`GpuError::Memory`] if the device has none.
    pub(super) fn new<G: Gpu<Buffer = B>>(
        attention: &AttentionSpec,
        kv_type: KvType,
        pool: KvBlocks,
        gpu: &mut G,
    ) -> Result<Self, GpuError> {
        let blocks = attention.window.blocks(pool) as usize;
        let tokens = blocks.max(1) * TOKENS;
        let [keys, values] = [attention.key_width(), attention.value_width()].map(|width| width * tokens);
        Ok(match kv_type {
            KvType::F16 => Self { keys: gpu.allocate(2 * keys)?, values: gpu.allocate(2 * values)?, scales: None },
            KvType::Q8 => {
                let scales = |numbers: usize| 2 * (numbers / KvType::Q8_BLOCK);
                Self {
                    keys: gpu.allocate(keys)?,
                    values: gpu.allocate(values)?,
                    scales: Some([gpu.allocate(scales(keys))?, gpu.allocate(scales(values))?]),
                }
            }
        })
    }
}
