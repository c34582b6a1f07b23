use bytes::Bytes;
use schema::frame::{Frame, Hop};
use schema::record::{ClaimRecord, ClaimState, KvType, Placement, Share};
use schema::{ClaimId, Epoch, Generation, Step};

use super::*;
use crate::decide::{Action, Stability, decide};
use crate::limits::{STORE_RETRY, UPSTREAM_SILENCE_MAX};
use crate::link::{Message, UnreachableKind};
use crate::planner::Proposals;
use crate::stage::done::Loaded;
use crate::store::{Committed, Revision, StoreError, Write};
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
    let memory_bound = Box::new(|_, _| 0);
    let proposals = Proposals::default();
    let setup = MemberSetup { keyspace, name: name("a"), secret: None, record: stage(1000), memory_bound, proposals };
    Member::new(setup, Arc::new(view), now)
}

fn answer() -> Frame {
    let (generation, epoch, step) = (Generation(1), Epoch(1), Step(0));
    let (chosen, spent, hidden_states) = (Vec::new(), Vec::new(), Vec::new());
    Frame::Tokens(schema::frame::Tokens { generation, epoch, step, chosen, spent, hidden_states })
}

/// The outcome of an answer that the gateway took.
fn sent() -> RouteEvent {
    RouteEvent::Sent { frame: answer(), bytes: 0, waited: Duration::ZERO, round_trip: None }
}

/// The outcome of an answer for which the gateway was silent.
fn unsent() -> RouteEvent {
    let (endpoint, cause) = ("ipc:///gateway".to_owned(), "silence".to_owned());
    let found = Unreachable { endpoint: endpoint.clone(), kind: UnreachableKind::Silence, cause: cause.clone() };
    let (frame, waited) = (answer(), Duration::ZERO);
    RouteEvent::Unsent { frame, endpoint, bytes: 0, waited, cause, found: Some(found) }
}

/// Handles an event while the store is busy: a write that follows fails, and is not tried again for `STORE_RETRY`.
fn feed(member: &mut Member, event: Event, now: Instant) -> Vec<Order> {
    let orders = member.handle(event, now);
    if let Some(Order::Commit(purpose, _)) = orders.last() {
        let busy = StoreError::Unavailable { endpoints: "test".to_owned(), reason: "busy".to_owned() };
        member.handle(Event::Written(*purpose, Err(busy)), now);
    }
    orders
}

/// Joins, or decides again.
fn follow(member: &mut Member, now: Instant) -> Vec<Order> {
    member.handle(Event::Joined(LEASE), now)
}

fn load_number(orders: &[Order]) -> u64 {
    let number = |order: &Order| if let Order::Load { number, .. } = order { Some(*number) } else { None };
    orders.iter().find_map(number).expect("an order to load")
}

/// Lets a member claim its slot. Returns its orders once the store has answered.
fn claimed(member: &mut Member, now: Instant) -> Vec<Order> {
    let orders = follow(member, now);
    let Some(Order::Commit(purpose, _)) = orders.last() else { panic!("no claim: {orders:?}") };
    // The view shows the claim only later.
    member.handle(Event::Written(*purpose, Ok(Committed::Applied { revision: Revision(1) })), now)
}

#[test]
fn a_stale_claim_of_the_stage_is_deleted() {
    let now = Instant::now();
    let mut view = view();
    view.claims.insert(ClaimId::new(Generation(0), 3), versioned(claim_of(&view, ClaimState::Serving)));
    let mut member = member(view, now);
    let orders = follow(&mut member, now);
    let [Order::Commit(Purpose::Claim(..), txn)] = &orders[..] else { panic!("{orders:?}") };
    let older = Write::Delete { key: "/baton/v1/test/claims/0/3".to_owned() };
    assert!(txn.writes.contains(&older), "the older claim stays: {txn:?}");
    // The claim is refused, so the older one stays, and the placement has no slot for this stage any more.
    member.handle(Event::Written(Purpose::Claim(ClaimId::new(Generation(1), 0)), Ok(Committed::Refused)), now);
    let mut view = member.view().clone();
    view.claims.insert(
        ClaimId::new(Generation(1), 0),
        versioned(ClaimRecord { stage: name("b"), ..claim_of(&view, ClaimState::Serving) }),
    );
    view.revision = 1;
    let orders = member.handle(Event::ViewChanged(Arc::new(view)), now);
    let [Order::Commit(Purpose::StaleClaims, txn)] = &orders[..] else { panic!("{orders:?}") };
    assert_eq!(txn.writes, [older]);
}

