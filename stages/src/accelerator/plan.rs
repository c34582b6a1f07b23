//! Plans which rows of a micro-batch are computed together, and which of them attend together. Pure.
//!
//! Rows are cut into tiles regardless of sequences. In a tile, the rows of one sequence are a run. Runs of
//! equal length attend in one batch, so that all decoding sequences of a micro-batch take one launch, not one each.

use schema::frame::Slice;

use super::bounds::{GATHERED_TOKENS_MAX, SCORES_MAX};
use crate::shard::{RowRun, RowTile, TOKENS, TileRow};

/// A run, and the blocks of its sequence that it attends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupMember {
    /// The rows.
    pub(super) run: RowRun,
    /// Index of the first block in the sequence.
    pub(super) first_block: usize,
    /// Number of blocks.
    pub(super) blocks: usize,
}

/// Runs of equal length that attend together. All attend to the same number of blocks. Tokens past a sequence's
/// end are masked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AttentionGroup {
    /// Rows of each run.
    pub(super) rows: usize,
    /// Blocks of each run.
    pub(super) blocks: usize,
    /// The runs.
    pub(super) members: Vec<GroupMember>,
}

/// Parameters that limit how many rows attend together.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttentionLimits {
    /// Query heads.
    pub(super) heads: usize,
    /// Number of tokens back that a row attends to, itself included.
    pub(super) window: u32,
}

/// The rows of one tile.
#[derive(Debug)]
pub(super) struct TilePlan {
    /// In the order of the micro-batch.
    pub(super) rows: Vec<TileRow>,
    /// Groups that contain every row once.
    pub(super) groups: Vec<AttentionGroup>,
}

// === impl TilePlan ===

impl TilePlan {
    /// Up to `most` rows of the micro-batch, starting at row `from`.
    pub(super) fn new(slices: &[Slice], from: usize, most: usize, limits: AttentionLimits) -> Self {
        let mut tile = RowTile::with_capacity(most);
        tile.fill(slices, from, most, |position, rows| limits.rows_at_once(position, rows));
        let RowTile { rows, runs } = tile;
        Self { rows, groups: limits.group(runs) }
    }
}

// === impl AttentionLimits ===

impl AttentionLimits {
    /// Number of the `rows` rows from `position` on that attend at once, so that their scores stay within
    /// [`SCORES_MAX`].
    fn rows_at_once(self, position: u32, rows: usize) -> usize {
        // A shorter run attends to no more blocks than these, so its scores fit too.
        let (_, blocks) = self.attended_blocks(position, rows);
        rows.min((SCORES_MAX / (self.heads * blocks * TOKENS)).max(1))
    }

    /// The first block that `rows` rows from `position` on attend to, and the number of blocks.
    fn attended_blocks(self, position: u32, rows: usize) -> (usize, usize) {
        let first = position.saturating_sub(self.window - 1) as usize / TOKENS;
        let end = (position as usize + rows).div_ceil(TOKENS);
        (first, end - first)
    }

    fn group(self, runs: Vec<RowRun>) -> Vec<AttentionGroup> {
        let member = |run: RowRun| {
            let (first_block, blocks) = self.attended_blocks(run.position, run.rows);
            GroupMember { run, first_block, blocks }
        };
        let mut members: Vec<GroupMember> = runs.into_iter().map(member).collect();
        members.sort_by_key(|member| (member.run.rows, member.blocks));
        let mut groups: Vec<AttentionGroup> = Vec::new();
        for member in members {
            match groups.last_mut() {
                Some(group) if self.fits(group, member) => {
                    group.blocks = member.blocks;
                    group.members.push(member);
                }
                _ => {
                    let (rows, blocks) = (member.run.rows, member.blocks);
                    groups.push(AttentionGroup { rows, blocks, members: vec![member] });
                }
            }
        }
        groups
    }

