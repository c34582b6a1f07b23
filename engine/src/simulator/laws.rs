//! The invariants of a cluster, at any time and at the end.

use std::collections::BTreeSet;
use std::time::Duration;

use schema::record::{ClaimState, Share};
use schema::{ClaimId, Generation};

use super::clients::ClientState;
use super::event::{Event, ProcessEvent};
use super::fault::Fault;
use super::process_id::ProcessId;
use super::stage::StageProcess;
use super::time::{Moment, SECOND, duration};
use super::world::{FAULTS_END, World};
use crate::limits::{FLIGHT_WAIT_MAX, FLIGHT_WAIT_MAX_PER_ROW, GATEWAY_TICK, PROOF_INTERVAL, PROOF_TIMEOUT};
use crate::share::Pool;

/// Time after the last join or leave, and after the operator's last command, from which layers must not move any more.
const RESTS_AFTER: Moment = 20 * SECOND;
/// Time within which a request to a healthy gateway must end.
const DONE_WITHIN: Moment = 60 * SECOND;
/// Longest time since a micro-batch came through the pipeline of a healthy gateway without work.
const PROVEN_WITHIN: Duration =
    Duration::from_secs(8 * PROOF_TIMEOUT.as_secs() + PROOF_INTERVAL.as_secs() + GATEWAY_TICK.as_secs() + 1);
/// The same of a healthy gateway with work: the timeout of that work.
const PROVEN_WITHIN_WITH_WORK: Duration =
    Duration::from_secs(2 * FLIGHT_WAIT_MAX.as_secs() + 256 * FLIGHT_WAIT_MAX_PER_ROW.as_millis() as u64 / 1000);

impl World {
    /// Checks that no process without a lease holds a shard, and that no two processes with a lease have the same layer
    /// ready in the same generation.
    pub(super) fn check_shards(&mut self) {
        for stage in self.stages.iter().flatten().filter(|stage| stage.is_joining() && !stage.keeps_shard()) {
            let held = stage.member().held();
            self.env.check(held.is_none(), || format!("{} lost its lease and holds {held:?}", stage.endpoint()));
        }
        let ready = |stage: &StageProcess| {
            let held = stage.member().held().filter(|held| held.is_ready())?;
            let lease = stage.lease().map(|lease| lease.id);
            Some((held.generation, held.shard.layers, lease, stage.endpoint().to_owned()))
        };
        let ready: Vec<_> = self.stages.iter().flatten().filter_map(ready).collect();
        let now = duration(self.env.now);
        for (index, (generation, layers, lease, endpoint)) in ready.iter().enumerate() {
            for (other_generation, other_layers, other_lease, other) in &ready[..index] {
                let overlap = layers.start() < other_layers.end() && other_layers.start() < layers.end();
                let store = &self.env.store.state;
                let leased = [lease, other_lease].iter().all(|lease| lease.is_some_and(|id| store.knows(id, now)));
                self.env.check(generation != other_generation || !overlap || !leased, || {
                    format!("{endpoint} and {other} both serve some of {layers} in generation {generation}")
                });
            }
        }
    }

    /// Checks that no layer is served by two claims of one generation.
    pub(super) fn check_claims(&mut self) {
        let view = self.env.store.view.clone();
        let mut end = (Generation(0), 0);
        for (ClaimId { generation, slot }, claim) in &view.claims {
            if claim.value.state != ClaimState::Serving {
                continue;
            }
            let layers = claim.value.layers;
            self.env.check(*generation != end.0 || layers.start() >= end.1, || {
                format!("slot {slot} of generation {generation} serves layers that another claim serves, too")
            });
            end = (*generation, layers.end());
        }
    }

    /// Checks that no part of the keys and values is in the shares of two gateways.
    pub(super) fn check_shares(&mut self) {
        let shares = self.env.store.view.gateway_shares();
        let parts: u32 = shares.values().map(|share| share.count()).sum();
        let all = shares.values().fold(Share::EMPTY, |all, share| all.and(*share));
        self.env.check(parts == all.count(), || format!("a part has two owners: {shares:?}"));
        self.env.tally.add(
            "several gateways had shares",
            u64::from(shares.values().filter(|share| !share.is_empty()).count() > 1),
        );
    }

    /// Inspects a gateway: a healthy one gets a request, another one must give the reason.
    pub(super) fn inspect(&mut self, gateway: ProcessId) {
        let env = &mut self.env;
        let is_frozen = env.state(gateway).is_frozen;
        let Some(gateway_process) = self.gateway_processes[gateway.0].as_ref().filter(|_| !is_frozen) else { return };
        let status = gateway_process.conductor().status();
        if !status.serving {
            env.check(!status.reason.is_empty(), || format!("gateway {} gives no reason for not serving", gateway.0));
            if self.faults_over {
                env.after(2 * SECOND, Event::Fault(Fault::Inspected(gateway)));
            }
            return;
        }
        let number = self.clients.late(&self.record.layer_windows, env);
        env.schedule(0, gateway, ProcessEvent::Submits(number));
        if self.faults_over {
            env.after(DONE_WITHIN, Event::Fault(Fault::MustBeDone(number)));
        }
    }

    /// Checks that a request to a healthy gateway after the faults has ended.
    pub(super) fn check_inspected(&mut self, number: usize) {
        let is_done = self.clients.all[number].state == ClientState::Done;
        self.env.check(is_done, || format!("client {number} asked a healthy gateway and waits still"));
    }

