//! Leads an HTTP/2 request to the method that it names, and bounds the duration of calls.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use etcd_client::proto::{PbClusterServer, PbKvServer, PbLeaseServer, PbWatchServer};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use tokio::time::timeout;
use tonic::Status;
use tonic::codegen::Service as _;

use super::connections::Call;
use super::kv::KvService;
use super::lease::LeaseService;
use super::members::{ClusterService, MaintenanceService};
use super::not_offered::not_offered;
use super::watch::WatchService;
use crate::store::host::Host;
use crate::store::limits;

/// Largest message of a call: the largest transaction and etcd's allowance for its framing.
const CALL_BYTES_MAX: usize = limits::REQUEST_BYTES_MAX + (512 << 10);

/// Largest message on a stream, in bytes: a watch names two keys, a keep-alive a number.
const STREAM_MESSAGE_BYTES_MAX: usize = 4 * limits::KEY_BYTES_MAX;

/// Longest time of a call until its reply begins. The state machine needs microseconds, the rest is the client.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The paths of the calls.
const CALLS: [&str; 12] = [
    "/etcdserverpb.KV/Range",
    "/etcdserverpb.KV/Put",
    "/etcdserverpb.KV/DeleteRange",
    "/etcdserverpb.KV/Txn",
    "/etcdserverpb.KV/Compact",
    "/etcdserverpb.Lease/LeaseGrant",
    "/etcdserverpb.Lease/LeaseRevoke",
    "/etcdserverpb.Lease/LeaseTimeToLive",
    "/etcdserverpb.Lease/LeaseLeases",
    "/etcdserverpb.Cluster/MemberList",
    "/etcdserverpb.Maintenance/Status",
    "/etcdserverpb.Maintenance/Alarm",
];

/// The paths of the streams.
const STREAMS: [&str; 2] = ["/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"];

/// All services of the port.
pub(super) struct Service {
    kv: PbKvServer<KvService>,
    watch: PbWatchServer<WatchService>,
    lease: PbLeaseServer<LeaseService>,
    keep_alive: PbLeaseServer<LeaseService>,
    cluster: PbClusterServer<ClusterService>,
    maintenance: MaintenanceService,
}

// === impl Service ===

impl Service {
    pub(super) fn new(host: Arc<Host>, url: String) -> Self {
        let lease = Arc::new(LeaseService::new(host.clone()));
        Self {
            kv: PbKvServer::new(KvService::new(host.clone())).max_decoding_message_size(CALL_BYTES_MAX),
            watch: PbWatchServer::new(WatchService::new(host.clone()))
                .max_decoding_message_size(STREAM_MESSAGE_BYTES_MAX),
            lease: PbLeaseServer::from_arc(lease.clone()).max_decoding_message_size(CALL_BYTES_MAX),
            keep_alive: PbLeaseServer::from_arc(lease).max_decoding_message_size(STREAM_MESSAGE_BYTES_MAX),
            cluster: PbClusterServer::new(ClusterService::new(host.clone(), url)),
            maintenance: MaintenanceService::new(host),
        }
    }

    /// Answers any request. `call` is dropped with the reply.
    pub(super) async fn answer(&self, request: Request<Incoming>, mut call: Call) -> Response<Reply> {
        let path = request.uri().path();
        if CALLS.contains(&path) {
            let limited = async {
                call.permitted().await;
                self.dispatch(request).await.map(|body| Reply { body, _call: Some(call) })
            };
            let late = || Status::deadline_exceeded("the call did not arrive in time").into_http();
            timeout(CALL_TIMEOUT, limited).await.unwrap_or_else(|_| late())
        } else if STREAMS.contains(&path) {
            self.dispatch(request).await.map(|body| Reply { body, _call: Some(call) })
        } else {
            not_offered(path).into_http()
        }
    }

    async fn dispatch(&self, request: Request<Incoming>) -> Response<tonic::body::Body> {
        let path = request.uri().path();
        let service = path.split('/').nth(1).unwrap_or_default();
        let reply = match service {
            "etcdserverpb.KV" => self.kv.clone().call(request).await,
            "etcdserverpb.Watch" => self.watch.clone().call(request).await,
            "etcdserverpb.Lease" if STREAMS.contains(&path) => self.keep_alive.clone().call(request).await,
            "etcdserverpb.Lease" => self.lease.clone().call(request).await,
            "etcdserverpb.Cluster" => self.cluster.clone().call(request).await,
            _ => Ok(self.maintenance.answer(request).await),
        };
        reply.unwrap_or_else(|never| match never {})
    }
}

/// The body of a reply. It holds its call until its last byte is sent.
#[derive(Default)]
pub(super) struct Reply {
    body: tonic::body::Body,
    _call: Option<Call>,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
