//! An operator with `etcdctl`, who puts and deletes pins while the cluster runs, and the checks of their effects.

use schema::record::{Pin, PinStatus};
use schema::{Key, StageName};

use super::pin::{PinTarget, PinValue};
use super::world::World;
use crate::store::{Txn, Write};
use crate::view::ClusterView;

impl World {
    pub(super) fn put_pin(&mut self, target: PinTarget, value: PinValue) {
        let key = self.keyspace.name(&Key::Pin(target.stage()));
        self.operate(Write::Put { key, value: value.to_bytes(), lease: None });
    }

    pub(super) fn delete_pin(&mut self, target: PinTarget) {
        let key = self.keyspace.name(&Key::Pin(target.stage()));
        self.operate(Write::Delete { key });
    }

    /// An operator's command fails while the store is away, and is not repeated.
    fn operate(&mut self, write: Write) {
        let env = &mut self.env;
        if !env.store.away {
            env.store.state.commit(Txn { compares: Vec::new(), writes: vec![write] }).expect("a pin is written");
            env.spread_news();
        }
    }

    /// Deletes one of the values that members write, or overwrites it with nonsense.
    pub(super) fn corrupt(&mut self, choice: u64, deletes: bool) {
        let view = &self.env.store.view;
        let mut keys = vec![Key::Model, Key::Placement, Key::KeyMark];
        keys.extend(view.gateways.keys().map(|slot| Key::Gateway(*slot)));
        keys.extend(view.stages.keys().map(|stage| Key::Stage(stage.clone())));
        keys.extend(view.claims.keys().map(|id| Key::Claim(*id)));
        let key = self.keyspace.name(&keys[choice as usize % keys.len()]);
        self.env.note(|| format!("an operator {} {key}", if deletes { "deletes" } else { "corrupts" }));
        self.operate(if deletes {
            Write::Delete { key }
        } else {
            Write::Put { key, value: b"{nonsense".to_vec(), lease: None }
        });
    }

    /// Writes the record of a large and fast stage without a proof. Does nothing if the cluster has no key: members
    /// would accept the record.
    pub(super) fn forge(&mut self) {
        if self.env.store.secret().is_none() {
            return;
        }
        let key = self.keyspace.name(&Key::Stage("forged".parse().expect("a legal name")));
        let value = serde_json::to_vec(&crate::testing::stage(u64::MAX)).expect("a record is written");
        self.operate(Write::Put { key, value, lease: None });
    }

    /// Checks that every pin has a status, that nothing else has one, and that the placement obeys the honoured pins.
    pub(super) fn check_pins(&mut self) {
        let view = self.env.store.view.clone();
        let pins = view.pins.iter().map(|(stage, pin)| (stage, pin.mod_revision, Some(pin.value)));
        let broken = view.unreadable_pins.iter().map(|(stage, pin)| (stage, pin.mod_revision, None));
        let pins: Vec<_> = pins.chain(broken).collect();
        let env = &mut self.env;
        env.check(view.pin_statuses.len() == pins.len(), || {
            format!("pins: {pins:?}; statuses: {:?}", view.pin_statuses)
        });
        for (stage, revision, pin) in pins {
            let status = view.pin_statuses.get(stage).map(|status| &status.value);
            let fits = status
                .is_some_and(|status| status.pin_revision == revision && status.honoured == status.reason.is_none());
            let obeyed = match (pin, status) {
                (Some(pin), Some(PinStatus { honoured: true, .. })) => is_obeyed(&view, stage, pin),
                (_, Some(status)) => !status.honoured,
                (_, None) => false,
            };
            env.check(fits && obeyed, || {
                format!("the pin {pin:?} of {stage} has the status {status:?}; placed: {:?}", view.placement)
            });
            let honoured = status.is_some_and(|status| status.honoured);
            env.tally.add("a pin was honoured", honoured.into());
            env.tally.add("a pin could not be honoured", (!honoured).into());
        }
    }
}

fn is_obeyed(view: &ClusterView, stage: &StageName, pin: Pin) -> bool {
    let shards = view.placement.as_ref().map_or(&[][..], |placement| placement.value.shards());
    let held = shards.iter().find(|shard| shard.stage == *stage).map(|shard| shard.layers);
    match pin {
        Pin::Layers(layers) => held == Some(layers),
        Pin::Excluded => held.is_none(),
        Pin::Memory(size) => {
            let room = view.placement.as_ref().and_then(|placement| placement.value.kv_tokens()).unwrap_or(0);
            let model = view.model.as_ref().map(|model| model.value.with_room(room));
            let bound = |held| model.as_ref().map_or(0, |model| model.shard_bytes(held).memory_bound());
            held.is_none_or(|held| bound(held) <= size.bytes())
        }
        Pin::Cordoned => true,
    }
}
