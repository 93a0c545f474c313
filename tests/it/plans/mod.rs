//! The statements that read the log read what they return and little else, in every state of the statistics.
//!
//! Each is prepared as the gateway's sessions prepare it and explained while it runs. Judged is what its
//! scans of the log touched, never how long that took: no scan of a whole partition, no walk along an
//! index for rows that it does not return, no row beyond those that were returned or missed.

mod cost;
mod figures;
mod judge;
mod log;

use tokio_postgres::Client;

use self::judge::{explained, faults};
use self::log::{
    BULK, Call, HEAD, Log, OPEN, PAGE, SETTINGS, TOPICS, begin_many, bulk, log_of_days, reader,
};
use crate::support::backend::run;
use crate::support::postgres::{OwnCluster, database, own_cluster};
use tidings::postgres::connect::READING;

/// Events that are committed one by one.
const COMMITS: i64 = 800;

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

    found.extend(behind_an_open_transaction(&late, &backend, &state("many commits")).await);

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

/// An open transaction has published something, and many others commit after it; then it commits.
async fn behind_an_open_transaction(client: &Client, backend: &Client, state: &str) -> Vec<String> {
    run(backend, "begin; set local tidings.bell = off").await;
    run(backend, "select tidings.publish('t1', 'small')").await;
    run(backend, "prepare transaction 'long'").await;
    let before = Log::read(client).await;
    let commits = format!(
        "do $$ begin for n in 1..{COMMITS} loop
             perform tidings.publish('t' || n % {TOPICS}, 'small');
             commit;
         end loop; end $$"
    );
    run(backend, &commits).await;
    let log = Log::read(client).await;
    let mut found = faults(client, state, &log.up_to_date()).await;
    let of_topics = COMMITS / TOPICS * 3;
    // People are told by ids as well.
    let missed = [COMMITS, COMMITS, of_topics, of_topics, COMMITS * 2];
    let calls = log.since(&before.xmax, &before.xip, before.newest, missed);
    found.extend(faults(client, &format!("{state}, all missed"), &calls).await);
    run(backend, "commit prepared 'long'").await;
    let after = Log::read(client).await;
    let calls = after.since(&log.xmax, &log.xip, log.newest, [1; 5]);
    found.extend(faults(client, &format!("{state}, the late one"), &calls).await);
    found
}

#[tokio::test]
async fn a_replay_touches_what_was_missed_whatever_the_size_of_the_log() {
    let cluster = own_cluster(&SETTINGS);
    let mut found = Vec::new();
    for size in [TOPICS, BULK * 10] {
        let database = log_of_days(&cluster, 8).await;
        let backend = database.connect().await;
        bulk(&backend, size).await;
        let client = reader(&database).await;
        let before = Log::read(&client).await;
        let many = "insert into tidings.event (topic, type)
            select case when n % 100 = 0 then 't1' else 'other' end, 'missed' from generate_series(1, 1000) n";
        run(&backend, many).await;
        let log = Log::read(&client).await;
        let mut calls = log.since(&before.xmax, &before.xip, before.newest, [10; 5]);
        calls.retain(|call| ["replay", "missed"].contains(&call.statement));
        assert_eq!(calls.len(), 2);
        found.extend(faults(&client, &format!("{size} events before"), &calls).await);
        run(&backend, "analyze tidings.event").await;
        let client = reader(&database).await;
        found.extend(faults(&client, &format!("{size} analyzed"), &calls).await);
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
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
    let database = database();
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
