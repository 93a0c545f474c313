//! The database: a private Postgres with its own defaults for durability, the schema of tidings, and a schema of its
//! own for each variant.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::{StreamExt, stream};
use tidings::dev::cluster::{Access, Cluster, ClusterOptions};
use tidings::postgres::migrate::migrate;
use tokio::io::AsyncWriteExt;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::backends::Backends;
use crate::machine::said;
use crate::variant::Variant;
use crate::{Result, failure};

/// Events of a measurement. Processor time is told in ticks of 10 ms, which makes one of them a microsecond an event.
const EVENTS: i64 = 10_000;

/// Autovacuum is off, because its workers are children of the postmaster as well, and would be counted.
const SETTINGS: &[(&str, &str)] = &[("autovacuum", "off")];

/// A running server, and a session of it: that session holds the lock of an awake gateway, and listens.
pub(crate) struct Database {
    cluster: Cluster,
    session: Client,
    /// Notifications that the session has got.
    heard: Arc<AtomicU64>,
}

impl Database {
    /// Starts it, with a gateway awake as it seems.
    pub(crate) async fn start() -> Result<Self> {
        let cluster = Cluster::start(ClusterOptions {
            directory: None,
            access: Access::Trust,
            settings: SETTINGS,
        })?;
        let (mut session, mut connection) =
            tokio_postgres::connect(&cluster.url("postgres"), NoTls).await?;
        let heard = Arc::new(AtomicU64::new(0));
        let hear = heard.clone();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(|context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(_) = message {
                    hear.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        migrate(&mut session).await?;
        session
            .batch_execute(
                "listen tidings; listen layers; select pg_advisory_lock(8386654097862812519)",
            )
            .await?;
        Ok(Self {
            cluster,
            session,
            heard,
        })
    }

    /// The versions of what takes part.
    pub(crate) fn programs(&self) -> [String; 2] {
        ["postgres", "pgbench"].map(|name| said(self.cluster.command(name).arg("--version")))
    }

    /// Makes what a variant has of its own.
    pub(crate) async fn make(&self, variant: &Variant) -> Result<()> {
        let schema = format!("create schema {}", variant.name);
        self.session.batch_execute(&schema).await?;
        self.look_in(variant).await?;
        for sql in variant.made_by {
            self.session.batch_execute(sql).await?;
        }
        Ok(())
    }

    /// What has no schema is meant to be the variant's, or else that of tidings.
    async fn look_in(&self, variant: &Variant) -> Result<()> {
        let set = "select set_config('search_path', $1, false)";
        self.session.execute(set, &[&search_path(variant)]).await?;
        Ok(())
    }

    /// Microseconds of processor time that the server's backend needs for an event. Each variant begins with empty
    /// tables, and pays for its own pages alone.
    pub(crate) async fn measure(&self, variant: &Variant, round: u32) -> Result<f64> {
        self.look_in(variant).await?;
        let emptied = self.session.batch_execute("truncate event, key");
        emptied.await?;
        self.session.batch_execute("checkpoint").await?;
        if variant.asleep {
            let sleep = "select pg_advisory_unlock(8386654097862812519)";
            self.session.batch_execute(sleep).await?;
        }
        let heard_before = self.heard.load(Ordering::Relaxed);
        let postmaster = self.cluster.pid().ok_or("Postgres has ended")?;
        let before = Backends::of(postmaster)?;
        self.write(variant, round).await?;
        let spent_us = before.wait_for_later_ones().await?;
        if variant.asleep {
            let wake = "select pg_advisory_lock(8386654097862812519)";
            self.session.batch_execute(wake).await?;
        }
        let rows = self.session.query_one("select count(*) from event", &[]);
        let rows: i64 = rows.await?.get(0);
        if rows != EVENTS {
            return Err(failure(format!("{EVENTS} events have left {rows} rows")));
        }
        // Notifications come before the answer to a statement.
        let heard = self.heard.load(Ordering::Relaxed) - heard_before;
        if heard != if variant.notifies { EVENTS as u64 } else { 0 } {
            return Err(failure(format!(
                "{EVENTS} events have notified {heard} times"
            )));
        }
        Ok(spent_us as f64 / EVENTS as f64)
    }

    /// Writes all events, and waits for the end of it. In a round every variant draws the same topics.
    async fn write(&self, variant: &Variant, round: u32) -> Result<()> {
        let mut pgbench: Command = self.cluster.command("pgbench");
        pgbench
            .args(["--no-vacuum", "--protocol=prepared", "--file=-"])
            .args(["--host=127.0.0.1", "--username=postgres"])
            .arg(format!("--port={}", self.cluster.port()))
            .args(["--client=1", &format!("--transactions={EVENTS}")])
            .arg(format!("--random-seed={round}"))
            .arg("postgres")
            .env("PGOPTIONS", session_options(variant))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut pgbench = tokio::process::Command::from(pgbench);
        let mut pgbench = pgbench.kill_on_drop(true).spawn()?;
        let mut script = pgbench.stdin.take().ok_or("it is piped")?;
        script.write_all(variant.script.as_bytes()).await?;
        drop(script);
        let output = pgbench.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        let complaints = String::from_utf8_lossy(&output.stderr);
        Err(failure(format!("pgbench: {}\n{complaints}", output.status)))
    }
}

fn search_path(variant: &Variant) -> String {
    format!("{}, tidings", variant.name)
}

/// A commit that waits for the disk would make its session wait, and wake it, more or less often.
fn session_options(variant: &Variant) -> String {
    let path = search_path(variant).replace(' ', "");
    format!("-c synchronous_commit=off -c search_path={path}")
}
