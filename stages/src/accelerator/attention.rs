//! Attention of a tile's rows over the blocks of their sequences.

use candle_core::{Result, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::dense_model::DenseModel;
use super::inputs::{GroupInputs, TileInputs};
use super::kv::LayerKv;

/// Attention results of all rows, `[row][head × dimension]`, from their queries `[head][row][dimension]`, which are
/// scaled. The rows' own keys and values are already in the cache.
pub(super) fn attend(config: &DenseModel, query: &Tensor, kv: &LayerKv, inputs: &TileInputs) -> Result<Tensor> {
    let groups = inputs.groups.iter().map(|group| attend_group(config, query, kv, group));
    let groups = groups.collect::<Result<Vec<_>>>()?;
    let rows = if let [only] = groups.as_slice() { only.clone() } else { Tensor::cat(&groups, 0)? };
    match &inputs.order {
        Some(order) => rows.index_select(order, 0),
        None => Ok(rows),
    }
}

/// Results of one group, in the order of its members.
fn attend_group(config: &DenseModel, query: &Tensor, kv: &LayerKv, group: &GroupInputs) -> Result<Tensor> {
    let (kv_heads, shared) = (config.attention.kv_heads, config.attention.group());
    let (members, rows) = (group.members, group.rows);
    let query = match &group.row_indices {
        Some(indices) => query.index_select(indices, 1)?,
        None => query.clone(),
    };
    // Query heads that share keys become rows of one product with them.
    let query = query.reshape((kv_heads, shared, members, rows, config.attention.key))?.permute((0, 2, 1, 3, 4))?;
    let query = query.contiguous()?.reshape((kv_heads * members, shared * rows, config.attention.key))?;
    let keys = kv.keys(&group.blocks, members)?;
    let tokens = keys.dim(1)?;
    let scores = query.matmul(&keys.t()?)?.reshape((kv_heads, members, shared, rows, tokens))?;
    let weights = softmax_last_dim(&scores.broadcast_add(&group.mask)?)?;
    let weights = weights.reshape((kv_heads * members, shared * rows, tokens))?;
    let sums = weights.matmul(&kv.values(&group.blocks, members)?)?;
    let sums = sums.reshape((kv_heads, members, shared, rows, config.attention.value))?.permute((1, 3, 0, 2, 4))?;
    sums.contiguous()?.reshape((members * rows, config.attention.output_width()))
}
