//! Addresses on loopback that are free now, chosen so that they stay the same from start to start.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;

/// Ports below the ephemeral range: an outgoing connection can never sit on the port of a
/// cluster that is stopped and started again.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A port that nobody listens on now. A directory that is kept asks for the same one each time,
/// so that its address may be written down somewhere.
pub(super) fn free_port(kept: Option<&Path>) -> io::Result<u16> {
    let first = kept.map_or_else(
        || fastrand::u16(PORTS),
        |directory| {
            let mut hasher = DefaultHasher::new();
            directory.hash(&mut hasher);
            PORTS.start + (hasher.finish() % u64::from(PORTS.end - PORTS.start)) as u16
        },
    );
    let mut ports = (first..PORTS.end).chain(PORTS.start..first);
    let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
    free.ok_or(io::ErrorKind::AddrInUse)?
        .local_addr()
        .map(|address| address.port())
}

/// The first address on loopback that nobody listens on.
pub(super) fn free_address(mut ports: std::ops::Range<u16>) -> io::Result<SocketAddr> {
    let last = ports.end;
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = ports
        .find_map(|port| bind(port).ok())
        .map_or_else(|| bind(last), Ok)?;
    listener.local_addr()
}

/// An address that listens everywhere is reached on loopback.
pub(super) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_directory_asks_for_the_same_port_and_takes_another_while_it_is_taken() {
        let kept = Some(Path::new("/srv/a directory of this test"));
        let first = free_port(kept).unwrap();
        assert_eq!(free_port(kept).unwrap(), first);
        let _taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert_ne!(free_port(kept).unwrap(), first);
    }

    #[test]
    fn an_address_that_listens_everywhere_is_reached_on_loopback() {
        let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "127.0.0.1:80");
        assert_eq!(reached("10.0.0.1:80"), "10.0.0.1:80");
    }
}
