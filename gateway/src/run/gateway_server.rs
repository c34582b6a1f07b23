//! The gateway itself: its core, which runs the pipeline, and the HTTP server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use engine::membership::RolloutFollower;
use engine::store::SharedStore;
use schema::Keyspace;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::info;

use super::RunError;
use super::deployments::{Deployments, OpenDeployment};
use super::key_file;
use super::model::Served;
use super::model_files::ModelFiles;
use super::other_clusters::OtherClusters;
use super::served_cluster::ClusterOpener;
use super::stop::Stop;
use crate::client::Scheme;
use crate::http::{self, AccessControl, AppState, Models, ServerTls, TlsNames};
use crate::models::Cache;
use crate::running::RunningFolder;
use crate::settings::{ClusterChoice, Host, HttpSettings, MemberSettings};

/// A running gateway.
pub(super) struct GatewayServer {
    /// The deployment that requests get.
    pub(super) open: watch::Receiver<Arc<OpenDeployment>>,
    /// The address of the HTTP server.
    pub(super) address: SocketAddr,
    http: JoinHandle<()>,
}

/// The settings of a gateway that is about to be opened.
pub(super) struct GatewayParts<'a> {
    pub(super) member: &'a MemberSettings,
    pub(super) http: &'a HttpSettings,
    /// Time for running requests to finish after the order to stop.
    pub(super) drain_time: Duration,
    /// True if it must be the only gateway: opening fails if another one stays registered.
    pub(super) alone: bool,
    /// The further clusters to serve.
    pub(super) clusters: Vec<ClusterChoice>,
    /// The files of their models.
    pub(super) cache: &'a Cache,
    /// The folder of this user's state.
    pub(super) state: Option<&'a Path>,
}

/// The bound port of the HTTP server, and its certificate if it speaks https.
pub(super) struct HttpListener {
    tcp: TcpListener,
    tls: Option<ServerTls>,
}

/// Binds the HTTP port and reads the certificate early, so that a port already in use or a certificate that cannot be
/// used is reported before anything else is started.
pub(super) async fn listen(http: &HttpSettings, member: &MemberSettings) -> Result<HttpListener, RunError> {
    let address = http.listen;
    let refused = |cause| RunError::Listen { what: "HTTP", address, flag: "--listen", cause };
    let tcp = TcpListener::bind(address).await.map_err(refused)?;
    let tls = http.tls.as_ref().map(|source| ServerTls::open(source, &names(address.ip(), member))).transpose()?;
    if let Some(tls) = &tls {
        info!(certificate = %tls.certificate_path().display(), fingerprint = tls.fingerprint(), "serving https");
    }
    Ok(HttpListener { tcp, tls })
}

/// The names of this machine for a self-signed certificate of a server that listens at `address`.
fn names(address: IpAddr, member: &MemberSettings) -> TlsNames {
    let address = (!address.is_unspecified()).then(|| address.to_canonical().to_string());
    let advertised = member.advertise.as_ref().map(|host| host.as_str().to_owned());
    TlsNames { host: stages::memory::machine().host, given: address.into_iter().chain(advertised).collect() }
}

/// URL at which other processes reach the HTTP server: with the advertised name of this machine if there is one and the
/// server listens beyond loopback, else with the address. A server that listens at all addresses is reached at
/// loopback, for which its certificate is, too.
fn url(scheme: Scheme, address: SocketAddr, advertised: Option<&str>) -> String {
    match advertised {
        Some(host) if !address.ip().is_loopback() && host.contains(':') => {
            format!("{scheme}://[{host}]:{}", address.port())
        }
        Some(host) if !address.ip().is_loopback() => format!("{scheme}://{host}:{}", address.port()),
        _ => format!("{scheme}://{}", reachable(address)),
    }
}

/// The address, or loopback in the place of 0.0.0.0 and ::, to which nobody should connect.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

// === impl HttpListener ===

impl HttpListener {
    /// The file of the certificate and its fingerprint, if the server speaks https.
    pub(super) fn certificate(&self) -> Option<(&Path, String)> {
        self.tls.as_ref().map(|tls| (tls.certificate_path(), tls.fingerprint()))
    }

    fn scheme(&self) -> Scheme {
        if self.tls.is_some() { Scheme::Https } else { Scheme::Http }
    }
}

// === impl GatewayServer ===

