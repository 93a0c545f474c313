//! HTTP/2 that is wrong: frames drawn by the thousand, and floods of what costs the sender little. The
//! connection ends or the stream is refused, memory stays small, and others are served.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::frames::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE,
    PRIORITY, PUSH, RESET, SETTINGS, WINDOW,
};
use super::garbage::Draw;
use super::http1::{is_well, secrets, victim};
use super::wire::{Input, converse};
use crate::room;
use crate::support::client::PATIENCE;
use crate::support::gateway::token;
use crate::support::postgres::database;
use crate::support::setting;

const FLAGS: [&str; 4] = [
    "--head-timeout=300ms",
    "--write-timeout=1s",
    "--pool-size=32",
    "--pool-wait=10s",
];

/// A header block, right or wrong.
fn block(draw: &mut Draw) -> Vec<u8> {
    let kind = draw.rng.u8(..8);
    block_of(draw, kind)
}

/// A header block of one kind; the first two may be none at all, which ends a connection.
fn block_of(draw: &mut Draw, kind: u8) -> Vec<u8> {
    let bearer = format!("Bearer {}", draw.bearer);
    match kind {
        0 => draw.bytes(200),
        1 => {
            let right = frames::request("GET", "/v1/sync", &[("authorization", &bearer)]);
            draw.spoil(&right)
        }
        // Names and values that HTTP/2 forbids.
        2 => {
            let odd: [(&[u8], &[u8]); 8] = [
                (b"Upper", b"x"),
                (b"connection", b"close"),
                (b"transfer-encoding", b"chunked"),
                (b"te", b"gzip"),
                (b":path", b"/v1/events"),
                (b":status", b"200"),
                (b"x", b"a\r\nb\0"),
                (b"", b""),
            ];
            let odd = odd[draw.rng.usize(..odd.len())];
            let right = frames::request("GET", "/v1/sync", &[]);
            [right, frames::block(&[odd])].concat()
        }
        3 => frames::block(&[(b":method", b"GET")]),
        4 => frames::request(
            "GET",
            "/v1/sync",
            &[("x", &"y".repeat(draw.rng.usize(..16_000)))],
        ),
        5 => frames::request("CONNECT", "evil.test:443", &[]),
        6 => {
            let headers = [("authorization", &*bearer), ("content-length", "7")];
            frames::request("POST", "/v1/events", &headers)
        }
        _ => frames::request("GET", "/v1/sync?topic=a", &[("authorization", &bearer)]),
    }
}

/// One frame, right or wrong.
fn frame(draw: &mut Draw) -> Vec<u8> {
    let stream = match draw.rng.u8(..6) {
        0 => 0,
        1 => draw.rng.u32(..),
        2 => 2,
        _ => draw.rng.u32(0..8) * 2 + 1,
    };
    let flags = match draw.rng.u8(..3) {
        0 => draw.rng.u8(..),
        1 => END_HEADERS,
        _ => END_HEADERS | END_STREAM,
    };
    let payload = match draw.rng.u8(..3) {
        0 => draw.bytes(100),
        1 => vec![0; [0, 4, 5, 6, 8, 9][draw.rng.usize(..6)]],
        _ => block(draw),
    };
    let mut bytes = match draw.rng.u8(..10) {
        0 => frames::settings(&[(draw.rng.u16(..8), draw.rng.u32(..))]),
        1 => frames::frame(WINDOW, 0, stream, &draw.rng.u32(..).to_be_bytes()),
        2 => frames::frame(RESET, 0, stream, &8_u32.to_be_bytes()),
        3..6 => frames::asks(stream, END_STREAM, &block(draw)),
        6 => frames::frame(draw.rng.u8(..), flags, stream, &payload),
        _ => {
            let kinds = [
                DATA,
                HEADERS,
                PRIORITY,
                PUSH,
                PING,
                GOAWAY,
                CONTINUATION,
                SETTINGS,
            ];
            let kind = kinds[draw.rng.usize(..kinds.len())];
            frames::frame(kind, flags, stream, &payload)
        }
    };
    // A length that is not its own.
    if draw.rng.u8(..20) == 0 {
        bytes[draw.rng.usize(..3)] = draw.rng.u8(..);
    }
    bytes
}

/// A connection that is right but for its requests, so that all of them are read.
fn orderly(draw: &mut Draw) -> Input {
    let mut bytes = frames::opening(&[(1, 0)]);
    for n in 0..draw.rng.u32(1..12) {
        let stream = 2 * n + 1;
        let end = [0, END_STREAM][draw.rng.usize(..2)];
        let kind = draw.rng.u8(2..8);
        bytes.extend(frames::asks(stream, end, &block_of(draw, kind)));
        if end == 0 {
            let body = draw.bytes(100);
            bytes.extend(frames::frame(DATA, END_STREAM, stream, &body));
        }
    }
    Input::of(bytes)
}