    /// True if `member`, which attends to no fewer blocks than the group, may join it.
    fn fits(self, group: &AttentionGroup, member: GroupMember) -> bool {
        let (rows, tokens) = (member.run.rows, (group.members.len() + 1) * member.blocks * TOKENS);
        group.rows == rows && tokens <= GATHERED_TOKENS_MAX && self.heads * rows * tokens <= SCORES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schema::SequenceId;

    const LIMITS: AttentionLimits = AttentionLimits { heads: 4, window: u32::MAX };

    fn slice(position: u32, count: u32, blocks: &[u32]) -> Slice {
        Slice { position, count, blocks: blocks.to_vec(), ..Slice::empty(SequenceId(1)) }
    }

    #[test]
    fn tiles_hold_every_row_once_in_order_and_each_in_one_group() {
        let slices = [slice(30, 5, &[4, 9]), slice(0, 1, &[2]), slice(64, 6, &[0, 1, 7])];
        let mut found = Vec::new();
        for from in (0..12).step_by(4) {
            let tile = TilePlan::new(&slices, from, 4, LIMITS);
            assert_eq!(tile.rows.len(), 4);
            let members = tile.groups.iter().flat_map(|group| &group.members).map(|member| member.run);
            let mut grouped: Vec<usize> = members.clone().flat_map(|s| s.start..s.start + s.rows).collect();
            grouped.sort_unstable();
            assert_eq!(grouped, [0, 1, 2, 3]);
            for run in members {
                let row = tile.rows[run.start];
                assert_eq!((run.slice, run.position), (row.slice, row.position));
            }
            found.extend(tile.rows.iter().map(|row| (row.slice, row.position, row.slot)));
        }
        let expected = [
            (0, 30, 4 * 32 + 30),
            (0, 31, 4 * 32 + 31),
            (0, 32, 9 * 32),
            (0, 33, 9 * 32 + 1),
            (0, 34, 9 * 32 + 2),
            (1, 0, 2 * 32),
            (2, 64, 7 * 32),
            (2, 65, 7 * 32 + 1),
            (2, 66, 7 * 32 + 2),
            (2, 67, 7 * 32 + 3),
            (2, 68, 7 * 32 + 4),
            (2, 69, 7 * 32 + 5),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn decoding_sequences_attend_together_and_a_prompt_separately() {
        let slices = [slice(40, 1, &[0, 1]), slice(0, 9, &[2]), slice(3, 1, &[3]), slice(70, 1, &[4, 5, 6])];
        let groups = TilePlan::new(&slices, 0, 64, LIMITS).groups;
        let shapes: Vec<_> = groups.iter().map(|group| (group.rows, group.blocks, group.members.len())).collect();
        assert_eq!(shapes, [(1, 3, 3), (9, 1, 1)]);
    }

    #[test]
    fn a_group_gathers_no_more_than_its_bound() {
        let blocks: Vec<u32> = (0..100).collect();
        let slices: Vec<Slice> = (0..9).map(|_| slice(3199, 1, &blocks)).collect();
        let groups = TilePlan::new(&slices, 0, 64, LIMITS).groups;
        assert!(groups.iter().all(|group| group.members.len() * group.blocks * TOKENS <= GATHERED_TOKENS_MAX));
        assert_eq!(groups.len(), 5, "two of 3,200 tokens at a time");
    }

    #[test]
    fn scores_are_bounded_by_cutting_long_prompts() {
        let blocks: Vec<u32> = (0..2048).collect();
        let limits = AttentionLimits { heads: 40, window: u32::MAX };
        let groups = TilePlan::new(&[slice(65_000, 256, &blocks)], 0, 256, limits).groups;
        let rows: usize = groups.iter().flat_map(|group| &group.members).map(|member| member.run.rows).sum();
        assert_eq!(rows, 256);
        assert!(groups.len() > 1);
        for group in groups {
            assert!(40 * group.rows * group.members.len() * group.blocks * TOKENS <= SCORES_MAX, "{group:?}");
        }
    }

    #[test]
    fn blocks_before_the_window_are_not_attended_to() {
        let limits = AttentionLimits { heads: 4, window: 40 };
        let blocks: Vec<u32> = (0..10).collect();
        let groups = TilePlan::new(&[slice(200, 3, &blocks)], 0, 64, limits).groups;
        let member = groups[0].members[0];
        assert_eq!((member.first_block, member.blocks), (161 / 32, 7 - 161 / 32));
    }
}