impl GatewayServer {
    /// Registers the gateway, starts its core and serves HTTP until `stop`.
    pub(super) async fn open(
        store: SharedStore,
        keyspace: &Keyspace,
        served: &Served,
        parts: GatewayParts<'_>,
        listener: HttpListener,
        stop: &Stop,
    ) -> Result<Self, RunError> {
        let GatewayParts { member, http: http_settings, drain_time, alone, clusters, cache, state } = parts;
        let address =
            listener.tcp.local_addr().map_err(|cause| RunError::Io { doing: "read the HTTP address", cause })?;
        let host = member.advertise.as_ref().map(Host::as_str);
        let url = url(listener.scheme(), address, host);
        let certificate = listener.certificate().map(|(path, _)| path.to_owned());
        let opener = Arc::new(ClusterOpener::new(store, member, http_settings, url, certificate, drain_time));
        let follower = RolloutFollower::start(opener.store.clone(), keyspace).await?;
        let mut opened = opener.open(keyspace, served, alone).await?;
        opened.model.drills = opener.drills();
        let opened = OpenDeployment::new(keyspace.deployment(), opened, true);
        let files = Arc::new(ModelFiles { cache: cache.clone(), running: state.map(RunningFolder::new) });
        let state = Arc::new(AppState {
            models: Models::new(opened.model.clone()),
            access: AccessControl::new(http_settings.keys.clone()),
            settings: Arc::clone(&opener.settings),
        });
        let (stop, HttpListener { tcp, tls }) = (stop.clone(), listener);
        let key_file = http_settings.key_file.clone();
        let (sender, open) = watch::channel(Arc::new(opened));
        let deployments = Deployments {
            opener: opener.clone(),
            state: state.clone(),
            files: files.clone(),
            cluster: keyspace.cluster().clone(),
            is_first: true,
            alone,
            open: sender,
        };
        let others = OtherClusters { opener, state: state.clone(), wanted: clusters, files };
        let http = tokio::spawn(async move {
            tokio::select! {
                () = http::serve(tcp, tls, Arc::clone(&state), stop.requested()) => {}
                never = key_file::follow(key_file, &state.access) => match never {},
                never = deployments.follow(follower) => match never {},
                never = others.follow() => match never {},
            }
        });
        Ok(Self { open, address, http })
    }

    /// Resolves when the core of the deployment that requests get has ended by itself.
    pub(super) async fn core_ended(&mut self) {
        loop {
            let mut statuses = self.open.borrow_and_update().pipeline.statuses();
            tokio::select! {
                () = async { while statuses.changed().await.is_ok() {} } => {
                    // The core of an old deployment ends in good order, after it was replaced.
                    if !self.open.has_changed().unwrap_or(false) {
                        return;
                    }
                }
                changed = self.open.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Waits until the HTTP server has ended after the order to stop.
    pub(super) async fn closed(self) {
        let _ = self.http.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::InterfaceChoice;

    #[test]
    fn the_url_has_the_advertised_name_or_an_address_that_can_be_reached() {
        for (address, advertised, expected) in [
            ("127.0.0.1:8100", Some("mini-1"), "https://127.0.0.1:8100"),
            ("0.0.0.0:8100", Some("mini-1"), "https://mini-1:8100"),
            ("[::]:8100", Some("fd00::7"), "https://[fd00::7]:8100"),
            ("0.0.0.0:8100", None, "https://127.0.0.1:8100"),
            ("[::]:8100", None, "https://[::1]:8100"),
            ("192.168.1.7:8100", None, "https://192.168.1.7:8100"),
        ] {
            assert_eq!(url(Scheme::Https, address.parse().unwrap(), advertised), expected);
        }
    }

    #[test]
    fn the_certificate_is_for_an_address_that_the_operator_gives() {
        let interfaces = InterfaceChoice::All;
        let (advertise, cluster_key, lease_ttl) = (None, None, Duration::from_secs(5));
        let member = MemberSettings { advertise, interfaces, cluster_key, lease_ttl };
        let advertised = MemberSettings { advertise: Some("mini-1".parse().unwrap()), ..member.clone() };
        let given = |address: &str, member| names(address.parse().unwrap(), member).given;
        assert_eq!(given("0.0.0.0", &member), [""; 0]);
        assert_eq!(given("192.168.1.7", &member), ["192.168.1.7"]);
        assert_eq!(given("::", &advertised), ["mini-1"]);
        assert_eq!(given("fd00::7", &advertised), ["fd00::7", "mini-1"]);
    }
}
