//! One topic for everybody: a commit of thousands of small events reaches all who read, and ends nobody.

use futures::StreamExt;
use tokio::task::JoinSet;

use crate::raw::Raw;
use crate::room;
use crate::support::backend::run;
use crate::support::postgres::database;
use crate::support::process::Process;

const READERS: usize = 800;
/// How many connect at a time.
const AT_ONCE: usize = 50;
/// A megabyte, of which the queue of a stream holds a sixteenth.
const EVENTS: usize = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_of_thousands_to_one_topic_ends_nobody_who_reads() {
    let _room = room::heavy().await;
    let database = database();
    let flags = ["--streams=5000", "--stream-queue-bytes=64KiB"];
    let gateway = Process::serve(&database, &flags);
    let door = gateway.door();
    let opening = (0..READERS).map(|_| async move {
        let mut stream = Raw::open(door, "all", None).await;
        stream.until(0).await;
        stream
    });
    let mut opened = futures::stream::iter(opening).buffer_unordered(AT_ONCE);
    let mut reading = JoinSet::new();
    while let Some(mut stream) = opened.next().await {
        reading.spawn(async move {
            stream.until(EVENTS).await;
            stream.arrived
        });
    }
    let publish = format!(
        "select count(tidings.publish('all', 'bulk', jsonb_build_object('n', n))) from generate_series(1, {EVENTS}) n"
    );
    run(&database.connect().await, &publish).await;
    let read = reading.join_all().await;
    assert_eq!(read.len(), READERS);
    for arrived in read {
        assert_eq!((arrived.ids.len(), arrived.bye), (EVENTS, None));
        assert!(arrived.ids.is_sorted_by(|one, next| one < next));
    }
    let slow = gateway.metric("tidings_byes_total{reason=\"slow\"}").await;
    assert_eq!(slow, 0.0);
}
