//! The epochs that a gateway may begin, as its record in the store shows them. Pure.
//!
//! A gateway numbers its epochs from the revision of its record, and counts on from the one before. If the store lost
//! its data, revisions are small again and epochs go on: then the record names the epoch. So a stage can tell an epoch
//! that a gateway may have begun from one that only somebody else can have made up.

use schema::Epoch;
use schema::record::GatewayRecord;

use crate::view::Versioned;

/// An epoch's number is at least this many times the revision at which the gateway's record last changed in the store.
/// The next gateway in the same slot has a higher revision and so higher epochs, unless this one began more epochs than
/// this within one revision.
const EPOCHS_PER_REVISION: u64 = 1 << 20;

/// Revisions that a gateway may have seen and a stage not yet: those of seconds in a busy cluster. A frame from beyond
/// is refused and sent again.
const REVISIONS_AHEAD_MAX: u64 = 1 << 10;

/// Revisions that no store reaches: a thousand a second take it 34 years. An epoch above is believed only if a record
/// names one nearby.
const REVISIONS_MAX: u64 = 1 << 40;

/// The first epoch of a gateway whose record was written at this revision.
pub(crate) fn first(revision: u64) -> Epoch {
    Epoch(revision.saturating_mul(EPOCHS_PER_REVISION))
}

/// The newest epoch that a stage takes from the gateway with this record. A record of an older gateway names none.
pub(crate) fn newest_taken(gateway: &Versioned<GatewayRecord>) -> Epoch {
    match gateway.value.epoch {
        Some(epoch) => above(first(gateway.mod_revision).max(epoch)),
        None => first(REVISIONS_MAX),
    }
}

/// The newest epoch of this gateway's slot that a stage may know: the gateway continues above it. A higher one is not
/// believed.
pub(crate) fn newest_followed(own: Epoch) -> Epoch {
    first(REVISIONS_MAX).max(above(own))
}

/// The epoch that the gateway's record must name so that stages take `epoch`. `None` if they take it already.
pub(crate) fn to_name(epoch: Epoch, gateway: &Versioned<GatewayRecord>) -> Option<Epoch> {
    let shown = first(gateway.mod_revision).max(gateway.value.epoch.unwrap_or_default());
    // Half of the way, so that the record is there before an epoch needs it.
    (epoch.0 > shown.0.saturating_add(first(REVISIONS_AHEAD_MAX).0 / 2)).then_some(epoch)
}

fn above(epoch: Epoch) -> Epoch {
    Epoch(epoch.0.saturating_add(first(REVISIONS_AHEAD_MAX).0))
}

#[cfg(test)]
mod tests {
    use schema::record::Share;

    use super::*;
    use crate::testing;

    fn record(mod_revision: u64, epoch: Option<u64>) -> Versioned<GatewayRecord> {
        let value = GatewayRecord { epoch: epoch.map(Epoch), ..testing::gateway("1", Share::EMPTY) };
        Versioned { value, mod_revision }
    }

    #[test]
    fn stages_take_what_follows_from_the_revision_and_nothing_far_above() {
        let seen = record(1000, Some(0));
        for revision in [1, 1000, 1000 + REVISIONS_AHEAD_MAX] {
            assert!(first(revision) <= newest_taken(&seen), "{revision}");
        }
        assert!(first(2001 + REVISIONS_AHEAD_MAX) > newest_taken(&seen));
        assert!(newest_taken(&record(u64::MAX, Some(u64::MAX))) <= Epoch(u64::MAX), "no overflow");
    }

    #[test]
    fn a_store_that_lost_its_data_shows_the_epoch_in_the_record() {
        let before = first(5_000_000);
        let lost = record(3, Some(0));
        assert!(before > newest_taken(&lost));
        let named = to_name(before, &lost).unwrap();
        let written = record(4, Some(named.0));
        assert!(before.next() <= newest_taken(&written) && to_name(before.next(), &written).is_none());
    }

    #[test]
    fn whatever_stages_claim_to_know_a_gateway_has_epochs_left() {
        let (mut own, attacks) = (first(1000), 100_000);
        for _ in 0..attacks {
            // The most that it believes each time.
            own = newest_followed(own).next();
        }
        assert!(own < Epoch(u64::MAX / 2), "{own}");
        assert!(Epoch(u64::MAX) > newest_followed(own));
    }
}
