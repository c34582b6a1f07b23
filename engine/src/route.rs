//! A way to one peer that is made anew when it breaks or when the pipeline is rebuilt.

use bytes::Bytes;
use schema::frame::Frame;
use tracing::warn;

use crate::link::{ClusterKey, LinkError, Outbound};

/// At most one connection, to whichever endpoint was asked for last.
pub(crate) struct Route {
    key: Option<ClusterKey>,
    link: Option<Outbound>,
}

// === impl Route ===

impl Route {
    pub(crate) fn new(key: Option<ClusterKey>) -> Self {
        Self { key, link: None }
    }

    /// Forgets the connection: what it still holds is for a pipeline that is gone.
    pub(crate) fn reset(&mut self) {
        self.link = None;
    }

    /// Waits until the connection has ended, and says where it led; for ever, if there is none. Cancel-safe.
    pub(crate) async fn ended(&mut self) -> String {
        match self.link.as_mut() {
            None => std::future::pending().await,
            Some(link) => {
                let error = link.lost().await;
                let endpoint = link.endpoint().to_owned();
                warn!(endpoint, %error, "the link broke");
                endpoint
            }
        }
    }

    /// Connects anew, to see whether anybody is there.
    ///
    /// # Errors
    /// As [`Outbound::connect`].
    pub(crate) async fn knock(&mut self, endpoint: &str) -> Result<(), LinkError> {
        self.link = None;
        self.link = Some(Outbound::connect(endpoint, self.key.as_ref()).await?);
        Ok(())
    }

    /// Sends to `endpoint`, over a new connection if the one at hand is broken or leads elsewhere.
    ///
    /// # Errors
    /// [`LinkError`] when a new connection fails too; the frame is then lost, which the head notices.
    pub(crate) async fn send(&mut self, endpoint: &str, frame: &Frame, activations: Bytes) -> Result<(), LinkError> {
        if let Some(link) = self.link.as_mut().filter(|link| link.endpoint() == endpoint) {
            match link.send(frame, activations.clone()).await {
                Ok(()) => return Ok(()),
                Err(error) => warn!(endpoint, %error, "the link broke; connecting anew"),
            }
        }
        self.link = None;
        let mut link = Outbound::connect(endpoint, self.key.as_ref()).await?;
        link.send(frame, activations).await?;
        self.link = Some(link);
        Ok(())
    }
}
