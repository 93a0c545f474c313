//! The cursor of SQL and the cursor of the gateway are one: both say of every event what Postgres
//! says of it, and a page's `tidings.cursor()` resumes a stream.

use fastrand::Rng;
use tidings::cursor::{Cursor, Snapshot};

use crate::support::backend::{cursor, publish, publish_all, run};
use crate::support::gateway::Gateway;
use crate::support::postgres::{database, own_cluster};

#[tokio::test]
async fn a_snapshot_sees_what_postgres_says_is_visible() {
    let database = database();
    let client = database.connect().await;
    let mut rng = Rng::with_seed(7);
    let (mut snapshots, mut xids, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..400 {
        // Small ones, and some beyond 32 bits, where epochs begin.
        let base = if rng.bool() {
            3
        } else {
            rng.u64(1 << 32..1 << 40)
        };
        let xmax = base + rng.u64(0..60);
        let share = rng.f64();
        let open: Vec<u64> = (base..xmax).filter(|_| rng.f64() < share).collect();
        let snapshot = Snapshot::new(xmax, open).expect("ascends");
        for xid in base - 3..xmax + 3 {
            snapshots.push(snapshot.to_string());
            xids.push(xid.to_string());
            seen.push(snapshot.sees(xid));
        }
    }
    let rows = client
        .query(
            "select pg_visible_in_snapshot(xid::xid8, snapshot::pg_snapshot)
             from unnest($1::text[], $2::text[]) with ordinality as u(xid, snapshot, n) order by n",
            &[&xids, &snapshots],
        )
        .await
        .expect("Postgres reads our snapshots");
    let visible: Vec<bool> = rows.iter().map(|row| row.get(0)).collect();
    assert!(seen.contains(&true) && seen.contains(&false));
    for (n, (seen, visible)) in seen.iter().zip(&visible).enumerate() {
        assert_eq!(seen, visible, "{} in {}", xids[n], snapshots[n]);
    }
    assert_eq!(seen.len(), visible.len());
}

#[tokio::test]
async fn the_cursor_of_sql_has_seen_exactly_what_its_statement_sees() {
    let database = database();
    let client = database.connect().await;
    let mut rng = Rng::with_seed(7);
    let mut writers = Vec::new();
    for _ in 0..6 {
        writers.push((database.connect().await, false));
    }
    let mut open_seen = 0;
    for _ in 0..120 {
        let place = rng.usize(..writers.len());
        let (writer, open) = &mut writers[place];
        let act = match (*open, rng.u32(0..5)) {
            (false, _) => "begin; select tidings.publish('t', 'k')",
            (true, 0) => "commit",
            (true, 1) => "rollback",
            (true, 2) => "savepoint s; select tidings.publish('t', 'k'); rollback to s",
            (true, _) => "select tidings.publish('t', 'k')",
        };
        run(writer, act).await;
        *open = !matches!(act, "commit" | "rollback");
        // What the log says is open and what is committed, in one snapshot.
        run(&client, "begin isolation level repeatable read").await;
        let text = cursor(&client).await;
        let parsed: Cursor = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            parsed.to_text().as_deref(),
            Some(&*text),
            "one cursor, one text"
        );
        let rows = client
            .query(
                "select id, xid::text::bigint,
                        pg_visible_in_snapshot(xid, pg_current_snapshot()),
                        (select array_agg(x::text::bigint) from pg_snapshot_xip(pg_current_snapshot()) x)
                 from tidings.event",
                &[],
            )
            .await
            .expect("the log");
        for row in &rows {
            let (id, xid): (i64, i64) = (row.get(0), row.get(1));
            assert_eq!(
                parsed.sees(xid as u64, id),
                row.get::<_, bool>(2),
                "{id} in {text}"
            );
            for open in row.get::<_, Option<Vec<i64>>>(3).unwrap_or_default() {
                assert!(!parsed.sees(open as u64, 1), "{open} in {text}");
                open_seen += 1;
            }
        }
        run(&client, "commit").await;
    }
    assert!(open_seen > 100, "{open_seen}");
}

