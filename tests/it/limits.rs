//! Limits: what lies beyond each of them, and that those within do not feel it.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_postgres::Client;

use crate::support::backend::{cursor, publish};
use crate::support::client::{PATIENCE, Stream, Visit};
use crate::support::gateway::{Door, Gateway, token};
use crate::support::postgres::database;

/// A stream that is refused for now: a browser is told to wait for minutes, and comes back.
async fn is_refused(visit: Visit) {
    let mut stream = visit.stream().await;
    let block = stream.next().await.expect("a good-bye");
    assert!(block.is("tidings.bye"), "{block:?}");
    assert_eq!(block.json()["reason"], "overload");
    assert!(
        block
            .retry
            .is_some_and(|retry| (60_000..120_000).contains(&retry)),
        "{block:?}"
    );
    assert!(stream.next().await.is_none());
}

async fn is_taken(visit: Visit) -> Stream {
    let mut stream = visit.stream().await;
    stream.ready().await;
    stream
}

async fn until_streams(door: Door, count: f64) {
    let deadline = Instant::now() + PATIENCE;
    while door.streams().await != count {
        assert!(Instant::now() < deadline, "never {count} streams");
    }
}

fn in_seconds(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    (now.expect("after 1970") + Duration::from_secs(seconds)).as_secs()
}

#[tokio::test]
async fn a_user_has_twenty_streams_and_a_newcomer_does_not_cut_them() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let alice = || {
        gateway
            .visit("GET", "/v1/events")
            .bearer(&token("alice", json!({})))
    };
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(is_taken(alice()).await);
    }
    is_refused(alice()).await;
    // Another user is not concerned, nor the same name of another tenant.
    let bob = gateway
        .visit("GET", "/v1/events")
        .bearer(&token("bob", json!({})));
    let _bob = is_taken(bob).await;
    let tenant = token("alice", json!({"tenant": "acme"}));
    let _tenant = is_taken(gateway.visit("GET", "/v1/events").bearer(&tenant)).await;

    let id = publish(&backend, "user:alice").await;
    for stream in &mut streams {
        assert_eq!(stream.ids(1).await, [id]);
    }
    streams.truncate(19);
    until_streams(*gateway, 21.0).await;
    let _again = is_taken(alice()).await;
    assert_eq!(
        gateway
            .metric("tidings_byes_total{reason=\"overload\"}")
            .await,
        1.0
    );
}

#[tokio::test]
async fn anonymous_streams_count_by_address_and_users_do_not() {
    let database = database();
    let flags = [
        "--anonymous-per-address=2",
        "--public-topics=public:*",
        "--trusted-proxies=127.0.0.0/8",
    ];
    let gateway = Gateway::start_with(&database, &flags).await;
    let from = |address: &str| {
        let visit = gateway.visit("GET", "/v1/events?topic=public:news");
        visit.header("x-forwarded-for", address)
    };
    let mut open = Vec::new();
    // What a client says of itself stands further left, and is not believed.
    for address in ["192.0.2.1", "198.51.100.7, 192.0.2.1", "192.0.2.2"] {
        open.push(is_taken(from(address)).await);
    }
    is_refused(from("192.0.2.1")).await;
    is_refused(from("203.0.113.9, 192.0.2.1")).await;
    // One household has a /64 of addresses.
    for address in ["2001:db8::1", "2001:db8::2"] {
        open.push(is_taken(from(address)).await);
    }
    is_refused(from("2001:db8::3")).await;
    open.push(is_taken(from("2001:db8:0:1::1")).await);
    for n in 0..3 {
        let user = token(&format!("user-{n}"), json!({}));
        open.push(is_taken(from("192.0.2.1").bearer(&user)).await);
    }
    assert_eq!(open.len(), 9);
    let other = gateway
        .visit("GET", "/v1/events?topic=private")
        .send()
        .await;
    assert_eq!(other.status, 403);
}

#[tokio::test]
async fn beyond_the_streams_of_the_gateway_nobody_is_taken() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--streams=3"]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(gateway.subscribe(&["t"]).await);
    }
    is_refused(
        gateway
            .visit("GET", "/v1/events")
            .bearer(&token("late", json!({}))),
    )
    .await;
    let id = publish(&database.connect().await, "t").await;
    for stream in &mut open {
        assert_eq!(stream.ids(1).await, [id]);
    }
}

