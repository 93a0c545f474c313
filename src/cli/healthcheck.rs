//! `tidings healthcheck`: whether the gateway beside it is ready. One line, exit 0 or 1.
//!
//! For Docker's HEALTHCHECK in an image without a shell, so that it needs nothing but this binary
//! and the variable that the gateway has too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use tokio::net::TcpStream;

use super::{Failure, fetch};

/// How long the answer may take: whoever cannot say it is well within this time is not.
const LIMIT: Duration = Duration::from_secs(3);

/// The most bytes of an answer that are read: it is a word or two.
const ANSWER_BYTES: usize = 1024;

/// Which gateway to ask.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Asks GET /readyz, for 3 s at most.

Exit codes: 0 ready, 1 not ready or not to be reached.")]
pub(super) struct Args {
    #[arg(
        long,
        help = "The gateway's address for health and metrics; 0.0.0.0 and [::] are asked on loopback",
        env = "TIDINGS_OPS_LISTEN",
        default_value = "127.0.0.1:9180",
        value_name = "ADDRESS"
    )]
    ops_listen: String,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    // Not a usage error: Docker knows the exit codes 0 and 1 only.
    let address = args.ops_listen.trim().parse();
    let address = address
        .with_context(|| format!("TIDINGS_OPS_LISTEN: {:?} is no address", args.ops_listen))?;
    let address = reachable(address);
    let asked = tokio::time::timeout(LIMIT, ask(address)).await;
    let (status, words) = asked
        .map_err(|_| anyhow!("not ready: {address} did not answer within {LIMIT:?}"))?
        .with_context(|| format!("not ready: {address} cannot be asked"))?;
    if status != StatusCode::OK {
        return Err(anyhow!("not ready: {words}").into());
    }
    println!("{words}");
    Ok(())
}

async fn ask(address: SocketAddr) -> anyhow::Result<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await?;
    let request = Request::get("/readyz")
        .header(header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let answer = fetch::get(stream, request).await?;
    let status = answer.response.status();
    let body = Limited::new(answer.response.into_body(), ANSWER_BYTES).collect();
    let body = body.await.map_err(|error| anyhow!(error))?.to_bytes();
    let words = String::from_utf8_lossy(&body);
    // Whoever has taken the port may answer anything; the log keeps one line per record.
    let words = words.lines().next().unwrap_or_default().trim();
    Ok((status, words.replace(char::is_control, " ")))
}

/// Where a gateway that listens on `address` is reached from the same machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everywhere_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:9180", "127.0.0.1:9180"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.7:9180", "10.0.0.7:9180"),
            ("[::1]:2", "[::1]:2"),
        ] {
            let address = reachable(listen.parse().expect("an address"));
            assert_eq!(address.to_string(), asked);
        }
    }
}
