//! Properties of the state machine over random histories, and its bounds.

use proptest::prelude::*;

use super::*;

/// One step of a random history, over few keys so that steps meet at the same keys.
#[derive(Debug, Clone)]
enum Step {
    Put { key: u8, value: u8, leased: bool },
    Delete { from: u8, to: u8 },
    Revoke,
    Expire { seconds: u64 },
    Compact { back: i64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0u8..8, any::<u8>(), any::<bool>()).prop_map(|(key, value, leased)| Step::Put { key, value, leased }),
        2 => (0u8..8, 0u8..9).prop_map(|(from, to)| Step::Delete { from, to }),
        1 => Just(Step::Revoke),
        1 => (0u64..8).prop_map(|seconds| Step::Expire { seconds }),
        1 => (0i64..10).prop_map(|back| Step::Compact { back }),
    ]
}

/// All visible records, by key.
type Seen = BTreeMap<Vec<u8>, Record>;

fn everything() -> KeyRange {
    KeyRange::prefix(b"")
}

fn seen(state: &State, revision: i64) -> Result<Seen, Refusal> {
    let reply = state.range(&Query { revision, ..Query::all(everything()) })?;
    Ok(reply.records.iter().map(|record| (record.key.clone(), (**record).clone())).collect())
}

fn put(key: &[u8], value: &[u8], lease: i64) -> Op {
    let (key, value) = (key.to_vec(), value.to_vec());
    Op::Put(PutOp { key, value, lease, prev: false, ignore_value: false, ignore_lease: false })
}

