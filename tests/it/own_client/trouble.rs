//! What happens to the system that a client is connected to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tidings::dev::cluster::StopMode;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::support::backend::run;
use crate::support::client::PATIENCE;
use crate::support::front::free_port;
use crate::support::postgres::{Database, OwnCluster, own_cluster};
use crate::support::process::Process;

/// How many topics count.
const TOPICS: usize = 4;

/// How many [`System::trouble`] knows.
pub(super) const TROUBLES: u8 = 5;

/// All topics that count.
pub(super) fn topics() -> Vec<String> {
    (1..=TOPICS).map(|n| format!("count:{n}")).collect()
}

/// How many days ago the log begins.
const DAYS: i32 = 3_000;

/// Each topic counts in a table, and says each number in the transaction that counts. It is
/// always the same day in the log, until somebody says otherwise.
const SCHEMA: &str = "
    create schema app;
    create table app.counter (topic text primary key, n bigint not null);
    create table app.today (day date not null);
    insert into app.today values ('epoch');
    create function app.count(topic text) returns void language sql as $$
        with counted as (update app.counter set n = n + 1 where topic = $1 returning n)
        select tidings.publish($1, 'counted', jsonb_build_object('n', n)) from counted
    $$;
    create function app.state(topic text, claims jsonb) returns jsonb language sql stable as $$
        select jsonb_build_object('n', n) from app.counter where counter.topic = $1
    $$;
    create function app.now() returns timestamptz language sql volatile as $$
        select day::timestamp at time zone 'UTC' + (clock_timestamp() - date_trunc('day', clock_timestamp(), 'UTC')) from app.today
    $$;
    select tidings.define_state('count:*', 'app.state(text, jsonb)');
    alter table tidings.event alter column created_at set default app.now();";

/// A server, a gateway at one address, and publishers.
pub(super) struct System {
    server: OwnCluster,
    pub(super) database: Database,
    gateway: Option<Process>,
    pub(super) address: SocketAddr,
    flags: Vec<String>,
    calm: Arc<AtomicBool>,
    publishers: JoinSet<()>,
}

impl System {
    /// With these further flags of the gateway.
    pub(super) async fn start(flags: &[&str]) -> System {
        let server = block_in_place(|| own_cluster(&[("fsync", "off")]));
        let database = block_in_place(|| server.database());
        let client = database.connect().await;
        run(&client, SCHEMA).await;
        let counters =
            "insert into app.counter select 'count:' || t, 0 from generate_series(1, $1) t";
        client
            .execute(counters, &[&(TOPICS as i32)])
            .await
            .expect("counters");
        let address = free_port();
        let mut system = System {
            server,
            database,
            gateway: None,
            address,
            flags: flags.iter().map(|&flag| flag.to_owned()).collect(),
            calm: Arc::default(),
            publishers: JoinSet::new(),
        };
        let first = format!("(now() at time zone 'UTC')::date - {DAYS}");
        system.begin_day(&client, &first).await;
        system.start_gateway();
        system
    }

