//! The assignment of layers to stages: the value of `placement`.

use serde::{Deserialize, Serialize};

use crate::{Generation, LayerRange, StageName};

/// One stage's part of a placement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// The layers.
    pub layers: LayerRange,
    /// The stage that is to hold them.
    pub stage: StageName,
}

/// A complete division of a model's layers among stages. Slot `i` is `shards()[i]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Placement {
    generation: Generation,
    shards: Vec<Shard>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kv_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Unchecked {
    generation: Generation,
    shards: Vec<Shard>,
    #[serde(default)]
    kv_tokens: Option<u32>,
}

/// The reason for which a list of shards is not a placement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    /// A layer belongs to no shard.
    #[error("layer {expected} belongs to no shard")]
    Gap {
        /// The first such layer.
        expected: u32,
    },
    /// A layer belongs to two shards, or shards are out of order.
    #[error("layer {found} belongs to two shards or is out of order: expected a shard that starts at {expected}")]
    Overlap {
        /// The layer at which the next shard should start.
        expected: u32,
        /// The layer at which it starts.
        found: u32,
    },
    /// There is no shard.
    #[error("a placement needs at least one shard")]
    Empty,
    /// A stage has two shards.
    #[error("stage {stage} has two shards: expected at most one")]
    Twice {
        /// The stage.
        stage: StageName,
    },
}

// === impl Placement ===

impl Placement {
    /// The placement with number `generation` and `shards` in layer order, starting with layer 0.
    ///
    /// # Errors
    /// [`PlacementError`] on a gap, an overlap, a stage named twice, or no shard.
    pub fn new(generation: Generation, shards: Vec<Shard>) -> Result<Self, PlacementError> {
        let mut expected = 0;
        for (index, shard) in shards.iter().enumerate() {
            let found = shard.layers.start();
            if found > expected {
                return Err(PlacementError::Gap { expected });
            }
            if found < expected {
                return Err(PlacementError::Overlap { expected, found });
            }
            if shards[..index].iter().any(|earlier| earlier.stage == shard.stage) {
                return Err(PlacementError::Twice { stage: shard.stage.clone() });
            }
            expected = shard.layers.end();
        }
        if shards.is_empty() { Err(PlacementError::Empty) } else { Ok(Self { generation, shards, kv_tokens: None }) }
    }

    /// The same with room for the keys and values of `kv_tokens` tokens on every stage. `None` stands for the room in
    /// the model's record.
    #[must_use]
    pub fn with_kv_tokens(self, kv_tokens: Option<u32>) -> Self {
        Self { kv_tokens, ..self }
    }

    /// Number of tokens for whose keys and values every stage has room, if the placement decides it. `None` stands for
    /// the room in the model's record, which all placements of older versions mean.
    pub fn kv_tokens(&self) -> Option<u32> {
        self.kv_tokens
    }

    /// The generation, which is the placement's number.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The shards in layer order.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of placed layers.
    pub fn layers(&self) -> u32 {
        self.shards.last().map_or(0, |shard| shard.layers.end())
    }

    /// The slot of `stage`, if it has a shard.
    pub fn slot_of(&self, stage: &StageName) -> Option<u32> {
        (0u32..).zip(&self.shards).find(|(_, shard)| shard.stage == *stage).map(|(slot, _)| slot)
    }

    /// The shard in `slot`.
    pub fn shard(&self, slot: u32) -> Option<&Shard> {
        self.shards.get(slot as usize)
    }
}

impl TryFrom<Unchecked> for Placement {
    type Error = PlacementError;
    fn try_from(unchecked: Unchecked) -> Result<Self, PlacementError> {
        Ok(Self::new(unchecked.generation, unchecked.shards)?.with_kv_tokens(unchecked.kv_tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(start: u32, end: u32) -> Shard {
        Shard { layers: LayerRange::new(start, end).unwrap(), stage: format!("s{start}").parse().unwrap() }
    }

    #[test]
    fn a_gap_between_shards_is_refused() {
        let error = Placement::new(Generation(1), vec![shard(0, 4), shard(5, 8)]).unwrap_err();
        assert_eq!(error, PlacementError::Gap { expected: 4 });
    }

    #[test]
    fn an_overlap_is_refused() {
        let error = Placement::new(Generation(1), vec![shard(0, 4), shard(3, 8)]).unwrap_err();
        assert_eq!(error, PlacementError::Overlap { expected: 4, found: 3 });
    }

    #[test]
    fn no_shard_and_a_stage_twice_are_refused() {
        assert_eq!(Placement::new(Generation(1), vec![]).unwrap_err(), PlacementError::Empty);
        let twice = vec![shard(0, 4), Shard { stage: "s0".parse().unwrap(), ..shard(4, 8) }];
        assert!(matches!(Placement::new(Generation(1), twice), Err(PlacementError::Twice { .. })));
    }

    #[test]
    fn a_placement_of_an_older_version_names_no_room() {
        let json = r#"{"generation":3,"shards":[{"layers":[0,4],"stage":"a"}]}"#;
        let placement: Placement = serde_json::from_str(json).unwrap();
        assert_eq!(placement.kv_tokens(), None);
        assert_eq!(serde_json::to_string(&placement).unwrap(), json);
        let grown = placement.with_kv_tokens(Some(9000));
        let again: Placement = serde_json::from_str(&serde_json::to_string(&grown).unwrap()).unwrap();
        assert_eq!((again.kv_tokens(), again == grown), (Some(9000), true));
    }

    #[test]
    fn json_of_a_broken_placement_is_refused() {
        let json = r#"{"generation":3,"shards":[{"layers":[0,4],"stage":"a"},{"layers":[6,8],"stage":"b"}]}"#;
        let error = serde_json::from_str::<Placement>(json).unwrap_err();
        assert!(error.to_string().contains("layer 4 belongs to no shard"), "{error}");
    }
}
