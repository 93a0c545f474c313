//! The days of the log: made ahead, moved out of the default partition, trimmed, dropped, and all of it
//! without a publisher that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidings::postgres::partitions::{Maintenance, maintain};
use tokio_postgres::Client;

use crate::sql::{hinted, refusal, run, text, until_blocked};
use crate::support::postgres::{Database, database, own_cluster};

const WEEK: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The days that have partitions, as distances from today.
const DAYS: &str = "select coalesce(string_agg((day - (now() at time zone 'UTC')::date)::text, ' ' order by day), '') from tidings.day";

/// What is in the log, event by event, with all that a cursor rests on.
const LOG: &str = "select md5(string_agg(e::text, ';' order by id)) from tidings.event e";

/// Inserts an event that was published so many days ago; a day without partition has it in the default.
async fn publish_days_ago(client: &Client, days: i32) -> String {
    let insert = format!(
        "insert into tidings.event (topic, type, created_at)
         values ('a', 'b', clock_timestamp() - interval '{days} days') returning id::text"
    );
    let row = client.query_one(&insert, &[]).await.expect("inserted");
    row.get(0)
}

async fn add_day(client: &Client, days_ago: i32) -> bool {
    let add = format!("tidings.add_partition((now() at time zone 'UTC')::date - {days_ago})");
    text(client, &add).await == "true"
}

/// The floor as `id xid-is-that-of-its-event tag-is-that-of-its-event`.
async fn floor(client: &Client, event: &str) -> String {
    text(client, &format!("select format('%s %s %s %s', id, xid = '{event}'::text::xid8, tag, pg_visible_in_snapshot(xid, snapshot)) from tidings.floor")).await
}

async fn column(client: &Client, id: &str, column: &str) -> String {
    text(
        client,
        &format!("select {column} from tidings.event where id = {id}"),
    )
    .await
}

const TAG: &str = "tidings.tag(id, xid, created_at)";

#[tokio::test]
async fn a_migrated_database_has_today_and_three_days_ahead() {
    let database = database();
    let client = database.connect().await;
    assert_eq!(text(&client, DAYS).await, "0 1 2 3");
    let id = text(&client, "tidings.publish('a', 'b')").await;
    let home = column(&client, &id, "tableoid::regclass || '' = 'tidings.event_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')").await;
    assert_eq!(home, "true");
    assert!(!add_day(&client, 0).await);
    assert!(add_day(&client, -4).await);
    assert_eq!(text(&client, DAYS).await, "0 1 2 3 4");
    // A leaf that was made later is like one that was made with the table.
    let shapes = "select count(distinct (
            select string_agg(pg_get_constraintdef(k.oid), ';' order by pg_get_constraintdef(k.oid)) from pg_constraint k where conrelid = i.inhrelid and contype <> 'n'
        ) || (
            select string_agg(regexp_replace(pg_get_indexdef(x.indexrelid), 'event_\\d+\\w*', '', 'g'), ';' order by indkey::text) from pg_index x where x.indrelid = i.inhrelid
        ) || (
            select string_agg(attname || pg_get_expr(adbin, adrelid), ';' order by attnum) from pg_attribute a join pg_attrdef d on (adrelid, adnum) = (attrelid, attnum) where attrelid = i.inhrelid
        )) from pg_inherits i where inhparent = 'tidings.event'::regclass and inhrelid <> 'tidings.event_default'::regclass";
    assert_eq!(text(&client, shapes).await, "1");
    let detached = "select count(*) from pg_inherits where inhparent in ('tidings.event_pkey'::regclass, 'tidings.event_topic'::regclass, 'tidings.event_xid'::regclass)";
    assert_eq!(text(&client, detached).await, "18");
}

