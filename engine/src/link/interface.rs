//! The interface that has an address of this machine, by what the operating system says. Nothing is guessed from names
//! except where a system gives the name to one kind only.

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
    let name = listed.into_iter().find(|interface| interface.ip() == address.to_canonical())?.name;
    let (kind, megabits_per_second) = match () {
        () if address.is_loopback() => (InterfaceKind::Loopback, None),
        () if cfg!(target_os = "linux") => {
            let found = Sysfs::read(&Path::new("/sys/class/net").join(&name));
            (found.kind(), found.megabits_per_second())
        }
        () if cfg!(target_os = "macos") => (kind_on_macos(&name, &hardware_ports().await), None),
        () => (InterfaceKind::Unknown, None),
    };
    Some(NetworkInterface { name, kind, megabits_per_second })
}

/// The list of macOS, empty if it does not come in time.
async fn hardware_ports() -> String {
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
