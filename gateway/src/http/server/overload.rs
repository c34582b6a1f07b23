//! The answer to a connection over the cap.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::debug;

use crate::http::limits::{OVERLOAD_REPLY_TIMEOUT, RETRY_AFTER_S};

/// Bytes of its request that are read and discarded, so that the client gets to read the refusal.
const DISCARDED_MAX: u64 = 64 << 10;

/// Sends 503 and closes the connection, within a bounded time.
pub(crate) async fn reply(stream: TcpStream) {
    match tokio::time::timeout(OVERLOAD_REPLY_TIMEOUT, write_503(stream)).await {
        Ok(Ok(())) => debug!("a connection over the cap was answered with 503"),
        Ok(Err(error)) => debug!(%error, "a connection over the cap ended before its 503"),
        Err(_) => debug!("a connection over the cap did not take its 503 in time"),
    }
}

async fn write_503(mut stream: TcpStream) -> io::Result<()> {
    let body = r#"{"error":{"message":"Too many connections: try again later.","type":"unavailable_error","param":null,"code":"too_many_connections"}}"#;
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {}\r\nRetry-After: {RETRY_AFTER_S}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(DISCARDED_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}
