//! An operator with `etcdctl`: the pins that are put and deleted while all else goes on, and what must have become of them.

use schema::record::{Pin, PinStatus};
use schema::{ByteSize, Key, LayerRange, StageName};

use super::dice::Dice;
use super::model;
use super::stage::name;
use super::surroundings::{GATEWAYS, Party};
use super::world::World;
use crate::store::{Txn, Write};
use crate::view::ClusterView;

/// What the operator puts: a pin, or what was meant to be one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wish {
    Pin(Pin),
    Broken,
}

/// Whose pin it is; every now and then that of a stage which does not exist.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whose {
    Stage(Party),
    Nobody,
}

// === impl Wish ===

impl Wish {
    /// Any wish about a model of `layers` layers: what can be honoured, and what can not.
    pub(super) fn roll(layers: u32, kv_tokens: u32, dice: &mut Dice) -> Self {
        let mut some = |least: u32, most: u32| dice.within(u64::from(least)..u64::from(most)) as u32;
        match some(0, 12) {
            0 => Self::Broken,
            1 | 2 => Self::Pin(Pin::Excluded),
            3 | 4 => Self::Pin(Pin::Cordoned),
            5 | 6 => Self::memory(model::bytes(some(1, layers + 1), kv_tokens)),
            7 => {
                let start = some(0, layers);
                Self::layers(start, some(start + 1, layers + 3))
            }
            8 | 9 => Self::layers(0, some(1, layers)),
            _ => Self::layers(some(1, layers), layers),
        }
    }

    fn layers(start: u32, end: u32) -> Self {
        LayerRange::new(start, end).map_or(Self::Broken, |layers| Self::Pin(Pin::Layers(layers)))
    }

    fn memory(bytes: u64) -> Self {
        let size: ByteSize = format!("{bytes}B").parse().expect("a legal size");
        Self::Pin(Pin::Memory(size))
    }

    fn written(self) -> Vec<u8> {
        match self {
            Self::Pin(pin) => serde_json::to_vec(&pin).expect("a pin is written"),
            Self::Broken => b"{\"layers\":[3".to_vec(),
        }
    }
}

// === impl Whose ===

impl Whose {
    /// Most often one of so many stages.
    pub(super) fn roll(stages: usize, dice: &mut Dice) -> Self {
        if dice.permille(60) {
            return Self::Nobody;
        }
        Self::Stage(Party(GATEWAYS + dice.within(0..stages as u64) as usize))
    }

    fn stage(self) -> StageName {
        match self {
            Self::Stage(party) => name(party),
            Self::Nobody => "nobody".to_owned(),
        }
        .parse()
        .expect("a legal name")
    }
}

impl World {
    pub(super) fn put_pin(&mut self, whose: Whose, wish: Wish) {
        let key = self.keyspace.name(&Key::Pin(whose.stage()));
        self.operate(Write::Put { key, value: wish.written(), lease: None });
    }

    pub(super) fn delete_pin(&mut self, whose: Whose) {
        let key = self.keyspace.name(&Key::Pin(whose.stage()));
        self.operate(Write::Delete { key });
    }

    /// An operator's command fails while the store is away, and is not repeated.
    fn operate(&mut self, write: Write) {
        let around = &mut self.around;
        if !around.depot.away {
            around.depot.store.commit(Txn { compares: Vec::new(), writes: vec![write] }).expect("a pin is written");
            around.spread_news();
        }
    }

    /// Deletes one of the values that members keep, or writes nonsense over it.
    pub(super) fn spoil(&mut self, choice: u64, deletes: bool) {
        let view = &self.around.depot.view;
        let mut keys = vec![Key::Model, Key::Placement, Key::KeyMark];
        keys.extend(view.gateways.keys().map(|slot| Key::Gateway(*slot)));
        keys.extend(view.stages.keys().map(|stage| Key::Stage(stage.clone())));
        keys.extend(view.claims.keys().map(|(generation, slot)| Key::Claim(*generation, *slot)));
        let key = self.keyspace.name(&keys[choice as usize % keys.len()]);
        self.around.note(|| format!("an operator {} {key}", if deletes { "deletes" } else { "spoils" }));
        self.operate(if deletes {
            Write::Delete { key }
        } else {
            Write::Put { key, value: b"{nonsense".to_vec(), lease: None }
        });
    }

    /// Writes a large and fast stage that nobody proves; without a cluster key it would be taken for one.
    pub(super) fn forge(&mut self) {
        if self.around.depot.secret().is_none() {
            return;
        }
        let key = self.keyspace.name(&Key::Stage("forged".parse().expect("a legal name")));
        let value = serde_json::to_vec(&crate::testing::stage(u64::MAX)).expect("a record is written");
        self.operate(Write::Put { key, value, lease: None });
    }

    /// When all is calm there is a word beside each pin and nowhere else, and those that are honoured are obeyed.
    pub(super) fn check_pins(&mut self) {
        let view = self.around.depot.view.clone();
        let pins = view.pins.iter().map(|(stage, pin)| (stage, pin.mod_revision, Some(pin.value)));
        let broken = view.unreadable_pins.iter().map(|(stage, pin)| (stage, pin.mod_revision, None));
        let pins: Vec<_> = pins.chain(broken).collect();
        let around = &mut self.around;
        around.law(view.pin_statuses.len() == pins.len(), || {
            format!("pins: {pins:?}; beside them: {:?}", view.pin_statuses)
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
            around.law(fits && obeyed, || {
                format!("the pin {pin:?} of {stage} is told to be {status:?}; placed: {:?}", view.placement)
            });
            let honoured = status.is_some_and(|status| status.honoured);
            around.tally.add("a pin was honoured", honoured.into());
            around.tally.add("a pin could not be honoured", (!honoured).into());
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
            let kv_tokens = view.model.as_ref().map_or(0, |model| model.value.kv_tokens);
            held.is_none_or(|held| model::bytes(held.count(), kv_tokens) <= size.bytes())
        }
        Pin::Cordoned => true,
    }
}
