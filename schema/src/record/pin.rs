//! An operator's wish for one stage: the value of `pins/<stage>`.

use serde::{Deserialize, Serialize};

use crate::LayerRange;

/// What an operator wants of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// The layers it is to hold.
    pub layers: LayerRange,
}
