//! Heartbeats between two processes on one machine, over a connection that carries nothing else. The sockets of a
//! stopped process stay open and take bytes for a while, but the process sends no heartbeat.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::error::EndError;
use super::limits::{PING_EVERY, SILENCE_MAX};

/// The byte of a heartbeat.
const SIGN: u8 = 0;

/// Waits for the first heartbeat of the process that accepted the connection.
pub(super) async fn begin(stream: &mut (impl AsyncRead + Unpin)) -> Result<(), EndError> {
    let mut signs = [SIGN; 16];
    match timeout(SILENCE_MAX, stream.read(&mut signs)).await.map_err(|_| EndError::Silence(SILENCE_MAX))?? {
        0 => Err(EndError::Closed),
        count if signs[..count].iter().all(|sign| *sign == SIGN) => Ok(()),
        _ => Err(EndError::Speech),
    }
}

/// Sends heartbeats and waits for those of the other side, until either fails.
pub(super) async fn keep(stream: impl AsyncRead + AsyncWrite) -> EndError {
    let (mut read, mut write) = tokio::io::split(stream);
    let hear = async {
        loop {
            if let Err(end) = begin(&mut read).await {
                return end;
            }
        }
    };
    let give = async {
        let mut ticks = interval(PING_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(cause) = write.write_all(&[SIGN]).await {
                return cause.into();
            }
        }
    };
    tokio::select! {
        end = hear => end,
        end = give => end,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_gives_signs_is_alive_and_who_stops_is_not() {
        let (near, far) = duplex(64);
        let far = async {
            tokio::select! {
                end = keep(far) => Some(end),
                () = sleep(100 * PING_EVERY) => None,
            }
        };
        let started = Instant::now();
        let (end, alive) = tokio::join!(keep(near), async {
            let ended = far.await;
            assert!(ended.is_none(), "{ended:?}");
            started.elapsed()
        });
        assert!(matches!(end, EndError::Closed), "{end:?}");
        assert_eq!(alive, 100 * PING_EVERY);
        let (near, _stopped) = duplex(64);
        let stopped = Instant::now();
        assert!(matches!(keep(near).await, EndError::Silence(_)));
        assert_eq!(stopped.elapsed(), SILENCE_MAX);
    }

    #[tokio::test]
    async fn who_says_something_is_none_of_ours() {
        let (mut near, mut far) = duplex(64);
        far.write_all(b"GET /").await.unwrap();
        assert!(matches!(begin(&mut near).await, Err(EndError::Speech)));
        assert!(matches!(keep(far).await, EndError::Closed | EndError::Silence(_)));
    }
}
