//! The ids of one response and of its items.

use rand::Rng;

/// Makes the ids of one response's items: a prefix for the kind of item, and a number that no other response has.
#[derive(Debug, Clone)]
pub(super) struct Ids {
    next: u128,
}

// === impl Ids ===

impl Ids {
    /// The ids from a random number on.
    pub(super) fn random() -> Self {
        Self::from_seed(rand::rng().random())
    }

    /// The ids from `seed` on.
    pub(super) fn from_seed(seed: u128) -> Self {
        Self { next: seed }
    }

    /// The next id, such as `msg_` and 32 hexadecimal digits.
    pub(super) fn next(&mut self, prefix: &str) -> String {
        let id = format!("{prefix}_{:032x}", self.next);
        self.next = self.next.wrapping_add(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_is_another() {
        let mut ids = Ids::from_seed(u128::MAX);
        assert_eq!(ids.next("resp"), "resp_ffffffffffffffffffffffffffffffff");
        assert_eq!(ids.next("msg"), "msg_00000000000000000000000000000000");
    }
}
