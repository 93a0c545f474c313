//! The statements that read the log read what they return and little else, in every state of the statistics.
//!
//! Each is prepared as the gateway's sessions prepare it and explained while it runs. Judged is what its
//! scans of the log touched, never how long that took: no scan of a whole partition, no walk along an
//! index for rows that it does not return, no row beyond those that were returned or missed.

use serde_json::Value;
use tidings::postgres::connect::READING;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::support::backend::run;
use crate::support::postgres::{Database, OwnCluster, own_cluster};

/// Every statement that reads events, with the types of its parameters.
const STATEMENTS: [(&str, &str, &str); 7] = [
    (
        "look",
        "(text, text[], bigint, boolean, bigint, bigint)",
        include_str!("../../sql/queries/look.sql"),
    ),
    (
        "rest",
        "(text, text[], bigint, bigint, bigint, bigint, text, bigint)",
        include_str!("../../sql/queries/rest.sql"),
    ),
    (
        "replay",
        "(text[], text, text[], bigint, text, bigint, bigint, bigint, bigint, bigint, bigint)",
        include_str!("../../sql/queries/replay.sql"),
    ),
    (
        "missed",
        "(text[], text, text[], bigint, text, bigint, bigint, bigint)",
        include_str!("../../sql/queries/missed.sql"),
    ),
    (
        "standing",
        "(text, text[], bigint, text, text, bigint, bigint, bigint)",
        include_str!("../../sql/queries/standing.sql"),
    ),
    (
        "position",
        "",
        include_str!("../../sql/queries/position.sql"),
    ),
    (
        "has_published",
        "",
        include_str!("../../sql/queries/has_published.sql"),
    ),
];

/// Events of a bulk commit, in turn to so many topics.
const BULK: i64 = 20_000;
/// Events of the log by which times are measured.
const MANY: i64 = 1_000_000;
const TOPICS: i64 = 40;
/// The most rows of a page in these calls.
const PAGE: i64 = 1_000;
/// The transactions that are in progress all at once.
const OPEN: usize = 300;

/// What a call may touch beside what was missed: the events that its head tells of.
const HEAD: i64 = 8;
/// What an index scan may read for each time it is begun, and for each row that it returns: from the root to a
/// leaf and the neighbours of both, and the row's page with one of the index.
const PAGES_TO_BEGIN: i64 = 8;
const PAGES_A_ROW: i64 = 3;

