//! The pins of a simulated operator, as data. It does not know when they are put, or whether they are honoured.

use schema::record::Pin;
use schema::{ByteSize, LayerRange, StageName};

use super::model;
use super::process_id::{GATEWAYS, ProcessId};
use super::rng::Rng;

/// The value that the operator puts: a pin, or a malformed one.
#[derive(Debug, Clone, Copy)]
pub(super) enum PinValue {
    Pin(Pin),
    Malformed,
}

/// The stage that is pinned, which sometimes does not exist.
#[derive(Debug, Clone, Copy)]
pub(super) enum PinTarget {
    Stage(ProcessId),
    Missing,
}

// === impl PinValue ===

impl PinValue {
    /// Draws a pin value for a model of `layers` layers. Some can be honoured, others not.
    pub(super) fn draw(layers: u32, kv_tokens: u32, rng: &mut Rng) -> Self {
        let mut some = |least: u32, most: u32| rng.within(u64::from(least)..u64::from(most)) as u32;
        match some(0, 12) {
            0 => Self::Malformed,
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
        LayerRange::new(start, end).map_or(Self::Malformed, |layers| Self::Pin(Pin::Layers(layers)))
    }

    fn memory(bytes: u64) -> Self {
        let size: ByteSize = format!("{bytes}B").parse().expect("a legal size");
        Self::Pin(Pin::Memory(size))
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Pin(pin) => serde_json::to_vec(&pin).expect("a pin is written"),
            Self::Malformed => b"{\"layers\":[3".to_vec(),
        }
    }
}

// === impl PinTarget ===

impl PinTarget {
    /// Draws a target: mostly one of `stages` stages.
    pub(super) fn draw(stages: usize, rng: &mut Rng) -> Self {
        if rng.permille(60) {
            return Self::Missing;
        }
        Self::Stage(ProcessId(GATEWAYS + rng.within(0..stages as u64) as usize))
    }

    pub(super) fn stage(self) -> StageName {
        match self {
            Self::Stage(process) => process.to_string(),
            Self::Missing => "nobody".to_owned(),
        }
        .parse()
        .expect("a legal name")
    }
}
