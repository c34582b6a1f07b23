//! The interfaces of this machine and their addresses, by what the operating system says. Nothing is guessed from names
//! except where a system gives the name to one kind only.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use schema::record::{InterfaceKind, NetworkInterface};
use tokio::process::Command;
use tokio::time::timeout;

use super::limits::PORTS_WAIT_MAX;

/// The facts that Linux gives about an interface below `/sys/class/net`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Sysfs {
    /// The type of its link (`ARPHRD_…`).
    link_type: Option<u32>,
    /// The kind of its driver, as `DEVTYPE` in `uevent`: `wlan`, `wireguard`, `bridge`. Plain cards have none.
    device_type: Option<String>,
    /// The bus of its device, such as `pci`. `None` for interfaces without a device.
    bus: Option<String>,
    is_wireless: bool,
    /// True if a program carries its packets (TUN or TAP).
    is_tunnel: bool,
    /// In Mbit/s; -1 if it is not known.
    speed: Option<i64>,
    /// In bytes.
    mtu: Option<u32>,
    /// True if it is a bridge between interfaces of this machine alone, none of which has a card.
    is_inner_bridge: bool,
}

/// An address of this machine and its interface, with what decides if other machines are told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    ip: IpAddr,
    interface: NetworkInterface,
    is_up: bool,
    is_inner_bridge: bool,
}

/// Ethernet's frames, or those of something that looks like it.
const ARPHRD_ETHER: u32 = 1;
/// Tunnels of IP in IP, in IPv4 and IPv6, and GRE.
const ARPHRD_TUNNELS: [u32; 5] = [768, 769, 776, 778, 823];
const ARPHRD_LOOPBACK: u32 = 772;
/// Buses that cards are plugged into. Those of virtual machines are not among them: what carries their packets is the
/// host's affair.
const BUSES_OF_CARDS: [&str; 3] = ["pci", "platform", "usb"];

/// The interface that has `address`. `None` if there is none any more, or the system does not list its interfaces.
pub(super) async fn of(address: IpAddr) -> Option<NetworkInterface> {
    let listed = if_addrs::get_if_addrs().ok()?;
    let found = listed.into_iter().find(|interface| interface.ip() == address.to_canonical())?;
    Some(describe(&found, &hardware_ports().await).interface)
}

/// The addresses of this machine. Empty if the system does not list its interfaces.
pub(super) fn own_ips() -> Vec<IpAddr> {
    if_addrs::get_if_addrs().map(|listed| listed.iter().map(if_addrs::Interface::ip).collect()).unwrap_or_default()
}

/// The addresses at which other machines may reach this one, the best kind of interface first, one for each interface.
pub(super) async fn usable() -> Vec<(IpAddr, NetworkInterface)> {
    let Ok(listed) = if_addrs::get_if_addrs() else { return Vec::new() };
    let ports = hardware_ports().await;
    choose_usable(listed.iter().map(|found| describe(found, &ports)).collect())
}

/// Leaves out what no other machine could use: interfaces that are down, loopback, bridges between virtual machines
/// and containers (their addresses are the same on many machines), and link-local addresses, except those of IPv4 on
/// cables: two machines with nothing but a cable between them have no others. Link-local addresses of IPv6 mean nothing
/// without the interface of the machine that dials. Of each interface, the first address is taken, of IPv4 if there is
/// one.
fn choose_usable(mut found: Vec<Found>) -> Vec<(IpAddr, NetworkInterface)> {
    found.retain(|found| {
        let is_cable = matches!(found.interface.kind, InterfaceKind::Ethernet | InterfaceKind::Thunderbolt);
        let is_reachable = match found.ip {
            IpAddr::V4(ip) => !ip.is_link_local() || is_cable,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        };
        found.is_up && !found.is_inner_bridge && !found.ip.is_loopback() && is_reachable
    });
    let link_local = |ip: IpAddr| matches!(ip, IpAddr::V4(ip) if ip.is_link_local());
    found.sort_by_key(|found| (rank(found.interface.kind), found.ip.is_ipv6(), link_local(found.ip)));
    let mut names = BTreeSet::new();
    found.retain(|found| names.insert(found.interface.name.clone()));
    found.into_iter().map(|found| (found.ip, found.interface)).collect()
}

