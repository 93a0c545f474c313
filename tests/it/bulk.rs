//! A bulk commit: as many events at once as anyone dares, and everyone who reads gets all of its own,
//! without a good-bye, from a gateway whose memory stays small.

use std::collections::HashMap;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::support::backend::run;
use crate::support::client::Stream;
use crate::support::gateway::Gateway;
use crate::support::postgres::database;
use crate::support::process::Process;
use crate::support::setting;

const TOPICS: usize = 50;
const STREAMS: usize = 200;

/// What the gateway may have resident at any time, in bytes.
const MEMORY: usize = 300 << 20;

/// Publishes so many events in one transaction, in turn to so many topics.
async fn publish_bulk(client: &Client, events: u64, topics: usize) {
    let publish = format!(
        "select count(tidings.publish('t' || n % {topics}, 'bulk', jsonb_build_object('n', n, 'text', repeat('x', 60))))
         from generate_series(1, {events}) n"
    );
    run(client, &publish).await;
}

/// The ids of each topic, in the order in which they were published.
async fn ids_by_topic(client: &Client) -> HashMap<String, Vec<i64>> {
    let rows = client
        .query("select topic, id from tidings.event order by id", &[])
        .await;
    let mut ids: HashMap<String, Vec<i64>> = HashMap::new();
    for row in rows.expect("the log") {
        ids.entry(row.get(0)).or_default().push(row.get(1));
    }
    ids
}

/// Reads so many events; anything but events and beats fails. Parses no more than it must.
async fn read(mut stream: Stream, count: usize) -> (Vec<i64>, Stream) {
    let mut ids = Vec::with_capacity(count);
    while ids.len() < count {
        let block = stream
            .text()
            .await
            .unwrap_or_else(|| panic!("ended after {}", ids.len()));
        let event = block
            .split_once("data: {\"id\":\"")
            .and_then(|(_, rest)| rest.split_once('"'));
        match event {
            Some((id, _)) => ids.push(id.parse().expect("an id")),
            None => assert!(
                block.contains("tidings.beat"),
                "after {}: {block}",
                ids.len()
            ),
        }
    }
    (ids, stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_commit_reaches_everyone_whole_and_memory_stays_small() {
    let events = setting("TIDINGS_TEST_BULK", 200_000);
    let database = database();
    let gateway = Process::serve(&database, &[]);
    let backend = database.connect().await;
    let mut streams = Vec::new();
    for n in 0..STREAMS {
        let topic = format!("t{}", n % TOPICS);
        streams.push((topic.clone(), gateway.subscribe(&[&topic]).await));
    }
    let idle = gateway.peak_bytes();

    // Writing it takes its time; what is tried here begins with the commit.
    run(&backend, "begin").await;
    publish_bulk(&backend, events, TOPICS).await;
    let each = events as usize / TOPICS;
    let mut readers = JoinSet::new();
    for (topic, stream) in streams {
        readers.spawn(async move { (topic, read(stream, each).await) });
    }
    run(&backend, "commit").await;
    let committed = Instant::now();
    let read = readers.join_all().await;
    let took = committed.elapsed();

    let expected = ids_by_topic(&backend).await;
    for (topic, (ids, _)) in &read {
        assert_eq!(ids, &expected[topic], "{topic}");
    }
    let peak = gateway.peak_bytes();
    eprintln!(
        "{events} events to {STREAMS} streams in {took:?}; {} MiB idle, {} MiB at most",
        idle >> 20,
        peak >> 20
    );
    assert!(peak < MEMORY, "{peak} bytes");
    for reason in ["slow", "overload", "unavailable", "diverged"] {
        let byes = format!("tidings_byes_total{{reason=\"{reason}\"}}");
        assert_eq!(gateway.metric(&byes).await, 0.0, "{reason}");
    }
    // The streams are as good as new.
    let last = crate::support::backend::publish(&backend, "t7").await;
    let (_, (_, mut stream)) = read
        .into_iter()
        .find(|(topic, _)| topic == "t7")
        .expect("one of t7");
    assert_eq!(stream.ids(1).await, [last]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_commit_in_one_topic_ends_nobody_who_reads_and_holds_up_nobody_who_arrives() {
    const EVENTS: u64 = 6_000;
    const READERS: usize = 120;
    let database = database();
    let gateway = Process::serve(&database, &[]);
    let backend = database.connect().await;
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        let stream = gateway.subscribe(&["t0"]).await;
        readers.spawn(read(stream, EVENTS as usize));
    }
    let cursor = crate::support::backend::cursor(&backend).await;
    publish_bulk(&backend, EVENTS, 1).await;
    // More than its queue holds goes to each of them, and the look has more than one page.
    let mut newcomer = gateway.subscribe(&["u"]).await;
    let mut returning = gateway.resume(&["u"], Some(&cursor)).await;
    returning.ready().await;
    let last = crate::support::backend::publish(&backend, "u").await;
    for stream in [&mut newcomer, &mut returning] {
        assert_eq!(stream.ids(1).await, [last]);
    }
    let expected = ids_by_topic(&backend).await.remove("t0").expect("events");
    for (ids, _) in readers.join_all().await {
        assert_eq!(ids, expected);
    }
    assert_eq!(
        gateway.metric("tidings_byes_total{reason=\"slow\"}").await,
        0.0
    );
}

#[tokio::test]
async fn a_look_of_several_pages_is_resumed_from_anywhere_in_it() {
    // A look has 5,000 events a page: these are three pages, of which each topic has a fourth.
    const EVENTS: u64 = 12_000;
    let database = database();
    let backend = database.connect().await;
    let plenty = "--replay=100000";
    let gateways = [
        Gateway::start_with(&database, &[plenty]).await,
        // Smaller than the look, but larger than its last page.
        Gateway::start_with(&database, &[plenty, "--window-bytes=1500KiB"]).await,
    ];
    let mut live = Vec::new();
    for gateway in &gateways {
        live.push(gateway.subscribe(&["t0"]).await);
    }
    publish_bulk(&backend, EVENTS, 4).await;
    let expected = ids_by_topic(&backend).await.remove("t0").expect("events");
    let mut cursors = Vec::new();
    for stream in &mut live {
        let mut place = 0;
        for cut in [1, 1_249, 1_250, 1_251, 2_000, 2_500, 2_999, 3_000] {
            let ids = stream.ids(cut - place).await;
            assert_eq!(ids, expected[place..cut]);
            place = cut;
            cursors.push((cut, stream.cursor().to_owned()));
        }
    }
    for (cut, cursor) in &cursors {
        for gateway in &gateways {
            let mut stream = gateway.resume(&["t0"], Some(cursor)).await;
            let (replayed, _) = stream.replay().await;
            assert_eq!(replayed, expected[*cut..], "cut after {cut}");
        }
    }
    let [large, small] = &gateways;
    let from = |source: &str| format!("tidings_replays_total{{source=\"{source}\"}}");
    assert_eq!(large.metric(&from("database")).await, 0.0);
    assert_eq!(
        small.metric(&from("window")).await,
        0.0,
        "half a look serves nobody"
    );
    assert!(small.metric("tidings_window_bytes").await <= 1_500.0 * 1024.0);
}
