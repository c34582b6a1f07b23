//! A tile's inputs on the device in addition to its rows: angles, slots, block tables and masks. They are made on the
//! host from the plan and sent once a tile, for all layers.

use candle_core::{Device, Result, Tensor};
use schema::frame::Slice;

use super::plan::{Group, Member, Tile};
use crate::model::{ModelConfig, Rope};
use crate::shard::{Row, TOKENS};

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
    /// Number of stretches.
    pub(super) members: usize,
    /// Rows of each stretch.
    pub(super) rows: usize,
    /// Indices of the group's rows in the tile. `None` for all rows in order.
    pub(super) which: Option<Tensor>,
    /// Blocks that the members attend to, member after member.
    pub(super) blocks: Tensor,
    /// Added to scores: zero if the row attends to the token, else minus infinity. Shape `[1][member][1][row][token]`.
    pub(super) mask: Tensor,
}

// === impl TileInputs ===

impl TileInputs {
    /// Makes the inputs of `tile` and sends them to `device`.
    pub(super) fn new(
        tile: &Tile,
        slices: &[Slice],
        config: &ModelConfig,
        rope: &Rope,
        device: &Device,
    ) -> Result<Self> {
        let [cosines, sines] =
            angles(&tile.rows, rope).map(|values| Tensor::from_vec(values, (tile.rows.len(), rope.pairs()), device));
        let slots: Vec<u32> = tile.rows.iter().map(|row| row.slot as u32).collect();
        let slots = Tensor::from_vec(slots, (1, tile.rows.len(), 1), device)?;
        let slots_of = |width: usize| slots.broadcast_as((config.kv_heads, tile.rows.len(), width))?.contiguous();
        let key_slots = slots_of(config.key)?;
        let value_slots = if config.value == config.key { key_slots.clone() } else { slots_of(config.value)? };

        let order: Vec<u32> = tile.groups.iter().flat_map(Group::tile_rows).collect();
        let in_order = order.is_sorted();
        let single = in_order && tile.groups.len() == 1;
        let group = |group| GroupInputs::new(group, slices, config.window_tokens, single, device);
        let groups = tile.groups.iter().map(group).collect::<Result<_>>()?;
        let order = if in_order { None } else { Some(Tensor::new(inverse(&order), device)?) };
        Ok(Self { cosines: cosines?, sines: sines?, key_slots, value_slots, groups, order })
    }
}

// === impl GroupInputs ===

impl GroupInputs {
    fn new(group: &Group, slices: &[Slice], window: u32, all: bool, device: &Device) -> Result<Self> {
        let (members, rows, tokens) = (group.members.len(), group.rows, group.blocks * TOKENS);
        let which: Vec<u32> = group.tile_rows().collect();
        let which = if all { None } else { Some(Tensor::new(which, device)?) };
        let blocks: Vec<u32> = group.members.iter().flat_map(|member| table(member, group.blocks, slices)).collect();
        let mut mask = Vec::with_capacity(members * rows * tokens);
        for member in &group.members {
            for row in 0..rows as u32 {
                mask.extend(
                    visible(member, row, window, tokens).map(|seen| if seen { 0.0 } else { f32::NEG_INFINITY }),
                );
            }
        }
        let mask = Tensor::from_vec(mask, (1, members, 1, rows, tokens), device)?;
        Ok(Self { members, rows, which, blocks: Tensor::new(blocks, device)?, mask })
    }
}

// === impl Group ===

impl Group {
    /// Rows of the tile that belong to the group, member after member.
    fn tile_rows(&self) -> impl Iterator<Item = u32> {
        self.members
            .iter()
            .flat_map(|Member { stretch, .. }| stretch.start as u32..(stretch.start + stretch.rows) as u32)
    }
}

/// Blocks that `member` attends to, padded to `count` with block 0, which the mask hides.
fn table<'a>(member: &Member, count: usize, slices: &'a [Slice]) -> impl Iterator<Item = u32> + use<'a> {
    let own = &slices[member.stretch.slice].blocks[member.first_block..member.first_block + member.blocks];
    own.iter().copied().chain(std::iter::repeat_n(0, count - member.blocks))
}

/// For each of the `tokens` tokens from the member's first block on: true if row `row` of the member attends to it.
fn visible(member: &Member, row: u32, window: u32, tokens: usize) -> impl Iterator<Item = bool> + use<> {
    let position = member.stretch.position + row;
    let first = (member.first_block * TOKENS) as u32;
    (first..first + tokens as u32).map(move |token| token <= position && position - token < window)
}

/// Cosines and sines of every row and pair, computed in double precision.
fn angles(rows: &[Row], rope: &Rope) -> [Vec<f32>; 2] {
    let of = |turn: fn(f64) -> f64| {
        let row = |row: &Row| {
            let position = f64::from(row.position);
            rope.frequencies().iter().map(move |frequency| turn(position * frequency) as f32)
        };
        rows.iter().flat_map(row).collect()
    };
    [of(f64::cos), of(f64::sin)]
}

/// Index of each number in `order`, a permutation.
fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    for (place, row) in (0..).zip(order) {
        places[*row as usize] = place;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::Stretch;

    #[test]
    fn a_row_sees_itself_and_what_its_window_holds() {
        let stretch = Stretch { slice: 0, start: 0, rows: 2, position: 40 };
        let member = Member { stretch, first_block: 1, blocks: 1 };
        let seen = |row, window| -> Vec<usize> {
            visible(&member, row, window, TOKENS)
                .enumerate()
                .filter(|(_, seen)| *seen)
                .map(|(token, _)| token)
                .collect()
        };
        assert_eq!(seen(0, u32::MAX), (0..=8).collect::<Vec<_>>());
        assert_eq!(seen(1, 3), [7, 8, 9]);
    }

    #[test]
    fn a_permutation_is_inverted() {
        assert_eq!(inverse(&[2, 0, 3, 1]), [1, 3, 0, 2]);
    }
}
