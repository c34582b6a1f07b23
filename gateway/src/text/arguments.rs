//! The arguments of a call as a chat template sees them: an object, which `tojson` writes as the model wrote it.
//!
//! So a call in a conversation has the same text in the prompt as when it was generated, whatever white space the model
//! put into it, and the prefix cache holds.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object, ObjectRepr};

/// The arguments of a call.
#[derive(Debug)]
pub(super) struct Arguments {
    /// The JSON text as the model wrote it.
    pub(super) text: String,
    /// The same as a map.
    pub(super) map: Value,
}

impl Object for Arguments {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Map
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.map.get_item(key).ok().filter(|value| !value.is_undefined())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.map.try_iter().map_or(Enumerator::Empty, |keys| Enumerator::Values(keys.collect()))
    }
}
