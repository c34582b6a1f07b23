//! The announcement of a shared cluster, and the strict reading of those that strangers send.

use std::net::{IpAddr, SocketAddr};

use schema::ClusterName;

use super::limits::{ADDRESSES_MAX, LABEL_BYTES_MAX, MACHINE_CHARS_MAX, MODEL_CHARS_MAX};
use crate::models::hex;
use crate::share::authority::JOIN_VERSION;
use crate::share::token::{AuthorityPin, PIN_BYTES};

/// The type of the service in DNS-SD.
pub(super) const SERVICE_TYPE: &str = "_baton._tcp.local.";
/// The keys of the TXT record.
const CLUSTER: &str = "cluster";
const MODEL: &str = "model";
const MACHINE: &str = "machine";
const JOIN: &str = "join";
const PIN: &str = "pin";
/// The stand-in for a character that announcements do not have.
const OTHER_CHAR: char = '?';

/// A shared cluster as a machine announces it. Anybody can announce anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The cluster.
    pub cluster: ClusterName,
    /// Its model, as printable ASCII.
    pub model: String,
    /// The machine that shares it, as printable ASCII.
    pub machine: String,
    /// The version of the join protocol.
    pub join_version: u32,
    /// The pin of the cluster's authority.
    pub pin: AuthorityPin,
    /// The addresses of the shared port, in order and without repetitions. Never empty.
    pub addresses: Vec<SocketAddr>,
}

// === impl Announcement ===

impl Announcement {
    /// The announcement of this machine. `None` if no other machine can reach `address`.
    pub fn new(
        cluster: ClusterName,
        model: &str,
        machine: &str,
        pin: AuthorityPin,
        address: SocketAddr,
    ) -> Option<Self> {
        let addresses = Some(address).filter(|address| is_reachable(address.ip())).into_iter().collect::<Vec<_>>();
        let (model, machine) = (printable(model, MODEL_CHARS_MAX), printable(machine, MACHINE_CHARS_MAX));
        let found = Self { cluster, model, machine, join_version: JOIN_VERSION, pin, addresses };
        Some(found).filter(|found| !found.addresses.is_empty())
    }

    /// Reads a stranger's announcement. `None` if a part is missing, too long, or anything else than it should be.
    pub fn read<'a>(
        port: u16,
        addresses: impl IntoIterator<Item = IpAddr>,
        property: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Option<Self> {
        let text = |key| std::str::from_utf8(property(key)?).ok();
        let printable = |key, max| text(key).filter(|text| is_printable(text, max)).map(str::to_owned);
        let mut addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip.to_canonical(), port)).collect();
        addresses.retain(|address| port > 0 && is_reachable(address.ip()));
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        let found = Self {
            cluster: text(CLUSTER)?.parse().ok()?,
            model: printable(MODEL, MODEL_CHARS_MAX)?,
            machine: printable(MACHINE, MACHINE_CHARS_MAX)?,
            join_version: text(JOIN)?.parse().ok()?,
            pin: read_pin(property(PIN)?)?,
            addresses,
        };
        Some(found).filter(|found| !found.addresses.is_empty())
    }

    /// The TXT record.
    pub(super) fn properties(&self) -> Vec<(&'static str, String)> {
        vec![
            (CLUSTER, self.cluster.to_string()),
            (MODEL, self.model.clone()),
            (MACHINE, self.machine.clone()),
            (JOIN, self.join_version.to_string()),
            (PIN, hex(&self.pin.0)),
        ]
    }

    /// The name of the instance, for browsers of DNS-SD. It is one label.
    pub(super) fn instance(&self) -> String {
        let mut name = format!("{} on {}", self.cluster, self.machine);
        name.truncate(LABEL_BYTES_MAX);
        name
    }

    /// The name of the address record: another than the machine's own, which the system may announce by itself with
    /// more addresses.
    pub(super) fn host(&self) -> String {
        format!("baton-{}.local.", hex(&self.pin.0[..8]))
    }
}

/// True for an address at which another machine can be.
fn is_reachable(ip: IpAddr) -> bool {
    let is_link_local = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    // A link-local address of IPv6 means nothing without an interface.
    !(ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || is_link_local)
}

fn is_printable_char(letter: char) -> bool {
    letter == ' ' || letter.is_ascii_graphic()
}

fn is_printable(text: &str, chars_max: usize) -> bool {
    !text.is_empty() && text.len() <= chars_max && text.chars().all(is_printable_char)
}

/// The beginning of `text` as printable ASCII. Never empty.
fn printable(text: &str, chars_max: usize) -> String {
    let letters = text.chars().map(|letter| if is_printable_char(letter) { letter } else { OTHER_CHAR });
    let text: String = letters.take(chars_max).collect();
    if text.is_empty() { OTHER_CHAR.into() } else { text }
}

