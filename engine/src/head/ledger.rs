//! Who owns which block of keys and values. One ledger serves all stages: each keeps the same block numbers.

/// Hands out block numbers `0..total`, each to one owner at a time.
#[derive(Debug)]
pub struct BlockLedger {
    free: Vec<u32>,
    total: u32,
}

// === impl BlockLedger ===

impl BlockLedger {
    /// All of `total` blocks are free.
    pub fn new(total: u32) -> Self {
        Self { free: (0..total).rev().collect(), total }
    }

    /// How many are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Moves `count` blocks to the end of `owner`; `false`, and nothing moved, when fewer are free.
    #[must_use]
    pub fn take(&mut self, count: usize, owner: &mut Vec<u32>) -> bool {
        let Some(left) = self.free.len().checked_sub(count) else { return false };
        owner.extend(self.free.drain(left..).rev());
        true
    }

    /// Takes all of `owner`'s blocks back.
    pub fn give_back(&mut self, owner: &mut Vec<u32>) {
        self.free.extend(owner.drain(..).rev());
        debug_assert!(self.free.len() <= self.total as usize, "a block was given back twice");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_than_is_free_is_not_given_in_part() {
        let mut ledger = BlockLedger::new(4);
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(ledger.take(3, &mut a));
        assert!(!ledger.take(2, &mut b));
        assert!(b.is_empty());
        assert_eq!(ledger.free(), 1);
    }

    proptest! {
        #[test]
        fn no_block_is_lost_or_owned_twice(steps in prop::collection::vec((0_usize..4, 0_usize..6), 0..60)) {
            let mut ledger = BlockLedger::new(16);
            let mut owners = vec![Vec::new(); 4];
            for (owner, count) in steps {
                if count == 0 {
                    ledger.give_back(&mut owners[owner]);
                } else {
                    let _ = ledger.take(count, &mut owners[owner]);
                }
                let mut all: Vec<u32> = owners.iter().flatten().chain(&ledger.free).copied().collect();
                all.sort_unstable();
                prop_assert_eq!(all, (0..16).collect::<Vec<u32>>());
            }
        }
    }
}
