//! A transaction that stays open delays nobody else, whether it has published or not; and what no
//! bell told of, or what was said while a session was lost, comes all the same.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::Client;

use crate::support::backend::{publish, publish_all, run, until};
use crate::support::client::Stream;
use crate::support::gateway::Gateway;
use crate::support::postgres::database;
use crate::support::setting;

/// Half of the events take less than this from COMMIT to client, also on a machine that is busy with
/// other tests. The look that happens anyway would take half a second.
const AT_ONCE: Duration = Duration::from_millis(250);

fn median(mut delays: Vec<Duration>) -> Duration {
    delays.sort_unstable();
    delays[delays.len() / 2]
}

/// Runs the statements, which commit an event, and waits for it.
async fn delay(client: &Client, statements: &str, stream: &mut Stream) -> (i64, Duration) {
    let begun = Instant::now();
    run(client, statements).await;
    let id = stream.ids(1).await[0];
    (id, begun.elapsed())
}

#[tokio::test]
async fn a_transaction_that_stays_open_delays_no_other_event_and_its_own_comes_when_it_commits() {
    let open_for = Duration::from_secs(setting("TIDINGS_TEST_SECONDS", 3).min(60));
    let database = database();
    let gateway = Gateway::start(&database).await;
    // One that has an old transaction id and nothing to do with tidings, and one with an old snapshot.
    let (unrelated, reader) = (database.connect().await, database.connect().await);
    run(&unrelated, "begin; select pg_current_xact_id()").await;
    run(
        &reader,
        "begin isolation level repeatable read; select count(*) from tidings.event",
    )
    .await;
    let mut publishers = Vec::new();
    for _ in 0..5 {
        let client = database.connect().await;
        run(&client, "begin").await;
        let id = publish(&client, "t").await;
        publishers.push((client, id));
    }

    let backend = database.connect().await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let until = Instant::now() + open_for;
    let mut delays = Vec::new();
    while Instant::now() < until || delays.len() < 20 {
        let (_, took) = delay(&backend, "select tidings.publish('t', 'k')", &mut stream).await;
        delays.push(took);
        if delays.len() % 10 == 0 {
            // A stream that comes and resumes meanwhile is no worse off.
            let cursor = stream.cursor().to_owned();
            stream = gateway.resume(&["t"], Some(&cursor)).await;
            stream.ready().await;
        }
    }
    assert!(median(delays.clone()) < AT_ONCE, "{delays:?}");

    let cursor = stream.cursor().to_owned();
    let mut delays = Vec::new();
    let mut late = Vec::new();
    for (publisher, published) in &publishers {
        let (id, took) = delay(publisher, "commit", &mut stream).await;
        assert_eq!(id, *published);
        delays.push(took);
        late.push(id);
    }
    assert!(median(delays.clone()) < AT_ONCE, "{delays:?}");
    // Whoever was away meanwhile gets them too, though newer ones have long been seen.
    let mut away = gateway.resume(&["t"], Some(&cursor)).await;
    assert_eq!(away.replay().await.0, late);
    run(&unrelated, "commit").await;
    run(&reader, "commit").await;
}

#[tokio::test]
async fn an_event_without_a_bell_comes_by_the_look_that_happens_anyway() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let backend = database.connect().await;
    // Of the channel in this database nobody else makes use.
    let heard = gateway.metric("tidings_bells_total").await;

    run(&backend, "begin; set local tidings.bell = off").await;
    let id = publish(&backend, "t").await;
    run(&backend, "commit").await;
    assert_eq!(stream.ids(1).await, [id]);

    let own =
        "insert into tidings.event (topic, type, xid) values ('t', 'n', pg_current_xact_id())";
    run(&backend, own).await;
    stream.ids(1).await;

    assert_eq!(
        gateway.metric("tidings_bells_total").await,
        heard,
        "a bell rang after all"
    );
    publish(&backend, "t").await;
    stream.ids(1).await;
    assert_eq!(gateway.metric("tidings_bells_total").await, heard + 1.0);
}

#[tokio::test]
async fn rows_that_come_in_other_ways_ring_as_well() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let backend = database.connect().await;
    let bells = async || gateway.metric("tidings_bells_total").await;
    let heard = bells().await;

    let leaf = "select 'tidings.event_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')";
    let leaf: String = backend.query_one(leaf, &[]).await.expect("today").get(0);
    let copy = format!("copy {leaf} (topic, type) from stdin");
    let sink = backend.copy_in::<_, Bytes>(&copy).await.expect("copies");
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from_static(b"t\tcopied\nt\tcopied\n"))
        .await
        .expect("sends");
    assert_eq!(sink.finish().await.expect("commits"), 2);
    stream.ids(2).await;
    assert_eq!(bells().await, heard + 1.0, "one for the transaction");

    run(
        &backend,
        "begin; set local session_replication_role = replica",
    )
    .await;
    let id = publish(&backend, "t").await;
    run(&backend, "commit").await;
    assert_eq!(stream.ids(1).await, [id]);
    assert_eq!(bells().await, heard + 2.0);
}

/// Ends every session of this name.
async fn kill(client: &Client, session: &str) -> usize {
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity
        where datname = current_database() and application_name = $1";
    client
        .query(kill, &[&session])
        .await
        .expect("a superuser may")
        .len()
}

async fn until_back(client: &Client, session: &str) {
    let back = format!(
        "select exists (select from pg_stat_activity
         where datname = current_database() and application_name = '{session}')"
    );
    until(client, &back).await;
}

#[tokio::test]
async fn sessions_that_are_killed_again_and_again_lose_nothing_and_streams_stay_open() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let mut published = Vec::new();
    let mut killed = 0;
    for round in 0..4 {
        for session in ["tidings/listener", "tidings/tail"] {
            if round < 3 {
                until_back(&backend, session).await;
            }
            published.push(publish(&backend, "t").await);
            killed += kill(&backend, session).await;
            published.extend(
                publish_all(&backend, &["t", "u", "t"])
                    .await
                    .into_iter()
                    .step_by(2),
            );
        }
    }
    assert!(killed >= 6, "{killed}");
    assert_eq!(stream.ids(published.len()).await, published);
    // The bell is heard again, and the window serves again what came since.
    for session in ["tidings/listener", "tidings/tail"] {
        until_back(&backend, session).await;
    }
    let cursor = stream.cursor().to_owned();
    let id = publish(&backend, "t").await;
    assert_eq!(stream.ids(1).await, [id]);
    let mut away = gateway.resume(&["t"], Some(&cursor)).await;
    assert_eq!(away.replay().await.0, [id]);
    for reason in ["drain", "diverged", "slow", "unavailable"] {
        let byes = format!("tidings_byes_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&byes).await, 0.0, "{reason}");
    }
}

#[tokio::test]
async fn a_replay_whose_session_was_killed_takes_another() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--window-bytes=0"]).await;
    let backend = database.connect().await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let mut cursor = stream.cursor().to_owned();
    for _ in 0..3 {
        let id = publish(&backend, "t").await;
        stream = gateway.resume(&["t"], Some(&cursor)).await;
        assert_eq!(stream.ids(1).await, [id]);
        cursor = stream.cursor().to_owned();
        assert!(kill(&backend, "tidings/pool").await > 0);
    }
}
