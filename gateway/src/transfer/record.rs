//! The values of a cluster's permanent keys, each checked as what it is.

use schema::record::{KeyMark, ModelRecord, Pin, Placement, Rollout, TokenRecord};
use schema::{Key, Lifetime};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Checks that `value` is one that members can read at the permanent key `key`. The error says what is wrong.
pub(super) fn check(key: &Key, value: &Value) -> Result<(), String> {
    match key {
        Key::KeyMark => reads::<KeyMark>(value),
        Key::Model => reads::<ModelRecord>(value),
        Key::Placement => reads::<Placement>(value),
        Key::Pin(_) => reads::<Pin>(value),
        Key::Token(_) => reads::<TokenRecord>(value),
        Key::Rollout => reads::<Rollout>(value),
        Key::Stage(_) | Key::Eviction(_) | Key::PinStatus(_) | Key::Starts(_) | Key::Claim(_) | Key::Gateway(_) => {
            Err("it belongs to members, which write it themselves".to_owned())
        }
    }
}

/// True if keys of this kind are brought over.
pub(super) fn is_brought_over(key: &Key) -> bool {
    key.lifetime() == Lifetime::Permanent
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    T::deserialize(value).map(drop).map_err(|error| error.to_string())
}
