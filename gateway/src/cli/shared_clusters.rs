//! The list of clusters that announce themselves on the local network.

use std::net::SocketAddr;

use schema::ClusterName;
use serde::Serialize;

use super::exit::CliError;
use super::output;
use super::table::Table;
use crate::share::{Announcement, hex_pin, list_announced};

/// A cluster in the list.
#[derive(Debug, Serialize)]
struct SharedCluster {
    cluster: ClusterName,
    model: String,
    machine: String,
    addresses: Vec<SocketAddr>,
    join_version: u32,
    pin: String,
}

/// Asks the network and prints the list. Returns the number of its rows.
pub(super) async fn print(json: bool) -> Result<usize, CliError> {
    let found = list_announced().await?;
    let text =
        if json { output::json(&found.iter().map(SharedCluster::new).collect::<Vec<_>>())? } else { render(&found) };
    output::print(&text)?;
    Ok(found.len())
}

fn render(found: &[Announcement]) -> String {
    let Some(first) = found.first() else {
        return "no cluster announces itself on this network: `baton up --share` on another machine shares one, and \
                `baton join HOST:PORT TOKEN` joins it also where multicast does not pass\n"
            .to_owned();
    };
    let mut table = Table::new(&["CLUSTER", "MODEL", "MACHINE", "ADDRESS"]);
    for cluster in found {
        let addresses: Vec<_> = cluster.addresses.iter().map(ToString::to_string).collect();
        let (name, model, machine) = (cluster.cluster.to_string(), cluster.model.clone(), cluster.machine.clone());
        table.row([name, model, machine, addresses.join(" ")]);
    }
    let address = first.addresses.first().map(ToString::to_string).unwrap_or_default();
    format!(
        "{}\nAnybody can announce anything: the token decides. `baton token create` on that machine prints one.\n\n  \
         baton join {address} TOKEN\n",
        table.render()
    )
}

// === impl SharedCluster ===

impl SharedCluster {
    fn new(found: &Announcement) -> Self {
        let Announcement { cluster, model, machine, join_version, pin, addresses } = found.clone();
        Self { cluster, model, machine, addresses, join_version, pin: hex_pin(pin) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::AuthorityPin;

    #[test]
    fn the_list_says_what_to_type_next() {
        let announced = |cluster: &str, address: &str| {
            let pin = AuthorityPin([7; 32]);
            let address = address.parse().unwrap();
            Announcement::new(cluster.parse().unwrap(), "qwen3-14b", "mini-1", pin, address).unwrap()
        };
        let found = [announced("home", "192.168.1.11:7946"), announced("lab", "10.0.0.7:7947")];
        insta::assert_snapshot!(render(&found), @r"
        CLUSTER  MODEL      MACHINE  ADDRESS
        home     qwen3-14b  mini-1   192.168.1.11:7946
        lab      qwen3-14b  mini-1   10.0.0.7:7947

        Anybody can announce anything: the token decides. `baton token create` on that machine prints one.

          baton join 192.168.1.11:7946 TOKEN
        ");
        assert!(render(&[]).starts_with("no cluster announces itself on this network"));
        let document = serde_json::to_value(SharedCluster::new(&found[1])).unwrap();
        assert_eq!(document["addresses"], serde_json::json!(["10.0.0.7:7947"]));
        assert_eq!((document["cluster"].as_str(), document["pin"].as_str().map(str::len)), (Some("lab"), Some(64)));
    }
}
