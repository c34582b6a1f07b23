//! The transactions that change a cluster. The compares of each one state the conditions under which it is applied.

use std::collections::{BTreeMap, BTreeSet};

use schema::record::{
    ClaimRecord, EvictionRecord, GatewayRecord, KeyMark, ModelRecord, Pin, Placement, StageRecord, StartsRecord,
};
use schema::{ClaimId, Key, Keyspace, StageName};
use serde::Serialize;

use crate::limits::GATEWAYS_MAX;
use crate::planner::PinStatusWrite;
use crate::store::{Compare, LeaseId, Revision, Txn, Write};

/// The store as a stage saw it when it decided to claim a slot.
#[derive(Debug, Clone, Copy)]
pub struct ClaimSeen {
    /// The revision of the placement, which must still stand.
    pub placement_revision: u64,
    /// The revision of the unusable value in the slot. `None` if the slot was free.
    pub unusable_revision: Option<u64>,
}

pub(super) fn put(keyspace: &Keyspace, key: &Key, value: &impl Serialize, lease: Option<LeaseId>) -> Write {
    // Records are plain structs with text keys: serialising them cannot fail.
    let value = serde_json::to_vec(value).unwrap_or_default();
    Write::Put { key: keyspace.name(key), value, lease }
}

/// Restores a record that the store has lost, provided it is still lost: the key is absent, or holds the value that was
/// seen there at revision `instead`.
pub(crate) fn restore(
    keyspace: &Keyspace,
    key: &Key,
    value: &impl Serialize,
    instead: Option<u64>,
    lease: Option<LeaseId>,
) -> Txn {
    Txn { compares: vec![as_seen(keyspace, key, instead)], writes: vec![put(keyspace, key, value, lease)] }
}

/// Writes the mark of the cluster key, provided there is none, or only the unusable one of revision `unusable`.
pub(super) fn write_key_mark(keyspace: &Keyspace, mark: &KeyMark, unusable: Option<u64>) -> Txn {
    let compares = vec![as_seen(keyspace, &Key::KeyMark, unusable)];
    Txn { compares, writes: vec![put(keyspace, &Key::KeyMark, mark, None)] }
}

/// Writes the cluster's model, unless there is one. `unusable` is the revision of an unusable value in its place.
pub fn write_model(keyspace: &Keyspace, model: &ModelRecord, unusable: Option<u64>) -> Txn {
    let compares = vec![as_seen(keyspace, &Key::Model, unusable)];
    Txn { compares, writes: vec![put(keyspace, &Key::Model, model, None)] }
}

/// Makes `model` the cluster's in the place of the one of revision `seen`, provided that one still stands and no
/// gateway lives. The placement goes, because it divides the other model's layers.
pub fn replace_model(keyspace: &Keyspace, model: &ModelRecord, seen: u64) -> Txn {
    let mut compares = vec![as_seen(keyspace, &Key::Model, Some(seen))];
    compares.extend((0..GATEWAYS_MAX).map(|slot| as_seen(keyspace, &Key::Gateway(slot), None)));
    let no_placement = Write::Delete { key: keyspace.name(&Key::Placement) };
    Txn { compares, writes: vec![put(keyspace, &Key::Model, model, None), no_placement] }
}

/// Registers stage `name`, unless the name is taken. `unusable` is the revision of an unusable value in its place.
pub fn register_stage(
    keyspace: &Keyspace,
    name: &StageName,
    record: &StageRecord,
    unusable: Option<u64>,
    lease: LeaseId,
) -> Txn {
    let key = Key::Stage(name.clone());
    let compares = vec![as_seen(keyspace, &key, unusable)];
    let no_eviction = Write::Delete { key: keyspace.name(&Key::Eviction(name.clone())) };
    Txn { compares, writes: vec![put(keyspace, &key, record, Some(lease)), no_eviction] }
}

/// Writes the count of starts of stage `name`.
pub fn count_start(keyspace: &Keyspace, name: &StageName, starts: &StartsRecord, lease: LeaseId) -> Txn {
    Txn { compares: vec![], writes: vec![put(keyspace, &Key::Starts(name.clone()), starts, Some(lease))] }
}

