//! What a look costs the server: processor time of its session, as docs/performance.md has it.

use std::time::SystemTime;

use tidings::postgres::connect::READING;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};

use super::log::{OPEN, SETTINGS, begin_many, bulk, log_of_days};
use crate::support::backend::run;
use crate::support::postgres::{Database, own_cluster};
use crate::support::setting;

/// Events that are loaded all at once, and that are committed behind the open transaction.
const LOADED: i64 = 300_000;
const BEHIND: i64 = 1_000_000;
/// Events that a look finds.
const FOUND: i64 = 50;
/// Executions of each statement, and how often they take turns.
const EXECUTIONS: u32 = 500;
const TURNS: usize = 7;
/// A page as the gateway has it.
const ROWS: i64 = 5_000;
const BYTES: i64 = 8 << 20;

/// A position of somebody who has seen everything.
struct Mark {
    xmax: String,
    in_progress: Vec<String>,
    newest: i64,
    at: SystemTime,
}

impl Mark {
    async fn read(client: &Client) -> Self {
        let row = client
            .query_one(
                "select pg_snapshot_xmax(s)::text,
                        coalesce((select array_agg(x::text) from pg_snapshot_xip(s) x), '{}'),
                        newest.id, newest.created_at
                 from pg_current_snapshot() s,
                      (select id, created_at from tidings.event order by id desc limit 1) newest",
                &[],
            )
            .await
            .expect("the log");
        Self {
            xmax: row.get(0),
            in_progress: row.get(1),
            newest: row.get(2),
            at: row.get(3),
        }
    }
}

/// A session that looks, its statements, and its process.
struct Looker {
    client: Client,
    look: Statement,
    glance: Statement,
    snapshot: Statement,
    process: i32,
}

impl Looker {
    async fn open(database: &Database) -> Self {
        let client = database.connect().await;
        run(&client, READING).await;
        let prepare = async |text| client.prepare(text).await.expect("prepared");
        let look = prepare(include_str!("../../../sql/queries/look.sql")).await;
        let glance = prepare(include_str!("../../../sql/queries/glance.sql")).await;
        let snapshot = prepare(include_str!("../../../sql/queries/snapshot.sql")).await;
        let process = client.query_one("select pg_backend_pid()", &[]).await;
        let process = process.expect("a process").get(0);
        Self {
            client,
            look,
            glance,
            snapshot,
            process,
        }
    }

    /// Microseconds of processor time of one execution.
    async fn cost(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
        rows: usize,
    ) -> f64 {
        let before = self.spent();
        for _ in 0..EXECUTIONS {
            let found = self.client.query(statement, parameters).await;
            assert_eq!(found.expect("runs").len(), rows + 1);
        }
        (self.spent() - before) / f64::from(EXECUTIONS)
    }

    /// What the kernel has counted for the session so far.
    fn spent(&self) -> f64 {
        let path = format!("/proc/{}/schedstat", self.process);
        let text = std::fs::read_to_string(path).expect("a kernel that counts");
        let nanoseconds: f64 = text
            .split(' ')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number");
        nanoseconds / 1000.0
    }

    /// Prints the costs of looking from a mark, when so many events are there to be found.
    async fn tell(&self, state: &str, mark: &Mark, rows: usize) {
        let Mark {
            xmax,
            in_progress,
            newest,
            at,
        } = mark;
        let look: [&(dyn ToSql + Sync); 6] = [xmax, in_progress, newest, &false, &ROWS, &BYTES];
        let glance: [&(dyn ToSql + Sync); 6] = [xmax, in_progress, newest, at, &ROWS, &BYTES];
        let mut costs = [const { Vec::new() }; 3];
        for _ in 0..TURNS {
            costs[0].push(self.cost(&self.look, &look, rows).await);
            costs[1].push(self.cost(&self.glance, &glance, rows).await);
            costs[2].push(self.cost(&self.snapshot, &[], 0).await);
        }
        let shown = costs.map(|mut costs| {
            costs.sort_by(f64::total_cmp);
            let [least, median, most] = [0, TURNS / 2, TURNS - 1].map(|n| costs[n]);
            format!("{median:.0} ({least:.0}–{most:.0})")
        });
        eprintln!("| {state}, {rows} found | {} |", shown.join(" | "));
    }

    /// Of a look that finds nothing, and of one that finds what is committed now.
    async fn tell_both(&self, state: &str, backend: &Client) {
        let mark = Mark::read(backend).await;
        self.tell(state, &mark, 0).await;
        bulk(backend, FOUND).await;
        self.tell(state, &mark, FOUND as usize).await;
    }
}

#[tokio::test]
#[ignore = "tells the costs of docs/performance.md and judges nothing"]
async fn cost() {
    let days = setting("TIDINGS_TEST_DAYS", 30) as i32;
    let cluster = own_cluster(&SETTINGS);
    let database = log_of_days(&cluster, days).await;
    let backend = database.connect().await;
    eprintln!("| {days} days, µs | look | glance | snapshot |");
    bulk(&backend, FOUND).await;
    run(&backend, "analyze tidings.event").await;
    let looker = Looker::open(&database).await;
    looker.tell_both("little in it", &backend).await;
    // Its plans stay those of the small log.
    bulk(&backend, LOADED).await;
    looker.tell_both("loaded, not analyzed", &backend).await;
    let open = database.connect().await;
    run(&open, "begin; select pg_current_xact_id()").await;
    for _ in 0..100 {
        bulk(&backend, BEHIND / 100).await;
    }
    looker
        .tell_both("behind an open transaction", &backend)
        .await;
    begin_many(&backend).await;
    looker
        .tell_both(&format!("{OPEN} more in progress"), &backend)
        .await;
}
