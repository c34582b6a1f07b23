//! The mark that names the sender of a message: the acceptor puts it before each message of a peer on another machine,
//! as a part of its own. Peers cannot write it: what they send stands behind it. It exists within the process only.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;

/// The first byte of a mark.
const KIND: u8 = b'P';
/// Bytes of a mark: its kind, an IPv6 address and a port. No frame header is as short.
const MARK_BYTES: usize = 1 + 16 + 2;
/// Flags of a ZMTP frame with another one of the same message behind it.
const MORE: u8 = 1;

/// The mark of a peer, as a ZMTP frame.
pub(super) fn of(peer: SocketAddr) -> Vec<u8> {
    let ip = match peer.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    [&[MORE, MARK_BYTES as u8, KIND][..], &ip.octets(), &peer.port().to_be_bytes()].concat()
}

/// Takes the mark from the parts of a message. `None` if a process of this machine sent it.
pub(super) fn take(parts: &mut VecDeque<Bytes>) -> Option<SocketAddr> {
    let mark: [u8; MARK_BYTES] = parts.front()?.as_ref().try_into().ok()?;
    let (kind, rest) = mark.split_first()?;
    let (ip, port) = rest.split_first_chunk::<16>()?;
    if *kind != KIND || parts.len() < 2 {
        return None;
    }
    parts.pop_front();
    let ip = IpAddr::V6(Ipv6Addr::from(*ip)).to_canonical();
    Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
}

/// The bytes of a chunk with `mark` before each message that starts in it. `starts` are the places, in order.
pub(super) fn insert(mark: &[u8], chunk: &[u8], starts: &[usize], marked: &mut Vec<u8>) {
    marked.clear();
    let mut copied = 0;
    for start in starts {
        marked.extend_from_slice(&chunk[copied..*start]);
        marked.extend_from_slice(mark);
        copied = *start;
    }
    marked.extend_from_slice(&chunk[copied..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_nothing_else_is_one() {
        for peer in ["10.0.0.7:4321", "[fd00::7]:1"].map(|peer| peer.parse::<SocketAddr>().unwrap()) {
            let mark = Bytes::copy_from_slice(&of(peer)[2..]);
            let mut parts: VecDeque<_> = [mark.clone(), Bytes::from_static(b"header")].into();
            assert_eq!((take(&mut parts), parts.len()), (Some(peer), 1));
            let mut alone: VecDeque<_> = [mark].into();
            assert_eq!((take(&mut alone), alone.len()), (None, 1));
        }
        let mut other: VecDeque<_> = [Bytes::from_static(&[7; MARK_BYTES]), Bytes::new()].into();
        assert_eq!((take(&mut other), other.len()), (None, 2));
    }

    #[test]
    fn marks_stand_before_each_message() {
        let mut marked = vec![9];
        insert(b"M", b"aabbcc", &[0, 2, 6], &mut marked);
        assert_eq!(marked, b"MaaMbbccM");
        insert(b"M", b"tail", &[], &mut marked);
        assert_eq!(marked, b"tail");
    }
}