#[test]
fn the_outcome_of_an_earlier_load_is_ignored() {
    let now = Instant::now();
    let mut member = member(view(), now);
    let first = load_number(&claimed(&mut member, now));
    // The lease is lost while it loads; it joins again and claims the same slot.
    member.handle(Event::LeaseLost { is_forgotten: false }, now);
    let now = now + STORE_RETRY;
    let second = load_number(&claimed(&mut member, now));
    let shard = || Ok(Loaded { weights_bytes: 40, copied_bytes: 0, kv_blocks: 1 });
    member.handle(Event::Done(Done::Loaded { number: first, shard: shard() }), now);
    assert!(!member.held().unwrap().is_ready(), "it serves what is about to be unloaded");
    member.handle(Event::Done(Done::Loaded { number: second, shard: shard() }), now);
    assert!(member.held().unwrap().is_ready());
    assert_eq!(member.kv_room().kv_type, KvType::F16);
}

/// A member that serves all layers for the gateways in slots 0 and 1, next to standby stages.
fn serving(others: &[&str], now: Instant) -> Member {
    let mut view = view();
    view.stages.extend(others.iter().map(|other| (name(other), versioned(stage(1000)))));
    view.gateways.extend([0, 1].map(|slot| (slot, versioned(gateway(&format!("7{slot}"), Share::EMPTY)))));
    let mut member = member(view.clone(), now);
    let number = load_number(&claimed(&mut member, now));
    let shard = Ok(Loaded { weights_bytes: 40, copied_bytes: 0, kv_blocks: 1 });
    feed(&mut member, Event::Done(Done::Loaded { number, shard }), now);
    view.claims.insert(ClaimId::new(Generation(1), 0), versioned(claim_of(&view, ClaimState::Serving)));
    feed(&mut member, Event::ViewChanged(Arc::new(view)), now);
    member
}

#[test]
fn a_new_epoch_of_one_gateway_keeps_the_link_for_the_others() {
    let now = Instant::now();
    let mut member = serving(&[], now);
    let mut orders = |gateway, step| {
        let (generation, epoch, step) = (Generation(1), Epoch(1), Step(step));
        let hop = Hop { generation, gateway, epoch, step, slot: 0, rows: 0, hidden: 0, slices: vec![], spent: vec![] };
        member.handle(Event::Arrived(Message { frame: Frame::Hop(hop), activations: Bytes::new() }), now)
    };
    for (gateway, step) in [(0, 0), (0, 1), (1, 0)] {
        let orders = orders(gateway, step);
        assert!(matches!(orders[..], [Order::Compute(..)]), "gateway {gateway}, step {step}: {orders:?}");
    }
}

/// A member "a" that serves the first half for gateway 0, next to "b", which serves the second.
fn serving_first_half(now: Instant) -> Member {
    let mut view = view();
    view.gateways.insert(0, versioned(gateway("70", Share::EMPTY)));
    view.stages.insert(name("b"), versioned(stage(1000)));
    let halves = [("a", 0..2), ("b", 2..4)].map(|(stage, layers)| schema::record::Shard {
        stage: name(stage),
        layers: schema::LayerRange::new(layers.start, layers.end).unwrap(),
    });
    view.placement = Some(versioned(Placement::new(Generation(1), halves.to_vec()).unwrap()));
    let claim = |at: usize| testing::claim_of(&halves[at], ["ipc:///nowhere", "ipc:///b"][at], ClaimState::Serving);
    view.claims.insert(ClaimId::new(Generation(1), 1), versioned(claim(1)));
    let mut member = member(view.clone(), now);
    let number = load_number(&claimed(&mut member, now));
    let shard = Ok(Loaded { weights_bytes: 20, copied_bytes: 0, kv_blocks: 1 });
    feed(&mut member, Event::Done(Done::Loaded { number, shard }), now);
    view.claims.insert(ClaimId::new(Generation(1), 0), versioned(claim(0)));
    feed(&mut member, Event::ViewChanged(Arc::new(view)), now);
    member
}

