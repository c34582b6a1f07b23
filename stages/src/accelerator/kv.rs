//! The KV cache on the device: keys and values of all sequences, in blocks.
//!
//! A layer has one tensor of keys and one of values, each with its heads outermost: `[head][slot][dimension]`. A slot
//! is a block's number times [`TOKENS`] plus the place in the block. So one selection gathers a sequence's blocks, and
//! the result has the layout that attention multiplies.

use candle_core::{DType, Device, Result, Tensor};

use super::dense_model::DenseModel;
use crate::shard::TOKENS;

/// Stored type of keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision, as in the CPU runner. Stages use this.
    Half,
    /// Single precision, to measure the cost of half precision.
    Float,
}

/// Keys and values of some layers.
#[derive(Debug)]
pub(super) struct KvCache {
    layers: Vec<LayerKv>,
    blocks: usize,
}

/// Keys and values of one layer.
#[derive(Debug)]
pub(super) struct LayerKv {
    keys: Tensor,
    values: Tensor,
}

// === impl KvCache ===

impl KvCache {
    /// Allocates `blocks` blocks in each of `layers` layers, all zero.
    pub(super) fn new(
        config: &DenseModel,
        dtype: KvDtype,
        layers: usize,
        blocks: usize,
        device: &Device,
    ) -> Result<Self> {
        // Copied from the host, because candle's Metal allocator rounds a buffer that it makes itself up to a power of
        // two.
        let zeros = |width: usize| {
            let shape = (config.attention.kv_heads, blocks * TOKENS, width);
            let count = config.attention.kv_heads * blocks * TOKENS * width;
            match dtype {
                KvDtype::Half => Tensor::from_vec(vec![half::f16::ZERO; count], shape, device),
                KvDtype::Float => Tensor::from_vec(vec![0.0_f32; count], shape, device),
            }
        };
        let layer = |_| Ok(LayerKv { keys: zeros(config.attention.key)?, values: zeros(config.attention.value)? });
        Ok(Self { layers: (0..layers).map(layer).collect::<Result<_>>()?, blocks })
    }

    /// Number of blocks.
    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Layer number `layer` of this cache.
    pub(super) fn layer(&self, layer: usize) -> &LayerKv {
        &self.layers[layer]
    }

    /// Sets `blocks` to zero in all layers. Masking hides numbers that an earlier sequence left in a block. It does not
    /// hide NaN or infinity, because zero times these is NaN.
    pub(super) fn clear(&self, blocks: &[u32]) -> Result<()> {
        for cache in self.layers.iter().flat_map(|layer| [&layer.keys, &layer.values]) {
            let (heads, _, width) = cache.dims3()?;
            let zeros = Tensor::zeros((heads, TOKENS, width), cache.dtype(), cache.device())?;
            for block in blocks {
                cache.slice_set(&zeros, 1, *block as usize * TOKENS)?;
            }
        }
        Ok(())
    }
}

// === impl LayerKv ===

impl LayerKv {
    /// Writes `keys` (`[head][row][dimension]`) to the slot of each row. `slots` holds the slot for every number.
    pub(super) fn write_keys(&self, keys: &Tensor, slots: &Tensor) -> Result<()> {
        self.keys.scatter_set(slots, &keys.to_dtype(self.keys.dtype())?.contiguous()?, 1)
    }

    /// As [`Self::write_keys`], for values.
    pub(super) fn write_values(&self, values: &Tensor, slots: &Tensor) -> Result<()> {
        self.values.scatter_set(slots, &values.to_dtype(self.values.dtype())?.contiguous()?, 1)
    }

    /// The keys of `blocks` as floats: `[head × sequence][token][dimension]` if the blocks are `sequences` equal runs.
    pub(super) fn keys(&self, blocks: &Tensor, sequences: usize) -> Result<Tensor> {
        gather(&self.keys, blocks, sequences)
    }

    /// As [`Self::keys`], for values.
    pub(super) fn values(&self, blocks: &Tensor, sequences: usize) -> Result<Tensor> {
        gather(&self.values, blocks, sequences)
    }
}

fn gather(cache: &Tensor, blocks: &Tensor, sequences: usize) -> Result<Tensor> {
    let (heads, slots, width) = cache.dims3()?;
    let by_block = cache.reshape((heads, slots / TOKENS, TOKENS * width))?;
    let gathered = by_block.index_select(blocks, 1)?.to_dtype(DType::F32)?;
    gathered.reshape((heads * sequences, blocks.elem_count() / sequences * TOKENS, width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slots_keys_are_gathered_and_cleared_with_its_block() {
        let cache = Tensor::zeros((2, 4 * TOKENS, 3), DType::F16, &Device::Cpu).unwrap();
        let layer = LayerKv { keys: cache.clone(), values: cache };
        let key = Tensor::new(&[[[1.0_f32, 2.0, 3.0]], [[4.0, 5.0, 6.0]]], &Device::Cpu).unwrap();
        let slots = Tensor::full(2 * TOKENS as u32 + 5, (2, 1, 3), &Device::Cpu).unwrap();
        layer.write_keys(&key, &slots).unwrap();
        let blocks = Tensor::new(&[0_u32, 2, 2, 3], &Device::Cpu).unwrap();
        let cache = KvCache { layers: vec![layer], blocks: 4 };
        let gathered = cache.layer(0).keys(&blocks, 2).unwrap();
        assert_eq!(gathered.dims(), [4, 2 * TOKENS, 3]);
        let found = gathered.to_vec3::<f32>().unwrap();
        // Head 0 of both sequences, then head 1.
        assert_eq!(found[0][TOKENS + 5], [1.0, 2.0, 3.0]);
        assert_eq!(found[1][5], [1.0, 2.0, 3.0]);
        assert_eq!(found[2][TOKENS + 5], [4.0, 5.0, 6.0]);
        assert_eq!(found.iter().flatten().flatten().filter(|value| **value != 0.0).count(), 12);
        cache.clear(&[2]).unwrap();
        let cleared = cache.layer(0).keys(&blocks, 2).unwrap().abs().unwrap().sum_all().unwrap();
        assert_eq!(cleared.to_scalar::<f32>().unwrap(), 0.0);
    }
}