#[tokio::test]
async fn a_day_that_waits_in_the_default_is_moved_as_it_is() {
    let database = database();
    let (client, reader) = tokio::join!(database.connect(), database.connect());
    for days in [3, 2, 3, 0, 2] {
        publish_days_ago(&client, days).await;
    }
    let before = text(&client, LOG).await;
    run(
        &reader,
        "begin isolation level repeatable read; select count(*) from pg_class",
    )
    .await;
    assert_eq!(
        text(&client, "select count(*) from tidings.event_default").await,
        "4"
    );
    assert!(add_day(&client, 3).await);
    assert_eq!(
        text(&client, "select count(*) from tidings.event_default").await,
        "2"
    );
    assert_eq!(text(&client, LOG).await, before);
    // One that took its snapshot before the move reads the same.
    assert_eq!(text(&reader, LOG).await, before);
    run(&reader, "commit").await;
    assert!(add_day(&client, 2).await);
    assert_eq!(text(&client, LOG).await, before);
    assert_eq!(
        text(&client, "select count(*) from tidings.event_default").await,
        "0"
    );
}

#[tokio::test]
async fn who_begins_to_read_beside_a_move_misses_nothing() {
    let database = database();
    let (client, reader, watcher) =
        tokio::join!(database.connect(), database.connect(), database.connect());
    for days in [3, 0] {
        publish_days_ago(&client, days).await;
    }
    let before = text(&client, LOG).await;
    let pid = text(&reader, "pg_backend_pid()").await;
    run(&client, "begin").await;
    assert!(add_day(&client, 3).await);
    // It has not planned this before, and so finds out now which partitions there are.
    let (read, ()) = tokio::join!(text(&reader, LOG), async {
        until_blocked(&watcher, &pid).await;
        run(&client, "commit").await;
    });
    assert_eq!(read, before);
}

#[tokio::test]
async fn a_day_with_too_much_in_the_default_stays_there() {
    let database = database();
    let client = database.connect().await;
    for (days, rows, bytes) in [(3, 1001, 1), (2, 3, 200_000)] {
        run(&client, &format!(
            "insert into tidings.event (topic, type, data, created_at)
             select 'a', 'b', to_jsonb(repeat('x', {bytes})), clock_timestamp() - interval '{days} days' from generate_series(1, {rows})"
        )).await;
        assert!(!add_day(&client, days).await);
    }
    assert_eq!(text(&client, DAYS).await, "0 1 2 3");
    // And is trimmed there, once all of it is old enough.
    run(&client, "select tidings.publish('a', 'b')").await;
    assert_eq!(text(&client, "tidings.trim('2 days')").await, "0");
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "1");
    assert_eq!(
        text(&client, "select count(*) from tidings.event").await,
        "1"
    );
}

#[tokio::test]
async fn a_day_whose_publisher_is_open_is_left_for_later() {
    let database = database();
    let (client, publisher) = tokio::join!(database.connect(), database.connect());
    run(&publisher, "begin").await;
    publish_days_ago(&publisher, 3).await;
    let add = "select tidings.add_partition((now() at time zone 'UTC')::date - 3)";
    assert_eq!(refusal(&client, add).await.code, "55P03");
    run(&publisher, "commit").await;
    assert!(add_day(&client, 3).await);
    assert_eq!(
        text(&client, "select count(*) from tidings.event_default").await,
        "0"
    );
}

