//! Other versions, other protocols, and records that members did not write.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::case::{Case, Expected, HEALTHY, Mistake};
use super::fixture::Fixture;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::stays("versions: a link of a later version connects to a stage", HEALTHY, |fixture| {
            send_bytes(fixture, b"BTN\x09")
        }),
        Case::stays("versions: HTTP is spoken to a stage", HEALTHY, |fixture| {
            send_bytes(fixture, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        }),
        Case::stays(
            "versions: a stage's record without a proof",
            Expected { status: "stage older is refused: it carries no proof of the cluster key", ..HEALTHY },
            |fixture| record(fixture, "older", |record| record.replace("\"proof\"", "\"was_proof\"")),
        ),
        Case::stays(
            "versions: a stage's record copied under another name",
            Expected {
                status: "stage copy is refused: its proof was made with another cluster key, or for another",
                ..HEALTHY
            },
            |fixture| record(fixture, "copy", str::to_owned),
        ),
        Case::stays(
            "versions: a record that cannot be read",
            Expected { status: "unreadable value", ..HEALTHY },
            |fixture| record(fixture, "broken", |record| record[..record.len() / 2].to_owned()),
        ),
        Case::stays(
            "versions: a key that no version knows",
            Expected { status: "unknown key", ..HEALTHY },
            |fixture| {
                fixture.etcdctl(&["put", "/baton/v1/home/nonsense/a", "x"]);
                Ok(Mistake::without_process().undone_by(|fixture| {
                    fixture.etcdctl(&["del", "/baton/v1/home/nonsense/a"]);
                }))
            },
        ),
    ]
}

/// Sends `bytes` to the endpoint at which a stage takes frames. The stage has to close the connection.
fn send_bytes(fixture: &mut Fixture, bytes: &[u8]) -> Result<Mistake, String> {
    fixture.network()?;
    let record = fixture.etcdctl(&["get", "--print-value-only", "/baton/v1/home/stages/s0"]);
    let record: serde_json::Value = serde_json::from_str(&record).expect("a record");
    let endpoint = record["endpoint"].as_str().expect("an endpoint").trim_start_matches("tcp://").to_owned();
    let mut stream = TcpStream::connect(endpoint).expect("the stage's port");
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream.write_all(&[bytes, &[0; 64]].concat()).unwrap();
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    // A reset counts as a close.
    match stream.read_to_end(&mut received) {
        Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
            panic!("the stage does not close the connection after {bytes:?}")
        }
        _ => Ok(Mistake::without_process()),
    }
}

/// Writes a record that is derived from that of a live stage.
fn record(fixture: &mut Fixture, name: &str, change: fn(&str) -> String) -> Result<Mistake, String> {
    let record = fixture.etcdctl(&["get", "--print-value-only", "/baton/v1/home/stages/s0"]);
    fixture.etcdctl(&["put", &format!("/baton/v1/home/stages/{name}"), &change(record.trim())]);
    Ok(Mistake::without_process().undone_by(|fixture| {
        for name in ["older", "copy", "broken"] {
            fixture.etcdctl(&["del", &format!("/baton/v1/home/stages/{name}")]);
        }
    }))
}
