//! The announcing side: a responder that answers questions for as long as the cluster is shared, and says goodbye.

use mdns_sd::{IfKind, ServiceDaemon, ServiceInfo};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::announcement::{Announcement, SERVICE_TYPE};
use super::limits::{GOODBYE_WAIT_MAX, RESPONDER_CHECK_INTERVAL, RESPONDER_RECORDS_MAX};

/// A running announcement. Dropping it withdraws it, without a wait for the goodbye.
#[derive(Debug)]
pub struct Announcer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// A responder with the announcement.
struct Responder(ServiceDaemon);

// === impl Announcer ===

impl Announcer {
    /// Announces a cluster from now on. A responder that fails is started again.
    pub fn start(announcement: Announcement) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(keep(announcement, stopped)) }
    }

    /// Withdraws the announcement, so that other machines forget it now and not at the end of its time to live.
    pub async fn withdraw(self) {
        drop(self.stop);
        let _ = timeout(2 * GOODBYE_WAIT_MAX, self.task).await;
    }
}

async fn keep(announcement: Announcement, mut stopped: oneshot::Receiver<()>) {
    loop {
        let responder = match Responder::start(&announcement) {
            Ok(responder) => responder,
            Err(error) => return warn!(%error, "the cluster is not announced: machines join by its address only"),
        };
        tokio::select! {
            _ = &mut stopped => return responder.stop().await,
            () = responder.overflows() => responder.stop().await,
        }
        warn!("the responder of multicast DNS is started anew: it failed, or the network sent it too many records");
    }
}

// === impl Responder ===

impl Responder {
    fn start(announcement: &Announcement) -> mdns_sd::Result<Self> {
        let ips: Vec<_> = announcement.addresses.iter().map(std::net::SocketAddr::ip).collect();
        let port = announcement.addresses.first().map_or(0, std::net::SocketAddr::port);
        let properties = announcement.properties();
        let (instance, host) = (announcement.instance(), announcement.host());
        let info = ServiceInfo::new(SERVICE_TYPE, &instance, &host, &ips[..], port, &properties[..])?;
        let responder = Self(ServiceDaemon::new()?);
        // Only the network that leads to the shared port is told of it.
        responder.0.disable_interface(IfKind::All)?;
        responder.0.enable_interface(ips.into_iter().map(IfKind::Addr).collect::<Vec<_>>())?;
        responder.0.register(info)?;
        Ok(responder)
    }

    /// Resolves when it has failed, or keeps too much of what others send.
    async fn overflows(&self) {
        loop {
            sleep(RESPONDER_CHECK_INTERVAL).await;
            let Ok(answer) = self.0.get_metrics() else { return };
            let Ok(metrics) = answer.recv_async().await else { return };
            let kept = metrics.iter().filter(|(name, _)| name.starts_with("cached-") || *name == "timer");
            if kept.map(|(_, count)| *count).sum::<i64>() > RESPONDER_RECORDS_MAX {
                return;
            }
        }
    }

    /// Says goodbye and ends the responder's thread.
    async fn stop(self) {
        if let Ok(ended) = self.0.shutdown() {
            let _ = timeout(GOODBYE_WAIT_MAX, ended.recv_async()).await;
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        // It has ended already if `stop` was awaited.
        let _ = self.0.shutdown();
    }
}
