//! The bare servers as contestants.

use std::net::SocketAddr;
use std::process::Command;

use super::Result;
use super::bench::Bench;
use super::gateway::SECRET;
use super::generator::{PADDING, SPACES};
use super::server::{Process, Server, free_address};

/// A loop of sends, told what to send by a line.
pub(crate) fn start_loop(bench: &Bench) -> Result<Server> {
    let control = free_address()?;
    let floor = Floor::start(bench, "loop", &format!("--control={control}"))?;
    // It says nothing but the head of its answer before there is an event.
    Ok(floor.told([
        "--await=head".to_owned(),
        format!("--publish=line:{control}"),
        format!("--payload-bytes={}", PADDING + SPACES),
    ]))
}

/// The same, fed by the database.
pub(crate) fn start_rows(bench: &Bench) -> Result<Server> {
    let database = bench.database();
    let floor = Floor::start(bench, "rows", &format!("--database={database}"))?;
    Ok(floor.told([
        "--await=head".to_owned(),
        format!("--publish=sql:{database}"),
        format!("--payload-bytes={PADDING}"),
    ]))
}

/// hyper, which is sent tokens as the gateway is, and does not look at them.
pub(crate) fn start_hyper(bench: &Bench) -> Result<Server> {
    let floor = Floor::start(bench, "hyper", "")?;
    Ok(floor.told([format!("--secret={SECRET}")]))
}

struct Floor {
    process: Process,
    address: SocketAddr,
}

impl Floor {
    fn start(bench: &Bench, kind: &str, flag: &str) -> Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(bench.example("floor"));
        command.arg(kind).arg(format!("--listen={address}"));
        command.args(Some(flag).filter(|flag| !flag.is_empty()));
        let process = Process::start_and_listen(&mut command)?;
        Ok(Self { process, address })
    }

    fn told<const N: usize>(self, flags: [String; N]) -> Server {
        let mut all = vec![
            format!("--url=http://{}", self.address),
            format!("--pid={}", self.process.id()),
        ];
        all.extend(flags);
        Server::new(self.process, all)
    }
}