/// Deletes the count of starts of stage `name`.
pub fn clear_starts(keyspace: &Keyspace, name: &StageName) -> Txn {
    Txn { compares: vec![], writes: vec![Write::Delete { key: keyspace.name(&Key::Starts(name.clone())) }] }
}

/// Writes the current record of a stage that has joined.
pub fn report_stage(keyspace: &Keyspace, name: &StageName, record: &StageRecord, lease: LeaseId) -> Txn {
    let key = Key::Stage(name.clone());
    let compares = vec![Compare::Present { key: keyspace.name(&key) }];
    Txn { compares, writes: vec![put(keyspace, &key, record, Some(lease))] }
}

/// Writes the record of the gateway in `slot`, provided the record of every gateway, its own included, is as it was
/// seen (by revision). So no gateway takes what belongs to another.
pub fn write_gateway(
    keyspace: &Keyspace,
    slot: u32,
    record: &GatewayRecord,
    seen: &BTreeMap<u32, u64>,
    lease: LeaseId,
) -> Txn {
    let slots: BTreeSet<u32> = seen.keys().copied().chain(0..GATEWAYS_MAX).collect();
    let compare = |slot: u32| as_seen(keyspace, &Key::Gateway(slot), seen.get(&slot).copied());
    let compares = slots.into_iter().map(compare).collect();
    Txn { compares, writes: vec![put(keyspace, &Key::Gateway(slot), record, Some(lease))] }
}

/// Makes `placement` the newest and writes `status_writes` about the pins it was made by, provided the placement that
/// it replaces (by revision; `None`: there is none) and the pins are unchanged.
pub fn propose(
    keyspace: &Keyspace,
    placement: &Placement,
    replacing: Option<u64>,
    status_writes: &[PinStatusWrite],
) -> Txn {
    let mut txn = write_pin_statuses(keyspace, status_writes);
    txn.compares.push(as_seen(keyspace, &Key::Placement, replacing));
    txn.writes.push(put(keyspace, &Key::Placement, placement, None));
    txn
}

/// Writes the statuses of pins, provided each pin and its stored status are as they were seen.
pub fn write_pin_statuses(keyspace: &Keyspace, status_writes: &[PinStatusWrite]) -> Txn {
    let mut txn = Txn::default();
    for PinStatusWrite { stage, status, pin, seen } in status_writes {
        let beside = Key::PinStatus(stage.clone());
        txn.compares.push(as_seen(keyspace, &Key::Pin(stage.clone()), *pin));
        txn.compares.push(as_seen(keyspace, &beside, *seen));
        txn.writes.push(match status {
            Some(status) => put(keyspace, &beside, status, None),
            None => Write::Delete { key: keyspace.name(&beside) },
        });
    }
    txn
}

/// Pins stage `name`, provided its pin is as it was seen (by revision; `None`: there is none).
pub fn put_pin(keyspace: &Keyspace, name: &StageName, pin: &Pin, seen: Option<u64>) -> Txn {
    let key = Key::Pin(name.clone());
    Txn { compares: vec![as_seen(keyspace, &key, seen)], writes: vec![put(keyspace, &key, pin, None)] }
}

/// Deletes the pin of stage `name`, provided it is as it was seen.
pub fn delete_pin(keyspace: &Keyspace, name: &StageName, seen: u64) -> Txn {
    let key = Key::Pin(name.clone());
    let compares = vec![as_seen(keyspace, &key, Some(seen))];
    Txn { compares, writes: vec![Write::Delete { key: keyspace.name(&key) }] }
}

pub(super) fn as_seen(keyspace: &Keyspace, key: &Key, revision: Option<u64>) -> Compare {
    let key = keyspace.name(key);
    match revision {
        None => Compare::Absent { key },
        Some(revision) => Compare::Unchanged { key, mod_revision: Revision(revision) },
    }
}

