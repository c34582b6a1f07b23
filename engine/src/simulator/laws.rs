//! What must be true of a cluster at any time, and what is left when all is done.

use std::collections::BTreeSet;
use std::time::Duration;

use schema::Generation;
use schema::record::{ClaimState, Share};

use super::clients::Standing;
use super::faults::Fault;
use super::stage::StageProcess;
use super::surroundings::{Event, Happening, Moment, Party, SECOND, duration};
use super::world::{PEACE, World};
use crate::limits::{FLIGHT_WAIT_MAX, FLIGHT_WAIT_MAX_PER_ROW, GATEWAY_TICK, PROVE_EVERY, PROVE_WAIT};
use crate::share::Pool;

/// So long after the last stage has come or gone, and operators have done their last, nothing moves any more.
const RESTS_AFTER: Moment = 20 * SECOND;
/// After so long a request to a healthy gateway must have ended.
const DONE_WITHIN: Moment = 60 * SECOND;
/// So long ago, at most, something came through the pipeline of a healthy gateway without work.
const PROVEN_WITHIN: Duration =
    Duration::from_secs(8 * PROVE_WAIT.as_secs() + PROVE_EVERY.as_secs() + GATEWAY_TICK.as_secs() + 1);
/// And of one with work, which is waited for as long as it may take.
const PROVEN_WITHIN_WITH_WORK: Duration =
    Duration::from_secs(2 * FLIGHT_WAIT_MAX.as_secs() + 256 * FLIGHT_WAIT_MAX_PER_ROW.as_millis() as u64 / 1000);

impl World {
    /// No process without a lease holds anything, and no two with one have the same layer ready in the same generation.
    pub(super) fn check_shards(&mut self) {
        for stage in self.stages.iter().flatten().filter(|stage| stage.is_joining() && !stage.keeps()) {
            let held = stage.member().held();
            self.around.law(held.is_none(), || format!("{} lost its lease and holds {held:?}", stage.endpoint()));
        }
        let ready = |stage: &StageProcess| {
            let held = stage.member().held().filter(|held| held.is_ready())?;
            let lease = stage.lease().map(|lease| lease.id);
            Some((held.generation, held.shard.layers, lease, stage.endpoint().to_owned()))
        };
        let ready: Vec<_> = self.stages.iter().flatten().filter_map(ready).collect();
        let now = duration(self.around.now);
        for (index, (generation, layers, lease, endpoint)) in ready.iter().enumerate() {
            for (other_generation, other_layers, other_lease, other) in &ready[..index] {
                let overlap = layers.start() < other_layers.end() && other_layers.start() < layers.end();
                let store = &self.around.depot.store;
                let leased = [lease, other_lease].iter().all(|lease| lease.is_some_and(|id| store.knows(id, now)));
                self.around.law(generation != other_generation || !overlap || !leased, || {
                    format!("{endpoint} and {other} both serve some of {layers} in generation {generation}")
                });
            }
        }
    }

    /// No layer is served by two claims of one generation.
    pub(super) fn check_claims(&mut self) {
        let view = self.around.depot.view.clone();
        let mut end = (Generation(0), 0);
        for ((generation, slot), claim) in &view.claims {
            if claim.value.state != ClaimState::Serving {
                continue;
            }
            let layers = claim.value.layers;
            self.around.law(*generation != end.0 || layers.start() >= end.1, || {
                format!("slot {slot} of generation {generation} serves layers that another claim serves, too")
            });
            end = (*generation, layers.end());
        }
    }

    /// No part of the keys and values is in two gateways' shares, nor given out by a gateway to whom it does not belong.
    pub(super) fn check_shares(&mut self) {
        let shares = self.around.depot.view.gateway_shares();
        let parts: u32 = shares.values().map(|share| share.count()).sum();
        let all = shares.values().fold(Share::EMPTY, |all, share| all.and(*share));
        self.around.law(parts == all.count(), || format!("a part has two owners: {shares:?}"));
        self.around.tally.add(
            "several gateways had shares",
            u64::from(shares.values().filter(|share| !share.is_empty()).count() > 1),
        );
    }

    /// A gateway that calls itself healthy has had a micro-batch come through lately, and takes a request; one that does not
    /// says why.
    pub(super) fn inspect(&mut self, gateway: Party) {
        let around = &mut self.around;
        let is_frozen = around.life(gateway).is_frozen;
        let Some(head) = self.gateway_processes[gateway.0].as_ref().filter(|_| !is_frozen) else { return };
        let status = head.conductor().status();
        if !status.serving {
            around
                .law(!status.reason.is_empty(), || format!("gateway {} does not say why it does not serve", gateway.0));
            if self.peace {
                around.after(2 * SECOND, Event::Fault(Fault::Inspected(gateway)));
            }
            return;
        }
        let number = self.clients.late(self.layers, around);
        around.happens(0, gateway, Happening::Submits(number));
        if self.peace {
            around.after(DONE_WITHIN, Event::Fault(Fault::MustBeDone(number)));
        }
    }

    /// A request that a healthy gateway took when there was peace must have ended.
    pub(super) fn check_inspected(&mut self, number: usize) {
        let is_done = self.clients.all[number].standing == Standing::Done;
        self.around.law(is_done, || format!("client {number} asked a healthy gateway and waits still"));
    }

