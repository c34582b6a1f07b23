//! etcd's KV service over the state machine.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService, PbPutRequest,
    PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse, PbTxnRequest, PbTxnResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::not_offered::not_offered;
use super::wire::{self, header, status};
use crate::store::host::Host;
use crate::store::state::{Op, OpReply, Refusal};

pub(super) struct KvService {
    host: Arc<Host>,
}

impl KvService {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    /// Runs one step that writes. Returns its reply and the store's revision afterwards.
    async fn run(&self, op: Op) -> Result<(OpReply, i64), Status> {
        self.host.commit(|state, _| Ok((state.run(op)?, state.revision()))).await.map_err(status)
    }
}

/// The error for a step that got the reply of another kind of step, which should never happen.
fn mismatch() -> Status {
    Status::internal("a step was answered with another step's reply")
}

#[async_trait]
impl PbKvService for KvService {
    async fn range(&self, request: Request<PbRangeRequest>) -> Result<Response<PbRangeResponse>, Status> {
        let query = wire::query(request.into_inner()).map_err(status)?;
        let ranged = self.host.view(|state, _| Ok::<_, Refusal>((state.range(&query)?, state.revision()))).await;
        let (reply, revision) = ranged.map_err(status)?;
        Ok(Response::new(wire::range_reply(&reply, header(revision))))
    }

    type RangeStreamStream = BoxStream<PbRangeStreamResponse>;

    async fn range_stream(&self, _: Request<PbRangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(not_offered("range streams"))
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        let (OpReply::Put { prev }, revision) = self.run(Op::Put(wire::put(request.into_inner()))).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(wire::put_reply(prev.as_ref(), header(revision))))
    }

    async fn delete_range(&self, request: Request<PbDeleteRequest>) -> Result<Response<PbDeleteResponse>, Status> {
        let delete = wire::delete(request.into_inner()).map_err(status)?;
        let (OpReply::Delete { deleted, prev }, revision) = self.run(Op::Delete(delete)).await? else {
            return Err(mismatch());
        };
        Ok(Response::new(wire::delete_reply(deleted, &prev, header(revision))))
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        let txn = wire::transaction(request.into_inner()).map_err(status)?;
        let applied = self.host.commit(|state, _| Ok((state.txn(txn)?, state.revision()))).await;
        let (reply, revision) = applied.map_err(status)?;
        Ok(Response::new(wire::txn_reply(&reply, revision)))
    }

    async fn compact(&self, request: Request<PbCompactionRequest>) -> Result<Response<PbCompactionResponse>, Status> {
        let until = request.into_inner().revision;
        let compacted = self.host.commit(|state, _| state.compact(until).map(|()| state.revision())).await;
        let revision = compacted.map_err(status)?;
        Ok(Response::new(PbCompactionResponse { header: header(revision) }))
    }
}
