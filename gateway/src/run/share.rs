//! `baton up --share`: what is made before the store opens, and the shared port that is opened beside it.

use std::io::{IsTerminal, Write as _};
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use engine::generate::Pipeline as _;
use engine::link::ClusterKey;
use engine::store::{SharedStore, StoreProxy};
use qrcode::QrCode;
use qrcode::render::unicode;
use schema::{ClusterName, Keyspace};
use stages::weights::ModelFile;
use tokio::sync::watch;

use super::RunError;
use super::deployments::OpenDeployment;
use super::own_store::OwnStore;
use crate::layers::LayerService;
use crate::models::Cache;
use crate::settings::{ShareSettings, UpSettings};
use crate::share::{
    Announcement, Announcer, Authority, AuthorityPin, ClusterFolder, JoinToken, ShareListener, SharedPort, Sharing,
    StoreService, add, ensure_cluster_key, note_address, socket_text,
};

/// Time for which the token that `baton up --share` prints is valid.
const TOKEN_TTL: Duration = Duration::from_secs(24 * 3600);
/// An address that no machine has (RFC 5737). Nothing is sent to it: the system only says from where it would be.
const ELSEWHERE: (&str, u16) = ("192.0.2.1", 9);

/// A cluster that is about to be shared.
pub(super) struct Prepared {
    folder: ClusterFolder,
    authority: Authority,
    cluster_key: ClusterKey,
    host: String,
    listener: ShareListener,
}

/// A cluster that is shared. Dropping it closes the port.
pub(super) struct Shared {
    port: SharedPort,
    pin: AuthorityPin,
    announces: bool,
    announcer: Option<Announcer>,
    layers: Arc<LayerService>,
}

/// Makes the authority and the cluster key if they are missing, and opens the port. The members of this process
/// advertise its host and use its key from then on. `None` if the cluster is not to be shared.
pub(super) async fn prepare(settings: &mut UpSettings) -> Result<Option<Prepared>, RunError> {
    let Some(ShareSettings { host, port, state, .. }) = settings.share.clone() else { return Ok(None) };
    let folder = ClusterFolder::new(&state, &settings.cluster);
    let host = host.or_else(own_address).ok_or(RunError::ShareHost)?;
    let authority = Authority::ensure(&folder, &settings.cluster)?;
    authority.ensure_client(&folder)?;
    let cluster_key = match settings.member.cluster_key.clone() {
        Some(key) => key,
        None => ensure_cluster_key(&folder)?,
    };
    let (wanted, search) = port.map_or((crate::share::PORT, true), |port| (port, false));
    let listener = ShareListener::bind(&host, wanted, search).await;
    let listener = listener.map_err(|cause| RunError::Share { address: socket_text(&host, wanted), cause })?;
    if listener.address().port() != wanted {
        print(&format!("port {wanted} is taken, so the cluster is shared at {}", listener.address().port()));
    }
    settings.member.cluster_key = Some(cluster_key.clone());
    settings.member.advertise = Some(host.parse().map_err(|_| RunError::ShareHost)?);
    Ok(Some(Prepared { folder, authority, cluster_key, host, listener }))
}

/// The cluster key that a `baton up --share` of `cluster` on this machine made.
pub(super) fn cluster_key(state: &Path, cluster: &ClusterName) -> Result<ClusterKey, RunError> {
    Ok(ensure_cluster_key(&ClusterFolder::new(state, cluster))?)
}

// === impl Prepared ===

impl Prepared {
    /// The file of the store.
    pub(super) fn store(&self) -> PathBuf {
        self.folder.store()
    }

    /// Opens the shared port, and prints the line for other machines with a new token.
    pub(super) async fn open(
        self,
        own: &OwnStore,
        store: SharedStore,
        keyspace: &Keyspace,
        settings: &UpSettings,
    ) -> Result<Shared, RunError> {
        let Self { folder, authority, cluster_key, host, listener } = self;
        let pin = authority.pin();
        let address = socket_text(&host, listener.address().port());
        let token = JoinToken::generate(settings.cluster.clone(), pin);
        let token = token.map_err(|cause| RunError::Io { doing: "make a token", cause })?;
        add(&*store, keyspace, &token, Some(TOKEN_TTL)).await?;
        note_address(&folder, &address)?;
        let service = match own {
            OwnStore::Embedded(server) => StoreService::Embedded(server.service()),
            OwnStore::Etcd(etcd) => StoreService::At(StoreProxy::new(etcd.address())),
        };
        let layers: Arc<LayerService> = Arc::default();
        let keyspace = keyspace.clone();
        let sharing = Sharing { authority, cluster_key, store, keyspace, service, layers: layers.clone() };
        let names = [host];
        let port = listener.serve(sharing, &names).map_err(|reason| RunError::Certificate { reason })?;
        let line = format!("baton join {address} {token}");
        let path = |name| folder.path(name).display().to_string();
        print(&format!(
            "sharing cluster {} at {address}; on another machine:\n\n  {line}\n\nfor {} hours; `baton token` makes, \
             lists and revokes tokens\n\n  etcdctl --endpoints https://{address} --cacert {} --cert {} --key {} get \
             --prefix {}\n",
            settings.cluster,
            TOKEN_TTL.as_secs() / 3600,
            path("authority.pem"),
            path("client.pem"),
            path("client.key"),
            Keyspace::new(&settings.cluster).prefix(),
        ));
        if std::io::stdout().is_terminal() {
            print(&picture(&line));
        }
        let announces = settings.share.as_ref().is_some_and(|share| share.announces);
        Ok(Shared { port, pin, announces, announcer: None, layers })
    }
}

// === impl Shared ===

impl Shared {
    /// Announces the cluster on the local network, with the name of its model, unless that is off or only this machine
    /// can reach the port.
    pub(super) fn announce(&mut self, cluster: &ClusterName, model: &str) {
        let machine = stages::memory::machine().host;
        let announcement = Announcement::new(cluster.clone(), model, &machine, self.pin, self.port.address());
        self.announcer = announcement.filter(|_| self.announces).map(Announcer::start);
    }

    /// Serves the layers of `file` to machines that join.
    pub(super) fn offer(&self, file: &ModelFile, cache: &Cache) {
        self.layers.offer(file.clone(), cache);
    }

    /// Serves layers at a low rate while the pipeline of `open` computes tokens.
    pub(super) fn spare(&self, open: watch::Receiver<Arc<OpenDeployment>>) {
        self.layers.slow_while(move || open.borrow().pipeline.status().running > 0);
    }

    /// Withdraws the announcement and closes the port.
    pub(super) async fn close(self) {
        if let Some(announcer) = self.announcer {
            announcer.withdraw().await;
        }
    }
}

/// The address of this machine on the network that leads to others. `None` if it has none.
fn own_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect(ELSEWHERE).ok()?;
    let address: IpAddr = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then(|| address.to_string())
}

/// A QR code of the line, in half blocks. Empty if it does not fit one.
fn picture(line: &str) -> String {
    let code = QrCode::new(line.as_bytes());
    code.map(|code| code.render::<unicode::Dense1x2>().quiet_zone(true).build()).unwrap_or_default()
}

/// A closed stdout is no reason to stop serving.
fn print(text: &str) {
    tracing::info!("{}", text.lines().next().unwrap_or_default());
    let _ = writeln!(std::io::stdout(), "{text}");
}
