//! Converts between etcd's messages and the state machine's values. All input from outside is checked here.

use std::sync::Arc;

use etcd_client::proto::{
    PbCompare, PbCompareTarget, PbDeleteRequest, PbDeleteResponse, PbEvent, PbKeyValue, PbPutRequest, PbPutResponse,
    PbRangeRequest, PbRangeResponse, PbResponseHeader, PbResponseOp, PbTargetUnion, PbTxnOpRequest, PbTxnOpResponse,
    PbTxnRequest, PbTxnRequestOp, PbTxnResponse,
};
use tonic::{Code, Status};

use crate::store::state::{
    Against, Condition, DeleteOp, Event, KeyRange, Op, OpReply, PutOp, Query, RangeReply, Record, Refusal, Relation,
    SortBy, Transaction, TxnReply,
};

/// The ids in every reply's header. The cluster has a single member.
pub(super) const CLUSTER_ID: u64 = 0x0ba7_0000_0000_00c1;
pub(super) const MEMBER_ID: u64 = 0x0ba7_0000_0000_0001;
pub(super) const RAFT_TERM: u64 = 1;

pub(super) fn header(revision: i64) -> Option<PbResponseHeader> {
    Some(PbResponseHeader { cluster_id: CLUSTER_ID, member_id: MEMBER_ID, revision, raft_term: RAFT_TERM })
}

/// The status of a refusal, with the code that etcd gives for its text.
#[expect(clippy::needless_pass_by_value, reason = "made for map_err, which hands the error over")]
pub(super) fn status(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::EmptyKey
        | Refusal::DuplicateKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOps
        | Refusal::RequestTooLarge
        | Refusal::Invalid(_) => Code::InvalidArgument,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::LeaseTtlTooLarge | Refusal::Compacted | Refusal::FutureRevision => Code::OutOfRange,
        Refusal::Full(_) => Code::ResourceExhausted,
        Refusal::Unsettled(_) => Code::Unavailable,
    };
    Status::new(code, refusal.to_string())
}

// --- Requests ---

pub(super) fn query(request: PbRangeRequest) -> Result<Query, Refusal> {
    let by = match request.sort_target {
        0 => SortBy::Key,
        1 => SortBy::Version,
        2 => SortBy::Create,
        3 => SortBy::Modified,
        4 => SortBy::Value,
        _ => return Err(Refusal::Invalid("unknown sort target")),
    };
    let sort = match request.sort_order {
        // Replies come in key order anyway. A target other than the key without an order means ascending.
        0 if by == SortBy::Key => None,
        0 | 1 => Some((by, false)),
        2 => Some((by, true)),
        _ => return Err(Refusal::Invalid("unknown sort order")),
    };
    Ok(Query {
        range: KeyRange::new(request.key, request.range_end)?,
        revision: request.revision,
        limit: request.limit,
        sort,
        keys_only: request.keys_only,
        count_only: request.count_only,
        mod_revisions: (request.min_mod_revision, request.max_mod_revision),
        create_revisions: (request.min_create_revision, request.max_create_revision),
    })
}

pub(super) fn put(request: PbPutRequest) -> PutOp {
    PutOp {
        key: request.key,
        value: request.value,
        lease: request.lease,
        prev: request.prev_kv,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
    }
}

pub(super) fn delete(request: PbDeleteRequest) -> Result<DeleteOp, Refusal> {
    Ok(DeleteOp { range: KeyRange::new(request.key, request.range_end)?, prev: request.prev_kv })
}

pub(super) fn transaction(request: PbTxnRequest) -> Result<Transaction, Refusal> {
    Ok(Transaction {
        conditions: request.compare.into_iter().map(condition).collect::<Result<_, _>>()?,
        then: request.success.into_iter().map(op).collect::<Result<_, _>>()?,
        otherwise: request.failure.into_iter().map(op).collect::<Result<_, _>>()?,
    })
}

