//! The check whether this machine sends and receives multicast.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};

use futures::future::join_all;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::limits::{PROBE_WAIT_MAX, PROBED_ADDRESSES_MAX};

/// The group of multicast DNS. The probe goes to another port of it, where nobody else listens.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// The bytes of the probe.
const PROBE: &[u8] = b"baton";

/// Sends a packet to the group from each address of this machine, and returns those from which it came back. Of the
/// network's switches and access points it tells nothing.
///
/// # Errors
/// The operating system's reason if no address is left, or [`ErrorKind::TimedOut`] if no packet comes back.
pub async fn multicast() -> io::Result<Vec<Ipv4Addr>> {
    let mut own: Vec<Ipv4Addr> = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        if let IpAddr::V4(ip) = interface.ip()
            && !ip.is_loopback()
        {
            own.push(ip);
        }
    }
    own.truncate(PROBED_ADDRESSES_MAX);
    let mut failed = io::Error::new(ErrorKind::NotFound, "it has no address in a network");
    let mut passed = Vec::new();
    for (ip, probed) in own.iter().zip(join_all(own.iter().map(|ip| probe(*ip))).await) {
        match probed {
            Ok(()) => passed.push(*ip),
            Err(error) => failed = error,
        }
    }
    if passed.is_empty() { Err(failed) } else { Ok(passed) }
}

/// Sends a packet from `ip` and waits until it comes back.
async fn probe(ip: Ipv4Addr) -> io::Result<()> {
    let listener = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    listener.join_multicast_v4(GROUP, ip)?;
    // The system chooses the interface by the sender's address.
    let sender = UdpSocket::bind((ip, 0)).await?;
    sender.set_multicast_loop_v4(true)?;
    sender.send_to(PROBE, (GROUP, listener.local_addr()?.port())).await?;
    let back = async {
        let mut bytes = [0; PROBE.len()];
        while listener.recv_from(&mut bytes).await? != (PROBE.len(), sender.local_addr()?) {}
        Ok(())
    };
    timeout(PROBE_WAIT_MAX, back).await.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}