#[tokio::test]
async fn whole_days_that_ended_longer_ago_are_trimmed_and_the_floor_tells_what_is_gone() {
    let database = database();
    let client = database.connect().await;
    for days in [10, 9, 8, 7] {
        assert!(add_day(&client, days).await);
    }
    // Ids and xids need not grow alike: the higher xid here belongs to the lower id.
    run(&client, "select setval('tidings.event_id', 2000)").await;
    run(&client, "begin").await;
    let last = publish_days_ago(&client, 9).await;
    run(&client, "commit").await;
    run(&client, &format!("begin; insert into tidings.event (id, topic, type, created_at) values ({last} - 1000, 'a', 'b', clock_timestamp() - interval '10 days'); commit")).await;
    let earlier = format!("{last}::bigint - 1000");
    let kept = publish_days_ago(&client, 7).await;
    let newest = text(&client, "tidings.publish('a', 'b')").await;
    let (tag, xid) = (
        column(&client, &last, TAG).await,
        column(&client, &earlier, "xid").await,
    );

    assert_eq!(text(&client, "tidings.trim('7 days')").await, "2");
    let left = "select string_agg(id::text, ' ' order by id) from tidings.event";
    assert_eq!(text(&client, left).await, format!("{kept} {newest}"));
    assert_eq!(floor(&client, &xid).await, format!("{last} t {tag} t"));
    // Nothing more is due, and the floor stays.
    assert_eq!(text(&client, "tidings.trim('7 days')").await, "0");
    assert_eq!(floor(&client, &xid).await, format!("{last} t {tag} t"));

    // What is trimmed later raises the floor; what was lower does not sink it.
    let (tag, xid) = (
        column(&client, &kept, TAG).await,
        column(&client, &kept, "xid").await,
    );
    assert_eq!(text(&client, "tidings.trim('6 days')").await, "1");
    assert_eq!(floor(&client, &xid).await, format!("{kept} t {tag} t"));
    run(&client, "insert into tidings.event (id, topic, type, created_at) values (5, 'a', 'b', clock_timestamp() - interval '9 days')").await;
    let xid = column(&client, "5", "xid").await;
    assert_eq!(text(&client, "tidings.trim('6 days')").await, "1");
    assert_eq!(floor(&client, &xid).await, format!("{kept} t {tag} t"));
}

#[tokio::test]
async fn a_transaction_of_which_nothing_is_trimmed_need_not_have_been_seen() {
    // On a server of its own, since others' transactions would come in between.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let (client, idle, writer, late) = tokio::join!(
        database.connect(),
        database.connect(),
        database.connect(),
        database.connect()
    );
    for days in [10, 9, 8] {
        assert!(add_day(&client, days).await);
    }
    let own = "pg_current_xact_id()";
    for session in [&idle, &writer, &late] {
        run(session, "begin").await;
    }
    let idle_xid = text(&idle, own).await;
    publish_days_ago(&writer, 10).await;
    let writer_xid = text(&writer, own).await;
    publish_days_ago(&late, 8).await;
    let late_xid = text(&late, own).await;
    publish_days_ago(&client, 9).await;
    run(&client, "select tidings.publish('a', 'b')").await;
    run(&idle, "rollback").await;
    run(&writer, "commit").await;
    run(&late, "commit").await;

    let seen = async || {
        let seen = format!(
            "select string_agg(pg_visible_in_snapshot(x::text::xid8, snapshot)::text, ' ' order by x)
             from tidings.floor, unnest(array[{idle_xid}, {writer_xid}, {late_xid}]) x"
        );
        text(&client, &seen).await
    };
    assert_eq!(text(&client, "tidings.trim('8 days')").await, "2");
    assert_eq!(seen().await, "false true false");
    // Once something of it goes, it must have been seen; what never left a trace stays spared.
    for _ in 0..300 {
        run(&client, "select pg_current_xact_id()").await;
    }
    publish_days_ago(&client, 8).await;
    run(&client, "select tidings.publish('a', 'b')").await;
    assert_eq!(text(&client, "tidings.trim('7 days')").await, "1");
    assert_eq!(seen().await, "false true true");
    let named = "select count(*) between 1 and 600 from tidings.floor, pg_snapshot_xip(snapshot)";
    assert_eq!(text(&client, named).await, "true");
}

#[tokio::test]
async fn the_newest_event_is_never_trimmed_however_old_it_is() {
    let database = database();
    let client = database.connect().await;
    for days in [10, 9] {
        assert!(add_day(&client, days).await);
        publish_days_ago(&client, days).await;
    }
    let newest = publish_days_ago(&client, 9).await;
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "1");
    assert_eq!(
        text(&client, "select count(*) from tidings.event").await,
        "2"
    );
    // One that is not committed yet is not the newest.
    let other = database.connect().await;
    run(&other, "begin; select tidings.publish('a', 'b')").await;
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "0");
    let tag = column(&client, &newest, TAG).await;
    assert!(
        text(&client, "tidings.cursor()")
            .await
            .ends_with(&format!("~{newest}.{tag}"))
    );
    run(&other, "commit").await;
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "1");
    // The same in the default partition.
    run(&client, "truncate tidings.event").await;
    publish_days_ago(&client, 20).await;
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "0");
    publish_days_ago(&client, 0).await;
    assert_eq!(text(&client, "tidings.trim('1 day')").await, "1");
}

