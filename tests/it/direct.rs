//! The two sinks of a stream: the shard writes its socket, or hyper does. Which of them it is shows in a gauge, and
//! in nothing that a client sees.

use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::backend::{cursor, publish, publish_all, run};
use crate::support::client::PATIENCE;
use crate::support::gateway::{Door, Gateway, token};
use crate::support::postgres::database;

/// Who writes a stream.
const SINKS: [&str; 2] = ["--direct=on", "--direct=off"];

/// What a client may send after its request.
const INPUT_BYTES: usize = 64 << 10;

/// A client that sees every byte.
struct Raw {
    socket: TcpStream,
    bytes: Vec<u8>,
}

impl Raw {
    /// Sends bytes over a connection of their own.
    async fn send(door: Door, bytes: &str) -> Raw {
        let mut socket = TcpStream::connect(door.address()).await.expect("connects");
        socket.write_all(bytes.as_bytes()).await.expect("writes");
        let bytes = Vec::new();
        Raw { socket, bytes }
    }

    /// Opens a stream and waits until it is live.
    async fn open(door: Door, query: &str, token: &str) -> Raw {
        let mut raw = Raw::send(door, &request(query, "HTTP/1.1", token)).await;
        raw.read_until("event: tidings.ready\n").await;
        raw.read_until("\n\n").await;
        raw
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// Reads until this has come.
    async fn read_until(&mut self, what: &str) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while !self.text().contains(what) {
            let read = self.socket.read_buf(&mut self.bytes);
            let read = tokio::time::timeout_at(deadline, read).await;
            let read = read.unwrap_or_else(|_| panic!("no {what:?} in {:?}", self.text()));
            assert_ne!(read.expect("bytes"), 0, "no {what:?}: {:?}", self.text());
        }
    }

    /// Reads until this event has come whole.
    async fn read_event(&mut self, id: i64) {
        let begun = format!("data: {{\"id\":\"{id}\",");
        self.read_until(&begun).await;
        let whole = |text: &str| {
            let at = text.find(&begun).expect("it has come");
            text[at..].contains("\n\n")
        };
        while !whole(&self.text()) {
            let read = tokio::time::timeout(PATIENCE, self.socket.read_buf(&mut self.bytes));
            let count = read.await.expect("in time").expect("bytes");
            assert_ne!(count, 0, "it ends within an event");
        }
    }

    /// Reads to the end, which must come.
    async fn read_to_end(&mut self) -> io::Result<()> {
        let read = self.socket.read_to_end(&mut self.bytes);
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.expect("an end in time").map(|_| ())
    }

    /// The head, and the body without its chunks; whether that has its end too.
    fn answer(&self) -> (String, String, bool) {
        let text = String::from_utf8(self.bytes.clone()).expect("text");
        let (head, mut rest) = text.split_once("\r\n\r\n").expect("a head");
        let mut body = String::new();
        let mut ended = false;
        while !rest.is_empty() {
            assert!(!ended, "after the end: {rest:?}");
            let (size, after) = rest.split_once("\r\n").expect("a size");
            let size = usize::from_str_radix(size, 16).expect("a size");
            body += &after[..size];
            rest = after[size..].strip_prefix("\r\n").expect("its end");
            ended = size == 0;
        }
        (head.to_owned(), body, ended)
    }

    /// Closes the connection so that it is reset.
    fn reset(self) {
        let socket = socket2::SockRef::from(&self.socket);
        let set = socket.set_linger(Some(Duration::ZERO));
        set.expect("an option");
    }
}

/// The bytes of a request for a stream.
fn request(query: &str, version: &str, token: &str) -> String {
    format!("GET /v1/events?{query} {version}\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n")
}

fn reader() -> String {
    token("reader", json!({"topics": ["*"]}))
}

/// How many streams each sink has: the shard, and hyper.
async fn sinks(door: Door) -> (f64, f64) {
    let direct = door.metric("tidings_streams{kind=\"direct\"}").await;
    (direct, door.metric("tidings_streams{kind=\"hyper\"}").await)
}

async fn until_streams(door: Door, count: f64) {
    let deadline = Instant::now() + PATIENCE;
    while door.streams().await != count {
        assert!(Instant::now() < deadline, "never {count} streams");
    }
}