/// The order of kinds by the speed that they usually have.
fn rank(kind: InterfaceKind) -> u8 {
    match kind {
        InterfaceKind::Thunderbolt => 0,
        InterfaceKind::Ethernet => 1,
        InterfaceKind::Unknown => 2,
        InterfaceKind::Wifi => 3,
        InterfaceKind::Vpn => 4,
        InterfaceKind::Loopback => 5,
    }
}

fn describe(found: &if_addrs::Interface, ports: &str) -> Found {
    let (name, ip) = (found.name.clone(), found.ip());
    let mut interface = NetworkInterface { name, kind: InterfaceKind::Unknown, megabits_per_second: None, mtu: None };
    let mut is_inner_bridge = false;
    if cfg!(target_os = "linux") {
        let read = Sysfs::read(&Path::new("/sys/class/net").join(&found.name));
        interface.kind = read.kind();
        (interface.megabits_per_second, interface.mtu) = (read.megabits_per_second(), read.mtu);
        is_inner_bridge = read.is_inner_bridge;
    } else if cfg!(target_os = "macos") {
        interface.kind = kind_on_macos(&found.name, ports);
        // The bridge of Thunderbolt is a port in the list. The others are made for virtual machines.
        is_inner_bridge = interface.kind == InterfaceKind::Unknown && found.name.starts_with("bridge");
    }
    if ip.is_loopback() {
        (interface.kind, interface.megabits_per_second) = (InterfaceKind::Loopback, None);
    }
    Found { ip, interface, is_up: found.is_oper_up(), is_inner_bridge }
}

/// The list of macOS, empty if it does not come in time, and on other systems.
async fn hardware_ports() -> String {
    if !cfg!(target_os = "macos") {
        return String::new();
    }
    let mut list = Command::new("/usr/sbin/networksetup");
    list.arg("-listallhardwareports").kill_on_drop(true);
    let listed = timeout(PORTS_WAIT_MAX, list.output()).await;
    listed
        .ok()
        .and_then(Result::ok)
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

/// The kind of the interface `name` by the list of `networksetup`, which has `Hardware Port: Wi-Fi` in the line before
/// `Device: en0`.
fn kind_on_macos(name: &str, ports: &str) -> InterfaceKind {
    // macOS gives this name to its tunnels alone, and does not list them.
    if name.starts_with("utun") || name.starts_with("ipsec") {
        return InterfaceKind::Vpn;
    }
    let mut port = "";
    for line in ports.lines() {
        match line.split_once(": ") {
            Some(("Hardware Port", found)) => port = found.trim(),
            Some(("Device", found)) if found.trim() == name => return kind_of_port(port),
            _ => {}
        }
    }
    InterfaceKind::Unknown
}

fn kind_of_port(port: &str) -> InterfaceKind {
    let socket = port.strip_prefix("Thunderbolt ");
    match port {
        "Wi-Fi" | "AirPort" => InterfaceKind::Wifi,
        // `Thunderbolt Ethernet` is a card in a Thunderbolt socket.
        _ if port.contains("Ethernet") || port.ends_with(" LAN") => InterfaceKind::Ethernet,
        _ if socket.is_some_and(|rest| rest == "Bridge" || rest.parse::<u32>().is_ok()) => InterfaceKind::Thunderbolt,
        _ => InterfaceKind::Unknown,
    }
}

// === impl Sysfs ===

impl Sysfs {
    /// Reads the folder of an interface.
    fn read(folder: &Path) -> Self {
        let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let number = |file: &str| text(file)?.trim().parse::<i64>().ok();
        let last =
            |link: &str| Some(fs::read_link(folder.join(link)).ok()?.file_name()?.to_string_lossy().into_owned());
        let uevent = text("uevent").unwrap_or_default();
        Self {
            link_type: number("type").and_then(|number| u32::try_from(number).ok()),
            device_type: uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).map(str::to_owned),
            bus: last("device/subsystem"),
            is_wireless: ["wireless", "phy80211"].iter().any(|entry| folder.join(entry).exists()),
            is_tunnel: folder.join("tun_flags").exists(),
            speed: number("speed"),
            mtu: number("mtu").and_then(|number| u32::try_from(number).ok()),
            is_inner_bridge: folder.join("bridge").exists() && !has_card_among_ports(folder),
        }
    }

    fn kind(&self) -> InterfaceKind {
        let (device_type, bus) = (self.device_type.as_deref(), self.bus.as_deref());
        let is_ether = self.link_type == Some(ARPHRD_ETHER);
        match self.link_type {
            Some(ARPHRD_LOOPBACK) => InterfaceKind::Loopback,
            _ if self.is_wireless || device_type == Some("wlan") => InterfaceKind::Wifi,
            _ if device_type == Some("wireguard") => InterfaceKind::Vpn,
            // A TAP may as well be a virtual machine's: only one without Ethernet's frames is a tunnel for sure.
            Some(found) if ARPHRD_TUNNELS.contains(&found) || (self.is_tunnel && !is_ether) => InterfaceKind::Vpn,
            _ if bus == Some("thunderbolt") => InterfaceKind::Thunderbolt,
            _ if is_ether && device_type.is_none() && bus.is_some_and(|bus| BUSES_OF_CARDS.contains(&bus)) => {
                InterfaceKind::Ethernet
            }
            _ => InterfaceKind::Unknown,
        }
    }

    /// The speed that a cable was negotiated for. Virtual interfaces name a made-up one.
    fn megabits_per_second(&self) -> Option<u32> {
        let is_cable = matches!(self.kind(), InterfaceKind::Ethernet | InterfaceKind::Thunderbolt);
        u32::try_from(self.speed?).ok().filter(|speed| is_cable && *speed > 0)
    }
}

