use schema::frame::Tokens;
use schema::record::{ClaimState, Placement, Shard, Share};
use schema::{ClaimId, LayerRange, StageName};

use super::*;
use crate::store::LeaseId;
use crate::testing::{claim_of, gateway, model, stage};

const LEASE: LeaseId = LeaseId(77);
const REGISTERED: GatewayRegistration = GatewayRegistration { number: 1, slot: 0, lease: LEASE, former: None };

fn versioned<T>(value: T) -> Versioned<T> {
    Versioned { value, mod_revision: 7 }
}

/// A view with one stage that serves all layers, and this gateway.
fn view() -> ClusterView {
    let (name, layers) = ("a".parse::<StageName>().unwrap(), LayerRange::new(0, 4).unwrap());
    let shard = Shard { layers, stage: name.clone() };
    let claim = claim_of(&shard, "ipc:///stage", ClaimState::Serving);
    let gateway = gateway(&LEASE.to_string(), Share::of(0..32));
    let shards = vec![shard];
    ClusterView {
        reachable: true,
        model: Some(versioned(model(&[10; 4], 0))),
        placement: Some(versioned(Placement::new(Generation(1), shards).unwrap())),
        stages: [(name, versioned(stage(1000)))].into(),
        claims: [(ClaimId::new(Generation(1), 0), versioned(claim))].into(),
        gateways: [(0, versioned(gateway))].into(),
        ..ClusterView::default()
    }
}

fn view_of(conductor: &mut Conductor, view: ClusterView) -> Vec<Order> {
    conductor.handle(Event::ViewChanged(Arc::new(view)), Instant::now())
}

/// True if the orders begin a new epoch because the cluster has changed.
fn begins_epoch(orders: &[Order]) -> bool {
    orders.iter().any(|order| matches!(order, Order::NewEpoch(None)))
}

/// Answers the empty micro-batch that proves that the pipeline works.
fn prove(conductor: &mut Conductor, orders: Vec<Order>) {
    let hop = |order| if let Order::Send { hop, .. } = order { Some(hop) } else { None };
    let hop = orders.into_iter().find_map(hop).expect("an empty micro-batch");
    assert_eq!((hop.step, hop.rows), (Step(0), 0));
    let Hop { generation, epoch, step, .. } = hop;
    let tokens = Tokens { generation, epoch, step, chosen: Vec::new(), spent: Vec::new(), hidden_states: Vec::new() };
    let orders = conductor.handle(Event::Arrived(Frame::Tokens(tokens)), Instant::now());
    assert!(!orders.iter().any(|order| matches!(order, Order::NewEpoch(_))), "{orders:?}");
}

#[test]
fn an_unreachable_store_changes_nothing_and_its_last_view_counts() {
    let keyspace = Keyspace::new(&"test".parse().unwrap());
    let mut conductor = Conductor::new(keyspace, Scheduler::new(false), Arc::new(ClusterView::default()));
    conductor.handle(Event::Registered(REGISTERED), Instant::now());
    let orders = view_of(&mut conductor, view());
    assert!(begins_epoch(&orders) && !conductor.status().serving, "nothing came through");
    prove(&mut conductor, orders);
    assert!(conductor.status().serving);
    assert!(!begins_epoch(&view_of(&mut conductor, ClusterView { reachable: false, ..view() })));
    assert!(conductor.status().serving);
    // The gateway sees only the newest view. A view without the claim may be replaced, before it is seen, by one that
    // also says that the store is unreachable. Its other contents count all the same.
    let gone = ClusterView { reachable: false, claims: [].into(), ..view() };
    assert!(begins_epoch(&view_of(&mut conductor, gone)));
    assert!(!conductor.status().serving);
}

#[test]
fn an_epoch_that_a_stage_made_up_is_not_followed() {
    let keyspace = Keyspace::new(&"test".parse().unwrap());
    let mut conductor = Conductor::new(keyspace, Scheduler::new(false), Arc::new(ClusterView::default()));
    conductor.handle(Event::Registered(REGISTERED), Instant::now());
    let hop = |orders: Vec<Order>| {
        orders.into_iter().find_map(|order| if let Order::Send { hop, .. } = order { Some(hop) } else { None })
    };
    let mut sent = hop(view_of(&mut conductor, view())).expect("an empty micro-batch");
    for (known, next) in [(u64::MAX, sent.epoch.0 + 1), (u64::MAX / 2, sent.epoch.0 + 2), (1 << 50, (1 << 50) + 1)] {
        let Hop { generation, epoch, step, slot, .. } = sent;
        let (reason, epoch_known) = ("stale".to_owned(), Epoch(known));
        let refusal = schema::frame::Refusal { generation, epoch, step, slot, reason, passing: true, epoch_known };
        let now = Instant::now();
        conductor.handle(Event::Arrived(Frame::Refusal(refusal)), now);
        sent = hop(conductor.handle(Event::Wake, now + REFUSAL_PAUSE)).expect("the next epoch");
        assert_eq!(sent.epoch, Epoch(next), "a stage said that it knows {known}");
    }
    // Stages that do not know that epoch yet learn of it from the gateway's record.
    let orders = conductor.handle(Event::Tick, Instant::now() + std::time::Duration::from_secs(1));
    let Some(Order::Commit(Purpose::Record, txn)) = orders.last() else { panic!("no record: {orders:?}") };
    let crate::store::Write::Put { value, .. } = &txn.writes[0] else { panic!("{txn:?}") };
    let record: GatewayRecord = serde_json::from_slice(value).unwrap();
    assert_eq!(record.epoch, Some(sent.epoch));
}

#[test]
fn addresses_that_have_changed_are_written_once() {
    let keyspace = Keyspace::new(&"test".parse().unwrap());
    let mut conductor = Conductor::new(keyspace, Scheduler::new(false), Arc::new(ClusterView::default()));
    conductor.handle(Event::Registered(REGISTERED), Instant::now());
    view_of(&mut conductor, view());
    let interface = schema::record::NetworkInterface {
        name: "late0".to_owned(),
        kind: schema::record::InterfaceKind::Ethernet,
        megabits_per_second: None,
        mtu: Some(1500),
    };
    let late = AdvertisedAddress { endpoint: "tcp://10.9.9.9:7000".to_owned(), interface };
    let orders = conductor.handle(Event::AddressesChanged(vec![late]), Instant::now());
    let Some(Order::Commit(Purpose::Record, txn)) = orders.last() else { panic!("no record: {orders:?}") };
    let crate::store::Write::Put { value, .. } = &txn.writes[0] else { panic!("{txn:?}") };
    let record: GatewayRecord = serde_json::from_slice(value).unwrap();
    assert_eq!(record.addresses[0].endpoint, "tcp://10.9.9.9:7000");
    conductor.handle(Event::Written(Purpose::Record), Instant::now());
    let mut written = view();
    written.gateways.insert(0, versioned(record));
    let orders = view_of(&mut conductor, written);
    assert!(!orders.iter().any(|order| matches!(order, Order::Commit(Purpose::Record, _))), "{orders:?}");
}