    /// A gateway is healthy only if something came through its pipeline lately.
    pub(super) fn check_health(&mut self, gateway: Party) {
        let now = self.around.instant();
        let Some(head) = &self.gateway_processes[gateway.0] else { return };
        let scheduler = head.conductor().scheduler();
        let proven = scheduler.proven_at().map(|at| now.saturating_duration_since(at));
        let most = if scheduler.in_flight() == 0 { PROVEN_WITHIN } else { PROVEN_WITHIN_WITH_WORK };
        let is_true = !head.conductor().status().serving || proven.is_some_and(|ago| ago <= most);
        self.around.law(is_true, || {
            format!("gateway {} calls itself healthy; a micro-batch came through it {proven:?} ago", gateway.0)
        });
    }

    /// Checks that layers do not move in peace for wrong speeds if all stages are on one machine.
    pub(super) fn check_rest(&mut self, is_moving: bool) {
        let names: BTreeSet<_> = self.around.depot.view.stages.keys().cloned().collect();
        if names != self.live.0 {
            self.live = (names, self.around.now);
        }
        let broken = is_moving && self.alike && self.around.now >= self.live.1.max(PEACE) + RESTS_AFTER;
        self.around.law(!broken, || "layers moved though nobody came or went".to_owned());
    }

    /// When all is done, the cluster serves, and nothing is left of what is gone.
    pub(super) fn check_aftermath(&mut self) {
        let view = self.around.depot.view.clone();
        let pool = view.model.as_ref().map_or(Pool::default(), |model| Pool::new(&model.value));
        let shares = view.gateway_shares();
        let whole = shares.values().fold(Share::EMPTY, |whole, share| whole.and(*share));
        self.around.law(whole == pool.whole(), || format!("not every part is a gateway's: {shares:?}"));
        let (most, least) =
            (shares.values().map(|share| share.count()).max(), shares.values().map(|share| share.count()).min());
        let even = most.zip(least).is_some_and(|(most, least)| most - least <= 1);
        self.around.law(even, || format!("shares are not equal: {shares:?}"));
        for number in 0..self.gateways {
            let Some(head) = &self.gateway_processes[number] else {
                return self.around.law(false, || format!("gateway {number} is not there"));
            };
            let scheduler = head.conductor().scheduler();
            let (load, in_flight, free) = (scheduler.load(), scheduler.in_flight(), scheduler.free_blocks());
            let (counts, endpoint) = (scheduler.counts(), head.endpoint());
            let own = view.gateways.values().find(|gateway| gateway.value.endpoint == endpoint);
            let blocks = own.map(|own| pool.blocks(own.value.share).count());
            let around = &mut self.around;
            around.tally.add("a sequence was preempted", counts.preempted);
            around.tally.add("a guess came true", counts.guessed_right);
            around.tally.add("a guess was wrong", counts.guessed - counts.guessed_right);
            around.tally.add("a stage went on from guesses", counts.ahead_right);
            around.tally.add("a stage went on from guesses for nothing", counts.ahead - counts.ahead_right);
            around.law(load == (0, 0) && in_flight == 0, || {
                format!("{load:?} sequences and {in_flight} batches are left")
            });
            around.law(blocks == Some(free), || format!("{free} blocks are free of {blocks:?}"));
        }
        self.check_pins();
        // An outcast may be in quarantine, or have joined and hold nothing.
        let is_outcast = |endpoint: &str| self.is_outcast(endpoint);
        let alive = self.stages.iter().flatten().map(|stage| stage.endpoint().to_owned());
        let endpoints: Vec<_> = alive.filter(|endpoint| !is_outcast(endpoint)).collect();
        let stages = view.stages.values().map(|stage| stage.value.endpoint.clone());
        let stages: Vec<_> = stages.filter(|endpoint| !is_outcast(endpoint)).collect();
        let outcasts = usize::from(self.outcast.is_some());
        let mut gateway_endpoints: Vec<_> =
            self.gateway_processes.iter().flatten().map(|head| head.endpoint().to_owned()).collect();
        gateway_endpoints.sort();
        let around = &mut self.around;
        let serving = view.serving().map(|served| served.claims.len());
        around.law(serving.is_ok(), || format!("the cluster does not serve: {serving:?}"));
        around.law(stages == endpoints, || format!("stages in the store: {stages:?}, alive: {endpoints:?}"));
        let mut gateways: Vec<_> = view.gateways.values().map(|gateway| gateway.value.endpoint.clone()).collect();
        gateways.sort();
        around.law(gateways == gateway_endpoints, || format!("gateways in the store: {gateways:?}"));
        let placed = view.placed();
        let stale: Vec<_> = view.claims.keys().filter(|(generation, _)| Some(*generation) != placed).collect();
        around.law(stale.is_empty(), || format!("claims of older generations are left: {stale:?}"));
        let leases = around.depot.store.leases();
        let members = endpoints.len() + gateway_endpoints.len();
        around.law((members..=members + outcasts).contains(&leases), || format!("{leases} leases are left"));
        around.tally.add("a stage stayed barred", outcasts as u64);
    }
}
