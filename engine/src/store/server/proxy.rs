//! Passes the bytes of clients on to an etcd that listens elsewhere. It does not know what they say.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::connections::Connections;
use super::http2::CONNECTIONS_MAX;

/// A connection whose client sent nothing for this time makes room for another. Members renew leases more often.
const QUIET_MAX: Duration = Duration::from_secs(15);

/// An etcd behind this process. Clones share its connections.
#[derive(Debug, Clone)]
pub struct StoreProxy {
    etcd: SocketAddr,
    connections: Connections,
}

/// A client's stream, which notes that bytes came.
struct Noted<'a, S> {
    stream: S,
    spoke: &'a AtomicBool,
}

// === impl StoreProxy ===

impl StoreProxy {
    /// The etcd without TLS at this address.
    pub fn new(etcd: SocketAddr) -> Self {
        Self { etcd, connections: Connections::new(CONNECTIONS_MAX) }
    }

    /// Serves one client until either side closes the connection.
    ///
    /// # Errors
    /// The system's reason.
    pub async fn serve<S>(&self, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(mut connection) = self.connections.admit() else {
            return Err(io::Error::other(format!("{CONNECTIONS_MAX} connections to etcd are in use")));
        };
        let mut etcd = TcpStream::connect(self.etcd).await?;
        let _ = etcd.set_nodelay(true);
        let spoke = AtomicBool::new(false);
        let mut stream = Noted { stream, spoke: &spoke };
        let calls = connection.calls();
        let busy = async {
            let mut call = Some(calls.begin());
            loop {
                sleep(QUIET_MAX).await;
                call = spoke.swap(false, Relaxed).then(|| call.take().unwrap_or_else(|| calls.begin()));
            }
        };
        tokio::select! {
            passed = copy_bidirectional(&mut stream, &mut etcd) => passed.map(drop),
            () = busy => Ok(()),
            () = connection.closed() => Err(io::Error::other("closed for another connection: its client was quiet")),
        }
    }
}

// === impl Noted ===

impl<S: AsyncRead + Unpin> AsyncRead for Noted<'_, S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, into);
        if into.filled().len() > before {
            self.spoke.store(true, Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Noted<'_, S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::net::TcpListener;

    use super::*;

    /// An etcd that says what it was told.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        address
    }

    fn client(proxy: &StoreProxy) -> DuplexStream {
        let (near, far) = duplex(1 << 10);
        let proxy = proxy.clone();
        tokio::spawn(async move { proxy.serve(far).await });
        near
    }

    async fn is_answered(client: &mut DuplexStream) -> bool {
        let mut answer = [0];
        client.write_all(b"?").await.is_ok() && client.read_exact(&mut answer).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_quiet_makes_room_and_one_that_speaks_does_not() {
        let proxy = StoreProxy::new(echo().await);
        let mut clients: Vec<_> = (0..CONNECTIONS_MAX).map(|_| client(&proxy)).collect();
        for client in &mut clients {
            assert!(is_answered(client).await);
        }
        assert!(!is_answered(&mut client(&proxy)).await, "all have spoken just now");
        sleep(QUIET_MAX / 2).await;
        assert!(is_answered(&mut clients[0]).await);
        sleep(QUIET_MAX / 2).await;
        sleep(QUIET_MAX / 2).await;
        assert!(is_answered(&mut clients[0]).await);
        sleep(QUIET_MAX).await;
        let mut more = client(&proxy);
        assert!(is_answered(&mut more).await && is_answered(&mut clients[0]).await);
        let mut ended = 0;
        for client in &mut clients {
            ended += usize::from(!is_answered(client).await);
        }
        assert_eq!(ended, 1);
    }
}
