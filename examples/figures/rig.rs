//! What the figures stand on: a private Postgres with its own defaults for durability, and a gateway.

use std::net::SocketAddr;

use tidings::dev::cluster::{Access, Cluster, ClusterOptions};
use tokio_postgres::{Client, NoTls};

use super::gateway::{Gateway, Result, build};

/// A gateway and its database; dropping it ends both.
pub(crate) struct Rig {
    gateway: Gateway,
    cluster: Cluster,
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
        let gateway = Gateway::start(&binary, &cluster.url("postgres"), flags, &[]).await?;
        Ok(Self { gateway, cluster })
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
        self.gateway.address()
    }

    /// Where the database is.
    #[allow(dead_code, reason = "most figures have their session by `connect`")]
    pub(crate) fn database_url(&self) -> String {
        self.cluster.url("postgres")
    }

    /// The gateway's process.
    #[allow(dead_code, reason = "not every figure is about the process")]
    pub(crate) fn pid(&self) -> u32 {
        self.gateway.pid()
    }

    /// What the gateway counts under this name.
    #[allow(dead_code, reason = "not every figure needs what is counted")]
    pub(crate) async fn metric(&self, name: &str) -> Result<f64> {
        Ok(self.gateway.metric(name).await?.unwrap_or(0.0))
    }
}
