//! The audience: streams as the options want them, and where to announce what will come to them.

use std::net::ToSocketAddrs;
use std::sync::mpsc::{Sender, channel};

use hyper::Uri;

use crate::Result;
use crate::arrivals::Arrivals;
use crate::clock::Clock;
use crate::flight::{Flight, Flights};
use crate::options::Options;
use crate::payload::Finder;
use crate::request::Requests;
use crate::sources::Sources;
use crate::streams::{Plan, Streams};

/// Streams from one address, well below the number of its ports.
const PER_ADDRESS: usize = 5_000;
/// Addresses of 127.0.0.0/24.
const ADDRESSES_MAX: usize = 254;

/// Starts the reader; no stream is open yet.
pub(crate) fn start(options: &Options, clock: Clock) -> Result<(Streams, Sender<Flight>)> {
    let (flights, announced) = channel();
    let lanes = options.lanes();
    let flying = Flights::new(announced, 2 * lanes);
    let arrivals = Arrivals::new(clock, flying, lanes, options.streams);
    let streams = Streams::start(plan(options)?, clock, arrivals)?;
    Ok((streams, flights))
}

fn plan(options: &Options) -> Result<Plan> {
    let uri: Uri = options.url.parse()?;
    let host = uri.authority().ok_or("the URL names no host")?.to_string();
    let port = uri.port_u16().unwrap_or(80);
    let name = uri.host().ok_or("the URL names no host")?;
    let mut servers = (name, port).to_socket_addrs()?;
    let server = servers.next().ok_or("the host has no address")?;
    let all = options.streams + options.churn + options.warm_up_connects();
    let enough = all.div_ceil(PER_ADDRESS).min(ADDRESSES_MAX);
    let is_here = server.is_ipv4() && server.ip().is_loopback();
    let addresses = if is_here {
        options.addresses.unwrap_or(enough)
    } else {
        0
    };
    Ok(Plan {
        sources: Sources::new(server, addresses),
        opening: options.opening,
        awaited: options.awaited,
        requests: Requests {
            host,
            path: options.path().to_owned(),
            secret: options.secret.clone(),
        },
        finder: Finder::new(options.payload_bytes),
    })
}
