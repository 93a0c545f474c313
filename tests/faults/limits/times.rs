//! Times: of a write, of a heartbeat, of a statement, of draining.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::stalled::Stalled;
use crate::room;
use crate::support::backend::run;
use crate::support::gateway::token;
use crate::support::postgres::database;
use crate::support::process::Process;

/// What a busy machine may take to notice that a time is over.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test]
async fn who_pauses_for_less_than_the_time_of_a_write_gets_everything() {
    let _room = room::beside_others().await;
    let database = database();
    let flags = ["--write-timeout=3s", "--stream-queue-bytes=64MiB"];
    let gateway = Process::serve(&database, &flags);
    let backend = database.connect().await;
    let mut reader = gateway.subscribe(&["t"]).await;
    let socket = TcpSocket::new_v4().expect("a socket");
    let size = 256 << 10;
    socket.set_recv_buffer_size(size).expect("a small buffer");
    let mut socket = socket.connect(gateway.address()).await.expect("connects");
    let bearer = token("pauses", json!({"topics": ["t"]}));
    let head = format!(
        "GET /v1/events?topic=t HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("writes");
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 20]);
    while !String::from_utf8_lossy(&bytes).contains("tidings.ready") {
        let count = socket.read(&mut buffer).await.expect("reads");
        assert!(count > 0, "it ended");
        bytes.extend_from_slice(&buffer[..count]);
    }
    run(
        &backend,
        "select tidings.publish('t', 'large', to_jsonb(repeat('x', 200000))) from generate_series(1, 50)",
    )
    .await;
    assert_eq!(reader.ids(50).await.len(), 50);
    let (mut pauses, mut events) = (0, 0);
    let name = b"\"large\",";
    while events < 50 {
        // A pause is the fault; four of them are more than one write may take.
        if pauses < 4 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            pauses += 1;
        }
        let until = bytes.len() + (2 << 20);
        while events < 50 && bytes.len() < until {
            let count = socket.read(&mut buffer).await.expect("it was not reset");
            assert!(count > 0, "it was ended after {pauses} pauses");
            let from = bytes.len().saturating_sub(name.len() - 1);
            bytes.extend_from_slice(&buffer[..count]);
            let new = bytes[from..].windows(name.len());
            events += new.filter(|window| window == name).count();
        }
    }
    assert_eq!(pauses, 4);
    assert_eq!(gateway.metric("tidings_streams_cut_total").await, 0.0);
}

#[tokio::test]
async fn beats_come_as_often_as_they_should() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--heartbeat=1s"]);
    let mut stream = gateway.subscribe(&["t"]).await;
    stream.wait_for("tidings.beat").await;
    let begun = Instant::now();
    for _ in 0..6 {
        stream.wait_for("tidings.beat").await;
    }
    let took = begun.elapsed();
    // 1 s ± 20 %, six times; what delays the first one shortens the rest.
    let least = Duration::from_millis(6 * 800 - 500);
    assert!(took > least, "{took:?}");
    assert!(took < Duration::from_millis(6 * 1200) + SLACK, "{took:?}");
}

#[tokio::test]
async fn a_sync_has_its_time_and_no_more() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--statement-timeout=2s"]);
    let backend = database.connect().await;
    for (name, seconds) in [("short", "0.5"), ("long", "30")] {
        let define = format!(
            "create function {name}(topic text, claims jsonb) returns jsonb language plpgsql
             as $$ begin perform pg_sleep({seconds}); return '1'; end $$;
             select tidings.define_state('{name}', '{name}(text, jsonb)')"
        );
        run(&backend, &define).await;
    }
    let bearer = token("alice", json!({"topics": ["*"]}));
    let ask = |topic: &str| {
        let visit = gateway.visit("GET", &format!("/v1/sync?topic={topic}"));
        visit.bearer(&bearer).send()
    };
    let short = ask("short").await;
    assert_eq!(
        (short.status, &short.json()["state"]["short"]),
        (200, &json!(1))
    );
    let begun = Instant::now();
    let long = ask("long").await;
    let took = begun.elapsed();
    assert_eq!(long.status, 503, "{}", long.body);
    assert!(long.header("retry-after").is_some());
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(2) + SLACK,
        "{took:?}"
    );
}

#[tokio::test]
async fn a_drain_does_not_wait_longer_than_its_time_for_who_does_not_read() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--drain=3s", "--write-timeout=1min"]);
    let backend = database.connect().await;
    let mut reader = gateway.subscribe(&["t"]).await;
    let bearer = token("stalled", json!({"topics": ["t"]}));
    let _stalled = Stalled::on(*gateway, "t", &bearer).await;
    let id = crate::support::backend::publish(&backend, "t").await;
    assert_eq!(reader.ids(1).await, [id]);
    let told = Instant::now();
    gateway.signal("TERM");
    // Who reads is told, and may leave.
    let bye = reader.wait_for("tidings.bye").await;
    assert_eq!(bye.json()["reason"], "drain");
    assert!(
        told.elapsed() < Duration::from_secs(3),
        "{:?}",
        told.elapsed()
    );
    let status = gateway.ended().await;
    let took = told.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(
        took > Duration::from_millis(2500),
        "it cut without waiting: {took:?}"
    );
    assert!(took < Duration::from_secs(3) + SLACK, "{took:?}");
}
