//! What waits: for one stream, for all of them, in the window; and how many streams one connection has.

use std::time::Duration;

use serde_json::json;
use tokio_postgres::Client;

use super::stalled::Stalled;
use crate::abuse::frames::{HEADERS, REFUSED_STREAM, SETTINGS};
use crate::room;
use crate::support::client::Stream;
use crate::support::gateway::token;
use crate::support::postgres::database;
use crate::support::process::Process;

const KIB: usize = 1 << 10;

/// How long a shard may take for a frame.
const PATIENCE: Duration = Duration::from_secs(15);
const SLOW: &str = "tidings_byes_total{reason=\"slow\"}";

/// Publishes one event with so many bytes in it, and returns its size as it was sent to somebody who reads.
async fn sent(client: &Client, reader: &mut Stream, topic: &str, bytes: i32) -> usize {
    let publish = "select tidings.publish($1, 'large', to_jsonb(repeat('x', $2)))";
    let done = client.query_one(publish, &[&topic, &bytes]).await;
    done.expect("publishes");
    loop {
        let block = reader.text().await.expect("a stream that goes on");
        if block.contains("\"large\"") {
            return block.len();
        }
    }
}

/// Waits until a metric has come to a value.
async fn reaches(gateway: &Process, metric: &str, value: f64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let now = gateway.metric(metric).await;
        if now >= value {
            return;
        }
        let waits = tokio::time::Instant::now() < deadline;
        assert!(waits, "{metric} is {now} and not {value}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_stream_has_its_queue_to_the_byte_behind_the_frame_that_is_being_sent() {
    let _room = room::beside_others().await;
    let database = database();
    let flags = ["--stream-queue-bytes=64KiB", "--write-timeout=1min"];
    let gateway = Process::serve(&database, &flags);
    let backend = database.connect().await;
    let bearer = token("stalled", json!({"topics": ["t"]}));
    // Whoever is sent the type beside the data is sent all that a frame holds.
    let reader = gateway.visit("GET", "/v1/events?topic=t&named=1");
    let mut reader = reader.bearer(&bearer).stream().await;
    reader.ready().await;
    let mut stalled = Stalled::on(*gateway, "t", &bearer).await;
    // An empty queue takes any frame, and this is then the one that is being sent.
    let first = sent(&backend, &mut reader, "t", 250_000).await;
    assert!(first > 64 * KIB);
    let (mut waiting, mut events) = (0, 0);
    loop {
        waiting += sent(&backend, &mut reader, "t", 900).await;
        if waiting > 64 * KIB {
            break;
        }
        events += 1;
        // Both have it, whichever shard each is with.
        reaches(
            &gateway,
            "tidings_frames_out_total",
            2.0 * f64::from(1 + events),
        )
        .await;
        assert_eq!(gateway.metric(SLOW).await, 0.0, "ended at {waiting} bytes");
    }
    assert!(events > 40, "{events}");
    println!("{waiting} bytes are too much");
    reaches(&gateway, SLOW, 1.0).await;
    stalled.grant().await;
    let text = stalled.until(|text| text.contains("tidings.bye")).await;
    assert!(text.contains("\"slow\""), "it was told why");
    assert_eq!(
        text.matches("\"large\"").count(),
        1,
        "the frame that was being sent is whole"
    );
    println!("{events} events waited, and the one that made it {waiting} bytes was too much");
}

#[tokio::test]
async fn all_queues_together_have_a_bound_and_the_one_furthest_behind_ends() {
    let _room = room::beside_others().await;
    let database = database();
    let flags = [
        "--stream-queue-bytes=1MiB",
        "--queue-bytes=1MiB",
        "--write-timeout=1min",
    ];
    let gateway = Process::serve(&database, &flags);
    let backend = database.connect().await;
    let mut reader = gateway.subscribe(&["a", "b"]).await;
    let bearer = token("stalled", json!({"topics": ["*"]}));
    let mut behind = Stalled::on(*gateway, "a", &bearer).await;
    let mut other = Stalled::on(*gateway, "b", &bearer).await;
    for topic in ["a", "b"] {
        sent(&backend, &mut reader, topic, 100_000).await;
    }
    for _ in 0..6 {
        sent(&backend, &mut reader, "a", 100_000).await;
    }
    let mut events = 1;
    loop {
        let before = gateway.metric("tidings_queued_bytes").await;
        let size = sent(&backend, &mut reader, "b", 100_000).await;
        events += 1;
        // The cursor beside a frame is charged as well; near the bound nothing is claimed.
        let after = before as usize + size;
        if after + KIB < 1024 * KIB {
            assert_eq!(gateway.metric(SLOW).await, 0.0, "ended at {after} bytes");
        }
        if after > 1024 * KIB {
            break;
        }
        assert!(events < 20, "it is never too much");
    }
    // Its shard need not be the reader's.
    reaches(&gateway, SLOW, 1.0).await;
    assert_eq!(gateway.metric(SLOW).await, 1.0);
    assert!(gateway.metric("tidings_queued_bytes").await <= (1024 * KIB) as f64);
    behind.grant().await;
    behind.until(|text| text.contains("\"slow\"")).await;
    // The other one has lost nothing.
    other.grant().await;
    other
        .until(|text| text.matches("\"large\"").count() == events)
        .await;
    println!("{events} events for the one that stayed");
}

#[tokio::test]
async fn a_connection_has_as_many_streams_as_it_may_and_the_next_is_refused() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--h2-streams=3"]);
    let bearer = token("alice", json!({"topics": ["*"]}));
    drop(gateway.subscribe(&["t"]).await);
    let mut client = Stalled::connect(*gateway).await;
    for stream in [1, 3, 5] {
        client.ask(stream, "t", &bearer).await;
    }
    while client.of_kind(HEADERS).count() < 3 {
        client.read().await;
    }
    client.ask(7, "t", &bearer).await;
    assert_eq!(client.until_reset(7).await, REFUSED_STREAM);
    assert_eq!(client.of_kind(HEADERS).count(), 3);
    let settings = client.of_kind(SETTINGS).next().expect("its settings");
    let mut pairs = settings.payload.chunks(6);
    assert!(pairs.any(|pair| pair == [0, 3, 0, 0, 0, 3]), "{settings:?}");
    // Those that were there go on, and another connection has as many again.
    client.until(|text| text.contains("tidings.ready")).await;
    let id = crate::support::backend::publish(&database.connect().await, "t").await;
    client
        .until(|text| text.contains(&format!("\"id\":\"{id}\"")))
        .await;
    let _other = Stalled::on(*gateway, "t", &bearer).await;
}