fn conversation(draw: &mut Draw) -> Input {
    if draw.rng.bool() {
        return orderly(draw);
    }
    let mut bytes = match draw.rng.u8(..8) {
        0 => draw.spoil(PREFACE),
        1 => PREFACE.to_vec(),
        _ => frames::opening(&[(1, 0), (4, draw.rng.u32(..1 << 20))]),
    };
    for _ in 0..draw.rng.usize(1..12) {
        let frame = frame(draw);
        bytes.extend(frame);
    }
    let mut input = Input::of(bytes);
    input.shut = draw.rng.bool();
    input
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_connections_with_frames_that_are_wrong_end() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let total = setting("TIDINGS_TEST_INPUTS", 4_000) / 2;
    let database = database();
    let (gateway, mut draw) = victim(&database, &FLAGS, seed).await;
    let address = gateway.address();
    let mut conversations = JoinSet::new();
    let (mut ended, mut reset, mut refused, mut served) = (0, 0, 0, 0);
    let mut judge = |(input, bytes): (Input, Vec<u8>)| {
        let (heard, _) = frames::read(&bytes);
        for status in heard.iter().filter_map(frames::Heard::status) {
            assert!(status < 500, "seed {seed}: {status}: {}", input.shown());
            match status {
                400.. => refused += 1,
                _ => served += 1,
            }
        }
        let kinds = |kind| heard.iter().any(|heard| heard.kind == kind);
        ended += u64::from(
            heard
                .iter()
                .any(|heard| heard.kind == GOAWAY && heard.error() > Some(0)),
        );
        reset += u64::from(kinds(RESET));
    };
    for _ in 0..total {
        if conversations.len() == 32 {
            let done = conversations.join_next().await.expect("there are some");
            judge(done.expect("an end"));
        }
        let input = conversation(&mut draw);
        conversations.spawn(async move {
            let output = converse(address, &input).await;
            (input, output.bytes)
        });
    }
    while let Some(done) = conversations.join_next().await {
        judge(done.expect("an end"));
    }
    println!(
        "seed {seed}: {total} connections: {ended} ended with an error, {reset} had streams reset; \
         requests: {refused} refused, {served} served"
    );
    assert!(ended > total / 8 && reset > total / 8 && refused > total / 8 && served > 0);
    is_well(&database, *gateway).await;
    let records = gateway.end(&secrets(&draw)).await;
    println!("seed {seed}: {records} records in the log");
}

/// A name, how it begins, and what follows.
type Flood = (&'static str, Vec<u8>, Vec<Vec<u8>>);

/// What costs the sender little, as much of it as goes out.
fn floods(bearer: &str) -> Vec<Flood> {
    let asks = |target: &str| frames::request("GET", target, &[("authorization", bearer)]);
    let opening = frames::opening(&[]);
    let rapid = |target: &str| {
        let block = asks(target);
        let one = |n: u32| {
            let stream = 2 * n + 1;
            let reset = frames::frame(RESET, 0, stream, &8_u32.to_be_bytes());
            [frames::asks(stream, END_STREAM, &block), reset].concat()
        };
        (0..20_000).map(one).collect::<Vec<_>>()
    };
    let many = |frame: Vec<u8>, count: usize| vec![frame; count];
    // One large field once, and then a reference to it, again and again.
    let mut bomb = frames::request("GET", "/", &[]);
    bomb.push(0x40);
    bomb.extend(&frames::block(&[(b"x", &[b'y'; 3_000])])[1..]);
    bomb.extend(vec![0xbe; 12_000]);
    let large = frames::request("GET", "/", &[("x", &"y".repeat(15_000))]);
    let begun = frames::frame(HEADERS, 0, 1, &large);
    let unfinished = [opening.clone(), begun].concat();
    let posts = frames::request(
        "POST",
        "/v1/events",
        &[
            ("authorization", bearer),
            ("content-type", "application/json"),
        ],
    );
    let posted = [opening.clone(), frames::asks(1, 0, &posts)].concat();
    vec![
        ("rapid resets of syncs", opening.clone(), rapid("/v1/sync")),
        (
            "rapid resets of streams",
            opening.clone(),
            rapid("/v1/events"),
        ),
        (
            "continuations without an end",
            unfinished.clone(),
            many(frames::frame(CONTINUATION, 0, 1, &[b'a'; 16_000]), 4_000),
        ),
        (
            "empty continuations",
            unfinished,
            many(frames::frame(CONTINUATION, 0, 1, &[]), 200_000),
        ),
        (
            "settings",
            opening.clone(),
            many(frames::settings(&[(4, 65_535)]), 200_000),
        ),
        (
            "pings",
            opening.clone(),
            many(frames::frame(PING, 0, 0, &[1; 8]), 200_000),
        ),
        (
            "priorities",
            opening.clone(),
            many(frames::frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), 200_000),
        ),
        (
            "header lists that grow",
            opening.clone(),
            (0..2_000)
                .map(|n| frames::asks(2 * n + 1, END_STREAM, &bomb))
                .collect(),
        ),
        (
            "empty data",
            posted.clone(),
            many(frames::frame(DATA, 0, 1, &[]), 200_000),
        ),
        (
            "more data than was granted",
            posted,
            many(frames::frame(DATA, 0, 1, &[b' '; 16_000]), 4_000),
        ),
        (
            "more streams than are granted",
            opening,
            (0..20_000)
                .map(|n| frames::asks(2 * n + 1, END_STREAM, &asks("/v1/events")))
                .collect(),
        ),
    ]
}

