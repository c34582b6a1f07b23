//! The store that `baton up` runs itself: the embedded one, or a real etcd that is started again when it ends.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::store::{EmbeddedServer, EtcdAccess, MemoryStore};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::RunError;
use super::supervise::print_line;
use crate::etcd_process::EtcdProcess;
use crate::settings::{OwnStoreSettings, UpSettings};

/// Pause before etcd is started again, after its end and, twice as long each time, after a start that failed.
const RESTART_PAUSE_MIN: Duration = Duration::from_secs(1);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// A store of this process.
pub(super) enum OwnStore {
    /// The embedded one.
    Embedded(EmbeddedServer),
    /// A real etcd.
    Etcd(SupervisedEtcd),
}

/// An etcd that a task starts again when it ends.
pub(super) struct SupervisedEtcd {
    address: SocketAddr,
    /// Dropping it ends etcd, too.
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

// === impl OwnStore ===

impl OwnStore {
    /// Starts the store that the settings ask for. The embedded one is kept in `file` if there is one.
    pub(super) async fn open(settings: &UpSettings, file: Option<&Path>) -> Result<Self, RunError> {
        let (listener, address) = bind(settings.store_listen).await?;
        match &settings.own_store {
            OwnStoreSettings::Embedded => {
                let store = file.map_or_else(|| Ok(MemoryStore::new()), MemoryStore::open)?;
                let server = EmbeddedServer::serve(listener, store).map_err(|cause| refused(address, cause))?;
                Ok(Self::Embedded(server))
            }
            OwnStoreSettings::Etcd { folder } => {
                // etcd opens the port by itself.
                drop(listener);
                SupervisedEtcd::start(folder.clone(), address).await.map(Self::Etcd)
            }
        }
    }

    /// The way to it.
    pub(super) fn access(&self) -> EtcdAccess {
        let url = match self {
            Self::Embedded(server) => server.url(),
            Self::Etcd(etcd) => format!("http://{}", etcd.address),
        };
        EtcdAccess::plain(&[url])
    }

    /// Ends it.
    pub(super) async fn shutdown(self) {
        match self {
            Self::Embedded(server) => server.shutdown().await,
            Self::Etcd(etcd) => {
                drop(etcd.stop);
                let _ = etcd.task.await;
            }
        }
    }
}

/// Listens at `address`, or at another port of it if that is taken.
async fn bind(mut address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let mut bound = TcpListener::bind(address).await;
    if bound.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse) {
        print_line(&format!("port {} is taken, so the store gets another", address.port()));
        address.set_port(0);
        bound = TcpListener::bind(address).await;
    }
    let listener = bound.map_err(|cause| refused(address, cause))?;
    let address = listener.local_addr().map_err(|cause| refused(address, cause))?;
    Ok((listener, address))
}

fn refused(address: SocketAddr, cause: io::Error) -> RunError {
    RunError::Listen { what: "the store", address, flag: "--store-listen", cause }
}

// === impl SupervisedEtcd ===

impl SupervisedEtcd {
    async fn start(folder: PathBuf, address: SocketAddr) -> Result<Self, RunError> {
        let process = EtcdProcess::start(&folder, address).await?;
        print_line(&format!("etcd is process {}, its data is in {}", number(&process), folder.display()));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(supervise(process, folder, address, stopped));
        Ok(Self { address, stop, task })
    }

    /// The address for clients on this machine.
    #[cfg(feature = "tls")]
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Starts etcd again whenever it ends, until it is to stop.
async fn supervise(mut process: EtcdProcess, folder: PathBuf, address: SocketAddr, mut stopped: oneshot::Receiver<()>) {
    loop {
        tokio::select! {
            _ = &mut stopped => return process.stop().await,
            ended = process.ended() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                print_line(&format!("etcd has ended: {status}; it is started again"));
            }
        }
        tokio::select! {
            _ = &mut stopped => return,
            started = restart(&folder, address) => process = started,
        }
        print_line(&format!("etcd is process {} now", number(&process)));
    }
}

/// Tries to start etcd until it answers.
async fn restart(folder: &Path, address: SocketAddr) -> EtcdProcess {
    let mut pause = RESTART_PAUSE_MIN;
    loop {
        tokio::time::sleep(pause).await;
        match EtcdProcess::start(folder, address).await {
            Ok(process) => return process,
            Err(error) => {
                pause = (pause * 2).min(RESTART_PAUSE_MAX);
                print_line(&format!("etcd cannot be started again: {error}; next try in {} s", pause.as_secs()));
            }
        }
    }
}

fn number(process: &EtcdProcess) -> String {
    process.id().map_or_else(|| "?".to_owned(), |pid| pid.to_string())
}
