//! As many events at once as anyone dares (`TIDINGS_TEST_BULK`), to fifty streams, and a gateway that is
//! killed while it delivers them: whoever it served comes back elsewhere, all is complete, in order
//! and once, and memory stays small.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::room;
use crate::support::backend::run;
use crate::support::client::{Block, Stream};
use crate::support::gateway::Door;
use crate::support::postgres::database;
use crate::support::process::Process;
use crate::support::setting;

const STREAMS: usize = 50;

/// What a gateway may have resident at any time, in bytes.
const MEMORY: usize = 300 << 20;

/// One client's history.
struct Read {
    topic: String,
    ids: Vec<i64>,
    /// How many it had when its stream broke, each time.
    broken_at: Vec<usize>,
    /// How often a gateway had too much to do, and asked it to come back.
    put_off: usize,
}

/// Reads so many events, coming back through the second door when the first is gone.
async fn read(
    topic: String,
    mut stream: Stream,
    count: usize,
    mut elsewhere: watch::Receiver<Option<Door>>,
    delivered: Arc<AtomicU64>,
) -> Read {
    let (mut ids, mut broken_at) = (Vec::with_capacity(count), Vec::new());
    let mut put_off = 0;
    while ids.len() < count {
        let block = stream.next().await;
        let overload = block.as_ref().is_some_and(is_overload);
        let Some(block) = block.filter(|_| !overload) else {
            if overload {
                put_off += 1;
                // It asks for a minute; the test is shorter.
                sleep(Duration::from_millis(fastrand::u64(100..400))).await;
            } else {
                broken_at.push(ids.len());
            }
            let door = elsewhere.wait_for(Option::is_some).await;
            let door = door.expect("it is told").expect("it is there");
            let cursor = stream.cursor().to_owned();
            stream = door.resume(&[&topic], Some(&cursor)).await;
            continue;
        };
        match block.event_id() {
            Some(id) => {
                ids.push(id);
                delivered.fetch_add(1, Ordering::Relaxed);
            }
            None => assert!(
                block.is("tidings.beat") || block.is("tidings.ready"),
                "after {}: {block:?}",
                ids.len()
            ),
        }
    }
    Read {
        topic,
        ids,
        broken_at,
        put_off,
    }
}

/// Whether a gateway says that it has too much to do: replays of the log wait in a bounded queue.
fn is_overload(block: &Block) -> bool {
    block.is("tidings.bye") && block.json()["reason"] == "overload"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_within_a_bulk_commit_loses_nobody_an_event() {
    let _room = room::half_heavy().await;
    let events = setting("TIDINGS_TEST_BULK", 200_000);
    let each = events as usize / STREAMS;
    let database = database();
    let flags = ["--replay=1000000"];
    let (doomed, other) = (
        Process::serve(&database, &flags),
        Process::serve(&database, &flags),
    );
    let backend = database.connect().await;
    let (tell, elsewhere) = watch::channel(None);
    let delivered = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let topic = format!("t{n}");
        let gateway = if n % 2 == 0 { &doomed } else { &other };
        streams.push((topic.clone(), gateway.subscribe(&[&topic]).await));
    }
    run(&backend, "begin").await;
    let publish = format!(
        "select count(tidings.publish('t' || n % {STREAMS}, 'bulk', jsonb_build_object('n', n)))
         from generate_series(1, {events}) n"
    );
    run(&backend, &publish).await;
    let mut readers = JoinSet::new();
    for (topic, stream) in streams {
        let (elsewhere, delivered) = (elsewhere.clone(), delivered.clone());
        readers.spawn(read(topic, stream, each, elsewhere, delivered));
    }
    run(&backend, "commit").await;
    let committed = Instant::now();
    while delivered.load(Ordering::Relaxed) < events / 4 {
        sleep(Duration::from_millis(1)).await;
    }
    let peak_of_doomed = doomed.peak_bytes();
    drop(doomed);
    let successor = Process::serve(&database, &flags);
    tell.send_replace(Some(successor.door()));
    let read = readers.join_all().await;
    let took = committed.elapsed();

    let rows = backend
        .query("select topic, id from tidings.event order by id", &[])
        .await;
    let mut expected: HashMap<String, Vec<i64>> = HashMap::new();
    for row in rows.expect("the log") {
        expected.entry(row.get(0)).or_default().push(row.get(1));
    }
    for Read { topic, ids, .. } in &read {
        assert!(ids == &expected[topic], "{topic}: not what was committed");
    }
    let broken = read.iter().flat_map(|read| &read.broken_at);
    let within = broken.filter(|at| (1..each).contains(*at)).count();
    let put_off: usize = read.iter().map(|read| read.put_off).sum();
    let peaks = [peak_of_doomed, other.peak_bytes(), successor.peak_bytes()];
    println!(
        "held: a bulk commit and a killed gateway: {events} events; {within} streams came back in the middle; \
         {put_off} were put off; {} ms to the slowest; {} MiB at most",
        took.as_millis(),
        peaks.iter().max().expect("three") >> 20
    );
    assert!(
        within > STREAMS / 4,
        "only {within} streams were in the middle"
    );
    assert!(peaks.iter().all(|peak| *peak < MEMORY), "{peaks:?} bytes");
}
