//! A rule of the kernel's packet filter that drops every packet to and from one port of this machine (Linux, root).

use super::error::DrillError;
use super::process;
use super::undo::Undo;

/// The port of a stage's endpoint. The error says why its link cannot be cut.
pub(super) fn port(endpoint: &str) -> Result<u16, String> {
    let of_tcp = endpoint.strip_prefix("tcp://").and_then(|address| address.rsplit_once(':'));
    of_tcp.and_then(|(_, port)| port.parse().ok()).ok_or_else(|| {
        format!(
            "it is reached at {endpoint}, which no packet filter sees: expected tcp://…, as with `baton up --advertise \
             ADDRESS`, or in a cluster that the drill starts itself"
        )
    })
}

/// Refuses unless this process may set rules.
pub(super) async fn check() -> Result<(), DrillError> {
    let listed = process::run("nft", &["list", "tables"], "").await;
    listed.map(drop).map_err(|reason| DrillError::Impossible {
        what: "cut a link".to_owned(),
        reason: format!("{reason}; it needs Linux, root and nft"),
    })
}

/// Cuts the port off until the returned value is used or dropped.
pub(super) async fn cut(port: u16) -> Result<Undo, DrillError> {
    let table = format!("baton_drill_{}", std::process::id());
    // Deleting a table that is not there is no failure: then nothing is cut.
    let undo = Undo::arm("nft delete table inet \"$1\" || ! nft list table inet \"$1\"", &table)?;
    let set = process::run("nft", &["-f", "-"], &rules(&table, port)).await;
    set.map_err(|reason| DrillError::Impossible { what: "cut a link".to_owned(), reason })?;
    Ok(undo)
}

/// A link on this machine passes the input hook only, one to another machine both.
fn rules(table: &str, port: u16) -> String {
    let chain = |hook: &str| {
        format!(
            "chain {hook} {{ type filter hook {hook} priority -300; tcp dport {port} drop; tcp sport {port} drop; }}"
        )
    };
    format!("table inet {table} {{\n{}\n{}\n}}\n", chain("input"), chain("output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_a_tcp_endpoint_and_a_local_socket_has_none() {
        assert_eq!(port("tcp://mini-2.local:41873"), Ok(41873));
        assert_eq!(port("tcp://[fd00::7]:41873"), Ok(41873));
        for endpoint in ["ipc:///run/baton/a.sock", "tcp://mini-2.local", ""] {
            assert!(port(endpoint).unwrap_err().contains("expected tcp://"), "{endpoint}");
        }
    }

    #[test]
    fn both_directions_are_cut() {
        let rules = rules("t", 7);
        for expected in ["hook input", "hook output", "tcp dport 7 drop", "tcp sport 7 drop"] {
            assert!(rules.contains(expected), "{rules}");
        }
    }
}
