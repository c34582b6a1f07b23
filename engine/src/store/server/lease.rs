//! etcd's Lease service over the state machine.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse, PbLeaseLeasesRequest,
    PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse, PbLeaseService, PbLeaseStatus,
    PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures::StreamExt;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::wire::{header, status};
use crate::store::host::Host;

/// etcd's value for the time left of a lease that does not exist.
const NO_SUCH_LEASE: i64 = -1;

pub(super) struct LeaseService {
    host: Arc<Host>,
}

impl LeaseService {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }
}

/// Answers one keep-alive. An unknown lease has zero seconds left.
async fn keep_alive(host: &Host, id: i64) -> PbLeaseKeepAliveResponse {
    let ttl = host.renew(id).await;
    let revision = host.read(|state, _| state.revision());
    PbLeaseKeepAliveResponse { header: header(revision), id, ttl: ttl.unwrap_or(0) }
}

#[async_trait]
impl PbLeaseService for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let PbLeaseGrantRequest { id, ttl } = request.into_inner();
        let ((id, ttl), revision) =
            self.host.commit(|state, now| Ok((state.grant(id, ttl, now)?, state.revision()))).await.map_err(status)?;
        Ok(Response::new(PbLeaseGrantResponse { header: header(revision), id, ttl, error: String::new() }))
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let id = request.into_inner().id;
        let revoked = self.host.commit(|state, _| state.revoke(id).map(|()| state.revision())).await;
        let revision = revoked.map_err(status)?;
        Ok(Response::new(PbLeaseRevokeResponse { header: header(revision) }))
    }

    type LeaseKeepAliveStream = BoxStream<PbLeaseKeepAliveResponse>;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let host = self.host.clone();
        let replies = request.into_inner().then(move |request| {
            let host = host.clone();
            async move { Ok(keep_alive(&host, request?.id).await) }
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let PbLeaseTimeToLiveRequest { id, keys } = request.into_inner();
        let (found, revision) = self.host.view(|state, now| (state.lease_status(id, now), state.revision())).await;
        let reply = match found {
            Some(lease) => PbLeaseTimeToLiveResponse {
                header: header(revision),
                id,
                ttl: lease.left_seconds,
                granted_ttl: lease.granted_seconds,
                keys: if keys { lease.keys } else { Vec::new() },
            },
            None => PbLeaseTimeToLiveResponse {
                header: header(revision),
                id,
                ttl: NO_SUCH_LEASE,
                granted_ttl: 0,
                keys: Vec::new(),
            },
        };
        Ok(Response::new(reply))
    }

    async fn lease_leases(&self, _: Request<PbLeaseLeasesRequest>) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let (ids, revision) = self.host.view(|state, _| (state.lease_ids(), state.revision())).await;
        let leases = ids.into_iter().map(|id| PbLeaseStatus { id }).collect();
        Ok(Response::new(PbLeaseLeasesResponse { header: header(revision), leases }))
    }
}
