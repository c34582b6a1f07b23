//! JSON merge patches (RFC 7396): the difference between two objects, and its application. Pure.
//!
//! In a patch `null` deletes a key, so objects that are compared must not have it as a value: [`without_nulls`].

use serde_json::{Map, Value};

/// The patch that turns `old` into `new`. `None` if they are equal.
pub(crate) fn difference(old: &Value, new: &Value) -> Option<Value> {
    let (Value::Object(old_map), Value::Object(new_map)) = (old, new) else {
        return (old != new).then(|| new.clone());
    };
    let mut patch = Map::new();
    for (key, value) in new_map {
        let change = match old_map.get(key) {
            Some(before) => difference(before, value),
            None => Some(value.clone()),
        };
        patch.extend(change.map(|change| (key.clone(), change)));
    }
    let gone = old_map.keys().filter(|key| !new_map.contains_key(*key));
    patch.extend(gone.map(|key| (key.clone(), Value::Null)));
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Changes `target` as `patch` says.
pub(crate) fn apply(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(map) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            map.remove(&key);
        } else {
            apply(map.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// `value` without the keys of objects whose value is null, at every level.
pub(crate) fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn objects() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            (0..4u8).prop_map(Value::from),
            prop::collection::vec(0..3u8, 0..3).prop_map(Value::from),
        ];
        let tree = leaf.prop_recursive(3, 24, 4, |inner| {
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
        });
        prop::collection::btree_map("[a-d]", tree, 0..4).prop_map(|map| Value::Object(map.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_patch_turns_the_old_object_into_the_new_one(old in objects(), new in objects()) {
            let mut patched = old.clone();
            match difference(&old, &new) {
                Some(patch) => apply(&mut patched, patch),
                None => prop_assert_eq!(&old, &new),
            }
            prop_assert_eq!(patched, new);
        }
    }

    #[test]
    fn a_patch_has_only_what_changed() {
        let old = json!({"stages": {"a": {"busy": 0.5, "layers": [0, 3]}, "b": {"busy": 1}}, "running": 1});
        let new = json!({"stages": {"a": {"busy": 0.7, "layers": [0, 3]}}, "running": 1});
        assert_eq!(difference(&old, &new), Some(json!({"stages": {"a": {"busy": 0.7}, "b": null}})));
        assert_eq!(difference(&new, &new), None);
    }

    #[test]
    fn nulls_are_left_out_of_objects_and_kept_in_lists() {
        let value = json!({"a": null, "b": [null, {"c": null}], "d": {"e": null}});
        assert_eq!(without_nulls(value), json!({"b": [null, {}], "d": {}}));
    }
}
