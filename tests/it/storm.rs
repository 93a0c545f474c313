//! A reconnect storm: everyone is cut at once and comes back at once, and the database does not notice.

use tokio::task::JoinSet;

use crate::support::backend::{publish, publish_all, until};
use crate::support::client::Stream;
use crate::support::gateway::Door;
use crate::support::postgres::database;
use crate::support::process::Process;

const STREAMS: usize = 1_000;
const TOPICS: usize = 20;

const POOL: &str = "select count(*) from pg_stat_activity
    where datname = current_database() and application_name = 'tidings/pool'";

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
