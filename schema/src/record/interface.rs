//! The network interfaces at which a process takes frames, and the addresses by which others reach it.

use serde::{Deserialize, Serialize};

/// Addresses that a process advertises, at most: a machine has a handful of interfaces, and every peer tries each of
/// them now and then. Readers ignore further ones.
pub const ADDRESSES_MAX: usize = 8;

/// An interface of a machine, as its operating system describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Its name, such as `en0`.
    pub name: String,
    /// The carrier of its packets.
    pub kind: InterfaceKind,
    /// Its speed in Mbit/s. `None` if the system does not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub megabits_per_second: Option<u32>,
    /// Bytes of its largest packets. `None` if the system does not tell, and in the records of older stages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
}

/// One of several addresses at which a process takes frames.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdvertisedAddress {
    /// The endpoint there: `tcp://<address>:<port>`.
    pub endpoint: String,
    /// The interface that has the address.
    pub interface: NetworkInterface,
}

/// The carrier of an interface's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InterfaceKind {
    /// A network card with a cable.
    Ethernet,
    /// A wireless network.
    Wifi,
    /// A Thunderbolt cable between two machines.
    Thunderbolt,
    /// A tunnel, such as WireGuard's.
    Vpn,
    /// Nothing: the machine itself.
    Loopback,
    /// The system does not tell, or a newer stage has written a kind that this version does not know.
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_reads_back_as_itself_and_a_kind_of_a_newer_version_is_unknown() {
        let text = r#"{"name":"bridge0","kind":"thunderbolt","megabits_per_second":40000,"mtu":9000}"#;
        let interface: NetworkInterface = serde_json::from_str(text).unwrap();
        assert_eq!((interface.kind, interface.megabits_per_second), (InterfaceKind::Thunderbolt, Some(40_000)));
        assert_eq!(interface.mtu, Some(9000));
        assert_eq!(serde_json::to_string(&interface).unwrap(), text);
        let newer: NetworkInterface = serde_json::from_str(r#"{"name":"x0","kind":"laser","lanes":4}"#).unwrap();
        assert_eq!((newer.kind, newer.megabits_per_second, newer.mtu), (InterfaceKind::Unknown, None, None));
    }
}
