//! The gateway itself: its core, which runs the pipeline, and the HTTP server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::core::{PipelineHandle, PipelineSettings};
use engine::link::{ClusterKey, Listen};
use engine::store::SharedStore;
use schema::Keyspace;
use schema::record::GatewayRecord;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::warn;

use super::RunError;
use super::model::Served;
use super::stop::Stop;
use super::text::ModelText;
use crate::http::{self, AppState, ModelInfo, Settings};
use crate::settings::{HttpSettings, MemberSettings};

/// A running gateway.
pub(super) struct GatewayServer {
    pub(super) pipeline: Arc<PipelineHandle>,
    http: JoinHandle<()>,
}

/// Binds the HTTP port early, so that a port already in use is reported before anything else is started.
pub(super) async fn listen(address: SocketAddr) -> Result<TcpListener, RunError> {
    let refused = |cause| RunError::Listen { what: "HTTP", address, flag: "--listen", cause };
    TcpListener::bind(address).await.map_err(refused)
}

/// URL at which other processes reach the HTTP server: with the advertised name of this machine if there is one and the
/// server listens beyond loopback, else with the address.
fn url(address: SocketAddr, advertised: Option<&str>) -> String {
    match advertised {
        Some(host) if !address.ip().is_loopback() && host.contains(':') => {
            format!("http://[{host}]:{}", address.port())
        }
        Some(host) if !address.ip().is_loopback() => format!("http://{host}:{}", address.port()),
        _ => format!("http://{address}"),
    }
}

// === impl GatewayServer ===

impl GatewayServer {
    /// Registers the gateway, starts its core and serves HTTP until `stop`. Then running requests get `drain_time` to
    /// finish. With `alone`, fails if another gateway stays registered.
    pub(super) async fn open(
        store: SharedStore,
        keyspace: Keyspace,
        served: &Served,
        (member, key): (&MemberSettings, Option<ClusterKey>),
        listener: TcpListener,
        (http_settings, drain_time, alone): (&HttpSettings, Duration, bool),
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let text = ModelText::new(&served.file)?;
        if let Some(problem) = text.template_problem() {
            warn!(problem, "chats cannot be served, only raw completions");
        }
        let address = listener.local_addr().map_err(|cause| RunError::Io { doing: "read the HTTP address", cause })?;
        let machine = stages::memory::machine();
        let host = member.advertise.as_ref().map(|host| host.as_str().to_owned());
        let record = GatewayRecord::new(&machine.host, url(address, host.as_deref()));
        let own_hosts = [Some(record.host.clone()), host.clone()].into_iter().flatten().collect();
        let listen = Listen::new(host, None, key.clone())?;
        let (lease_ttl, speculates) = (member.lease_ttl, http_settings.speculates);
        let settings = PipelineSettings { keyspace, listen, key, record, lease_ttl, alone, speculates };
        let pipeline = Arc::new(PipelineHandle::start(store, settings).await?);
        let state = AppState {
            pipeline: pipeline.clone(),
            text: Arc::new(text),
            model: ModelInfo {
                name: served.record.name.clone(),
                context_tokens: served.record.context_tokens.min(served.record.kv_tokens),
                created_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            },
            settings: Settings {
                drain_time,
                generation_time: http_settings.request_deadline,
                default_max_tokens: http_settings.default_max_tokens,
                own_hosts,
                allowed_hosts: http_settings.allowed_hosts.clone(),
                allowed_origins: http_settings.allowed_origins.clone(),
                ..Settings::default()
            },
        };
        let stop = stop.clone();
        let http = tokio::spawn(async move { http::serve(listener, Arc::new(state), stop.requested()).await });
        Ok(Self { pipeline, http })
    }

    /// Waits until the HTTP server has ended after the order to stop.
    pub(super) async fn closed(self) {
        let _ = self.http.await;
    }
}