#[tokio::test]
async fn a_live_stream_over_http_1_1_is_written_by_its_shard_unless_that_is_off() {
    let database = database();
    let backend = database.connect().await;
    for (flag, expected) in SINKS.into_iter().zip([(1.0, 0.0), (0.0, 1.0)]) {
        let gateway = Gateway::start_with(&database, &[flag]).await;
        let mut alice = gateway.subscribe(&["t"]).await;
        let id = publish(&backend, "t").await;
        assert_eq!(alice.ids(1).await, [id]);
        assert_eq!(sinks(*gateway).await, expected, "{flag}");
        drop(alice);
        until_streams(*gateway, 0.0).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn streams_over_http_1_0_and_2_are_written_by_hyper() {
    let database = database();
    let backend = database.connect().await;
    let gateway = Gateway::start_with(&database, &["--direct=on"]).await;
    let mut old = Raw::send(*gateway, &request("topic=t", "HTTP/1.0", &reader())).await;
    old.read_until("event: tidings.ready\n").await;
    let id = publish(&backend, "t").await;
    old.read_event(id).await;
    assert!(!old.text().contains("chunked"), "{}", old.text());
    assert_eq!(sinks(*gateway).await, (0.0, 1.0));
    drop(old);
    until_streams(*gateway, 0.0).await;

    let socket = TcpStream::connect(gateway.address()).await;
    let socket = TokioIo::new(socket.expect("connects"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), socket)
            .await
            .expect("speaks HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("http://{}/v1/events?topic=t", gateway.address()))
        .header("authorization", format!("Bearer {}", reader()))
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let mut new = sender.send_request(request).await.expect("an answer");
    assert!(new.headers().get("connection").is_none());
    let mut read = String::new();
    let mut id = None;
    while id.is_none_or(|id: i64| !read.contains(&format!("\"id\":\"{id}\""))) {
        let frame = tokio::time::timeout(PATIENCE, new.body_mut().frame()).await;
        let frame = frame.expect("in time").expect("a stream that goes on");
        let bytes = frame.expect("no error").into_data().expect("data");
        read += std::str::from_utf8(&bytes).expect("text");
        if id.is_none() && read.contains("tidings.ready") {
            id = Some(publish(&backend, "t").await);
        }
    }
    assert_eq!(sinks(*gateway).await, (0.0, 1.0));
    drop((new, sender));
    driver.abort();
}

/// What a client sees of a stream that has ended well, without what is drawn for each or depends on the moment.
fn seen(raw: &Raw) -> (String, Vec<String>) {
    let (head, body, ended) = raw.answer();
    assert!(ended, "no end: {body:?}");
    let head: Vec<&str> = head
        .split("\r\n")
        .map(|line| match line.split_once(": ") {
            Some(("date", _)) => "date: …",
            _ => line,
        })
        .collect();
    // Each gateway has its own looks, of which positions tell.
    let lines = body.split('\n').map(|line| {
        let field = line.split_once(": ").map(|(field, _)| field);
        match field {
            Some(field @ ("id" | "retry")) => format!("{field}: …"),
            _ => line.to_owned(),
        }
    });
    (head.join("\n"), lines.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_stream_has_the_same_bytes_whoever_writes_it() {
    let database = database();
    let backend = database.connect().await;
    let since = cursor(&backend).await;
    publish_all(&backend, &["t", "u", "t"]).await;
    let (bearer, mut gateways, mut streams) = (reader(), Vec::new(), Vec::new());
    for flag in SINKS {
        let flags = [flag, "--heartbeat=1h", "--drain=2s"];
        let gateway = Gateway::start_with(&database, &flags).await;
        for named in ["0", "1"] {
            let query = format!("topic=t&since={since}&named={named}");
            streams.push(Raw::open(*gateway, &query, &bearer).await);
        }
        gateways.push(gateway);
    }
    publish(&backend, "t").await;
    let large = "select tidings.publish('t', 'large', to_jsonb(repeat('x', 200 * 1024)))";
    run(&backend, large).await;
    let last = publish_all(&backend, &["t", "t"]).await[1];
    for stream in &mut streams {
        stream.read_event(last).await;
    }
    let (off, on) = (gateways.pop().expect("two"), gateways.pop().expect("two"));
    assert_eq!(sinks(*on).await, (2.0, 0.0));
    assert_eq!(sinks(*off).await, (0.0, 2.0));
    tokio::join!(on.drain(), off.drain());
    for stream in &mut streams {
        stream.read_to_end().await.expect("an orderly end");
    }
    for (named, (direct, hyper)) in [(0, 2), (1, 3)].into_iter().enumerate() {
        let (head, lines) = seen(&streams[direct]);
        assert!(head.contains("\nconnection: close"), "{head}");
        assert!(head.contains("\ntransfer-encoding: chunked"), "{head}");
        assert_eq!(
            (&head, &lines),
            (&seen(&streams[hyper]).0, &seen(&streams[hyper]).1)
        );
        let count = |line: &str| lines.iter().filter(|other| *other == line).count();
        let events = lines
            .iter()
            .filter(|line| line.starts_with("data: {\"id\""));
        assert_eq!(events.count(), 6);
        assert_eq!(count("event: said"), 5 * named);
        assert_eq!(count("event: large"), named);
        assert!(lines.iter().any(|line| line.len() > 200 * 1024));
        assert_eq!(
            lines[lines.len() - 5..],
            ["data: {\"reason\":\"drain\"}", "retry: …", "id: …", "", ""]
        );
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_token_in_the_same_bytes_whoever_writes_it() {
    let database = database();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let exp = now.expect("after 1970") + Duration::from_secs(4);
    let short = token("alice", json!({"exp": exp.as_secs()}));
    let mut ends = Vec::new();
    for flag in SINKS {
        let gateway = Gateway::start_with(&database, &[flag, "--heartbeat=1h"]).await;
        ends.push((Raw::open(*gateway, "", &short).await, gateway));
    }
    for (stream, gateway) in &mut ends {
        stream.read_to_end().await.expect("an orderly end");
        until_streams(**gateway, 0.0).await;
    }
    let [direct, hyper] = [0, 1].map(|at| seen(&ends[at].0));
    assert_eq!(direct, hyper);
    let (_, lines) = direct;
    assert_eq!(
        lines[lines.len() - 5..],
        [
            "data: {\"reason\":\"expired\"}",
            "retry: …",
            "id: …",
            "",
            ""
        ]
    );
}

#[tokio::test]
async fn what_follows_a_request_does_not_harm_its_stream() {
    let database = database();
    let backend = database.connect().await;
    for flag in SINKS {
        let gateway = Gateway::start_with(&database, &[flag]).await;
        let one = request("topic=t", "HTTP/1.1", &reader());
        let other = request("topic=u", "HTTP/1.1", &reader());
        let mut stream = Raw::send(*gateway, &format!("{one}{other}")).await;
        stream.read_until("event: tidings.ready\n").await;
        let id = publish(&backend, "t").await;
        stream.read_event(id).await;
        // From here on it is written by whoever writes it to the end.
        let bytes = vec![b'x'; INPUT_BYTES];
        if flag == "--direct=on" {
            stream.socket.write_all(&bytes).await.expect("it is read");
        } else {
            stream
                .socket
                .write_all(&bytes[..1000])
                .await
                .expect("it is kept");
        }
        let id = publish_all(&backend, &["u", "t"]).await[1];
        stream.read_event(id).await;
        let text = stream.text();
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 1, "{text}");
        assert!(!text.contains("\"topic\":\"u\""), "{text}");
        assert_eq!(gateway.streams().await, 1.0);
        if flag == "--direct=on" {
            // And that is all that is borne.
            stream
                .socket
                .write_all(b"x")
                .await
                .expect("nobody has closed");
            let _ = stream.read_to_end().await;
            until_streams(*gateway, 0.0).await;
            assert!(!stream.text().contains("tidings.bye"), "{}", stream.text());
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_client_that_closes_its_half_ends_its_stream_whoever_writes_it() {
    let database = database();
    let backend = database.connect().await;
    for flag in SINKS {
        let gateway = Gateway::start_with(&database, &[flag, "--heartbeat=1h"]).await;
        let mut stream = Raw::open(*gateway, "topic=t", &reader()).await;
        let id = publish(&backend, "t").await;
        stream.read_event(id).await;
        stream.socket.shutdown().await.expect("it is open");
        stream.read_to_end().await.expect("no reset");
        let (_, body, ended) = stream.answer();
        assert!(!ended && body.ends_with("\n\n"), "{flag}: {body}");
        assert!(!body.contains("tidings.bye"), "{flag}: {body}");
        until_streams(*gateway, 0.0).await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn the_seat_of_a_client_that_is_gone_is_free_at_once() {
    let database = database();
    let backend = database.connect().await;
    for flag in SINKS {
        // Nothing else than its end could tell of it.
        let flags = [flag, "--heartbeat=1h", "--write-timeout=1h"];
        let gateway = Gateway::start_with(&database, &flags).await;
        let mut streams = Vec::new();
        for _ in 0..20 {
            streams.push(Raw::open(*gateway, "topic=t", &reader()).await);
        }
        let id = publish(&backend, "t").await;
        for stream in &mut streams {
            stream.read_event(id).await;
        }
        let mut refused = Raw::send(*gateway, &request("topic=t", "HTTP/1.1", &reader())).await;
        refused.read_until("\"reason\":\"overload\"").await;
        streams.pop().expect("twenty").reset();
        until_streams(*gateway, 19.0).await;
        let mut next = Raw::open(*gateway, "topic=t", &reader()).await;
        let id = publish(&backend, "t").await;
        next.read_event(id).await;
        gateway.stop().await;
    }
}
