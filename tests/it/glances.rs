//! A glance tells what a look tells, or leaves it to the look.
//!
//! A session of looking glances once it has been told where the log is; one that was only just opened looks. Both go
//! on from the same mark here, while nothing happens, and must answer the same.

use tidings::cursor::{Cursor, Mark, Snapshot, Standing};
use tidings::postgres::tail::PAGE_BYTES;
use tidings::postgres::{Page, Tail};
use tokio_postgres::Client;

use crate::support::backend::{publish, publish_all, run};
use crate::support::postgres::{Database, OwnCluster, own_cluster};

async fn open(database: &Database, bytes: i64) -> Tail {
    let database = tidings::postgres::Database::parse(&database.url()).expect("an address");
    Tail::open(&database, bytes).await.expect("opens")
}

/// Looks from `from` by a session that glances and by a new one.
async fn look_both(database: &Database, tail: &Tail, from: &Mark) -> Page {
    let glanced = tail.look(from, false).await.expect("a look");
    let again = open(database, PAGE_BYTES).await;
    let looked = again.look(from, false).await.expect("a look");
    same(&glanced, &looked);
    glanced
}

fn same(glanced: &Page, looked: &Page) {
    assert_eq!(glanced.head.snapshot, looked.head.snapshot);
    assert_eq!(glanced.head.mark(), looked.head.mark());
    assert_eq!(glanced.head.anchor, looked.head.anchor);
    assert_eq!(glanced.head.floor, looked.head.floor);
    assert_eq!(glanced.more, looked.more);
    let told = |page: &Page| -> Vec<String> {
        let events = page.events.iter();
        events.map(|event| format!("{event:?}")).collect()
    };
    assert_eq!(told(glanced), told(looked));
}

fn ids(page: &Page) -> Vec<i64> {
    page.events.iter().map(|event| event.id).collect()
}

/// A server of the test's own, on which nobody else's transactions come and go.
fn quiet_log() -> (OwnCluster, Database) {
    let cluster = own_cluster(&[("fsync", "off"), ("autovacuum", "off")]);
    let database = cluster.database();
    (cluster, database)
}

async fn insert(client: &Client, created_at: &str) -> i64 {
    let text = format!(
        "insert into tidings.event (topic, type, created_at) values ('t', 'odd', {created_at}) returning id"
    );
    client.query_one(&text, &[]).await.expect("inserts").get(0)
}

#[tokio::test]
async fn a_glance_tells_what_a_look_tells() {
    let (_cluster, database) = quiet_log();
    let backend = database.connect().await;
    let tail = open(&database, PAGE_BYTES).await;
    // Of an empty log, and of its first event.
    let mut mark = tail.position().await.expect("a position").mark();
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!((ids(&page), page.head.anchor), (vec![], None));
    mark = page.head.mark();
    let first = publish(&backend, "t").await;
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(ids(&page), [first]);
    mark = page.head.mark();

    // Of other days, and of days that have no partition.
    let mut odd = Vec::new();
    for days in [-4000, -2, 1, 3, 9, 4000] {
        odd.push(
            insert(
                &backend,
                &format!("clock_timestamp() + interval '{days} days'"),
            )
            .await,
        );
    }
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(ids(&page), odd);
    mark = page.head.mark();
    // Its newest event is of an odd day now.
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(page.head.anchor, Some(mark.tag));
    // And moves into a partition.
    run(
        &backend,
        "select tidings.add_partition((clock_timestamp() at time zone 'UTC')::date + 4000)",
    )
    .await;
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(page.head.anchor, Some(mark.tag));

    // What commits late, below the newest, beside what is new.
    let late = database.connect().await;
    run(&late, "begin").await;
    let below = insert(&late, "clock_timestamp() - interval '2 days'").await;
    let above = publish(&backend, "t").await;
    mark = tail.look(&mark, false).await.expect("a look").head.mark();
    assert_eq!((mark.newest, mark.snapshot.in_progress().len()), (above, 1));
    let page = look_both(&database, &tail, &mark).await;
    assert!(ids(&page).is_empty());
    run(&late, "commit").await;
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!((ids(&page), page.head.mark().newest), (vec![below], above));
    let new = publish(&backend, "t").await;
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(ids(&page), [below, new]);
    mark = page.head.mark();

    // A bulk commit is more than a page.
    let bulk =
        "insert into tidings.event (topic, type) select 't', 'bulk' from generate_series(1, 5001)";
    run(&backend, bulk).await;
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!((page.events.len(), page.more), (5_000, true));
    mark = page.head.mark();
    let page = look_both(&database, &tail, &mark).await;
    assert_eq!(page.events.len(), 0);
}

