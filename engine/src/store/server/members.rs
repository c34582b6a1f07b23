//! Answers etcdctl's questions about the server itself: its members and its status.

use std::sync::Arc;

use async_trait::async_trait;
use etcd_client::AlarmType;
use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbClusterService, PbMember, PbMemberAddRequest,
    PbMemberAddResponse, PbMemberListRequest, PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse,
    PbMemberRemoveRequest, PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse, PbStatusRequest,
    PbStatusResponse,
};
use hyper::body::Incoming;
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::not_offered::not_offered;
use super::wire::{MEMBER_ID, RAFT_TERM, header};
use crate::store::host::Host;

/// The API level offered. The ending shows that this is not etcd.
const VERSION: &str = "3.4.0-baton-embedded";

/// The name of the one member.
const MEMBER_NAME: &str = "baton-embedded";

/// The Cluster service.
pub(super) struct ClusterService {
    host: Arc<Host>,
    url: String,
}

impl ClusterService {
    pub(super) fn new(host: Arc<Host>, url: String) -> Self {
        Self { host, url }
    }
}

#[async_trait]
impl PbClusterService for ClusterService {
    async fn member_list(&self, _: Request<PbMemberListRequest>) -> Result<Response<PbMemberListResponse>, Status> {
        let member = PbMember {
            id: MEMBER_ID,
            name: MEMBER_NAME.to_owned(),
            peer_ur_ls: Vec::new(),
            client_ur_ls: vec![self.url.clone()],
            is_learner: false,
        };
        let revision = self.host.read(|state, _| state.revision());
        Ok(Response::new(PbMemberListResponse { header: header(revision), members: vec![member] }))
    }

    async fn member_add(&self, _: Request<PbMemberAddRequest>) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(not_offered("member add"))
    }

    async fn member_remove(
        &self,
        _: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(not_offered("member remove"))
    }

    async fn member_update(
        &self,
        _: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(not_offered("member update"))
    }

    async fn member_promote(
        &self,
        _: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(not_offered("member promote"))
    }
}

/// The part of the Maintenance service that etcdctl's `endpoint` needs. It is written by hand, because the generated
/// trait names a message that etcd-client does not export.
#[derive(Clone)]
pub(super) struct MaintenanceService {
    host: Arc<Host>,
}

impl MaintenanceService {
    pub(super) fn new(host: Arc<Host>) -> Self {
        Self { host }
    }

    pub(super) async fn answer(&self, request: hyper::Request<Incoming>) -> hyper::Response<tonic::body::Body> {
        match request.uri().path() {
            "/etcdserverpb.Maintenance/Status" => {
                Grpc::new(ProstCodec::default()).unary(StatusCall(self.clone()), request).await
            }
            "/etcdserverpb.Maintenance/Alarm" => {
                Grpc::new(ProstCodec::default()).unary(AlarmCall(self.clone()), request).await
            }
            other => not_offered(other).into_http(),
        }
    }

    fn status(&self) -> PbStatusResponse {
        let (revision, bytes) = self.host.read(|state, _| (state.revision(), state.bytes()));
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        PbStatusResponse {
            header: header(revision),
            version: VERSION.to_owned(),
            db_size: bytes,
            db_size_in_use: bytes,
            leader: MEMBER_ID,
            raft_index: revision.unsigned_abs(),
            raft_applied_index: revision.unsigned_abs(),
            raft_term: RAFT_TERM,
            ..PbStatusResponse::default()
        }
    }

    fn alarms(&self, request: &PbAlarmRequest) -> Result<PbAlarmResponse, Status> {
        match request.action {
            // The one alarm of this server: its file takes no writes.
            0 => {
                let no_space = PbAlarmMember { member_id: MEMBER_ID, alarm: AlarmType::Nospace as i32 };
                Ok(PbAlarmResponse {
                    header: header(self.host.read(|state, _| state.revision())),
                    alarms: self.host.is_failing().then_some(no_space).into_iter().collect(),
                })
            }
            _ => Err(not_offered("setting alarms")),
        }
    }
}

struct StatusCall(MaintenanceService);

impl UnaryService<PbStatusRequest> for StatusCall {
    type Response = PbStatusResponse;
    type Future = std::future::Ready<Result<Response<PbStatusResponse>, Status>>;

    fn call(&mut self, _: Request<PbStatusRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.status())))
    }
}

struct AlarmCall(MaintenanceService);

impl UnaryService<PbAlarmRequest> for AlarmCall {
    type Response = PbAlarmResponse;
    type Future = std::future::Ready<Result<Response<PbAlarmResponse>, Status>>;

    fn call(&mut self, request: Request<PbAlarmRequest>) -> Self::Future {
        std::future::ready(self.0.alarms(request.get_ref()).map(Response::new))
    }
}
