//! The loop of a listening port.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::warn;

/// Pause after the system refused to accept, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until the future is dropped, which closes all of them. `serve` takes a connection and its peer,
/// and refuses it by `None`. `port` names the port in the log.
pub async fn accept<F>(
    listener: TcpListener,
    port: &'static str,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> Option<F>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(serving) = serve(stream, peer) {
                    connections.spawn(serving);
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection to {port}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
