//! A running contestant: its process, and what the generator is told about it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Result;

/// How long a server may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(20);

/// A server that is ended when this is dropped.
pub(crate) struct Server {
    _process: Process,
    /// Flags of the generator: where it opens streams, how it publishes, whose CPU and memory it reads.
    pub(crate) flags: Vec<String>,
    /// The operations listener, of a gateway.
    pub(crate) operations: Option<SocketAddr>,
}

impl Server {
    pub(crate) fn new(process: Process, flags: Vec<String>) -> Self {
        Self {
            _process: process,
            flags,
            operations: None,
        }
    }
}

/// A child that does not outlive its owner.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let child = command.stdin(Stdio::null()).spawn();
        let name = command.get_program().to_string_lossy().into_owned();
        Ok(Self(child.map_err(|error| format!("{name}: {error}"))?))
    }

    /// The same for one that says `ready`.
    pub(crate) fn start_and_listen(command: &mut Command) -> Result<Self> {
        let mut process = Self::start(command.stdout(Stdio::piped()))?;
        let out = process.0.stdout.take().ok_or("no output to read from")?;
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line)?;
        match line.trim_end() {
            "ready" => Ok(process),
            other => Err(format!("a bare server said {other:?} instead of ready").into()),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Waits until this is so.
    pub(crate) fn wait_until(&mut self, is_ready: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready() {
            if let Some(status) = self.0.try_wait()? {
                return Err(format!("the server ended before it was ready: {status}").into());
            }
            if Instant::now() > deadline {
                return Err("the server did not become ready".into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Not by SIGKILL: nginx would leave its worker behind.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.0.try_wait() {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An address that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
