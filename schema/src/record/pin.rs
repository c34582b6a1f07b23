//! An operator's pin for one stage, the value of `pins/<stage>`, and its status, the value of `pins-status/<stage>`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{ByteSize, LayerRange};

/// An operator's constraint on the layers or the memory of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Pin {
    /// Exactly these layers: `{"layers":[0,12]}`.
    Layers(LayerRange),
    /// No layers: `{"layers":[]}`.
    Excluded,
    /// At most this much memory: `{"memory":"6GiB"}`.
    Memory(ByteSize),
    /// The layers that the stage has, and no new ones: `{"cordon":true}`.
    Cordoned,
}

/// The status of a pin, as a stage that plans wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinStatus {
    /// True if the plan obeys the pin.
    pub honoured: bool,
    /// The reason, if the plan does not obey it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The revision of the pin that this status belongs to.
    pub pin_revision: u64,
}

/// A pin in JSON.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layers: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<ByteSize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cordon: Option<bool>,
}

/// JSON that contains none, or several, of the alternatives of a pin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum PinError {
    #[error(
        r#"expected one of {{"layers":[0,12]}}, {{"layers":[]}} (none), {{"memory":"6GiB"}} and {{"cordon":true}}"#
    )]
    Unclear,
    #[error("{0}")]
    Layers(String),
}

// === impl Pin ===

impl TryFrom<Written> for Pin {
    type Error = PinError;
    fn try_from(written: Written) -> Result<Self, PinError> {
        match (written.layers.as_deref(), written.memory, written.cordon) {
            (Some([]), None, None) => Ok(Self::Excluded),
            (Some([start, end]), None, None) => {
                LayerRange::try_from([*start, *end]).map(Self::Layers).map_err(PinError::Layers)
            }
            (None, Some(memory), None) => Ok(Self::Memory(memory)),
            (None, None, Some(true)) => Ok(Self::Cordoned),
            _ => Err(PinError::Unclear),
        }
    }
}

impl From<Pin> for Written {
    fn from(pin: Pin) -> Self {
        match pin {
            Pin::Layers(range) => Self { layers: Some(vec![range.start(), range.end()]), ..Self::default() },
            Pin::Excluded => Self { layers: Some(Vec::new()), ..Self::default() },
            Pin::Memory(size) => Self { memory: Some(size), ..Self::default() },
            Pin::Cordoned => Self { cordon: Some(true), ..Self::default() },
        }
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layers(range) => write!(f, "layers {range}"),
            Self::Excluded => f.write_str("no layers"),
            Self::Memory(size) => write!(f, "at most {size}"),
            Self::Cordoned => f.write_str("nothing new"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pin_reads_back_as_it_was_written() {
        for text in [r#"{"layers":[0,12]}"#, r#"{"layers":[]}"#, r#"{"memory":"6GiB"}"#, r#"{"cordon":true}"#] {
            let pin: Pin = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&pin).unwrap(), text);
        }
    }

    #[test]
    fn an_empty_or_ambiguous_pin_is_refused_with_the_accepted_ones() {
        for text in [
            "{}",
            "[1,2]",
            r#"{"layers":[3]}"#,
            r#"{"layers":[5,2]}"#,
            r#"{"cordon":false}"#,
            r#"{"layers":[0,2],"cordon":true}"#,
            r#"{"memory":"much"}"#,
            r#"{"layer":[0,2]}"#,
        ] {
            let error = serde_json::from_str::<Pin>(text).unwrap_err().to_string();
            assert!(error.contains("expected"), "{text}: {error}");
        }
    }
}