/// Claims the slot of `id`, provided the store is as it was `seen`. The same transaction deletes the stage's older
/// claims.
pub fn claim(
    keyspace: &Keyspace,
    id: ClaimId,
    record: &ClaimRecord,
    seen: ClaimSeen,
    older: &[ClaimId],
    lease: LeaseId,
) -> Txn {
    let key = Key::Claim(id);
    let placement = keyspace.name(&Key::Placement);
    let compares = vec![
        Compare::Unchanged { key: placement, mod_revision: Revision(seen.placement_revision) },
        as_seen(keyspace, &key, seen.unusable_revision),
    ];
    let mut writes = vec![put(keyspace, &key, record, Some(lease))];
    writes.extend(older.iter().filter(|older| **older != id).map(|id| delete_claim(keyspace, *id)));
    Txn { compares, writes }
}

/// Writes a claim's new state, provided the claim is there. The same transaction deletes the stage's older claims.
pub fn update_claim(keyspace: &Keyspace, id: ClaimId, record: &ClaimRecord, older: &[ClaimId], lease: LeaseId) -> Txn {
    let key = Key::Claim(id);
    let compares = vec![Compare::Present { key: keyspace.name(&key) }];
    let mut writes = vec![put(keyspace, &key, record, Some(lease))];
    writes.extend(older.iter().map(|id| delete_claim(keyspace, *id)));
    Txn { compares, writes }
}

/// Deletes the records of a stage that is gone and of its claim, and writes the reason `why` under `lease`, provided
/// the claim is as it was seen (by revision): a process that came back since has another claim.
pub fn evict(
    keyspace: &Keyspace,
    name: &StageName,
    id: ClaimId,
    claim_revision: u64,
    why: &EvictionRecord,
    lease: LeaseId,
) -> Txn {
    let claim = keyspace.name(&Key::Claim(id));
    Txn {
        compares: vec![Compare::Unchanged { key: claim, mod_revision: Revision(claim_revision) }],
        writes: vec![
            Write::Delete { key: keyspace.name(&Key::Stage(name.clone())) },
            delete_claim(keyspace, id),
            put(keyspace, &Key::Eviction(name.clone()), why, Some(lease)),
        ],
    }
}

/// Deletes the record of a stage that has not claimed its slot, and writes the reason `why` under `lease`, provided the
/// slot is free and the record is as it was seen (by revision): a stage that has written since reaches the store.
pub fn evict_unclaimed(
    keyspace: &Keyspace,
    name: &StageName,
    record_revision: u64,
    id: ClaimId,
    why: &EvictionRecord,
    lease: LeaseId,
) -> Txn {
    let key = Key::Stage(name.clone());
    Txn {
        compares: vec![as_seen(keyspace, &Key::Claim(id), None), as_seen(keyspace, &key, Some(record_revision))],
        writes: vec![
            Write::Delete { key: keyspace.name(&key) },
            put(keyspace, &Key::Eviction(name.clone()), why, Some(lease)),
        ],
    }
}

/// Deletes the eviction records of these stages, provided that they are still those of these revisions.
pub(super) fn delete_evictions(keyspace: &Keyspace, records: &[(StageName, u64)]) -> Txn {
    let key = |stage: &StageName| keyspace.name(&Key::Eviction(stage.clone()));
    let unchanged = |(stage, revision): &(StageName, u64)| Compare::Unchanged {
        key: key(stage),
        mod_revision: Revision(*revision),
    };
    let delete = |(stage, _): &(StageName, u64)| Write::Delete { key: key(stage) };
    Txn { compares: records.iter().map(unchanged).collect(), writes: records.iter().map(delete).collect() }
}

/// Deletes claims.
pub fn delete_claims(keyspace: &Keyspace, claims: &[ClaimId]) -> Txn {
    Txn { compares: vec![], writes: claims.iter().map(|id| delete_claim(keyspace, *id)).collect() }
}

fn delete_claim(keyspace: &Keyspace, id: ClaimId) -> Write {
    Write::Delete { key: keyspace.name(&Key::Claim(id)) }
}
