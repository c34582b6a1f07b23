//! Limits of the work that is computed at once, and the memory that it takes at most. Pure.

use engine::runner::KV_BLOCK_TOKENS;
use schema::LayerRange;
use schema::record::DeviceKind;

use super::dense_model::DenseModel;
use super::support::{Storage, storage};
use crate::sampling::Sampler;
use crate::shard::TOKENS;
use crate::weights::MappedShard;

/// Rows computed together: enough that reading the weights once for all of them costs little compared with multiplying.
/// Longer micro-batches take several passes.
pub(super) const ROWS_MAX: usize = 256;
/// Rows whose logits are computed and fetched together. Logits of 150,000 tokens then take 20 MB.
pub(super) const HEAD_ROWS_MAX: usize = 32;
/// Scores (heads times rows times attended tokens) computed together, 32 MiB as floats. One row's scores may be more.
pub(super) const SCORES_MAX: usize = 1 << 23;
/// Tokens whose keys and values are gathered together: 100 MB in a model of 8 key-value heads of 128 dimensions. One
/// sequence may have more.
pub(super) const GATHERED_TOKENS_MAX: usize = 8192;

/// Factor for an allocator that keeps buffers and rounds their sizes up to powers of two, as candle's for Metal does.
const ALLOCATOR_FACTOR: usize = 2;
/// Bytes of one number in the KV cache.
const CACHED_BYTES: usize = size_of::<half::f16>();
const FLOAT_BYTES: usize = size_of::<f32>();

/// Bytes that a shard's weights take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WeightsBytes {
    /// Bytes on the device while the shard is loaded.
    pub(super) device: u64,
    /// Additional bytes on the host while weights are copied: those of the largest matrix that is dequantised.
    pub(super) host: u64,
}

/// Blocks that hold `kv_tokens` tokens. At least one, because devices do not allocate zero bytes.
pub(super) fn kv_blocks(kv_tokens: u32) -> usize {
    kv_tokens.div_ceil(KV_BLOCK_TOKENS).max(1) as usize
}

// === impl WeightsBytes ===

impl WeightsBytes {
    /// The bytes of `shard` on a device of this kind.
    pub(super) fn of(shard: &MappedShard, device: DeviceKind) -> Self {
        let mut bytes = Self { device: shard.bytes(), host: 0 };
        for matrix in shard.matrices() {
            let stored_bytes = matrix.bytes().len() as u64;
            if let Ok(form @ Storage::Dequantised) = storage(device, matrix.format()) {
                let expanded_bytes = form.bytes(matrix.rows() as u64 * matrix.cols() as u64, stored_bytes);
                bytes.device = bytes.device.saturating_add(expanded_bytes).saturating_sub(stored_bytes);
                bytes.host = bytes.host.max(expanded_bytes);
            }
        }
        bytes
    }
}

/// Bytes of the keys and values of `layers`.
pub(super) fn kv_bytes(config: &DenseModel, layers: LayerRange, kv_tokens: u32) -> u64 {
    let token = config.attention.kv_heads * (config.attention.key + config.attention.value) * CACHED_BYTES;
    let tokens = (kv_blocks(kv_tokens) * TOKENS) as u64;
    (token as u64).saturating_mul(u64::from(layers.count())).saturating_mul(tokens)
}

/// Maximum bytes that a step takes in addition to weights, keys and values. Counts everything that a layer or the
/// output head makes, as if nothing were freed before its end.
pub(crate) fn scratch_bytes(config: &DenseModel, last: bool, kv_tokens: u32) -> u64 {
    let sequence = (config.context_tokens as usize).min(kv_blocks(kv_tokens) * TOKENS);
    let heads_rows = 4
        * (config.attention.query_width() + config.attention.key_width() + config.attention.value_width())
        + 3 * config.attention.output_width();
    let rows = ROWS_MAX * (6 * config.hidden + heads_rows + 4 * config.feed_forward) * FLOAT_BYTES;
    let gathered =
        GATHERED_TOKENS_MAX.max(sequence) * config.attention.kv_heads * (config.attention.key + config.attention.value);
    let scores = SCORES_MAX.max(config.attention.heads * sequence);
    // Scores exist three times: as computed, masked, and as weights. The mask has one value for all heads.
    let attention =
        gathered * (CACHED_BYTES + FLOAT_BYTES) + (3 * scores + scores / config.attention.heads) * FLOAT_BYTES;
    let head = if last { HEAD_ROWS_MAX * (2 * config.hidden + 3 * config.vocabulary) * FLOAT_BYTES } else { 0 };
    let sampler = if last { Sampler::bytes(config.vocabulary) } else { 0 };
    ((rows + attention + head) * ALLOCATOR_FACTOR) as u64 + sampler
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::gguf::GgufWriter;
    use crate::weights::ModelFile;

    #[test]
    fn matrices_that_metal_expands_count_as_floats_there_and_the_largest_once_more_on_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let tensors: [(&str, &[u64], Format); 4] = [
            ("blk.0.a.weight", &[32, 3], Format::F16),
            ("blk.0.b.weight", &[64, 5], Format::BF16),
            ("blk.0.c.weight", &[64, 50], Format::Q8_0),
            ("blk.0.d.weight", &[64], Format::F32),
        ];
        let mut file = GgufWriter::new().metadata("general.architecture", "llama").metadata("llama.block_count", 1u32);
        for (name, dims, format) in tensors {
            let bytes = format.row_bytes(dims.iter().product::<u64>() as usize).unwrap();
            file = file.tensor(name, dims, format, vec![0; bytes]).unwrap();
        }
        file.write_file(&path).unwrap();
        let shard = ModelFile::open(&path).unwrap().map(LayerRange::new(0, 1).unwrap()).unwrap();
        for device in [DeviceKind::Cpu, DeviceKind::Cuda] {
            let expected = WeightsBytes { device: shard.mapped_bytes(), host: 0 };
            assert_eq!(WeightsBytes::of(&shard, device), expected, "{device:?}");
        }
        let more = 2 * (32 * 3 + 64 * 5);
        let expected = WeightsBytes { device: shard.mapped_bytes() + more, host: 4 * 64 * 5 };
        assert_eq!(WeightsBytes::of(&shard, DeviceKind::Metal), expected);
    }
}
