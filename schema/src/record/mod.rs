//! The JSON values of the store, one kind of record per file.
//!
//! Unknown fields are ignored, because a newer baton may write more. Unknown values are refused.

mod claim;
mod eviction;
mod gateway;
mod interface;
mod kv;
mod kv_kinds;
mod link;
mod membership;
mod model;
mod pin;
mod placement;
mod rollout;
mod share;
mod stage;
mod starts;
mod text_limit;
mod token;
mod touched_experts;

pub use claim::{ClaimRecord, ClaimState};
pub use eviction::EvictionRecord;
pub use gateway::GatewayRecord;
pub use interface::{ADDRESSES_MAX, AdvertisedAddress, InterfaceKind, NetworkInterface};
pub use kv::{KvGrowth, KvRoom, KvType, KvTypeError};
pub use kv_kinds::{KV_BLOCK_TOKENS, KvBlocks, KvKinds};
pub use link::{GatewayLoad, LinkReport, LinkState};
pub use membership::{KeyMark, Proof};
pub use model::{KvBytes, LayerCost, ModelRecord, ShardBytes};
pub use pin::{Pin, PinStatus};
pub use placement::{Placement, PlacementError, Shard};
pub use rollout::{Rollout, RolloutError};
pub use share::{Share, ShareError};
pub use stage::{DeviceKind, FormatSpeed, MemoryUse, RefusedFrame, Speeds, StageLoad, StageRecord};
pub use starts::StartsRecord;
pub use text_limit::{TEXT_BATCH_ROWS_MAX, TEXT_TOKENS_MAX, text_tokens_max};
pub use token::{TokenRecord, TokenState};
pub use touched_experts::{EXPERT_SETS_CHARS_MAX, EXPERTS_MAX, ExpertSet, InvalidExpertSet, TouchedExperts};