    /// Checks that a healthy gateway had a micro-batch come through its pipeline lately.
    pub(super) fn check_health(&mut self, gateway: ProcessId) {
        let now = self.env.instant();
        let Some(process) = &self.gateway_processes[gateway.0] else { return };
        let scheduler = process.conductor().scheduler();
        let proven = scheduler.proven_at().map(|at| now.saturating_duration_since(at));
        let most = if scheduler.in_flight() == 0 { PROVEN_WITHIN } else { PROVEN_WITHIN_WITH_WORK };
        let is_true = !process.conductor().status().serving || proven.is_some_and(|ago| ago <= most);
        self.env.check(is_true, || {
            format!("gateway {} calls itself healthy; a micro-batch came through it {proven:?} ago", gateway.0)
        });
    }

    /// Checks that after the faults layers do not move because of wrong speeds if all stages are on one machine. Layers
    /// that were placed by the room that long sequences needed may move once those have ended.
    pub(super) fn check_rest(&mut self, is_moving: bool) {
        let names: BTreeSet<_> = self.env.store.view.stages.keys().cloned().collect();
        if names != self.live.0 {
            self.live = (names, self.env.now);
        }
        self.needed_room |= self.env.store.view.kv_tokens_needed(&self.record) > self.record.kv_tokens;
        let can_rest = self.one_machine && !self.needed_room;
        let broken = is_moving && can_rest && self.env.now >= self.live.1.max(FAULTS_END) + RESTS_AFTER;
        self.env.check(!broken, || "layers moved though no stage came or went".to_owned());
    }

    /// Checks at the end that the cluster serves, and that no records of dead processes are left.
    pub(super) fn check_aftermath(&mut self) {
        let view = self.env.store.view.clone();
        let kv_blocks = view.serving().map_or(0, |served| served.kv_blocks());
        let pool = view.model.as_ref().map_or(Pool::default(), |model| Pool::new(&model.value, kv_blocks));
        let grown = view.kv_tokens() > Some(self.record.kv_tokens);
        self.env.tally.add("the room for keys and values had grown", u64::from(grown));
        let shares = view.gateway_shares();
        let whole = shares.values().fold(Share::EMPTY, |whole, share| whole.and(*share));
        self.env.check(whole == pool.whole(), || format!("not every part is a gateway's: {shares:?}"));
        let (most, least) =
            (shares.values().map(|share| share.count()).max(), shares.values().map(|share| share.count()).min());
        let even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        self.env.check(even, || format!("shares are not equal: {shares:?}"));
        for number in 0..self.gateways {
            let Some(gateway) = &self.gateway_processes[number] else {
                return self.env.check(false, || format!("gateway {number} is not there"));
            };
            let scheduler = gateway.conductor().scheduler();
            let (load, in_flight, free) = (scheduler.load(), scheduler.in_flight(), scheduler.free_blocks());
            let (counts, endpoint) = (scheduler.counts(), gateway.endpoint());
            let own = view.gateways.values().find(|gateway| gateway.value.endpoint == endpoint);
            let blocks = own.map(|own| pool.blocks(own.value.share).counts());
            let env = &mut self.env;
            env.tally.add("a sequence was preempted", counts.preempted);
            env.tally.add("a window moved on", counts.window_blocks_released);
            env.tally.add("a draft token was accepted", counts.accepted_tokens);
            env.tally.add("a draft token was rejected", counts.draft_tokens - counts.accepted_tokens);
            env.tally.add("a lookahead batch was used", counts.lookahead_batches_used);
            env.tally.add("a lookahead batch was wasted", counts.lookahead_batches - counts.lookahead_batches_used);
            env.check(load == (0, 0) && in_flight == 0, || {
                format!("{load:?} sequences and {in_flight} batches are left")
            });
            env.check(blocks == Some(free), || format!("{free:?} are free of {blocks:?}"));
        }
        self.check_pins();
        // A barred stage may be in quarantine, or have joined without layers.
        let is_barred = |endpoint: &str| self.is_barred(endpoint);
        let alive = self.stages.iter().flatten().map(|stage| stage.endpoint().to_owned());
        let endpoints: Vec<_> = alive.filter(|endpoint| !is_barred(endpoint)).collect();
        let stages = view.stages.values().map(|stage| stage.value.endpoint.clone());
        let stages: Vec<_> = stages.filter(|endpoint| !is_barred(endpoint)).collect();
        let barred_stages = usize::from(self.barred_stage.is_some());
        let mut gateway_endpoints: Vec<_> =
            self.gateway_processes.iter().flatten().map(|gateway| gateway.endpoint().to_owned()).collect();
        gateway_endpoints.sort();
        let env = &mut self.env;
        let serving = view.serving().map(|served| served.claims.len());
        env.check(serving.is_ok(), || format!("the cluster does not serve: {serving:?}"));
        env.check(stages == endpoints, || format!("stages in the store: {stages:?}, alive: {endpoints:?}"));
        let mut gateways: Vec<_> = view.gateways.values().map(|gateway| gateway.value.endpoint.clone()).collect();
        gateways.sort();
        env.check(gateways == gateway_endpoints, || format!("gateways in the store: {gateways:?}"));
        let placed = view.placed();
        let stale: Vec<_> = view.claims.keys().filter(|id| Some(id.generation) != placed).collect();
        env.check(stale.is_empty(), || format!("claims of older generations are left: {stale:?}"));
        let leases = env.store.state.leases();
        let members = endpoints.len() + gateway_endpoints.len();
        env.check((members..=members + barred_stages).contains(&leases), || format!("{leases} leases are left"));
        env.tally.add("a stage stayed barred", barred_stages as u64);
    }
}