/// How much memory all of the floods together may cost: a debug build's buffers, and no more.
const MEMORY: usize = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_end_their_connection_and_cost_nobody() {
    let _room = room::half_heavy().await;
    let database = database();
    let flags = ["--write-timeout=1s", "--head-timeout=1s"];
    let (gateway, draw) = victim(&database, &flags, 3).await;
    is_well(&database, *gateway).await;
    let before = gateway.resident_bytes();
    let mut told = Vec::new();
    for reads in [true, false] {
        // Whoever floods with streams has as many as users have.
        let bearer = format!("Bearer {}", token("flood", json!({"publish": ["*"]})));
        for (name, first, rest) in floods(&bearer) {
            let socket = TcpStream::connect(gateway.address())
                .await
                .expect("connects");
            let (mut from, mut to) = socket.into_split();
            let flood = async {
                let mut sent = first.len();
                if to.write_all(&first).await.is_err() {
                    return sent;
                }
                for chunk in rest.chunks(64) {
                    let bytes = chunk.concat();
                    if to.write_all(&bytes).await.is_err() {
                        return sent;
                    }
                    sent += bytes.len();
                }
                sent
            };
            let read = async {
                let mut buffer = vec![0; 64 << 10];
                let mut count = 0;
                if !reads {
                    std::future::pending::<()>().await;
                }
                loop {
                    match from.read(&mut buffer).await {
                        Ok(0) | Err(_) => return count,
                        Ok(more) => count += more,
                    }
                }
            };
            // Somebody else all the while.
            let (mut flood, mut read) = (std::pin::pin!(flood), std::pin::pin!(read));
            let sent = tokio::time::timeout(3 * PATIENCE, async {
                tokio::select! {
                    sent = &mut flood => sent,
                    _ = &mut read => flood.await,
                }
            });
            let (sent, ()) = tokio::join!(sent, is_well(&database, *gateway));
            let sent = sent.unwrap_or_else(|_| panic!("{name}: neither taken nor refused"));
            assert!(sent > 0);
            let now = gateway.resident_bytes();
            assert!(
                now < before + MEMORY,
                "{name}: from {before} to {now} bytes"
            );
            told.push(format!("{name}: {} KiB", sent >> 10));
        }
    }
    // Nothing of it stays: streams that were reset have left their seats.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.streams().await > 0.0 {
        assert!(tokio::time::Instant::now() < deadline, "streams stay");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = gateway.resident_bytes();
    println!(
        "{} floods, memory from {before} to {after} bytes: {told:?}",
        told.len()
    );
    assert_eq!(told.len(), 22);
    gateway.end(&secrets(&draw)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_list_that_is_too_large_is_refused_and_the_connection_goes_on() {
    let _room = room::beside_others().await;
    let database = database();
    let (gateway, draw) = victim(&database, &FLAGS, 4).await;
    let fields = |count: usize| {
        let value = "y".repeat(1_000);
        let fields = vec![("x", &*value); count];
        frames::request("GET", "/nothing", &fields)
    };
    let mut bytes = frames::opening(&[(1, 0)]);
    // Within 16 KiB, beyond them, and within again.
    for (stream, count) in [(1, 10), (3, 16), (5, 10)] {
        let block = fields(count);
        let (first, rest) = block.split_at(block.len().min(16_000));
        match rest {
            [] => bytes.extend(frames::asks(stream, END_STREAM, first)),
            _ => {
                bytes.extend(frames::frame(HEADERS, END_STREAM, stream, first));
                bytes.extend(frames::frame(CONTINUATION, END_HEADERS, stream, rest));
            }
        }
    }
    let output = converse(gateway.address(), &Input::of(bytes)).await;
    let (heard, _) = frames::read(&output.bytes);
    let mut statuses: Vec<(u32, u16)> = heard
        .iter()
        .filter_map(|heard| Some((heard.stream, heard.status()?)))
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [(1, 404), (3, 431), (5, 404)]);
    assert!(
        heard
            .iter()
            .any(|heard| heard.kind == SETTINGS && heard.flags & ACK == ACK)
    );
    gateway.end(&secrets(&draw)).await;
}