#[tokio::test]
async fn a_page_of_bytes_ends_whoever_told_them() {
    let (_cluster, database) = quiet_log();
    let backend = database.connect().await;
    publish(&backend, "t").await;
    let cases = [(10_000, 10), (9_999, 10), (4_500, 5), (1, 1)];
    let mut tails = Vec::new();
    for (bytes, events) in cases {
        let tail = open(&database, bytes).await;
        let mark = tail.position().await.expect("a position").mark();
        tails.push((tail, mark, bytes, events));
    }
    // Of half of the events nobody has told the size.
    let sized = "insert into tidings.event (topic, type, data, bytes)
        select 't', 'large', to_jsonb(repeat('x', 998)), case when n % 2 = 0 then 1000 end from generate_series(1, 10) n";
    run(&backend, sized).await;
    for (tail, mark, bytes, events) in tails {
        let page = tail.look(&mark, false).await.expect("a look");
        assert_eq!((page.events.len(), page.more), (events, events < 10));
        let again = open(&database, bytes).await;
        same(&page, &again.look(&mark, false).await.expect("a look"));
        if let (true, Some(last)) = (page.more, page.events.last()) {
            let rest = tail.rest(&mark, &page.head.mark(), last.id).await;
            let left = (10 - events).min(events);
            assert_eq!(rest.expect("the rest").events.len(), left, "{bytes}");
        }
    }
}

#[tokio::test]
async fn a_glance_does_not_overlook_that_history_was_rewritten() {
    let (_cluster, database) = quiet_log();
    let backend = database.connect().await;
    publish_all(&backend, &["t", "t"]).await;
    // They know the log as it was before.
    let mut tails = Vec::new();
    for _ in 0..5 {
        tails.push(open(&database, PAGE_BYTES).await);
        tails.last().expect("one").position().await.expect("told");
    }
    let mark = tails[0].position().await.expect("a position").mark();
    let newest = mark.newest;
    let rewritings = [
        // Another event with that id, of the same time, or of another.
        format!(
            "begin; delete from tidings.event where id = {newest};
             insert into tidings.event (id, created_at, topic, type) select id, created_at, 't', 'other' from kept; commit"
        ),
        format!("update tidings.event set created_at = created_at + interval '1 day' where id = {newest}"),
        // None at all, and beside it something new.
        format!("delete from tidings.event where id = {newest}"),
        "select tidings.publish('t', 'new')".to_owned(),
    ];
    let keep = format!("create table kept as select * from tidings.event where id = {newest}");
    run(&backend, &keep).await;
    for (rewriting, tail) in rewritings.iter().zip(&tails) {
        run(&backend, rewriting).await;
        let page = look_both(&database, tail, &mark).await;
        let standing = Cursor::At(mark.clone()).standing(&page.head.floor, page.head.anchor);
        assert_eq!(standing, Standing::Diverged, "{rewriting}");
    }
    // What has been trimmed is told as well.
    run(&backend, "select tidings.adopt()").await;
    let tail = &tails[4];
    let page = look_both(&database, tail, &mark).await;
    let standing = Cursor::At(mark).standing(&page.head.floor, page.head.anchor);
    assert_eq!(standing, Standing::Trimmed);
    let mark = page.head.mark();
    let page = look_both(&database, tail, &mark).await;
    let standing = Cursor::At(mark).standing(&page.head.floor, page.head.anchor);
    assert_eq!(standing, Standing::Served);
}

#[tokio::test]
async fn a_quiet_log_is_still_until_a_transaction_finishes() {
    let (_cluster, database) = quiet_log();
    let backend = database.connect().await;
    publish(&backend, "t").await;
    let tail = open(&database, PAGE_BYTES).await;
    let mut mark = tail.position().await.expect("a position").mark();
    let open_writer = database.connect().await;
    // Each of these may come while nobody looks; every one but the first lets the snapshot move on.
    run(&open_writer, "begin; select pg_current_xact_id()").await;
    let acts = [
        "select 1",
        "select tidings.publish('t', 'said')",
        "begin; select tidings.publish('t', 'said'); rollback",
        "select tidings.adopt()",
        "select tidings.publish('t', 'said')",
    ];
    for act in acts {
        // Twice, so that the log is known to be quiet.
        for _ in 0..2 {
            let page = tail.look_again(&mark).await.expect("a look");
            assert!(ids(&page).is_empty());
            mark = page.head.mark();
        }
        run(&backend, act).await;
        let page = tail.look_again(&mark).await.expect("a look");
        let looked = open(&database, PAGE_BYTES).await.look(&mark, false).await;
        let looked = looked.expect("a look");
        assert_eq!(page.head.mark(), looked.head.mark(), "{act}");
        assert_eq!(ids(&page), ids(&looked), "{act}");
        let standing =
            |page: &Page| Cursor::At(mark.clone()).standing(&page.head.floor, page.head.anchor);
        assert_eq!(standing(&page), standing(&looked), "{act}");
        mark = page.head.mark();
    }
    let before: Snapshot = (*mark.snapshot).clone();
    let late = insert(&open_writer, "clock_timestamp()").await;
    tail.look_again(&mark).await.expect("a look");
    run(&open_writer, "commit").await;
    let page = tail.look_again(&mark).await.expect("a look");
    assert_eq!(ids(&page), [late]);
    assert_ne!(page.head.snapshot, before);
}
