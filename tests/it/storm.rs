//! A reconnect storm: everyone is cut at once and comes back at once, and the database does not notice.

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::backend::{publish, publish_all, run, until};
use crate::support::client::Stream;
use crate::support::gateway::{Door, token};
use crate::support::postgres::database;
use crate::support::process::Process;

const STREAMS: usize = 1_000;
const TOPICS: usize = 20;

const POOL: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'tidings/pool'";

/// The state of a topic that is not to be had while somebody else has the table.
const SLOW_STATE: &str = "
    create table gate ();
    grant select on gate to public;
    create function slow(topic text, claims jsonb) returns jsonb language plpgsql stable as $$
        begin perform count(*) from gate; return '1'; end
    $$;
    select tidings.define_state('slow', 'slow(text, jsonb)');
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_resume_inside_the_window_without_a_query() {
    let database = database();
    let gateway = Process::serve(&database, &[]);
    let door = *gateway;
    let backend = database.connect().await;
    let mut opening = JoinSet::new();
    for n in 0..STREAMS {
        opening.spawn(async move {
            let topic = format!("t{}", n % TOPICS);
            (n, door.subscribe(&[&topic, "all"]).await)
        });
    }
    let mut streams = opening.join_all().await;
    // Some are cut in the middle of a look, some at its end.
    let ids = publish_all(&backend, &["all", "all"]).await;
    let mut cursors = Vec::new();
    for (n, stream) in &mut streams {
        let count = 1 + *n % 2;
        assert_eq!(stream.ids(count).await, ids[..count]);
        cursors.push((*n, stream.cursor().to_owned()));
    }
    drop(streams);

    let topics: Vec<String> = (0..TOPICS).map(|n| format!("t{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let own = publish_all(&backend, &topics).await;
    let mut storm = JoinSet::new();
    for (n, cursor) in cursors {
        let mut expected = vec![own[n % TOPICS]];
        if n % 2 == 0 {
            expected.insert(0, ids[1]);
        }
        storm.spawn(come_back(door, n, cursor, expected));
    }
    let writing = async {
        let mut written = Vec::new();
        for _ in 0..20 {
            written.push(publish(&backend, "all").await);
        }
        written
    };
    let (written, streams) = tokio::join!(writing, storm.join_all());
    // Replayed before `ready` or live after it, each came once.
    for (mut got, mut stream) in streams {
        got.extend(stream.ids(written.len() - got.len()).await);
        assert_eq!(got, written);
    }

    let from = |source: &str| format!("tidings_replays_total{{source=\"{source}\"}}");
    assert_eq!(gateway.metric(&from("window")).await, STREAMS as f64);
    assert_eq!(gateway.metric(&from("database")).await, 0.0);
    // Sessions of the pool stay once they are opened, and none was.
    let sessions: i64 = backend.query_one(POOL, &[]).await.expect("counts").get(0);
    assert_eq!(sessions, 0);
    assert_eq!(gateway.ops("/readyz").await.status, 200);
    assert_eq!(gateway.ops("/livez").await.status, 200);
    // The count above can tell: whoever comes from before the window does take one.
    drop(gateway);
    let gateway = Process::serve(&database, &[]);
    let zero = "1~3~0.00000000";
    let mut old = gateway.resume(&["t1"], Some(zero)).await;
    assert_eq!(old.ids(1).await, [own[1]]);
    until(&backend, &format!("select ({POOL}) > 0")).await;
}

/// Resumes and reads what was missed; returns what of `all` came along, and the stream.
async fn come_back(door: Door, n: usize, cursor: String, expected: Vec<i64>) -> (Vec<i64>, Stream) {
    let topic = format!("t{}", n % TOPICS);
    let mut stream = door.resume(&[&topic, "all"], Some(&cursor)).await;
    let (mut replayed, ready) = stream.replay().await;
    assert_eq!(ready["resumed"], true);
    let further = replayed.split_off(expected.len());
    assert_eq!(replayed, expected, "stream {n}");
    (further, stream)
}

#[tokio::test]
async fn who_comes_from_before_the_window_waits_for_a_turn_and_is_not_sent_away() {
    let database = database();
    let (backend, watcher) = tokio::join!(database.connect(), database.connect());
    let ids = publish_all(&backend, &["t", "t"]).await;
    run(&backend, SLOW_STATE).await;
    // One turn for all, and who can ask again is soon told to.
    let flags = [
        "--pool-size=2",
        "--pool-wait=50ms",
        "--statement-timeout=30s",
    ];
    let gateway = Process::serve(&database, &flags);
    let from_database = "tidings_replays_total{source=\"database\"}";
    let reader = token("reader", json!({"topics": ["*"]}));
    let sync = || gateway.visit("GET", "/v1/sync?topic=slow").bearer(&reader);
    run(&backend, "begin; lock table gate in access exclusive mode").await;
    let rest = async {
        until(
            &watcher,
            &format!("select ({POOL} and wait_event_type = 'Lock') = 1"),
        )
        .await;
        let mut streams = Vec::new();
        for _ in 0..3 {
            streams.push(gateway.resume(&["t"], Some("1~3~0.00000000")).await);
        }
        while gateway.metric(from_database).await < 3.0 {
            tokio::task::yield_now().await;
        }
        // All three wait; and somebody else is told to ask again, when that time is up.
        let other = token("other", json!({"topics": ["*"]}));
        let refused = gateway.visit("GET", "/v1/sync?topic=t").bearer(&other);
        assert_eq!(refused.send().await.status, 503);
        run(&backend, "commit").await;
        for mut stream in streams {
            let (replayed, ready) = stream.replay().await;
            assert_eq!(replayed, ids);
            assert_eq!(ready["resumed"], true);
        }
    };
    let (synced, ()) = tokio::join!(sync().send(), rest);
    assert_eq!(synced.status, 200);
    assert_eq!(gateway.metric(from_database).await, 3.0);
}
