//! Where streams come from: loopback addresses and ports, in turn.
//!
//! Ports are named, not left to the system: it would search for each among those that are taken, which took
//! longer than everything else in opening thousands of streams.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Socket, Type};

use crate::{Result, failure};

/// Below the ports that Linux gives by itself.
const FIRST_PORT: u16 = 10_000;
const PORTS: u16 = 20_000;

/// How many ports in a row may be taken by others.
const TAKEN_MAX: usize = 1_000;

/// Addresses and ports that have not been used for the longest time.
pub(crate) struct Sources {
    server: SocketAddr,
    /// How many addresses; none where the server is not on this machine, and the system chooses.
    addresses: usize,
    next: usize,
}

impl Sources {
    pub(crate) fn new(server: SocketAddr, addresses: usize) -> Self {
        // The ports of an earlier run may be waiting for stray segments.
        let next = fastrand::usize(..usize::from(PORTS)) * addresses;
        Self {
            server,
            addresses,
            next,
        }
    }

    /// Begins to connect from the next that is free; the socket is writable when that is through.
    pub(crate) fn connect(&mut self) -> Result<std::net::TcpStream> {
        for _ in 0..TAKEN_MAX {
            let socket = Socket::new(Domain::for_address(self.server), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let bound = match self.next_source() {
                None => Ok(()),
                Some(source) => socket
                    .set_reuse_address(true)
                    .and_then(|()| socket.bind(&source.into())),
            };
            match bound.and_then(|()| socket.connect(&self.server.into())) {
                Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
                Err(error) if is_taken(error.kind()) && self.addresses > 0 => continue,
                connected => connected?,
            }
            return Ok(socket.into());
        }
        Err(failure(format!("{TAKEN_MAX} ports in a row are taken")))
    }

    fn next_source(&mut self) -> Option<SocketAddr> {
        let host = 1 + self.next.checked_rem(self.addresses)?;
        let port = self.next / self.addresses % usize::from(PORTS);
        self.next += 1;
        let host = Ipv4Addr::new(127, 0, 0, u8::try_from(host).ok()?);
        let port = FIRST_PORT + u16::try_from(port).ok()?;
        Some(SocketAddr::from((host, port)))
    }
}

fn is_taken(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable)
}
