//! The log that the statements are tried on: its states, and the calls of those who read it.

use tidings::postgres::connect::READING;
use tokio_postgres::Client;

use crate::support::backend::run;
use crate::support::postgres::{Database, OwnCluster};

/// Events of a bulk commit, in turn to so many topics.
pub(super) const BULK: i64 = 20_000;
pub(super) const TOPICS: i64 = 40;
/// The most rows of a page in these calls.
pub(super) const PAGE: i64 = 1_000;
/// The transactions that are in progress all at once.
pub(super) const OPEN: usize = 300;

/// What a call may touch beside what was missed: the events that its head tells of.
pub(super) const HEAD: i64 = 8;

/// Statistics change only when a test says so.
pub(super) const SETTINGS: [(&str, &str); 4] = [
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("max_prepared_transactions", "310"),
];

/// Every statement that reads events, with the types of its parameters.
pub(super) const STATEMENTS: [(&str, &str, &str); 8] = [
    (
        "glance",
        "(text, text[], bigint, timestamptz, bigint, bigint)",
        include_str!("../../../sql/queries/glance.sql"),
    ),
    (
        "look",
        "(text, text[], bigint, boolean, bigint, bigint)",
        include_str!("../../../sql/queries/look.sql"),
    ),
    (
        "rest",
        "(text, text[], bigint, bigint, bigint, bigint, text, bigint)",
        include_str!("../../../sql/queries/rest.sql"),
    ),
    (
        "replay",
        "(text[], text, text[], bigint, text, bigint, bigint, bigint, bigint, bigint, bigint)",
        include_str!("../../../sql/queries/replay.sql"),
    ),
    (
        "missed",
        "(text[], text, text[], bigint, text, bigint, bigint, bigint)",
        include_str!("../../../sql/queries/missed.sql"),
    ),
    (
        "standing",
        "(text, text[], bigint, text, text, bigint, bigint, bigint)",
        include_str!("../../../sql/queries/standing.sql"),
    ),
    (
        "position",
        "",
        include_str!("../../../sql/queries/position.sql"),
    ),
    (
        "has_published",
        "",
        include_str!("../../../sql/queries/has_published.sql"),
    ),
];

/// One execution, and how many events it may touch.
pub(super) struct Call {
    pub(super) statement: &'static str,
    pub(super) arguments: String,
    pub(super) rows: i64,
}

/// Where the log is.
pub(super) struct Log {
    pub(super) snapshot: String,
    pub(super) xmax: String,
    /// The transactions in progress, as an array.
    pub(super) xip: String,
    pub(super) newest: i64,
    /// When that was inserted.
    pub(super) at: Option<String>,
}

impl Log {
    pub(super) async fn read(client: &Client) -> Self {
        let row = client
            .query_one(
                "select s::text, pg_snapshot_xmax(s)::text,
                        coalesce((select array_agg(x) from pg_snapshot_xip(s) x), '{}')::text,
                        coalesce(newest.id, 0), newest.created_at::text
                 from pg_current_snapshot() s
                 left join (select id, created_at from tidings.event order by id desc limit 1) newest on true",
                &[],
            )
            .await
            .expect("the log");
        Self {
            snapshot: row.get(0),
            xmax: row.get(1),
            xip: row.get(2),
            newest: row.get(3),
            at: row.get(4),
        }
    }

    /// The calls of those who have seen everything.
    pub(super) fn up_to_date(&self) -> Vec<Call> {
        self.since(&self.xmax, &self.xip, self.newest, [0; 5])
    }

    /// The calls of those who have seen what a mark has, and how many events each of the five may
    /// touch; a glance as many as the rest of a look, which is a page at most.
    pub(super) fn since(&self, xmax: &str, xip: &str, newest: i64, rows: [i64; 5]) -> Vec<Call> {
        let Self {
            snapshot,
            newest: last,
            ..
        } = self;
        let mark = format!("'{xmax}', '{xip}', {newest}");
        let at = self.at.as_ref().filter(|_| newest == *last);
        let at = at.map_or("null".to_owned(), |at| format!("'{at}'"));
        let leg = format!("'{{t1,t2,t3}}', {mark}, '{snapshot}', 0, {last}");
        let call = |statement, arguments, rows| Call {
            statement,
            arguments,
            rows: rows + HEAD,
        };
        vec![
            call("glance", format!("{mark}, {at}, {PAGE}, 8388608"), rows[1]),
            call("look", format!("{mark}, false, {PAGE}, 8388608"), rows[0]),
            call(
                "rest",
                format!("{mark}, {newest} / 2, {PAGE}, 8388608, '{snapshot}', {last}"),
                rows[1],
            ),
            call(
                "replay",
                format!("{leg}, {PAGE}, 262144, {newest}, {last}"),
                rows[2],
            ),
            call("missed", format!("{leg}, {PAGE}"), rows[3]),
            call(
                "standing",
                format!("{mark}, '{xmax}:{xmax}:', null, null, {newest}, {PAGE}"),
                rows[4],
            ),
        ]
    }
}

/// A session that reads the log, with everything prepared.
pub(super) async fn reader(database: &Database) -> Client {
    let client = database.connect().await;
    run(&client, READING).await;
    for (name, types, text) in STATEMENTS {
        run(&client, &format!("prepare {name} {types} as {text}")).await;
    }
    client
}

/// A database whose log has so many days, today among them, beside the default partition.
pub(super) async fn log_of_days(cluster: &OwnCluster, days: i32) -> Database {
    let database = cluster.database();
    let client = database.connect().await;
    run(
        &client,
        &format!(
            "do $$ declare today date := (now() at time zone 'UTC')::date; leaf regclass; begin
                 for leaf in select d.leaf from tidings.day d where d.day > today + {days} - 1 loop
                     execute format('drop table %s', leaf);
                 end loop;
                 perform tidings.add_partition(today - n) from generate_series(1, {days} - 4) n;
             end $$"
        ),
    )
    .await;
    database
}

/// Publishes so many events in one transaction and returns its id.
pub(super) async fn bulk(client: &Client, events: i64) -> String {
    let rows = client
        .query(
            "with published as (
                 insert into tidings.event (topic, type, data)
                 select 't' || n % $2::bigint, 'bulk', to_jsonb(n) from generate_series(1, $1::bigint) n returning xid
             ) select distinct xid::text from published",
            &[&events, &TOPICS],
        )
        .await;
    rows.expect("published")[0].get(0)
}

/// Leaves many transactions in progress that have written nothing, named `open_0` and so on.
pub(super) async fn begin_many(client: &Client) {
    for n in 0..OPEN {
        run(client, "begin").await;
        run(client, "select pg_current_xact_id()").await;
        run(client, &format!("prepare transaction 'open_{n}'")).await;
    }
}
