//! Heartbeats between two processes on one machine, over a connection that carries nothing else. If a process is
//! stopped (by SIGSTOP or a debugger), its sockets stay open and take bytes for a while. Only its heartbeats cease.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::error::EndError;
use super::limits::{HEARTBEAT_INTERVAL, HEARTBEAT_TIMEOUT};

/// The byte of a heartbeat.
const BEAT: u8 = 0;

/// Waits for the next heartbeat of the other side, for [`HEARTBEAT_TIMEOUT`] at most.
pub(super) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), EndError> {
    // More than one may have come since the last call.
    let mut beats = [BEAT; 16];
    match timeout(HEARTBEAT_TIMEOUT, stream.read(&mut beats))
        .await
        .map_err(|_| EndError::HeartbeatTimeout(HEARTBEAT_TIMEOUT))??
    {
        0 => Err(EndError::Closed),
        count if beats[..count].iter().all(|beat| *beat == BEAT) => Ok(()),
        _ => Err(EndError::UnexpectedData),
    }
}

/// Sends heartbeats and waits for those of the other side, until either fails.
pub(super) async fn exchange(stream: impl AsyncRead + AsyncWrite) -> EndError {
    let (mut read, mut write) = tokio::io::split(stream);
    let receiving = async {
        loop {
            if let Err(end) = receive(&mut read).await {
                return end;
            }
        }
    };
    let sending = async {
        let mut ticks = interval(HEARTBEAT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(cause) = write.write_all(&[BEAT]).await {
                return cause.into();
            }
        }
    };
    tokio::select! {
        end = receiving => end,
        end = sending => end,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_sends_heartbeats_is_alive_and_a_stopped_one_times_out() {
        let (near, far) = duplex(64);
        let far = async {
            tokio::select! {
                end = exchange(far) => Some(end),
                () = sleep(100 * HEARTBEAT_INTERVAL) => None,
            }
        };
        let started = Instant::now();
        let (end, alive) = tokio::join!(exchange(near), async {
            let ended = far.await;
            assert!(ended.is_none(), "{ended:?}");
            started.elapsed()
        });
        assert!(matches!(end, EndError::Closed), "{end:?}");
        assert_eq!(alive, 100 * HEARTBEAT_INTERVAL);
        let (near, _stopped) = duplex(64);
        let stopped = Instant::now();
        assert!(matches!(exchange(near).await, EndError::HeartbeatTimeout(_)));
        assert_eq!(stopped.elapsed(), HEARTBEAT_TIMEOUT);
    }

    #[tokio::test]
    async fn data_on_a_heartbeat_connection_is_an_error() {
        let (mut near, mut far) = duplex(64);
        far.write_all(b"GET /").await.unwrap();
        assert!(matches!(receive(&mut near).await, Err(EndError::UnexpectedData)));
        assert!(matches!(exchange(far).await, EndError::Closed | EndError::HeartbeatTimeout(_)));
    }
}
