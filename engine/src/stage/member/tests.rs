use schema::record::{ClaimRecord, ClaimState, KvType, Placement, Share};

use super::*;
use crate::decide::Action;
use crate::store::{Revision, Write};
use crate::testing::{self, gateway, model, name, stage};
use crate::view::Versioned;

const LEASE: LeaseId = LeaseId(1);

fn versioned<T>(value: T) -> Versioned<T> {
    Versioned { value, mod_revision: 7 }
}

/// One stage, called "a", and the placement that gives it everything.
fn view() -> ClusterView {
    let mut view = ClusterView {
        reachable: true,
        model: Some(versioned(model(&[10; 4], 0))),
        stages: [(name("a"), versioned(stage(1000)))].into(),
        ..ClusterView::default()
    };
    let Action::Propose { placement, .. } = decide(&view, &name("a"), Stability::Settled) else {
        panic!("no proposal")
    };
    view.placement = Some(versioned(placement));
    view
}

fn claim_of(view: &ClusterView, state: ClaimState) -> ClaimRecord {
    let placement: &Placement = &view.placement.as_ref().unwrap().value;
    let shard = placement.shard(0).unwrap();
    testing::claim_of(shard, "ipc:///nowhere", state)
}

fn member(view: ClusterView, now: Instant) -> Member {
    let keyspace = Keyspace::new(&"test".parse().unwrap());
    Member::new(keyspace, (name("a"), None), stage(1000), Arc::new(view), now)
}

fn silent() -> Unreachable {
    Unreachable { endpoint: "ipc:///head".to_owned(), absence: Absence::Silence, cause: "silence".to_owned() }
}

fn follow(member: &mut Member, now: Instant) -> Vec<Order> {
    member.follow_plan(LEASE, &|_, _| 0, now)
}

fn load_number(orders: &[Order]) -> u64 {
    let number = |order: &Order| if let Order::Load { number, .. } = order { Some(*number) } else { None };
    orders.iter().find_map(number).expect("an order to load")
}

/// Has a member claim its slot; what it orders when the store has answered.
fn claimed(member: &mut Member, now: Instant) -> Vec<Order> {
    let orders = follow(member, now);
    let Some(Order::Commit(purpose, _)) = orders.last() else { panic!("no claim: {orders:?}") };
    member.written(*purpose, Ok(Committed::Applied { revision: Revision(0) }), now)
}

#[test]
fn a_claim_in_its_name_that_stands_for_nothing_it_holds_is_given_up() {
    let now = Instant::now();
    let mut view = view();
    view.claims.insert((Generation(0), 3), versioned(claim_of(&view, ClaimState::Serving)));
    let mut member = member(view, now);
    let orders = follow(&mut member, now);
    let [Order::Commit(Purpose::Claim(..), txn)] = &orders[..] else { panic!("{orders:?}") };
    let older = Write::Delete { key: "/baton/v1/test/claims/0/3".to_owned() };
    assert!(txn.writes.contains(&older), "the older claim stays: {txn:?}");
    // Refused, so it stays after all; and the placement has no place for this stage any more.
    member.written(Purpose::Claim(Generation(1), 0), Ok(Committed::Refused), now);
    let mut view = member.view().clone();
    view.claims.insert(
        (Generation(1), 0),
        versioned(ClaimRecord { stage: name("b"), ..claim_of(&view, ClaimState::Serving) }),
    );
    view.revision = 1;
    member.see(Arc::new(view), now);
    let orders = follow(&mut member, now);
    let [Order::Commit(Purpose::Leave, txn)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(txn.writes, [older]);
}

#[test]
fn the_end_of_an_earlier_load_is_not_taken_for_that_of_the_last() {
    let now = Instant::now();
    let mut member = member(view(), now);
    let first = load_number(&claimed(&mut member, now));
    member.leave(); // The lease is lost while it loads; it joins again and claims the same slot.
    let second = load_number(&claimed(&mut member, now));
    let shard = || Ok(Loaded { weights_bytes: 40, kv_blocks: 1 });
    member.loaded(first, shard());
    assert!(!member.held().unwrap().is_ready(), "it serves what is about to be unloaded");
    member.loaded(second, shard());
    assert!(member.held().unwrap().is_ready());
    assert_eq!(member.kv_room().kv_type, KvType::F16);
}

/// A member that serves everything, beside others that have nothing to do, for gateways in slots 0 and 1.
fn serving(others: &[&str], now: Instant) -> Member {
    let mut view = view();
    view.stages.extend(others.iter().map(|other| (name(other), versioned(stage(1000)))));
    view.gateways.extend([0, 1].map(|slot| (slot, versioned(gateway(&format!("7{slot}"), Share::EMPTY)))));
    let mut member = member(view.clone(), now);
    let number = load_number(&claimed(&mut member, now));
    member.loaded(number, Ok(Loaded { weights_bytes: 40, kv_blocks: 1 }));
    view.claims.insert((Generation(1), 0), versioned(claim_of(&view, ClaimState::Serving)));
    member.see(Arc::new(view), now);
    member
}

#[test]
fn where_one_gateway_begins_the_link_that_carries_the_work_of_others_stays() {
    let mut member = serving(&[], Instant::now());
    let mut orders = |gateway, step| {
        let (generation, epoch, step) = (Generation(1), Epoch(1), Step(step));
        let hop = Hop { generation, gateway, epoch, step, slot: 0, rows: 0, hidden: 0, slices: vec![], spent: vec![] };
        member.arrived(Message { frame: Frame::Hop(hop), activations: Bytes::new() })
    };
    for (gateway, step) in [(0, 0), (0, 1), (1, 0)] {
        let orders = orders(gateway, step);
        assert!(matches!(orders[..], [Order::Compute(..)]), "gateway {gateway}, step {step}: {orders:?}");
    }
}

#[test]
fn a_last_stage_that_a_gateway_does_not_hear_makes_room_if_another_is_there() {
    let now = Instant::now();
    let serving = |others: &[&str]| {
        let mut member = serving(others, now);
        member.answered(0, Some(silent()), now);
        member
    };
    let makes_room = |member: &mut Member, at| {
        let is_strike = |order: &Order| matches!(order, Order::Commit(Purpose::Eviction, _));
        follow(member, at).iter().any(is_strike)
    };
    let late = now + UNHEARD_MAX;
    let early = late - Duration::from_millis(1);
    assert!(!makes_room(&mut serving(&["b"]), early), "the gateway may have stopped");
    assert!(makes_room(&mut serving(&["b"]), late));
    assert!(!makes_room(&mut serving(&[]), late), "there is no other stage");
    let mut heard = serving(&["b"]);
    heard.answered(0, None, now);
    assert!(!makes_room(&mut heard, late));
    let mut gone = serving(&["b"]);
    let view = ClusterView { gateways: [].into(), ..gone.view().clone() };
    gone.see(Arc::new(view), now);
    assert!(!makes_room(&mut gone, late), "the store knows no such gateway any more");
}
