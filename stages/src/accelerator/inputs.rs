//! A tile's inputs on the device in addition to its rows: angles, slots, block tables and masks. They are made on the
//! host from the plan and sent once a tile, for all layers.

use candle_core::{Device, Result, Tensor};
use schema::frame::Slice;

use super::dense_model::DenseModel;
use super::plan::{AttentionGroup, GroupMember, TilePlan};
use crate::model::{Rope, Window};
use crate::shard::{SliceBlocks, TOKENS, TileRow};

/// One tile's inputs.
#[derive(Debug)]
pub(super) struct TileInputs {
    /// `[row][pair]`.
    pub(super) cosines: Tensor,
    /// `[row][pair]`.
    pub(super) sines: Tensor,
    /// Slot of each row, for every number of its keys: `[head][row][dimension]`.
    pub(super) key_slots: Tensor,
    /// Slot of each row, for every number of its values.
    pub(super) value_slots: Tensor,
    /// The groups, which cover all rows.
    pub(super) groups: Vec<GroupInputs>,
    /// Place of each row among the groups' rows. `None` if the rows are in order.
    pub(super) order: Option<Tensor>,
}

/// One group's inputs.
#[derive(Debug)]
pub(super) struct GroupInputs {
    /// Number of runs.
    pub(super) members: usize,
    /// Rows of each run.
    pub(super) rows: usize,
    /// Indices of the group's rows in the tile. `None` for all rows in order.
    pub(super) row_indices: Option<Tensor>,
    /// Blocks that the members attend to, member after member.
    pub(super) blocks: Tensor,
    /// Added to scores: zero if the row attends to the token, else minus infinity. Shape `[1][member][1][row][token]`.
    pub(super) mask: Tensor,
}

// === impl TileInputs ===

impl TileInputs {
    /// Makes the inputs of `tile` and sends them to `device`.
    pub(super) fn new(
        tile: &TilePlan,
        slices: &[Slice],
        config: &DenseModel,
        rope: &Rope,
        device: &Device,
    ) -> Result<Self> {
        let [cosines, sines] =
            angles(&tile.rows, rope).map(|values| Tensor::from_vec(values, (tile.rows.len(), rope.pairs()), device));
        let slots: Vec<u32> = tile.rows.iter().map(|row| row.slot_of(config.attention.window) as u32).collect();
        let slots = Tensor::from_vec(slots, (1, tile.rows.len(), 1), device)?;
        let slots_of =
            |width: usize| slots.broadcast_as((config.attention.kv_heads, tile.rows.len(), width))?.contiguous();
        let key_slots = slots_of(config.attention.key)?;
        let value_slots = if config.attention.value == config.attention.key {
            key_slots.clone()
        } else {
            slots_of(config.attention.value)?
        };

        let order: Vec<u32> = tile.groups.iter().flat_map(AttentionGroup::tile_rows).collect();
        let in_order = order.is_sorted();
        let single = in_order && tile.groups.len() == 1;
        let group = |group| GroupInputs::new(group, slices, config.attention.window, single, device);
        let groups = tile.groups.iter().map(group).collect::<Result<_>>()?;
        let order = if in_order { None } else { Some(Tensor::new(inverse(&order), device)?) };
        Ok(Self { cosines: cosines?, sines: sines?, key_slots, value_slots, groups, order })
    }
}

// === impl GroupInputs ===

impl GroupInputs {
    fn new(group: &AttentionGroup, slices: &[Slice], window: Window, all: bool, device: &Device) -> Result<Self> {
        let (members, rows, tokens) = (group.members.len(), group.rows, group.blocks * TOKENS);
        let row_indices: Vec<u32> = group.tile_rows().collect();
        let row_indices = if all { None } else { Some(Tensor::new(row_indices, device)?) };
        let blocks: Vec<u32> =
            group.members.iter().flat_map(|member| table(member, group.blocks, slices, window)).collect();
        let window = window.tokens_max();
        let mut mask = Vec::with_capacity(members * rows * tokens);
        for member in &group.members {
            for row in 0..rows as u32 {
                mask.extend(
                    visible(member, row, window, tokens).map(|visible| if visible { 0.0 } else { f32::NEG_INFINITY }),
                );
            }
        }
        let mask = Tensor::from_vec(mask, (1, members, 1, rows, tokens), device)?;
        Ok(Self { members, rows, row_indices, blocks: Tensor::new(blocks, device)?, mask })
    }
}

// === impl AttentionGroup ===

impl AttentionGroup {
    /// Rows of the tile that belong to the group, member after member.
    fn tile_rows(&self) -> impl Iterator<Item = u32> {
        self.members.iter().flat_map(|GroupMember { run, .. }| run.start as u32..(run.start + run.rows) as u32)
    }
}

/// Blocks that `member` attends to, padded to `count` with block 0, which the mask hides.
fn table<'a>(
    member: &GroupMember,
    count: usize,
    slices: &'a [Slice],
    window: Window,
) -> impl Iterator<Item = u32> + use<'a> {
    let SliceBlocks { first, blocks } = SliceBlocks::of(&slices[member.run.slice], window);
    let own = &blocks[member.first_block - first..][..member.blocks];
    own.iter().copied().chain(std::iter::repeat_n(0, count - member.blocks))
}

/// For each of the `tokens` tokens from the member's first block on: true if row `row` of the member attends to it.
fn visible(member: &GroupMember, row: u32, window: u32, tokens: usize) -> impl Iterator<Item = bool> + use<> {
    let position = member.run.position + row;
    let first = (member.first_block * TOKENS) as u32;
    (first..first + tokens as u32).map(move |token| token <= position && position - token < window)
}

/// Cosines and sines of every row and pair, computed in double precision.
fn angles(rows: &[TileRow], rope: &Rope) -> [Vec<f32>; 2] {
    let of = |function: fn(f64) -> f64| {
        let row = |row: &TileRow| {
            let position = f64::from(row.position);
            rope.frequencies().iter().map(move |frequency| function(position * frequency) as f32)
        };
        rows.iter().flat_map(row).collect()
    };
    [of(f64::cos), of(f64::sin)]
}

/// Index of each number in `order`, a permutation.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut positions = vec![0; order.len()];
    for (index, row) in (0..).zip(order) {
        positions[*row as usize] = index;
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::RowRun;

    #[test]
    fn a_row_attends_to_itself_and_its_window() {
        let run = RowRun { slice: 0, start: 0, rows: 2, position: 40 };
        let member = GroupMember { run, first_block: 1, blocks: 1 };
        let attended = |row, window| -> Vec<usize> {
            visible(&member, row, window, TOKENS)
                .enumerate()
                .filter(|(_, visible)| *visible)
                .map(|(token, _)| token)
                .collect()
        };
        assert_eq!(attended(0, u32::MAX), (0..=8).collect::<Vec<_>>());
        assert_eq!(attended(1, 3), [7, 8, 9]);
    }

    #[test]
    fn a_permutation_is_inverted() {
        assert_eq!(inverse(&[2, 0, 3, 1]), [1, 3, 0, 2]);
    }
}
