//! Going away: first not ready, then every stream told, spread over time, with a cursor that resumes at
//! another gateway; then the process ends by itself.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::support::backend::{publish, publish_all};
use crate::support::client::{Block, PATIENCE, Stream};
use crate::support::gateway::{Door, Gateway};
use crate::support::postgres::database;
use crate::support::process::Process;

const STREAMS: usize = 40;

/// Reads up to the good-bye and the end after it; returns the ids before it, the good-bye, and when it
/// came.
async fn until_bye(mut stream: Stream) -> (Vec<i64>, String, Block, Instant) {
    let mut ids = Vec::new();
    loop {
        let held = stream.cursor().to_owned();
        let block = stream.next().await.expect("a good-bye before the end");
        if let Some(id) = block.event_id() {
            ids.push(id);
        } else if block.is("tidings.bye") {
            let at = Instant::now();
            assert!(
                stream.next().await.is_none(),
                "nothing comes after a good-bye"
            );
            return (ids, held, block, at);
        }
    }
}

async fn until_unready(door: Door) {
    let deadline = Instant::now() + PATIENCE;
    while door.ops("/readyz").await.status != 503 {
        assert!(Instant::now() < deadline, "still ready");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_told_to_end_tells_everyone_and_they_resume_at_another() {
    let database = database();
    let leaving = Process::serve(&database, &["--drain=6s"]);
    let staying = Gateway::start(&database).await;
    let backend = database.connect().await;
    let mut readers = JoinSet::new();
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(leaving.subscribe(&["t"]).await);
    }
    let mut published = publish_all(&backend, &["t", "t"]).await;
    for mut stream in streams {
        assert_eq!(stream.ids(1).await, published[..1]);
        readers.spawn(until_bye(stream));
    }

    let door = *leaving;
    let told = Instant::now();
    leaving.signal("TERM");
    until_unready(door).await;
    assert_eq!(door.ops("/livez").await.status, 200);
    let mut ended = Vec::new();
    while let Some(reader) = readers.join_next().await {
        // Meanwhile life goes on, and nobody loses what is said while the others leave.
        published.push(publish(&backend, "t").await);
        ended.push(reader.expect("a good-bye"));
    }
    let all_gone = told.elapsed();
    let status = leaving.ended().await;
    assert_eq!(status.code(), Some(0));
    assert!(
        told.elapsed() < Duration::from_secs(8),
        "{:?}",
        told.elapsed()
    );

    let mut moments = Vec::new();
    for (got, held, bye, at) in ended {
        assert_eq!(bye.json()["reason"], "drain");
        assert!(
            bye.retry.is_some_and(|retry| (500..3_000).contains(&retry)),
            "{bye:?}"
        );
        // It names the cursor that the client holds.
        assert_eq!(bye.id.as_deref(), Some(&*held));
        moments.push(at - told);
        let mut stream = staying.resume(&["t"], Some(&held)).await;
        let rest = stream.ids(published.len() - 1 - got.len()).await;
        assert_eq!([got, rest].concat(), published[1..]);
    }
    // Spread over half of the drain time; that all forty fall into a third of that does not happen.
    let spread = *moments.iter().max().expect("some") - *moments.iter().min().expect("some");
    assert!(
        spread > Duration::from_secs(1),
        "{spread:?} of {all_gone:?}"
    );
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let database = database();
    let gateway = Process::serve(&database, &["--drain=10min"]);
    let _stream = gateway.subscribe(&["t"]).await;
    let begun = Instant::now();
    gateway.signal("TERM");
    until_unready(*gateway).await;
    gateway.signal("TERM");
    gateway.ended().await;
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}
