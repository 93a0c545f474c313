//! What the figures stand on: a private Postgres with its own defaults for durability, and the gateway's
//! binary in a process of its own, built as this example was.

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidings::dev::cluster::{Access, Cluster, ClusterOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// What tokens are signed with.
pub(crate) const SECRET: &str = "Zm9yIGZpZ3VyZXMgb25seSwgYW5kIGxvbmcgZW5vdWdo";

/// How long anything may take before the figure is given up.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway and its database; dropping it ends both.
pub(crate) struct Rig {
    gateway: Child,
    cluster: Cluster,
    address: SocketAddr,
    operations: SocketAddr,
}

impl Rig {
    /// Starts both and waits until the gateway is ready.
    pub(crate) async fn start(flags: &[String]) -> Result<Self> {
        let binary = build()?;
        let cluster = Cluster::start(ClusterOptions {
            directory: None,
            access: Access::Trust,
            settings: &[],
        })?;
        let (address, operations) = (free_address()?, free_address()?);
        let gateway = Command::new(binary)
            .args([
                "serve",
                "--listen",
                &address.to_string(),
                "--ops-listen",
                &operations.to_string(),
            ])
            .args(flags)
            .env("DATABASE_URL", cluster.url("postgres"))
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env("TIDINGS_LOG", "warn")
            .stdin(Stdio::null())
            .spawn()?;
        let rig = Self {
            gateway,
            cluster,
            address,
            operations,
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_ready(operations).await {
            if Instant::now() > deadline {
                return Err("the gateway did not become ready".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(rig)
    }

    /// A session of the database.
    #[allow(dead_code, reason = "load makes its own")]
    pub(crate) async fn connect(&self) -> Result<Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster.url("postgres"), NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Where the gateway listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the database is.
    #[allow(dead_code, reason = "most figures have their session by `connect`")]
    pub(crate) fn database_url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// The gateway's process.
    #[allow(dead_code, reason = "not every figure is about the process")]
    pub(crate) fn pid(&self) -> u32 {
        self.gateway.id()
    }

    /// What the gateway counts under this name.
    #[allow(dead_code, reason = "not every figure needs what is counted")]
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        let answer = ask(self.operations, "/metrics").await?;
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.unwrap_or("0").parse()?)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

/// Builds the binary as this example was built, so that the figure is about these sources.
fn build() -> Result<PathBuf> {
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