fn op(request: PbTxnRequestOp) -> Result<Op, Refusal> {
    match request.request {
        Some(PbTxnOpRequest::RequestRange(request)) => query(request).map(Op::Range),
        Some(PbTxnOpRequest::RequestPut(request)) => Ok(Op::Put(put(request))),
        Some(PbTxnOpRequest::RequestDeleteRange(request)) => delete(request).map(Op::Delete),
        Some(PbTxnOpRequest::RequestTxn(_)) => Err(Refusal::Invalid(
            "the embedded store takes no nested transactions, and so no more than 128 writes at once",
        )),
        None => Err(Refusal::Invalid("a transaction's step is empty")),
    }
}

fn condition(compare: PbCompare) -> Result<Condition, Refusal> {
    let relation = match compare.result {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return Err(Refusal::Invalid("unknown comparison")),
    };
    let target = PbCompareTarget::try_from(compare.target).map_err(|_| Refusal::Invalid("unknown compare target"))?;
    // A value that was left out is the zero of its type.
    let against = match (target, compare.target_union) {
        (PbCompareTarget::Version, Some(PbTargetUnion::Version(version))) => Against::Version(version),
        (PbCompareTarget::Version, None) => Against::Version(0),
        (PbCompareTarget::Create, Some(PbTargetUnion::CreateRevision(revision))) => Against::Create(revision),
        (PbCompareTarget::Create, None) => Against::Create(0),
        (PbCompareTarget::Mod, Some(PbTargetUnion::ModRevision(revision))) => Against::Modified(revision),
        (PbCompareTarget::Mod, None) => Against::Modified(0),
        (PbCompareTarget::Value, Some(PbTargetUnion::Value(value))) => Against::Value(value),
        (PbCompareTarget::Value, None) => Against::Value(Vec::new()),
        (PbCompareTarget::Lease, Some(PbTargetUnion::Lease(lease))) => Against::Lease(lease),
        (PbCompareTarget::Lease, None) => Against::Lease(0),
        _ => return Err(Refusal::Invalid("a comparison's value is of another kind than its target")),
    };
    Ok(Condition { range: KeyRange::new(compare.key, compare.range_end)?, against, relation })
}

// --- Replies ---

pub(super) fn key_value(record: &Record) -> PbKeyValue {
    PbKeyValue {
        key: record.key.clone(),
        create_revision: record.create_revision,
        mod_revision: record.mod_revision,
        version: record.version,
        value: record.value.clone(),
        lease: record.lease,
    }
}

pub(super) fn event(event: &Event, prev: bool) -> PbEvent {
    PbEvent {
        r#type: i32::from(event.deleted),
        kv: Some(key_value(&event.record)),
        prev_kv: event.prev.as_deref().filter(|_| prev).map(key_value),
    }
}

pub(super) fn range_reply(reply: &RangeReply, header: Option<PbResponseHeader>) -> PbRangeResponse {
    let shown = |record: &Arc<Record>| match reply.keys_only {
        true => PbKeyValue { value: Vec::new(), ..key_value(record) },
        false => key_value(record),
    };
    PbRangeResponse { header, kvs: reply.records.iter().map(shown).collect(), more: reply.more, count: reply.count }
}

pub(super) fn put_reply(prev: Option<&Arc<Record>>, header: Option<PbResponseHeader>) -> PbPutResponse {
    PbPutResponse { header, prev_kv: prev.map(|prev| key_value(prev)) }
}

pub(super) fn delete_reply(deleted: i64, prev: &[Arc<Record>], header: Option<PbResponseHeader>) -> PbDeleteResponse {
    PbDeleteResponse { header, deleted, prev_kvs: prev.iter().map(|prev| key_value(prev)).collect() }
}

pub(super) fn txn_reply(reply: &TxnReply, revision: i64) -> PbTxnResponse {
    let one = |reply: &OpReply| {
        let header = header(revision);
        let response = match reply {
            OpReply::Range(reply) => PbTxnOpResponse::ResponseRange(range_reply(reply, header)),
            OpReply::Put { prev } => PbTxnOpResponse::ResponsePut(put_reply(prev.as_ref(), header)),
            OpReply::Delete { deleted, prev } => {
                PbTxnOpResponse::ResponseDeleteRange(delete_reply(*deleted, prev, header))
            }
        };
        PbResponseOp { response: Some(response) }
    };
    PbTxnResponse {
        header: header(revision),
        succeeded: reply.succeeded,
        responses: reply.replies.iter().map(one).collect(),
    }
}
