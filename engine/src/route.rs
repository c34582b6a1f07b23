//! A way to one peer that is made anew when it breaks or when the pipeline is rebuilt.

use std::time::{Duration, Instant};

use bytes::Bytes;
use schema::frame::Frame;
use tracing::warn;

use crate::link::limits::{CONNECT_WAIT_MAX, HANGS_UP_MAX};
use crate::link::{Absence, ClusterKey, LinkError, Outbound};

/// A process that is just being ended may have its connections closed and still be listened for: the system takes a new one
/// and closes that, too. A moment later it says that nobody is there.
const ENDING_PAUSE: Duration = Duration::from_millis(10);
/// How often that is tried: ending takes longer, the more memory there was.
const ENDING_TRIES: usize = 5;

/// At most one connection, to whichever endpoint was asked for last.
pub(crate) struct Route {
    key: Option<ClusterKey>,
    link: Option<Outbound>,
    /// The fastest round trip of the connections to an endpoint: what is slower had to wait for something else.
    round_trip: Option<(String, Duration)>,
    /// Where nothing was heard, and when that was found.
    silent: Option<(String, Instant)>,
    /// The endpoint that closes every connection at once, and since when it has.
    hangs_up: Option<(String, Instant)>,
}

// === impl Route ===

impl Route {
    pub(crate) fn new(key: Option<ClusterKey>) -> Self {
        Self { key, link: None, round_trip: None, silent: None, hangs_up: None }
    }

    /// How long it takes there and back, as far as that is known.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.as_ref().map(|(_, fastest)| *fastest)
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

    /// Connects anew, to see whether anybody is there: it takes the peer's own answer.
    ///
    /// # Errors
    /// As [`Outbound::connect`]. Where nothing was heard, it is not tried again for as long as that took: whoever asks has
    /// other things to do than to wait for the dead.
    pub(crate) async fn knock(&mut self, endpoint: &str) -> Result<&mut Outbound, LinkError> {
        self.link = None;
        if let Some((silent, found)) = &self.silent
            && silent == endpoint
            && found.elapsed() < CONNECT_WAIT_MAX
        {
            return Err(LinkError::Silent { endpoint: endpoint.to_owned(), waited: CONNECT_WAIT_MAX });
        }
        let mut answer = Outbound::connect(endpoint, self.key.as_ref()).await;
        for _ in 0..ENDING_TRIES {
            if !answer.as_ref().is_err_and(LinkError::was_hung_up) {
                break;
            }
            tokio::time::sleep(ENDING_PAUSE).await;
            answer = Outbound::connect(endpoint, self.key.as_ref()).await;
        }
        let is_silent = answer.as_ref().err().and_then(LinkError::absence) == Some(Absence::Silence);
        self.silent = is_silent.then(|| (endpoint.to_owned(), Instant::now()));
        let link = answer.map_err(|error| self.judge_hang_up(endpoint, error))?;
        self.hangs_up = None;
        let known = self.round_trip.as_ref().filter(|(known, _)| known == endpoint).map(|(_, fastest)| *fastest);
        let fastest = known.map_or(link.round_trip(), |known| known.min(link.round_trip()));
        self.round_trip = Some((endpoint.to_owned(), fastest));
        Ok(self.link.insert(link))
    }

    /// A connection that is closed at once may be the end of a process, or a network that mends; one after the other, for long,
    /// is somebody who does not want this process.
    fn judge_hang_up(&mut self, endpoint: &str, error: LinkError) -> LinkError {
        if !error.was_hung_up() {
            self.hangs_up = None;
            return error;
        }
        let since =
            self.hangs_up.take().filter(|(known, _)| known == endpoint).map_or(Instant::now(), |(_, since)| since);
        let lasted = since.elapsed();
        self.hangs_up = Some((endpoint.to_owned(), since));
        match lasted >= HANGS_UP_MAX {
            true => LinkError::HangsUp { endpoint: endpoint.to_owned(), lasted, cause: Box::new(error) },
            false => error,
        }
    }

    /// Sends to `endpoint`, over a new connection if the one at hand is broken or leads elsewhere.
    ///
    /// # Errors
    /// [`LinkError`] when a new connection fails too; the frame is then lost, which the head notices.
    pub(crate) async fn send(&mut self, endpoint: &str, frame: &Frame, activations: Bytes) -> Result<(), LinkError> {
        if let Some(link) = self.link.as_mut().filter(|link| link.endpoint() == endpoint) {
            match link.send(frame, activations.clone()).await {
                Ok(()) => return Ok(()),
                // Who lives and takes nothing would take nothing over another connection, and what waits would stay beside it.
                Err(error @ LinkError::Stalled { .. }) => return Err(error),
                Err(error) => warn!(endpoint, %error, "the link broke; connecting anew"),
            }
        }
        self.knock(endpoint).await?.send(frame, activations).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn who_is_just_ending_is_asked_until_its_system_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let ending = tokio::spawn(async move {
            for _ in 0..3 {
                drop(listener.accept().await);
            }
        });
        let mut route = Route::new(None);
        let answer = route.knock(&format!("ipc://{}", path.display())).await.map(drop);
        assert_eq!(answer.as_ref().err().and_then(LinkError::absence), Some(Absence::Refused), "{answer:?}");
        ending.await.unwrap();
    }

    #[tokio::test]
    async fn who_closes_every_connection_at_once_counts_as_barred_when_that_lasts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let rude = tokio::spawn(async move {
            loop {
                drop(listener.accept().await);
            }
        });
        let (mut route, endpoint) = (Route::new(None), format!("ipc://{}", path.display()));
        let started = Instant::now();
        let answer = loop {
            let error = route.knock(&endpoint).await.map(drop).unwrap_err();
            match error.absence() {
                None => assert!(started.elapsed() < 3 * HANGS_UP_MAX, "{error}"),
                absence => break absence,
            }
        };
        assert!(answer == Some(Absence::Barred) && started.elapsed() >= HANGS_UP_MAX, "{answer:?}");
        rude.abort();
    }
}