#[tokio::test]
async fn a_stream_has_fifty_topics_at_most() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let topics: Vec<String> = (0..51).map(|n| format!("t{n}")).collect();
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let reader = token("alice", json!({"topics": ["*"]}));
    let refused = gateway.events(&topics).bearer(&reader).send().await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.header("content-type"),
        Some("application/problem+json")
    );
    assert!(refused.json()["type"].is_string(), "{}", refused.body);
    // One that is named twice counts once.
    let mut fifty = topics[..50].to_vec();
    fifty.push(topics[0]);
    let mut stream = gateway.events(&fifty).bearer(&reader).stream().await;
    let ready = stream.ready().await;
    assert_eq!(ready["topics"].as_array().map(Vec::len), Some(50));
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_goes_on_with_the_next() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let visit = || gateway.visit("GET", "/v1/events");
    let exp = in_seconds(3);
    let short = token("alice", json!({"exp": exp}));
    let mut stream = visit().bearer(&short).stream().await;
    let ready = stream.ready().await;
    assert!(ready["expires_at"].is_string(), "{ready}");
    let first = publish(&backend, "user:alice").await;
    assert_eq!(stream.ids(1).await, [first]);
    let held = stream.cursor().to_owned();

    let bye = stream.wait_for("tidings.bye").await;
    assert_eq!(bye.json()["reason"], "expired");
    assert_eq!(bye.id.as_deref(), Some(&*held));
    assert!(bye.retry.is_some_and(|retry| retry <= 3_000), "{bye:?}");
    assert!(in_seconds(0) >= exp, "it ended before its time");
    assert!(stream.next().await.is_none());

    let missed = publish(&backend, "user:alice").await;
    let fresh = token("alice", json!({}));
    let mut stream = visit()
        .bearer(&fresh)
        .header("last-event-id", &held)
        .stream()
        .await;
    assert_eq!(stream.replay().await.0, [missed]);
    // A token that is over, but within the leeway for clocks, is told so rather than refused.
    let over = token("alice", json!({"exp": in_seconds(0) - 2}));
    let mut stream = visit().bearer(&over).stream().await;
    assert_eq!(
        stream.wait_for("tidings.bye").await.json()["reason"],
        "expired"
    );
    let long_over = token("alice", json!({"exp": in_seconds(0) - 40}));
    assert_eq!(visit().bearer(&long_over).send().await.status, 401);
}

#[tokio::test]
async fn a_stream_that_has_reached_its_age_is_asked_to_come_back() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--stream-age=10s"]).await;
    let begun = Instant::now();
    let mut stream = gateway.subscribe(&["t"]).await;
    let bye = stream.wait_for("tidings.bye").await;
    assert_eq!(bye.json()["reason"], "drain");
    let age = begun.elapsed();
    assert!(age > Duration::from_secs(8), "{age:?}");
    let cursor = stream.cursor().to_owned();
    let id = publish(&database.connect().await, "t").await;
    let mut stream = gateway.resume(&["t"], Some(&cursor)).await;
    assert_eq!(stream.replay().await.0, [id]);
}

#[tokio::test]
async fn beats_keep_the_cursor_fresh() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--heartbeat=300ms"]).await;
    let backend = database.connect().await;
    let mut stream = gateway.subscribe(&["quiet"]).await;
    let mut other = gateway.subscribe(&["busy"]).await;
    let first = stream.wait_for("tidings.beat").await;
    assert_eq!(first.data.as_deref(), Some("{}"));
    let before = first.id.expect("a beat has a cursor");
    let id = publish(&backend, "busy").await;
    assert_eq!(other.ids(1).await, [id]);
    // One beat may have been on its way; the next one knows of the event.
    stream.wait_for("tidings.beat").await;
    let after = stream.wait_for("tidings.beat").await.id.expect("a cursor");
    assert!(
        !before.contains(&format!("~{id}.")) && after.contains(&format!("~{id}.")),
        "{before}, {after}"
    );
    let (replayed, ready) = gateway
        .resume(&["quiet", "busy"], Some(&after))
        .await
        .replay()
        .await;
    assert!(
        replayed.is_empty() && ready["resumed"] == true,
        "{replayed:?}, {ready}"
    );
    let (replayed, _) = gateway
        .resume(&["quiet", "busy"], Some(&before))
        .await
        .replay()
        .await;
    assert_eq!(replayed, [id]);
}

/// Publishes so many events of 100 KB.
async fn publish_large(client: &Client, topic: &str, count: i32) -> Vec<i64> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let row = client
            .query_one(
                "select tidings.publish($1, 'large', to_jsonb(repeat('x', 100000)))",
                &[&topic],
            )
            .await;
        ids.push(row.expect("publishes").get(0));
    }
    ids
}

/// Asks for a stream over a connection with tiny buffers, and reads nothing of it.
async fn ask_and_stall(address: SocketAddr, head: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(address).await.expect("connects");
    socket.write_all(head.as_bytes()).await.expect("writes");
    socket
}