/// True if the member orders an eviction at `at`.
fn evicts(member: &mut Member, at: Instant) -> bool {
    let is_eviction = |order: &Order| matches!(order, Order::Commit(Purpose::Eviction, _));
    feed(member, Event::Joined(LEASE), at).iter().any(is_eviction)
}

#[test]
fn a_silent_next_stage_is_evicted_unless_this_stage_was_cut_off_itself() {
    let now = Instant::now();
    let later = now + STORE_RETRY;
    let gone = |endpoint: &str| {
        let (endpoint, kind, cause) = (endpoint.to_owned(), UnreachableKind::Silence, String::new());
        Event::Downstream(RouteEvent::Gone(Unreachable { endpoint, kind, cause }))
    };
    // The store is busy when the silence is noticed, so that the eviction is not written at once.
    let noticed = |endpoint| {
        let mut member = serving_first_half(now);
        member.writing = true;
        member.handle(gone(endpoint), now);
        member.writing = false;
        member
    };
    assert!(evicts(&mut noticed("ipc:///b"), later));
    assert!(!evicts(&mut noticed("ipc:///c"), later), "it is not the next stage");
    for is_reachable in [false, true] {
        let mut member = noticed("ipc:///b");
        let view = member.view().clone();
        let mut changed = ClusterView { reachable: is_reachable, ..view.clone() };
        changed.stages.retain(|stage, _| !is_reachable || *stage != name("a"));
        feed(&mut member, Event::ViewChanged(Arc::new(changed)), now);
        feed(&mut member, Event::ViewChanged(Arc::new(view)), now);
        assert!(!evicts(&mut member, later), "it was cut off; the store was reachable: {is_reachable}");
    }
}

#[test]
fn a_stage_that_was_cut_off_does_not_evict_itself_for_answers_of_that_time() {
    let now = Instant::now();
    let mut member = serving(&["b"], now);
    feed(&mut member, Event::Upstream(0, unsent()), now);
    let view = member.view().clone();
    let away = ClusterView { reachable: false, ..view.clone() };
    feed(&mut member, Event::ViewChanged(Arc::new(away)), now);
    feed(&mut member, Event::ViewChanged(Arc::new(view)), now);
    assert!(!evicts(&mut member, now + UPSTREAM_SILENCE_MAX));
}

#[test]
fn a_last_stage_whose_answers_do_not_arrive_evicts_itself_if_others_suffice() {
    let now = Instant::now();
    let serving = |others: &[&str]| {
        let mut member = serving(others, now);
        feed(&mut member, Event::Upstream(0, unsent()), now);
        member
    };
    let late = now + UPSTREAM_SILENCE_MAX;
    let early = late - Duration::from_millis(1);
    assert!(!evicts(&mut serving(&["b"]), early), "the gateway may have stopped");
    assert!(evicts(&mut serving(&["b"]), late));
    assert!(!evicts(&mut serving(&[]), late), "there is no other stage");
    let mut reached = serving(&["b"]);
    feed(&mut reached, Event::Upstream(0, sent()), now);
    assert!(!evicts(&mut reached, late));
    let mut gone = serving(&["b"]);
    let view = ClusterView { gateways: [].into(), ..gone.view().clone() };
    feed(&mut gone, Event::ViewChanged(Arc::new(view)), now);
    assert!(!evicts(&mut gone, late), "the store knows no such gateway any more");
}

#[test]
fn a_link_that_was_measured_again_moves_nothing_unless_it_differs_by_a_factor_of_two() {
    let measured = [940, 600, 1880, 470, 1882, 468, 24];
    assert_eq!(measured.map(|measured| differs(measured, 940)), [false, false, false, false, true, true, true]);
    assert!(differs(1880, 0) && differs(0, 10) && !differs(1, 0));
}
