//! An etcd of the drill's own, which it can kill and start again with the same data.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use engine::store::{EtcdStore, Store};
use tokio::process::{Child, Command};

use super::error::DrillError;
use super::limits::ETCD_TIMEOUT;
use super::process;
use super::undo::Undo;

/// Interval of the checks whether it answers.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A running etcd of one member on loopback.
#[derive(Debug)]
pub(super) struct OwnEtcd {
    folder: PathBuf,
    client: String,
    peer: String,
    running: Option<(Child, Undo)>,
}

// === impl OwnEtcd ===

impl OwnEtcd {
    /// Starts one with its data in `folder`, and waits until it answers.
    pub(super) async fn start(folder: &Path) -> Result<Self, DrillError> {
        let port = || free_port().map_err(|cause| DrillError::Io { doing: "find a free port", cause });
        let url = |port| format!("http://{}:{port}", Ipv4Addr::LOCALHOST);
        let (client, peer) = (url(port()?), url(port()?));
        let mut etcd = Self { folder: folder.join("etcd"), client, peer, running: None };
        etcd.restart().await?;
        Ok(etcd)
    }

    /// The address for clients.
    pub(super) fn url(&self) -> &str {
        &self.client
    }

    /// Kills it, as a power failure does.
    pub(super) async fn kill(&mut self) -> Result<(), DrillError> {
        let Some((mut child, _end)) = self.running.take() else { return Ok(()) };
        child.kill().await.map_err(|cause| DrillError::Io { doing: "kill etcd", cause })
    }

    /// Starts it again with the data that it has, and waits until it answers.
    pub(super) async fn restart(&mut self) -> Result<(), DrillError> {
        let mut command = Command::new("etcd");
        command.args(["--name", "drill", "--data-dir"]).arg(&self.folder).args([
            "--listen-client-urls",
            &self.client,
            "--advertise-client-urls",
            &self.client,
            "--listen-peer-urls",
            &self.peer,
            "--initial-advertise-peer-urls",
            &self.peer,
            "--initial-cluster",
            &format!("drill={}", self.peer),
            "--log-level",
            "error",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
        let start = |reason: String| DrillError::Start { what: "etcd, which --fault store needs", reason };
        let child = command.spawn().map_err(|error| start(format!("{error}: is it installed?")))?;
        let end = process::end_later(child.id().unwrap_or_default())?;
        let (child, _) = self.running.insert((child, end));
        let started = Instant::now();
        while !answers(&self.client).await {
            if let Ok(Some(status)) = child.try_wait() {
                return Err(start(format!("it ended with {status}")));
            }
            if started.elapsed() > ETCD_TIMEOUT {
                return Err(start(format!("it does not answer within {} s", ETCD_TIMEOUT.as_secs())));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

async fn answers(url: &str) -> bool {
    let Ok(store) = EtcdStore::connect(&[url.to_owned()]).await else { return false };
    store.read("/baton/").await.is_ok()
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
