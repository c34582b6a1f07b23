//! Parameters of a new member. Knows nothing of what the member does with them.

use schema::record::{KvRoom, StageRecord};
use schema::{Keyspace, LayerRange, StageName};

use crate::link::ClusterKey;
use crate::planner::Proposals;

/// Computes the most memory that a shard with room for keys and values can take, in bytes.
pub(crate) type MemoryBound = Box<dyn Fn(LayerRange, KvRoom) -> u64 + Send>;

/// Parameters of a new member.
pub(crate) struct MemberSetup {
    pub(crate) keyspace: Keyspace,
    pub(crate) name: StageName,
    /// The cluster key.
    pub(crate) secret: Option<ClusterKey>,
    /// The stage's record, with the endpoint at which it takes frames.
    pub(crate) record: StageRecord,
    pub(crate) memory_bound: MemoryBound,
    /// The planner.
    pub(crate) proposals: Proposals,
}