#[tokio::test]
async fn keys_go_with_their_events() {
    let database = database();
    let client = database.connect().await;
    let first = text(&client, "tidings.publish('a', 'b', key => 'old')").await;
    let kept = text(&client, "tidings.publish('a', 'b', key => 'young')").await;
    let back = "set created_at = created_at - interval '9 days'";
    run(&client, &format!("update tidings.event {back} where id = {first}; update tidings.key {back} where id = {first}")).await;
    assert_eq!(
        text(&client, "tidings.publish('a', 'b', key => 'old')").await,
        first
    );
    assert_eq!(text(&client, "tidings.trim('7 days')").await, "1");
    assert_ne!(
        text(&client, "tidings.publish('a', 'b', key => 'old')").await,
        first
    );
    assert_eq!(
        text(&client, "tidings.publish('a', 'b', key => 'young')").await,
        kept
    );
    // In portions, by the oldest first.
    run(&client, "insert into tidings.key select 'a', n::text, -n, now() - interval '9 days' - n * interval '1 s' from generate_series(1, 5) n").await;
    assert_eq!(text(&client, "tidings.trim_keys('7 days', 2)").await, "2");
    let left = "select string_agg(key, ' ' order by key) from tidings.key where id < 0";
    assert_eq!(text(&client, left).await, "1 2 3");
    assert_eq!(text(&client, "tidings.trim_keys('7 days', 9)").await, "3");
}

#[tokio::test]
async fn trimming_is_refused_where_it_would_not_be_true() {
    let database = database();
    let client = database.connect().await;
    for level in ["repeatable read", "serializable"] {
        run(&client, &format!("begin isolation level {level}")).await;
        hinted(&client, "select tidings.trim('7 days')", "25001", level).await;
        run(&client, &format!("rollback; begin isolation level {level}")).await;
        hinted(
            &client,
            "select tidings.add_partition('2026-01-01')",
            "25001",
            level,
        )
        .await;
        run(&client, "rollback").await;
    }
    for keep in ["null", "'-2 days'"] {
        hinted(
            &client,
            &format!("select tidings.trim({keep})"),
            "22023",
            "cannot be kept",
        )
        .await;
    }
}

#[tokio::test]
async fn a_day_that_somebody_uses_is_trimmed_when_it_is_free() {
    let database = database();
    let (client, publisher, dump) =
        tokio::join!(database.connect(), database.connect(), database.connect());
    for days in [10, 9] {
        add_day(&client, days).await;
        publish_days_ago(&client, days).await;
    }
    run(&client, "select tidings.publish('a', 'b')").await;
    run(&publisher, "begin").await;
    publish_days_ago(&publisher, 10).await;
    // The other day goes, the publisher's stays.
    assert_eq!(text(&client, "tidings.trim('7 days')").await, "1");
    hinted(
        &client,
        "select tidings.trim('7 days')",
        "55P03",
        "1 partitions are due",
    )
    .await;
    run(&publisher, "commit").await;
    run(
        &dump,
        "begin isolation level repeatable read; select count(*) from tidings.event",
    )
    .await;
    hinted(&client, "select tidings.trim('7 days')", "55P03", "in use").await;
    run(&dump, "commit").await;
    // The publisher's late event was committed to a day that is due, and is part of the floor.
    let late = text(
        &client,
        "select max(id) from tidings.event where created_at < now() - interval '8 days'",
    )
    .await;
    run(&client, "select tidings.publish('a', 'b')").await;
    let (tag, xid) = (
        column(&client, &late, TAG).await,
        column(&client, &late, "xid").await,
    );
    assert_eq!(text(&client, "tidings.trim('7 days')").await, "1");
    assert_eq!(floor(&client, &xid).await, format!("{late} t {tag} t"));
    assert_eq!(
        text(&client, "select count(*) from tidings.event").await,
        "2"
    );
}