/// True if a port of the bridge in `folder` has a device.
fn has_card_among_ports(folder: &Path) -> bool {
    let ports = fs::read_dir(folder.join("brif")).into_iter().flatten().flatten();
    ports.into_iter().any(|port| folder.with_file_name(port.file_name()).join("device").exists())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::os::unix::fs::symlink;

    use super::*;

    fn sysfs(link_type: u32, device_type: &str, bus: &str) -> Sysfs {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let (device_type, bus) = (given(device_type), given(bus));
        Sysfs { link_type: Some(link_type), device_type, bus, speed: Some(1000), ..Sysfs::default() }
    }

    #[test]
    fn linux_tells_cards_wireless_tunnels_and_thunderbolt_apart_and_the_rest_is_unknown() {
        let tunnel = |found: Sysfs| Sysfs { is_tunnel: true, ..found };
        let wireless = |found: Sysfs| Sysfs { is_wireless: true, ..found };
        for (found, kind, speed) in [
            (sysfs(1, "", "pci"), InterfaceKind::Ethernet, Some(1000)),
            (Sysfs { speed: Some(-1), ..sysfs(1, "", "usb") }, InterfaceKind::Ethernet, None),
            (sysfs(1, "", "thunderbolt"), InterfaceKind::Thunderbolt, Some(1000)),
            (sysfs(1, "wlan", "pci"), InterfaceKind::Wifi, None),
            (wireless(sysfs(1, "", "usb")), InterfaceKind::Wifi, None),
            (sysfs(65534, "wireguard", ""), InterfaceKind::Vpn, None),
            (tunnel(sysfs(65534, "", "")), InterfaceKind::Vpn, None),
            (sysfs(778, "", ""), InterfaceKind::Vpn, None),
            (sysfs(772, "", ""), InterfaceKind::Loopback, None),
            (tunnel(sysfs(1, "", "")), InterfaceKind::Unknown, None),
            (sysfs(1, "", "virtio"), InterfaceKind::Unknown, None),
            (sysfs(1, "bridge", ""), InterfaceKind::Unknown, None),
            (sysfs(1, "wwan", "usb"), InterfaceKind::Unknown, None),
            (sysfs(1, "", ""), InterfaceKind::Unknown, None),
            (Sysfs::default(), InterfaceKind::Unknown, None),
        ] {
            assert_eq!((found.kind(), found.megabits_per_second()), (kind, speed), "{found:?}");
        }
    }

    #[test]
    fn a_folder_of_sysfs_is_read_as_it_is_and_one_that_is_gone_is_unknown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        for (file, text) in [("type", "1\n"), ("speed", "2500\n"), ("uevent", "INTERFACE=enp3s0\nIFINDEX=2\n")] {
            fs::write(path.join(file), text).unwrap();
        }
        fs::create_dir(path.join("device")).unwrap();
        symlink("../../../bus/pci", path.join("device/subsystem")).unwrap();
        let expected = Sysfs { speed: Some(2500), ..sysfs(1, "", "pci") };
        assert_eq!(Sysfs::read(path), expected);
        fs::write(path.join("uevent"), "DEVTYPE=wlan\nINTERFACE=wlp2s0\n").unwrap();
        assert_eq!(Sysfs::read(path).kind(), InterfaceKind::Wifi);
        assert_eq!(Sysfs::read(&path.join("gone")), Sysfs::default());
    }

    #[test]
    fn a_bridge_without_a_card_is_an_inner_one() {
        let class = tempfile::tempdir().unwrap();
        let bridge = class.path().join("br0");
        fs::create_dir_all(bridge.join("bridge")).unwrap();
        fs::create_dir_all(bridge.join("brif/veth1")).unwrap();
        fs::create_dir(class.path().join("veth1")).unwrap();
        assert!(Sysfs::read(&bridge).is_inner_bridge);
        fs::create_dir(bridge.join("brif/enp3s0")).unwrap();
        fs::create_dir_all(class.path().join("enp3s0/device")).unwrap();
        assert!(!Sysfs::read(&bridge).is_inner_bridge, "it leads to other machines");
    }

    #[test]
    fn one_usable_address_of_each_interface_is_offered_the_best_kind_first() {
        let found = |ip: &str, name: &str, kind| {
            let interface = NetworkInterface { name: name.to_owned(), kind, megabits_per_second: None, mtu: None };
            Found { ip: ip.parse().unwrap(), interface, is_up: true, is_inner_bridge: false }
        };
        let offered = choose_usable(vec![
            found("127.0.0.1", "lo", InterfaceKind::Loopback),
            found("169.254.9.9", "wlan0", InterfaceKind::Wifi),
            found("fd00::7", "en1", InterfaceKind::Wifi),
            found("192.168.1.7", "en1", InterfaceKind::Wifi),
            found("100.64.0.7", "wg0", InterfaceKind::Vpn),
            found("fe80::1", "bridge0", InterfaceKind::Thunderbolt),
            found("169.254.7.2", "bridge0", InterfaceKind::Thunderbolt),
            found("10.0.0.7", "en0", InterfaceKind::Ethernet),
            Found { is_up: false, ..found("10.1.0.7", "en5", InterfaceKind::Ethernet) },
            Found { is_inner_bridge: true, ..found("172.17.0.1", "docker0", InterfaceKind::Unknown) },
        ]);
        let offered: Vec<_> = offered.iter().map(|(ip, interface)| format!("{ip} {}", interface.name)).collect();
        assert_eq!(offered, ["169.254.7.2 bridge0", "10.0.0.7 en0", "192.168.1.7 en1", "100.64.0.7 wg0"]);
    }

    #[test]
    fn macos_names_the_port_of_each_device() {
        let listed = [
            ("Ethernet", "en0"),
            ("Wi-Fi", "en1"),
            ("Thunderbolt Bridge", "bridge0"),
            ("Thunderbolt 2", "en3"),
            ("Thunderbolt Ethernet Slot 1", "en8"),
            ("iPhone USB", "en9"),
            ("USB 10/100/1000 LAN", "en7"),
        ];
        let ports = listed.map(|(port, device)| {
            format!("\nHardware Port: {port}\nDevice: {device}\nEthernet Address: 00:00:5e:00:53:01\n")
        });
        let ports = ports.concat() + "\nVLAN Configurations\n===================\n";
        for (name, kind) in [
            ("en0", InterfaceKind::Ethernet),
            ("en1", InterfaceKind::Wifi),
            ("bridge0", InterfaceKind::Thunderbolt),
            ("en3", InterfaceKind::Thunderbolt),
            ("en8", InterfaceKind::Ethernet),
            ("en7", InterfaceKind::Ethernet),
            ("en9", InterfaceKind::Unknown),
            ("en", InterfaceKind::Unknown),
            ("utun4", InterfaceKind::Vpn),
        ] {
            assert_eq!(kind_on_macos(name, &ports), kind, "{name}");
        }
        assert_eq!(kind_on_macos("en0", ""), InterfaceKind::Unknown);
    }

    #[tokio::test]
    async fn the_loopback_address_belongs_to_an_interface_of_this_machine_and_a_foreign_one_to_none() {
        let found = of(Ipv4Addr::LOCALHOST.into()).await.unwrap();
        assert_eq!((found.kind, found.megabits_per_second), (InterfaceKind::Loopback, None));
        assert!(!found.name.is_empty());
        assert_eq!(of(Ipv4Addr::new(192, 0, 2, 1).into()).await, None);
    }
}