    /// Another day begins in the log, with a number of each topic.
    async fn begin_day(&self, client: &Client, day: &str) {
        // A partition must be there before anything is written to it, as it is in life, where it is made days ahead: sessions
        // hear of it a moment after the transaction that attaches it is visible, and would miss rows of that one.
        for statements in [
            format!("select tidings.add_partition({day})"),
            format!(
                "update app.today set day = {day};
                 select app.count(topic) from app.counter order by topic"
            ),
        ] {
            // Whoever publishes may be in the way for a moment.
            while client.batch_execute(&statements).await.is_err() {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Publishers count until [`System::settle`], each with pauses up to this.
    pub(super) fn publish(&mut self, rng: &mut Rng, pause: Duration) {
        for _ in 0..3 {
            let publisher = Publisher {
                url: self.database.url(),
                calm: self.calm.clone(),
                pause,
            };
            self.publishers.spawn(publisher.run(rng.fork()));
        }
    }

    /// Publishers end; then, how far each topic has come.
    pub(super) async fn settle(&mut self) -> Vec<(String, i64)> {
        self.calm.store(true, Ordering::Relaxed);
        while let Some(ended) = self.publishers.join_next().await {
            ended.expect("a publisher does not panic");
        }
        let client = self.database.connect().await;
        let rows = client
            .query("select topic, n from app.counter order by topic", &[])
            .await;
        rows.expect("counts")
            .iter()
            .map(|row| (row.get(0), row.get(1)))
            .collect()
    }

    /// How many streams the gateway serves.
    pub(super) async fn streams(&self) -> f64 {
        self.gateway.as_ref().expect("it runs").streams().await
    }

    /// Waits until it serves so many.
    pub(super) async fn until_streams(&self, count: f64) {
        let deadline = Instant::now() + PATIENCE;
        while self.streams().await != count {
            assert!(
                Instant::now() < deadline,
                "{} and not {count}",
                self.streams().await
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// One of the things that happen to systems, which may take this long.
    pub(super) async fn trouble(&mut self, number: u8, moment: Duration) {
        match number {
            0 => {
                self.kill_gateway();
                sleep(moment).await;
                self.start_gateway();
            }
            1 => self.replace_gateway().await,
            2 => self.end_sessions().await,
            3 => self.crash_server(moment).await,
            _ => self.trim().await,
        }
    }

    /// Gateway and log go, and what comes after them knows nothing of what was published until now.
    pub(super) async fn forget(&mut self, moment: Duration) {
        self.kill_gateway();
        sleep(moment).await;
        self.trim().await;
        self.trim().await;
        self.start_gateway();
    }

    pub(super) fn kill_gateway(&mut self) {
        self.gateway = None;
    }

    pub(super) fn start_gateway(&mut self) {
        let listen = format!("--listen={}", self.address);
        let mut flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        flags.extend([&listen, "--retention=3650 days"]);
        self.gateway = Some(block_in_place(|| Process::serve(&self.database, &flags)));
    }

    /// The gateway is asked to go, and another comes.
    async fn replace_gateway(&mut self) {
        let gateway = self.gateway.take().expect("it runs");
        gateway.signal("TERM");
        gateway.ended().await;
        self.start_gateway();
    }

    /// All sessions of the gateway are ended.
    async fn end_sessions(&self) {
        let client = self.database.connect().await;
        run(&client, "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'tidings/%'").await;
    }

    /// The server goes down as in a crash, and comes back.
    async fn crash_server(&mut self, away: Duration) {
        block_in_place(|| self.server.cluster.stop(StopMode::Immediate)).expect("it stops");
        sleep(away).await;
        block_in_place(|| self.server.cluster.start_again()).expect("it starts");
    }

    /// All that was published so far is trimmed away, but for what is newest.
    async fn trim(&self) {
        let client = self.database.connect().await;
        self.begin_day(&client, "(select day + 2 from app.today)")
            .await;
        let trim = "select tidings.trim(make_interval(days => (now() at time zone 'UTC')::date - day)) from app.today";
        let trimmed = loop {
            // Whoever has just published holds what is due for a moment.
            if let Ok(row) = client.query_one(trim, &[]).await {
                break row.get::<_, i64>(0);
            }
            sleep(Duration::from_millis(10)).await;
        };
        assert!(trimmed > 0, "nothing was trimmed");
    }
}

struct Publisher {
    url: String,
    calm: Arc<AtomicBool>,
    pause: Duration,
}

impl Publisher {
    async fn run(self, mut rng: Rng) {
        let mut client: Option<Client> = None;
        while !self.calm.load(Ordering::Relaxed) {
            if client.as_ref().is_none_or(Client::is_closed) {
                client = self.connect().await;
            }
            if let Some(client) = &client {
                // The server may go away under it; what counts is what it then says that it holds.
                let _ = self.transaction(client, &mut rng).await;
            }
            sleep(self.pause.mul_f64(rng.f64())).await;
        }
    }

    async fn connect(&self) -> Option<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls)
            .await
            .ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    async fn transaction(
        &self,
        client: &Client,
        rng: &mut Rng,
    ) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        for topic in 1..=TOPICS {
            // In one order, so that none waits for another's end in a circle.
            for _ in 0..rng.usize(0..3) {
                client
                    .batch_execute(&format!("select app.count('count:{topic}')"))
                    .await?;
            }
        }
        if rng.u8(0..20) == 0 {
            sleep(self.pause.mul_f64(10.0)).await;
        }
        let end = if rng.u8(0..8) == 0 {
            "rollback"
        } else {
            "commit"
        };
        client.batch_execute(end).await
    }
}