#[tokio::test]
async fn empty_days_of_the_past_are_dropped_when_nobody_is_at_the_log() {
    let database = database();
    let (client, publisher) = tokio::join!(database.connect(), database.connect());
    for days in [5, 4, 3, 1] {
        add_day(&client, days).await;
    }
    publish_days_ago(&client, 4).await;
    run(&publisher, "begin; select tidings.publish('a', 'b')").await;
    assert_eq!(
        refusal(&client, "select tidings.drop_empty()").await.code,
        "55P03"
    );
    run(&publisher, "commit").await;
    for (dropped, left) in [
        ("true", "-4 -3 -1 0 1 2 3"),
        ("true", "-4 -1 0 1 2 3"),
        ("false", "-4 -1 0 1 2 3"),
    ] {
        assert_eq!(text(&client, "tidings.drop_empty()").await, dropped);
        assert_eq!(text(&client, DAYS).await, left);
    }
    assert_eq!(
        text(&client, "select count(*) from tidings.event").await,
        "2"
    );
}

#[tokio::test]
async fn one_pass_does_what_is_due_and_one_gateway_does_it() {
    let database = database();
    let (client, other) = tokio::join!(database.connect(), database.connect());
    let drop_days = "select string_agg(format('drop table %s', leaf), ';') from tidings.day where day > now()::date";
    let drop_days = text(&client, drop_days).await;
    run(&client, &drop_days).await;
    for days in [9, 8] {
        add_day(&client, days).await;
    }
    publish_days_ago(&client, 9).await;
    run(&client, "select tidings.publish('a', 'b', key => 'k'); update tidings.key set created_at = created_at - interval '9 days'").await;
    // As the role that a gateway has.
    run(&client, "set role tidings_gateway").await;
    let done = maintain(&client, WEEK).await.expect("a pass");
    let expected = Maintenance {
        created: 3,
        forgotten: 1,
        trimmed: 1,
        dropped: 2,
        ..Maintenance::default()
    };
    assert_eq!(done, expected);
    assert_eq!(text(&client, DAYS).await, "0 1 2 3");
    assert_eq!(
        maintain(&client, WEEK).await.expect("a pass"),
        Maintenance::default()
    );

    run(
        &other,
        "begin; select pg_advisory_xact_lock(8386654097862812520)",
    )
    .await;
    assert!(maintain(&client, WEEK).await.expect("no pass").elsewhere);
    run(&other, "commit").await;
    assert!(!maintain(&client, WEEK).await.expect("a pass").elsewhere);
    // The pass gave the lock back.
    assert_eq!(
        text(&other, "pg_try_advisory_lock(8386654097862812520)").await,
        "true"
    );
}

/// Publishes all the time, in every way. Returns how many transactions it made and how long the longest took.
async fn writer(database: &Database, number: u32, stop: Arc<AtomicBool>) -> (u32, Duration) {
    let client = database.connect().await;
    run(&client, "set lock_timeout = '1s'").await;
    let (mut count, mut longest) = (0, Duration::ZERO);
    while !stop.load(Ordering::Relaxed) {
        let publish = match count % 3 {
            0 => "select tidings.publish('a', 'b', '{\"x\": 1}')".to_owned(),
            1 => format!("select tidings.publish('a', 'b', key => '{number} {count}')"),
            _ => {
                "begin; select tidings.publish('a', 'b'); select tidings.publish('a', 'c'); commit"
                    .to_owned()
            }
        };
        let begin = Instant::now();
        run(&client, &publish).await;
        longest = longest.max(begin.elapsed());
        count += 1;
    }
    (count, longest)
}