/// The ids of whole events in what arrived over HTTP/1.1, and the last cursor.
fn read_bytes(bytes: &[u8]) -> (Vec<i64>, Option<String>) {
    let text = String::from_utf8_lossy(bytes);
    let (_, body) = text.split_once("\r\n\r\n").expect("a head");
    // Sizes of chunks stand on lines of their own, and an event ends with its empty line.
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else {
            break;
        };
        let Some(chunk) = after.get(..size) else {
            text += after;
            break;
        };
        text += chunk;
        rest = after.get(size + 2..).unwrap_or_default();
    }
    let (mut ids, mut cursor) = (Vec::new(), None);
    let whole = text.rfind("\n\n").map_or(0, |end| end + 2);
    for line in text[..whole].lines() {
        if let Some(id) = line.strip_prefix("id: ") {
            cursor = Some(id.to_owned());
        } else if let Some(rest) = line.strip_prefix("data: {\"id\":\"") {
            let (id, _) = rest.split_once('"').expect("an id ends");
            ids.push(id.parse().expect("an id"));
        }
    }
    (ids, cursor)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_read_is_ended_costs_nobody_and_resumes_completely() {
    let database = database();
    let gateway =
        Gateway::start_with(&database, &["--write-timeout=1s", "--window-bytes=1MiB"]).await;
    let backend = database.connect().await;
    let start = cursor(&backend).await;
    let mut reader = gateway.subscribe(&["t"]).await;
    let mut other = gateway.subscribe(&["u"]).await;
    let mut stalled = Vec::new();
    for n in 0..3 {
        let head = format!(
            "GET /v1/events?topic=t HTTP/1.1\r\nhost: x\r\nlast-event-id: {start}\r\nauthorization: Bearer {}\r\n\r\n",
            token(&format!("stalled-{n}"), json!({"topics": ["*"]}))
        );
        stalled.push(ask_and_stall(gateway.address(), &head).await);
    }
    until_streams(*gateway, 5.0).await;

    let (ids, read) = tokio::join!(publish_large(&backend, "t", 150), reader.ids(150));
    assert_eq!(read, ids);
    until_streams(*gateway, 2.0).await;
    let begun = Instant::now();
    let id = publish(&backend, "u").await;
    assert_eq!(other.ids(1).await, [id]);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // Where commits take long, the time of a write is over before a queue is full.
    let slow = gateway.metric("tidings_byes_total{reason=\"slow\"}").await;
    let cut = gateway.metric("tidings_streams_cut_total").await;
    assert!(slow + cut >= 3.0, "{slow} ended as slow, {cut} cut");
    // Nothing waits for anybody.
    let queued = gateway.metric("tidings_queued_bytes").await;
    assert_eq!(queued, 0.0);

    // At a gateway that has time for a reader who is slow for want of a processor.
    let gateway = Gateway::start(&database).await;
    for mut socket in stalled {
        let mut bytes = Vec::new();
        // The gateway may have reset the connection, which ends it as well.
        let _ = socket.read_to_end(&mut bytes).await;
        let (got, held) = read_bytes(&bytes);
        let held = held.unwrap_or_else(|| start.clone());
        assert!(got.len() < 150, "the socket took it all");
        let mut stream = gateway.resume(&["t"], Some(&held)).await;
        let (rest, _) = stream.replay().await;
        assert_eq!([got, rest].concat(), ids);
    }
}

#[tokio::test]
async fn who_grants_no_window_over_http_2_is_ended_before_it_has_read_a_byte() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--write-timeout=200ms"]).await;
    let socket = TcpStream::connect(gateway.address())
        .await
        .expect("connects");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(0)
        .handshake(TokioIo::new(socket))
        .await
        .expect("speaks HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/v1/events", gateway.address()))
        .header(
            "authorization",
            format!("Bearer {}", token("alice", json!({}))),
        )
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let stalled = sender.send_request(request).await.expect("an answer");
    assert_eq!(stalled.status(), 200);
    until_streams(*gateway, 0.0).await;
    assert_eq!(gateway.metric("tidings_streams_cut_total").await, 1.0);
    drop((stalled, sender));
    driver.abort();
}

#[tokio::test]
async fn who_does_not_read_over_http_2_is_ended_too() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--write-timeout=1s"]).await;
    let backend = database.connect().await;
    let socket = TcpStream::connect(gateway.address())
        .await
        .expect("connects");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(65_535)
        .handshake(TokioIo::new(socket))
        .await
        .expect("speaks HTTP/2");
    let driver = tokio::spawn(connection);
    let bearer = format!("Bearer {}", token("alice", json!({"topics": ["u"]})));
    let ask = |target: &str| {
        let request = Request::get(format!("http://{}{target}", gateway.address()));
        let request = request.header("authorization", &bearer);
        request.body(Empty::<Bytes>::new()).expect("a request")
    };
    let stalled = sender.send_request(ask("/v1/events")).await;
    let reading = sender.send_request(ask("/v1/events?topic=u")).await;
    let mut reading = reading.expect("an answer").into_body();
    // The connection answers pings, and the stream is granted nothing: it alone can be ended.
    publish_large(&backend, "user:alice", 30).await;
    until_streams(*gateway, 1.0).await;
    assert_eq!(gateway.metric("tidings_queued_bytes").await, 0.0);
    let id = publish(&backend, "u").await;
    let mut read = String::new();
    while !read.contains(&format!("\"id\":\"{id}\"")) {
        let frame = tokio::time::timeout(PATIENCE, reading.frame()).await;
        let frame = frame.expect("in time").expect("a stream that goes on");
        let bytes = frame.expect("no error").into_data().expect("data");
        read += std::str::from_utf8(&bytes).expect("UTF-8");
    }
    drop((stalled.expect("an answer"), reading, sender));
    driver.abort();
}