#[tokio::test]
async fn what_the_window_holds_is_replayed_from_it_and_what_it_does_not_from_the_database() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--window-bytes=64KiB"]);
    let backend = database.connect().await;
    let mut reader = gateway.subscribe(&["t"]).await;
    let far = reader.cursor().to_owned();
    for _ in 0..20 {
        sent(&backend, &mut reader, "t", 10_000).await;
    }
    let near = crate::support::backend::cursor(&backend).await;
    for _ in 0..3 {
        sent(&backend, &mut reader, "t", 10_000).await;
    }
    let count = async |source: &str| {
        let name = format!("tidings_replays_total{{source=\"{source}\"}}");
        gateway.metric(&name).await
    };
    let before = (count("window").await, count("database").await);
    let (ids, _) = gateway.resume(&["t"], Some(&near)).await.replay().await;
    assert_eq!(ids.len(), 3);
    assert_eq!(
        (count("window").await, count("database").await),
        (before.0 + 1.0, before.1)
    );
    let (ids, _) = gateway.resume(&["t"], Some(&far)).await.replay().await;
    assert_eq!(ids.len(), 23);
    assert_eq!(
        (count("window").await, count("database").await),
        (before.0 + 1.0, before.1 + 1.0)
    );
    assert!(gateway.metric("tidings_window_bytes").await <= (64 * KIB) as f64);
}