/// What the machine does to writers at times, it does not do three times in a row; a lock that they wait for
/// makes itself felt each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_writer_waits_for_maintenance_with_a_long_publisher_and_a_dump_open() {
    let mut rounds = Vec::new();
    for _ in 0..3 {
        let (here, elsewhere) = longest_waits_beside_maintenance().await;
        if here < Duration::from_millis(100) + elsewhere {
            return;
        }
        rounds.push((here, elsewhere));
    }
    panic!("the longest, and the longest elsewhere: {rounds:?}");
}

/// Maintains a log while writers publish, a publisher is open and then a dump: the longest transaction of a
/// writer, and that of one in a database that nobody maintains.
async fn longest_waits_beside_maintenance() -> (Duration, Duration) {
    // In a cluster of its own, where no other test's CREATE DATABASE gets in the way.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    // Nobody maintains this one: what its writers wait for is the machine's doing.
    let other = server.database();
    let (client, gateway, publisher, dump) = tokio::join!(
        database.connect(),
        database.connect(),
        database.connect(),
        database.connect()
    );
    // Today and the days ahead are missing, so that the writers fill the default while it is worked upon.
    let drop_days = text(
        &client,
        "select string_agg(format('drop table %s', leaf), ';') from tidings.day",
    )
    .await;
    run(&client, &drop_days).await;
    for days in [12, 11, 10, 9, 8] {
        assert!(add_day(&client, days).await);
        publish_days_ago(&client, days).await;
    }
    // An empty one, to drop.
    assert!(add_day(&client, 5).await);

    run(&publisher, "begin").await;
    publish_days_ago(&publisher, 9).await;
    run(&publisher, "select tidings.publish('a', 'b')").await;
    run(&dump, "begin isolation level repeatable read; lock table tidings.event, tidings.floor, tidings.key in access share mode").await;

    let stop = Arc::new(AtomicBool::new(false));
    let writers = async {
        let databases = [&database, &other, &database, &other, &database];
        let writers = (0..)
            .zip(databases)
            .map(|(number, database)| writer(database, number, stop.clone()));
        futures::future::join_all(writers).await
    };
    let story = async {
        // Both are open: nothing can be had. (Today itself may have too much in the default by now to be tried.)
        let done = maintain(&gateway, WEEK).await.expect("a pass");
        assert!(done.left >= 5, "{done:?}");
        assert_eq!(
            done,
            Maintenance {
                left: done.left,
                ..Maintenance::default()
            }
        );
        // The dump ends: the days ahead can still not be attached, since the publisher has a row in the default, but
        // the old days are trimmed, all but the one that it wrote to.
        run(&dump, "commit").await;
        let mut trimmed = 0;
        while trimmed < 4 {
            let done = maintain(&gateway, WEEK).await.expect("a pass");
            assert_eq!((done.created, done.dropped), (0, 0));
            trimmed += done.trimmed;
        }
        assert_eq!(trimmed, 4);
        // The publisher ends: all that was left is done.
        run(&publisher, "commit").await;
        let mut all = Maintenance::default();
        while all.created < 3 || all.trimmed < 1 || all.dropped < 6 {
            let done = maintain(&gateway, WEEK).await.expect("a pass");
            all.created += done.created;
            all.trimmed += done.trimmed;
            all.dropped += done.dropped;
        }
        stop.store(true, Ordering::Relaxed);
    };
    let begin = Instant::now();
    let (writers, ()) = tokio::join!(writers, story);
    let longest = |of: &[usize]| of.iter().map(|n| writers[*n].1).max().unwrap_or_default();
    let (here, there) = (longest(&[0, 2, 4]), longest(&[1, 3]));
    let count: u32 = writers.iter().map(|writer| writer.0).sum();
    println!(
        "{count} transactions in {:?}, the longest {here:?}, elsewhere {there:?}",
        begin.elapsed()
    );
    assert!(count > 100, "{count}");
    // Every event is still there, except those that were trimmed.
    let keys = "select count(*) from tidings.key k where not exists (select from tidings.event e where e.id = k.id)";
    assert_eq!(text(&client, keys).await, "0");
    (here, there)
}
