//! The database: a private Postgres with its own defaults for durability, the schema of tidings, and the two tables
//! that are written beside it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tidings::dev::cluster::{Access, Cluster, ClusterOptions};
use tokio_postgres::{Client, NoTls};

use crate::family::Family;
use crate::kind::Kind;
use crate::machine::said;
use crate::verdict::Committed;
use crate::{Result, TOPICS, failure};

/// How long sessions may take to go, and how often it is looked whether they have.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// A running server, and a session of it.
pub(crate) struct Database {
    cluster: Cluster,
    session: Client,
}

impl Database {
    /// Starts it; `binary` brings the schema.
    pub(crate) async fn start(binary: &Path) -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions {
            directory: None,
            access: Access::Trust,
            settings: &[],
        })?;
        let mut migrate = Command::new(binary);
        migrate
            .arg("migrate")
            .env("DATABASE_URL", cluster.url("postgres"))
            .env("TIDINGS_LOG", "warn")
            .stdout(Stdio::null());
        if !migrate.status()?.success() {
            return Err("the database could not be migrated".into());
        }
        let (session, connection) =
            tokio_postgres::connect(&cluster.url("postgres"), NoTls).await?;
        tokio::spawn(connection);
        let database = Self { cluster, session };
        database.check_durability().await?;
        let tables = include_str!("sql/tables.sql");
        database.session.batch_execute(tables).await?;
        Ok(database)
    }

    /// What is measured is worth nothing where commits are not flushed.
    async fn check_durability(&self) -> Result<()> {
        for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
            let shown = self
                .session
                .query_one("select current_setting($1)", &[&setting])
                .await?;
            let value: String = shown.get(0);
            if value != "on" {
                return Err(failure(format!("{setting} is {value}")));
            }
        }
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url("postgres")
    }

    pub(crate) fn port(&self) -> u16 {
        self.cluster.port()
    }

    /// A program of Postgres.
    pub(crate) fn program(&self, name: &str) -> Command {
        self.cluster.command(name)
    }

    /// The versions of what takes part.
    pub(crate) fn programs(&self) -> [String; 2] {
        ["postgres", "pgbench"].map(|name| said(self.program(name).arg("--version")))
    }

    /// Processor time of the whole server, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let postmaster = self.cluster.pid().ok_or("Postgres has ended")?;
        Family::of(postmaster).cpu_seconds()
    }

    /// Writes everything down, so that what comes next pays for its own pages alone.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        Ok(self.session.batch_execute("checkpoint").await?)
    }

    /// The newest id of the table that this kind writes.
    pub(crate) async fn newest(&self, kind: Kind) -> Result<i64> {
        Ok(self.session.query_one(kind.newest(), &[]).await?.get(0))
    }

    /// How many rows that table has behind an id.
    pub(crate) async fn rows_behind(&self, kind: Kind, id: i64) -> Result<u64> {
        let count: i64 = (self.session.query_one(kind.rows_behind(), &[&id]).await?).get(0);
        Ok(u64::try_from(count)?)
    }

    /// Publishes a last event to each topic.
    pub(crate) async fn close_topics(&self) -> Result<()> {
        let close = include_str!("sql/close.sql");
        self.session.query_one(close, &[&(TOPICS as i64)]).await?;
        Ok(())
    }

    /// The events behind an id.
    pub(crate) async fn committed(&self, id: i64) -> Result<Vec<Committed>> {
        let rows = self
            .session
            .query(include_str!("sql/committed.sql"), &[&id])
            .await?;
        let committed = rows.into_iter().map(|row| {
            let (id, topic): (i64, i32) = (row.get(0), row.get(1));
            Ok(Committed {
                id: u64::try_from(id)?,
                topic: u64::try_from(topic)?,
            })
        });
        committed.collect()
    }

    /// Waits until no session is left but this one: what comes next is not to meet what was.
    pub(crate) async fn wait_until_alone(&self) -> Result<()> {
        let others = "select count(*) from pg_stat_activity
            where backend_type = 'client backend' and pid <> pg_backend_pid()";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let count: i64 = self.session.query_one(others, &[]).await?.get(0);
            if count == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(failure(format!("{count} sessions do not go")));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