/// Statistics change only when a test says so.
const SETTINGS: [(&str, &str); 4] = [
    ("autovacuum", "off"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("max_prepared_transactions", "310"),
];

/// One execution, and how many events it may touch.
struct Call {
    statement: &'static str,
    arguments: String,
    rows: i64,
}

/// Where the log is.
struct Log {
    snapshot: String,
    xmax: String,
    /// The transactions in progress, as an array.
    xip: String,
    newest: i64,
}

impl Log {
    async fn read(client: &Client) -> Self {
        let row = client
            .query_one(
                "select s::text, pg_snapshot_xmax(s)::text,
                        coalesce((select array_agg(x) from pg_snapshot_xip(s) x), '{}')::text,
                        coalesce((select max(id) from tidings.event), 0)
                 from pg_current_snapshot() s",
                &[],
            )
            .await
            .expect("the log");
        Self {
            snapshot: row.get(0),
            xmax: row.get(1),
            xip: row.get(2),
            newest: row.get(3),
        }
    }

    /// The calls of those who have seen everything.
    fn up_to_date(&self) -> Vec<Call> {
        self.since(&self.xmax, &self.xip, self.newest, [0; 5])
    }

    /// The calls of those who have seen what a mark has, and how many events each of the five may touch.
    fn since(&self, xmax: &str, xip: &str, newest: i64, rows: [i64; 5]) -> Vec<Call> {
        let Self {
            snapshot,
            newest: last,
            ..
        } = self;
        let mark = format!("'{xmax}', '{xip}', {newest}");
        let leg = format!("'{{t1,t2,t3}}', {mark}, '{snapshot}', 0, {last}");
        let call = |statement, arguments, rows| Call {
            statement,
            arguments,
            rows: rows + HEAD,
        };
        vec![
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
async fn reader(database: &Database) -> Client {
    let client = database.connect().await;
    run(&client, READING).await;
    for (name, types, text) in STATEMENTS {
        run(&client, &format!("prepare {name} {types} as {text}")).await;
    }
    client
}

/// Finds what is wrong with the plans of some calls.
async fn faults(client: &Client, state: &str, calls: &[Call]) -> Vec<String> {
    let mut faults = Vec::new();
    for call in calls {
        let arguments = match call.arguments.as_str() {
            "" => String::new(),
            arguments => format!("({arguments})"),
        };
        let execute = format!("execute {} {arguments}", call.statement);
        for fault in explained(client, &execute, call.rows).await {
            let shown: String = execute.chars().take(160).collect();
            faults.push(format!("{state}: {shown}: {fault}"));
        }
    }
    faults
}

/// Runs a statement and tells what of its plan is a fault, when it may touch so many events.
async fn explained(client: &Client, statement: &str, rows: i64) -> Vec<String> {
    let explain = format!(
        "explain (analyze, buffers, costs off, timing off, summary off, format json) {statement}"
    );
    let answer = client.simple_query(&explain).await;
    let answer = answer.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let text = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(text.expect("a plan")).expect("JSON");
    let mut faults = Vec::new();
    let touched = scan(&plan[0]["Plan"], &mut faults);
    if touched > rows {
        faults.push(format!("touched {touched} events where {rows} are enough"));
    }
    faults
}

/// Judges the scans of a plan one by one, and counts the events that they touched.
fn scan(node: &Value, faults: &mut Vec<String>) -> i64 {
    let number = |name: &str| node[name].as_f64().unwrap_or(0.0);
    let text = |name: &str| node[name].as_str().unwrap_or("");
    let mut touched = 0;
    let loops = number("Actual Loops") as i64;
    if text("Relation Name").starts_with("event_") && loops > 0 {
        // What is told for one loop is a mean.
        let rows = number("Actual Rows")
            + number("Rows Removed by Filter")
            + number("Rows Removed by Index Recheck");
        touched = (rows * loops as f64).round() as i64;
        let pages = (number("Shared Hit Blocks") + number("Shared Read Blocks")) as i64;
        let (kind, index) = (text("Node Type"), text("Index Name"));
        if !kind.starts_with("Index") {
            faults.push(format!("{kind} on {}", text("Relation Name")));
        } else if pages > PAGES_TO_BEGIN * loops + PAGES_A_ROW * touched {
            faults.push(format!(
                "{kind} using {index} read {pages} pages in {loops} loops for {touched} events, by {}",
                text("Index Cond")
            ));
        }
    }
    let children = node["Plans"].as_array().into_iter().flatten();
    touched + children.map(|child| scan(child, faults)).sum::<i64>()
}

/// A database whose log has so many days, today among them, beside the default partition.
async fn log_of_days(cluster: &OwnCluster, days: i32) -> Database {
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
async fn bulk(client: &Client, events: i64) -> String {
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

/// All calls, of those who have seen everything and of those who have missed one bulk commit in a log that holds no
/// other, in each of the ways in which that may be missed.
async fn missed_bulk(client: &Client, state: &str, bulk: &str) -> Vec<String> {
    let log = Log::read(client).await;
    let of_topics = BULK / TOPICS * 3;
    let page = PAGE + 1;
    let mut calls = log.up_to_date();
    for statement in ["position", "has_published"] {
        calls.push(Call {
            statement,
            arguments: String::new(),
            rows: HEAD,
        });
    }
    // The session is new, with nothing and with everything above the mark's newest.
    for (newest, rows) in [(log.newest, 0), (log.newest - PAGE, PAGE)] {
        calls.push(Call {
            statement: "look",
            arguments: format!(
                "'{}', '{}', {newest}, true, {PAGE}, 8388608",
                log.xmax, log.xip
            ),
            rows: rows + HEAD,
        });
    }
    // It began after the mark.
    let behind = [BULK, page, of_topics, of_topics, page];
    calls.extend(log.since(bulk, "{}", 0, behind));
    // It was in progress at the mark, alone and among others that wrote nothing.
    let number: i64 = bulk.parse().expect("an id");
    let others = (1..200).map(|n| (number - n).to_string());
    let others = others.collect::<Vec<_>>().join(",");
    let late = [page, page, of_topics + 33, page + 33, BULK];
    for xip in [format!("{{{bulk}}}"), format!("{{{others},{bulk}}}")] {
        calls.extend(log.since(&log.xmax, &xip, log.newest, late));
    }
    // A cursor that somebody made up: with a true anchor, an ancient snapshot, and as much in it as there is room for.
    let invented = (1..700).map(|n: i64| n.to_string());
    let invented = format!("{{{}}}", invented.collect::<Vec<_>>().join(","));
    let made_up = [BULK, page, of_topics, of_topics, page];
    let invented = log.since("700", &invented, log.newest, made_up);
    // The gateway makes up no marks of its own.
    calls.extend(invented.into_iter().filter(|call| call.statement != "rest"));
    faults(client, state, &calls).await
}

/// Leaves many transactions in progress that have written nothing, named `open_0` and so on.
async fn begin_many(client: &Client) {
    for n in 0..OPEN {
        run(client, "begin").await;
        run(client, "select pg_current_xact_id()").await;
        run(client, &format!("prepare transaction 'open_{n}'")).await;
    }
}

/// The median of seven executions, in milliseconds.
async fn time(client: &Client, name: &str, arguments: &str) {
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = std::time::Instant::now();
        run(client, &format!("execute {name} ({arguments})")).await;
        times.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    eprintln!(
        "{:9.2} ms  {name} ({})",
        times[3],
        arguments.chars().take(70).collect::<String>()
    );
}

async fn every_state(cluster: &OwnCluster, days: i32) -> Vec<String> {
    let database = log_of_days(cluster, days).await;
    let backend = database.connect().await;
    let state = |what: &str| format!("{days} days, {what}");
    let mut found = Vec::new();

    let xid = bulk(&backend, BULK).await;
    let never = reader(&database).await;
    found.extend(missed_bulk(&never, &state("never analyzed"), &xid).await);
    run(&backend, "analyze tidings.event").await;
    let analyzed = reader(&database).await;
    found.extend(missed_bulk(&analyzed, &state("analyzed"), &xid).await);

    // The generic plans are made while there is nothing, and kept.
    run(
        &backend,
        "truncate tidings.event; analyze tidings.event; analyze tidings.event_default",
    )
    .await;
    let early = reader(&database).await;
    let empty = Log::read(&early).await;
    found.extend(faults(&early, &state("empty"), &empty.up_to_date()).await);
    let xid = bulk(&backend, BULK).await;
    found.extend(missed_bulk(&early, &state("planned when empty"), &xid).await);
    let late = reader(&database).await;
    found.extend(missed_bulk(&late, &state("analyzed when empty"), &xid).await);

    // Somebody publishes much and does not commit: as the newest transaction, and with a newer one behind it.
    let publisher = database.connect().await;
    run(&publisher, "begin").await;
    bulk(&publisher, BULK).await;
    let mut quiet = Log::read(&late).await.up_to_date();
    // It asks for the newest event wherever that is, but only people ask it.
    quiet.retain(|call| call.statement != "standing");
    found.extend(faults(&late, &state("open publisher"), &quiet).await);
    run(&backend, "select tidings.publish('t1', 'small')").await;
    let busy = Log::read(&late).await.up_to_date();
    found.extend(faults(&late, &state("open publisher, others commit"), &busy).await);
    run(&publisher, "rollback").await;

    // Many transactions are in progress, then have ended.
    begin_many(&backend).await;
    run(&backend, "select tidings.publish('t1', 'small')").await;
    let log = Log::read(&late).await;
    assert_eq!(log.xip.matches(',').count() + 1, OPEN);
    let crowded = reader(&database).await;
    found.extend(faults(&crowded, &state("crowded"), &log.up_to_date()).await);
    for n in 0..OPEN {
        run(&backend, &format!("commit prepared 'open_{n}'")).await;
    }
    let after = Log::read(&late).await;
    let calls = after.since(&log.xmax, &log.xip, log.newest, [0; 5]);
    found.extend(faults(&crowded, &state("after the crowd"), &calls).await);
    found
}

#[tokio::test]
async fn every_statement_reads_what_it_returns_in_every_state_of_the_statistics() {
    let cluster = own_cluster(&SETTINGS);
    let mut found = Vec::new();
    for days in [1, 8, 30] {
        found.extend(every_state(&cluster, days).await);
    }
    assert!(
        found.is_empty(),
        "{} faults:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[tokio::test]
async fn a_statement_that_reads_too_much_is_found() {
    let database = crate::support::postgres::database();
    let client = database.connect().await;
    bulk(&client, BULK).await;
    // Whole partitions.
    let found = explained(&client, "select from tidings.event where data = '1'", BULK).await;
    assert!(
        found.iter().any(|fault| fault.contains("Seq Scan")),
        "{found:?}"
    );
    // Rows that are thrown away.
    run(&client, READING).await;
    let found = explained(
        &client,
        "select from tidings.event where data = '1' order by id",
        HEAD,
    )
    .await;
    assert_eq!(found, ["touched 20000 events where 8 are enough"]);
    // A walk along an index that finds nothing.
    let found = explained(
        &client,
        "select from tidings.event where id = 1000000000 order by topic",
        HEAD,
    )
    .await;
    assert!(
        found
            .iter()
            .any(|fault| fault.contains("_topic_xid_id_idx read")),
        "{found:?}"
    );
    // Rows that nobody may see yet.
    let publisher = database.connect().await;
    run(&publisher, "begin").await;
    bulk(&publisher, BULK).await;
    let last = "select id from tidings.event order by id desc limit 1";
    let found = explained(&client, last, HEAD).await;
    assert!(
        found.iter().any(|fault| fault.contains("_pkey read")),
        "{found:?}"
    );
}

#[tokio::test]
#[ignore = "tells the times of docs/performance.md and judges nothing"]
async fn figures() {
    let cluster = own_cluster(&SETTINGS);
    let database = log_of_days(&cluster, 30).await;
    let backend = database.connect().await;
    let xid = bulk(&backend, MANY).await;
    run(&backend, "analyze tidings.event").await;
    for crowd in ["nothing in progress", "300 transactions in progress"] {
        let log = Log::read(&backend).await;
        let client = reader(&database).await;
        let Log {
            snapshot,
            xmax,
            xip,
            newest,
        } = &log;
        let leg = format!("'{snapshot}', 0, {newest}, {PAGE}, 262144, {newest}, {newest}");
        let invented: Vec<String> = (1..700).map(|n: i64| n.to_string()).collect();
        eprintln!("{crowd}, one commit of {MANY} events:");
        time(
            &client,
            "look",
            &format!("'{xmax}', '{xip}', {newest}, false, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "look",
            &format!("'{xid}', '{{}}', 0, false, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "look",
            &format!("'{xmax}', '{{{xid}}}', {newest}, false, 5000, 8388608"),
        )
        .await;
        time(
            &client,
            "rest",
            &format!("'{xid}', '{{}}', 0, {newest} / 2, 5000, 8388608, '{snapshot}', {newest}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!("'{{t1}}', '{xmax}', '{xip}', {newest}, {leg}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!("'{{t1}}', '{xid}', '{{}}', 0, {leg}"),
        )
        .await;
        time(
            &client,
            "replay",
            &format!(
                "'{{t1}}', '700', '{{{}}}', {newest}, {leg}",
                invented.join(",")
            ),
        )
        .await;
        if crowd.starts_with("nothing") {
            begin_many(&backend).await;
            run(&backend, "select pg_current_xact_id()").await;
        }
    }
}