fn apply(state: &mut State, step: &Step, lease: &mut i64, now: &mut Duration) {
    match *step {
        Step::Put { key, value, leased } => {
            if leased && state.lease_status(*lease, *now).is_none() {
                *lease = state.grant(0, 5, *now).unwrap().0;
            }
            state.run(put(&[b'k', key], &[value], if leased { *lease } else { 0 })).unwrap();
        }
        Step::Delete { from, to } => {
            let range = KeyRange::new(vec![b'k', from], vec![b'k', to]).unwrap();
            state.run(Op::Delete(DeleteOp { range, prev: false })).unwrap();
        }
        Step::Revoke => {
            let known = state.lease_status(*lease, *now).is_some();
            assert_eq!(state.revoke(*lease).is_ok(), known);
        }
        Step::Expire { seconds } => {
            *now += Duration::from_secs(seconds);
            state.expire(*now);
        }
        Step::Compact { back } => {
            // Refused if that revision is compacted already.
            let _ = state.compact(state.revision() - back);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_past_can_be_read_and_replayed_and_the_books_agree(steps in prop::collection::vec(step(), 1..60)) {
        let mut state = State::new();
        let (mut lease, mut now) = (0, Duration::ZERO);
        let mut past = BTreeMap::from([(state.revision(), Seen::new())]);
        for step in &steps {
            let before = state.revision();
            apply(&mut state, step, &mut lease, &mut now);
            let present = seen(&state, 0).unwrap();
            // The revision grows exactly if something changed.
            prop_assert_eq!(state.revision() == before, past[&before] == present);
            past.insert(state.revision(), present);
        }
        let present = &past[&state.revision()];

        for (&revision, then) in &past {
            // Reading at a revision shows the records of that time.
            match seen(&state, revision) {
                Ok(found) => prop_assert_eq!(&found, then),
                Err(refusal) => prop_assert_eq!(refusal, Refusal::Compacted),
            }
            // Applying the changes since a revision to the records of that time gives the current records.
            let Ok((events, next)) = state.changes(&everything(), revision + 1) else { continue };
            prop_assert_eq!(next, state.revision() + 1);
            let mut replayed = then.clone();
            for event in events {
                prop_assert_eq!(replayed.get(&event.record.key), event.prev.as_deref());
                match event.deleted {
                    true => replayed.remove(&event.record.key),
                    false => replayed.insert(event.record.key.clone(), (*event.record).clone()),
                };
            }
            prop_assert_eq!(&replayed, present);
        }

        prop_assert_eq!(state.bytes(), present.values().map(Record::bytes).sum::<usize>());
        for id in state.lease_ids() {
            let attached = state.lease_status(id, now).unwrap().keys;
            let under: Vec<_> = present.values().filter(|r| r.lease == id).map(|r| r.key.clone()).collect();
            prop_assert_eq!(attached, under);
        }
        prop_assert!(present.values().all(|r| r.lease == 0 || state.lease_ids().contains(&r.lease)));
    }
}

#[test]
fn the_history_is_bounded_in_bytes() {
    let mut state = State::new();
    let value = vec![0; 1 << 20];
    for _ in 0..2 * limits::HISTORY_BYTES_MAX / value.len() {
        state.run(put(b"k", &value, 0)).unwrap();
    }
    assert!(state.history.held_bytes() <= limits::HISTORY_BYTES_MAX);
    let gone = state.changes(&everything(), 2).unwrap_err();
    let (kept, _) = state.changes(&everything(), gone.oldest).unwrap();
    assert_eq!(kept[0].record.mod_revision, gone.oldest);
}

#[test]
fn the_history_is_bounded_in_number() {
    let mut state = State::new();
    for _ in 0..limits::HISTORY_EVENTS_MAX + 10 {
        state.run(put(b"k", b"", 0)).unwrap();
    }
    assert_eq!(state.changes(&everything(), 2).unwrap_err(), HistoryGone { oldest: 12 });
}

#[test]
fn a_long_history_comes_in_portions_that_end_between_commits() {
    let mut state = State::new();
    for _ in 0..100 {
        let then = (0..30u8).map(|key| put(&[key], b"v", 0)).collect();
        state.txn(Transaction { then, ..Transaction::default() }).unwrap();
    }
    let (mut from, mut portions) = (2, Vec::new());
    while from <= state.revision() {
        let (events, next) = state.changes(&everything(), from).unwrap();
        assert!(events.len() < limits::WATCH_BATCH_EVENTS_MAX + 30);
        assert_eq!(events.last().unwrap().record.mod_revision, next - 1);
        portions.push(events.len());
        from = next;
    }
    assert_eq!(portions, [1020, 1020, 960]);
}

#[test]
fn more_keys_than_the_bound_are_refused_and_old_ones_can_still_be_written() {
    let mut state = State::new();
    let key = |number: usize| format!("{number:06}").into_bytes();
    for number in 0..limits::KEYS_MAX {
        state.run(put(&key(number), b"", 0)).unwrap();
    }
    let error = state.run(put(&key(limits::KEYS_MAX), b"", 0)).unwrap_err();
    assert!(matches!(error, Refusal::Full(_)), "{error}");
    state.run(put(&key(0), b"new", 0)).unwrap();
    // Even a commit that deletes everything fits the history.
    let before = state.revision();
    state.run(Op::Delete(DeleteOp { range: everything(), prev: false })).unwrap();
    let (events, _) = state.changes(&everything(), before + 1).unwrap();
    assert_eq!(events.len(), limits::KEYS_MAX);
}

#[test]
fn more_leases_than_the_bound_are_refused() {
    let mut state = State::new();
    for _ in 0..limits::LEASES_MAX {
        state.grant(0, 60, Duration::ZERO).unwrap();
    }
    assert!(matches!(state.grant(0, 60, Duration::ZERO), Err(Refusal::Full(_))));
    state.expire(Duration::from_secs(60));
    state.grant(0, 60, Duration::from_secs(60)).unwrap();
}

#[test]
fn a_lease_ends_at_its_deadline_and_not_before() {
    let mut state = State::new();
    let seconds = Duration::from_secs;
    let (id, granted) = state.grant(7, 1, seconds(10)).unwrap();
    assert_eq!((id, granted), (7, 2));
    assert_eq!(state.grant(7, 1, seconds(10)).unwrap_err(), Refusal::LeaseExists);
    state.run(put(b"k", b"v", 7)).unwrap();
    assert_eq!(state.next_deadline(), Some(seconds(12)));
    assert!(!state.expire(Duration::from_millis(11_999)));
    assert_eq!(state.keep_alive(7, seconds(11)), Some(2));
    assert!(!state.expire(Duration::from_millis(12_999)));
    assert!(state.expire(seconds(13)));
    assert!(seen(&state, 0).unwrap().is_empty());
    assert_eq!(state.keep_alive(7, seconds(13)), None);
}

#[test]
fn a_refused_transaction_leaves_no_trace() {
    let mut state = State::new();
    state.run(put(b"k", b"v", 0)).unwrap();
    let before = (seen(&state, 0).unwrap(), state.revision());
    let delete = || Op::Delete(DeleteOp { range: everything(), prev: false });
    let read_future = Op::Range(Query { revision: 99, ..Query::all(everything()) });
    let keep_value = Op::Put(PutOp {
        key: b"x".into(),
        value: vec![],
        lease: 0,
        prev: false,
        ignore_value: true,
        ignore_lease: false,
    });
    for (bad, refusal) in [
        (put(b"a", b"", 99), Refusal::LeaseNotFound),
        (put(b"", b"", 0), Refusal::EmptyKey),
        (read_future, Refusal::FutureRevision),
        (keep_value, Refusal::KeyNotFound),
    ] {
        let txn = Transaction {
            then: vec![Op::Delete(DeleteOp { range: KeyRange::One(b"k".into()), prev: false }), bad],
            ..Transaction::default()
        };
        assert_eq!(state.txn(txn).unwrap_err(), refusal);
    }
    let both = Transaction { then: vec![put(b"a", b"", 0), delete()], ..Transaction::default() };
    assert_eq!(state.txn(both).unwrap_err(), Refusal::DuplicateKey);
    let many = Transaction { then: vec![delete(); limits::TXN_OPS_MAX + 1], ..Transaction::default() };
    assert_eq!(state.txn(many).unwrap_err(), Refusal::TooManyOps);
    assert_eq!((seen(&state, 0).unwrap(), state.revision()), before);
}

#[test]
fn a_condition_on_an_absent_key_sees_zeros_but_no_value() {
    let mut state = State::new();
    let mut holds = |against, relation| {
        let condition = Condition { range: KeyRange::One(b"k".into()), against, relation };
        state.txn(Transaction { conditions: vec![condition], ..Transaction::default() }).unwrap().succeeded
    };
    assert!(holds(Against::Version(0), Relation::Equal));
    assert!(holds(Against::Create(1), Relation::Less));
    assert!(holds(Against::Modified(3), Relation::NotEqual));
    assert!(holds(Against::Lease(0), Relation::Equal));
    assert!(!holds(Against::Value(vec![]), Relation::Equal));
    assert!(!holds(Against::Value(b"x".into()), Relation::NotEqual));
}

#[test]
fn a_prefix_that_ends_in_the_last_byte_still_has_an_end() {
    assert_eq!(KeyRange::prefix(&[1, 0xff]), KeyRange::Half(vec![1, 0xff], vec![2]));
    assert_eq!(KeyRange::prefix(&[0xff, 0xff]), KeyRange::From(vec![0xff, 0xff]));
    assert!(!KeyRange::prefix(&[1, 0xff]).contains(&[2]));
    assert!(KeyRange::prefix(&[1, 0xff]).contains(&[1, 0xff, 0]));
}
