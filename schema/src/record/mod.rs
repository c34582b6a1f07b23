//! The JSON values of the store, one noun a file.
//!
//! Unknown fields are kept out of the way (a newer baton may write more); unknown values are refused.

mod claim;
mod eviction;
mod gateway;
mod kv;
mod membership;
mod model;
mod pin;
mod placement;
mod share;
mod stage;
mod starts;

pub use claim::{ClaimRecord, ClaimState};
pub use eviction::EvictionRecord;
pub use gateway::GatewayRecord;
pub use kv::{KvRoom, KvType, KvTypeError};
pub use membership::{KeyMark, Proof};
pub use model::{ModelRecord, ShardBytes};
pub use pin::{Pin, PinStatus};
pub use placement::{Placement, PlacementError, Shard};
pub use share::{Share, ShareError};
pub use stage::{DeviceKind, FormatSpeed, MemoryUse, Speeds, StageLoad, StageRecord};
pub use starts::StartsRecord;