#[tokio::test]
async fn a_cursor_of_sql_resumes_a_stream_also_from_within_a_transaction_that_publishes() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let (page, other) = (database.connect().await, database.connect().await);
    for level in ["read committed", "repeatable read", "serializable"] {
        for end in ["commit", "rollback"] {
            publish(&other, "t").await;
            run(&page, &format!("begin isolation level {level}")).await;
            let own = [publish(&page, "t").await, publish(&page, "t").await];
            let between = publish(&other, "t").await;
            let cursor = cursor(&page).await;
            let after = publish(&other, "t").await;
            run(&page, end).await;
            let last = publish(&other, "t").await;

            // Under read committed, the statement that made the cursor had seen the other's event;
            // a snapshot of the whole transaction had not.
            let mut expected = vec![after, last];
            if level != "read committed" {
                expected.push(between);
            }
            if end == "commit" {
                expected.extend(own);
            }
            expected.sort_unstable();
            let mut stream = gateway.resume(&["t"], Some(&cursor)).await;
            let (mut replayed, ready) = stream.replay().await;
            replayed.sort_unstable();
            assert_eq!(replayed, expected, "{level}, {end}: {cursor}");
            assert_eq!(ready["resumed"], true);
        }
    }
}

#[tokio::test]
async fn three_hundred_transactions_in_progress_fit_and_resume() {
    let cluster = own_cluster(&[("max_prepared_transactions", "400"), ("fsync", "off")]);
    let database = cluster.database();
    let backend = database.connect().await;
    let gateway = Gateway::start(&database).await;
    let other = Gateway::start(&database).await;
    // Each third of them has published; those whose bell is off are delivered by the look of the second.
    let mut waiting = Vec::new();
    for n in 0..300 {
        run(
            &backend,
            "begin; set local tidings.bell = off; select pg_current_xact_id()",
        )
        .await;
        if n % 3 == 0 {
            waiting.push((n, publish(&backend, "t").await));
        }
        run(&backend, &format!("prepare transaction 'p{n}'")).await;
        if n % 7 == 0 {
            // Some transactions end in between, so that what is in progress has gaps.
            run(&backend, "select pg_current_xact_id()").await;
        }
    }
    run(&backend, "select pg_current_xact_id()").await;
    let text = cursor(&backend).await;
    assert!((300..900).contains(&text.len()), "{}", text.len());

    let mut stream = gateway.resume(&["t"], Some(&text)).await;
    stream.ready().await;
    let ids = publish_all(&backend, &["t", "t", "t"]).await;
    assert_eq!(stream.ids(2).await, ids[..2]);
    let within = stream.cursor().to_owned();
    assert_eq!(within.matches('~').count(), 4);
    assert!(
        within.len() < text.len() + 100,
        "{}: the second mark is a difference",
        within.len()
    );
    drop(stream);

    let mut expected = vec![ids[2]];
    for (n, id) in waiting.iter().rev().take(50) {
        run(&backend, &format!("commit prepared 'p{n}'")).await;
        expected.push(*id);
    }
    expected.sort_unstable();
    let mut got = Vec::new();
    let mut cursor = within;
    // From one gateway to the other, and back, a few events at a time.
    for turn in 0.. {
        let gateway = [&other, &gateway][turn % 2];
        let mut stream = gateway.resume(&["t"], Some(&cursor)).await;
        got.extend(stream.ids(17.min(expected.len() - got.len())).await);
        cursor = stream.cursor().to_owned();
        if got.len() == expected.len() {
            let last = publish(&backend, "t").await;
            assert_eq!(stream.ids(1).await, [last]);
            break;
        }
    }
    got.sort_unstable();
    assert_eq!(got, expected);
    assert_eq!(
        gateway.metric("tidings_positions_too_long_total").await,
        0.0
    );
    run(&backend, "rollback prepared 'p1'").await;
}