fn read_pin(digits: &[u8]) -> Option<AuthorityPin> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16);
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(high)? << 4 | digit(low)?).ok(),
        _ => None,
    });
    let bytes: [u8; PIN_BYTES] = bytes.take(PIN_BYTES + 1).collect::<Option<Vec<_>>>()?.try_into().ok()?;
    Some(AuthorityPin(bytes))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn announced() -> Announcement {
        let address = "192.168.1.11:7946".parse().unwrap();
        let pin = AuthorityPin([0xa7; PIN_BYTES]);
        Announcement::new("home".parse().unwrap(), "qwen3-14b", "mini-1", pin, address).unwrap()
    }

    fn read(properties: &HashMap<String, Vec<u8>>, ips: &[&str]) -> Option<Announcement> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        Announcement::read(7946, ips, |key| properties.get(key).map(Vec::as_slice))
    }

    fn properties() -> HashMap<String, Vec<u8>> {
        announced().properties().into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect()
    }

    #[test]
    fn an_announcement_is_read_as_it_was_made() {
        assert_eq!(read(&properties(), &["192.168.1.11"]), Some(announced()));
        let bytes: usize = announced().properties().iter().map(|(key, value)| key.len() + value.len() + 2).sum();
        assert!(bytes < 200, "the record has {bytes} bytes");
    }

    #[test]
    fn a_record_with_a_part_that_is_none_is_dropped() {
        let long = vec![b'x'; MODEL_CHARS_MAX + 1];
        for (key, value) in [
            (CLUSTER, &b"a/b"[..]),
            (CLUSTER, b"\x1b[2J"),
            (MODEL, b"\x1b]0;owned\x07"),
            (MODEL, "na\u{202e}me".as_bytes()),
            (MODEL, b""),
            (MODEL, &long),
            (MACHINE, b"\xff\xfe"),
            (MACHINE, b"a\nb"),
            (JOIN, b"-1"),
            (JOIN, b"99999999999"),
            (PIN, b"a7"),
            (PIN, &[b'a'; 2 * PIN_BYTES + 2]),
            (PIN, &[b'g'; 2 * PIN_BYTES]),
        ] {
            let mut properties = properties();
            properties.insert(key.to_owned(), value.to_vec());
            assert_eq!(read(&properties, &["192.168.1.11"]), None, "{key}={value:?}");
            properties.remove(key);
            assert_eq!(read(&properties, &["192.168.1.11"]), None, "without {key}");
        }
    }

    #[test]
    fn addresses_that_lead_to_no_other_machine_are_dropped_and_few_are_kept() {
        let properties = properties();
        assert_eq!(read(&properties, &["127.0.0.1", "0.0.0.0", "224.0.0.251", "fe80::1", "::ffff:127.0.0.1"]), None);
        let many: Vec<String> = (1..100).map(|last| format!("10.0.0.{last}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(read(&properties, &many).unwrap().addresses.len(), ADDRESSES_MAX);
        let found = read(&properties, &["fd00::7", "10.0.0.2", "10.0.0.2"]).unwrap();
        assert_eq!(found.addresses, ["10.0.0.2:7946".parse().unwrap(), "[fd00::7]:7946".parse().unwrap()]);
        let loopback = "127.0.0.1:7946".parse().unwrap();
        assert_eq!(Announcement::new("home".parse().unwrap(), "m", "a", announced().pin, loopback), None);
    }

    #[test]
    fn names_that_no_record_can_have_are_changed_before_they_are_announced() {
        let address = "10.0.0.1:7946".parse().unwrap();
        let (model, machine) = ("模型\u{1b}".repeat(50), "Jürgen’s Mac");
        let made = Announcement::new("home".parse().unwrap(), &model, machine, announced().pin, address).unwrap();
        assert_eq!((made.model.len(), made.machine.as_str()), (MODEL_CHARS_MAX, "J?rgen?s Mac"));
        assert!(made.instance().len() <= LABEL_BYTES_MAX && made.host().ends_with(".local."));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_what_is_taken_is_printable(
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..100), 5),
            port in any::<u16>(),
            ip in any::<[u8; 16]>(),
        ) {
            let keys = [CLUSTER, MODEL, MACHINE, JOIN, PIN];
            let mut given: HashMap<String, Vec<u8>> = properties();
            for (key, value) in keys.iter().zip(&values) {
                if value.first().is_some_and(|first| first % 3 == 0) {
                    given.insert((*key).to_owned(), value.clone());
                }
            }
            let ips = [IpAddr::from(ip), IpAddr::from([ip[0], ip[1], ip[2], ip[3]])];
            if let Some(read) = Announcement::read(port, ips, |key| given.get(key).map(Vec::as_slice)) {
                prop_assert!(is_printable(&read.model, MODEL_CHARS_MAX));
                prop_assert!(is_printable(&read.machine, MACHINE_CHARS_MAX));
                prop_assert!(!read.addresses.is_empty() && read.addresses.len() <= ADDRESSES_MAX);
            }
        }
    }
}
