//! An etcd of the drill's own, which it can kill and start again with the same data.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use super::error::DrillError;
use crate::etcd_process::EtcdProcess;

/// A running etcd of one member on loopback.
#[derive(Debug)]
pub(super) struct OwnEtcd {
    folder: PathBuf,
    address: SocketAddr,
    url: String,
    running: Option<EtcdProcess>,
}

// === impl OwnEtcd ===

impl OwnEtcd {
    /// Starts one with its data in `folder`, and waits until it answers.
    pub(super) async fn start(folder: &Path) -> Result<Self, DrillError> {
        let address = free_address().map_err(|cause| DrillError::Io { doing: "find a free port", cause })?;
        let mut etcd = Self { folder: folder.join("etcd"), address, url: format!("http://{address}"), running: None };
        etcd.restart().await?;
        Ok(etcd)
    }

    /// The address for clients.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Kills it, as a power failure does.
    pub(super) async fn kill(&mut self) -> Result<(), DrillError> {
        let Some(running) = self.running.take() else { return Ok(()) };
        running.kill().await.map_err(|cause| DrillError::Io { doing: "kill etcd", cause })
    }

    /// Starts it again with the data that it has, and waits until it answers.
    pub(super) async fn restart(&mut self) -> Result<(), DrillError> {
        let started = EtcdProcess::start(&self.folder, self.address).await;
        let what = "etcd, which --fault store needs";
        self.running = Some(started.map_err(|error| DrillError::Start { what, reason: error.to_string() })?);
        Ok(())
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
