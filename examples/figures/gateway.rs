//! The gateway's binary in a process of its own, built as this example was.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What tokens are signed with.
pub(crate) const SECRET: &str = "Zm9yIGZpZ3VyZXMgb25seSwgYW5kIGxvbmcgZW5vdWdo";

/// How long anything may take before the figure is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often it is looked whether the gateway has begun, or ended.
const POLL: Duration = Duration::from_millis(20);

/// A running gateway; dropping it ends it at once.
pub(crate) struct Gateway {
    process: Child,
    address: SocketAddr,
    operations: SocketAddr,
}

impl Gateway {
    /// Starts it for this database, and waits until it is ready.
    pub(crate) async fn start(
        binary: &Path,
        database_url: &str,
        flags: &[String],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let (address, operations) = (free_address()?, free_address()?);
        let process = Command::new(binary)
            .args([
                "serve",
                "--listen",
                &address.to_string(),
                "--ops-listen",
                &operations.to_string(),
            ])
            .args(flags)
            .env("DATABASE_URL", database_url)
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env("TIDINGS_LOG", "warn")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()?;
        let gateway = Self {
            process,
            address,
            operations,
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(operations).await {
            if Instant::now() > deadline {
                return Err("the gateway did not become ready".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(gateway)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[allow(dead_code, reason = "not every figure is about the process")]
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// What it counts under this name, if it does.
    #[allow(dead_code, reason = "not every figure needs what is counted")]
    pub(crate) async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let answer = ask(self.operations, "/metrics").await?;
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// Lets it drain and end, as an operator would.
    #[allow(dead_code, reason = "most figures end with their gateway")]
    pub(crate) async fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.process), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err("the gateway did not end".into());
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Builds the binary as this example was built, so that the figure is about these sources.
pub(crate) fn build() -> Result<PathBuf> {
    let example = std::env::current_exe()?;
    let directory = example
        .ancestors()
        .nth(2)
        .ok_or("an example lies below its profile")?;
    let name = directory.file_name().and_then(|name| name.to_str());
    let profile = match name.ok_or("a profile has a name")? {
        "debug" => {
            eprintln!("this is a debug build: the figure is not worth writing down (--release)");
            "dev"
        }
        name => name,
    };
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--locked", "--quiet", "--bin", "tidings"]);
    build.args(["--profile", profile]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !build.status()?.success() {
        return Err("the gateway could not be built".into());
    }
    Ok(directory.join("tidings"))
}

fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

async fn is_ready(operations: SocketAddr) -> bool {
    let answer = ask(operations, "/readyz").await;
    answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

async fn ask(operations: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(operations).await?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    Ok(answer)
}
