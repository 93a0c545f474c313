//! Heads of requests: whatever bytes arrive at the door, what comes back is an answer that blames the
//! sender, or the end of the connection. 503 is for what needs the database, which is away here.
//!
//! The bytes of an input go over a socket as they are, with the end of a head behind them, so that
//! most are answered. Several requests may follow one another, with bodies; HTTP/2 is spoken as well.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::door::Door;

/// How long a visit may last: longer than everything that the door waits for.
const VISIT: Duration = Duration::from_secs(20);
/// How long the door may be silent before the client says that it sends nothing more.
const QUIET: Duration = Duration::from_millis(5);
/// What ends a head, and the connection with it; behind a whole request it is one that nobody can read.
const END: &[u8] = b"\r\nConnection: close\r\n\r\n";
/// How HTTP/2 begins, where nothing is put behind.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What may be refused because something else is away.
const UNAVAILABLE: [&str; 2] = ["unavailable", "no-cursor"];

thread_local! {
    static DOOR: Door = Door::open();
}

/// Sends an input to the door.
pub fn run(input: &[u8]) -> bool {
    let two = input.starts_with(PREFACE);
    let bytes = [input, if two { b"" } else { END }].concat();
    let heard = DOOR.with(|door| door.visit(VISIT, async |socket| send(socket, &bytes).await));
    let heard = heard.expect("the door answers or closes");
    if bytes.starts_with(PREFACE) {
        return !heard.is_empty();
    }
    // Every answer begins with one of these, and none of ours holds one within.
    let text = String::from_utf8_lossy(&heard).replace("HTTP/1.0 ", "HTTP/1.1 ");
    let mut answers = text.split("HTTP/1.1 ");
    assert_eq!(answers.next(), Some(""), "{text}");
    let mut came_through = false;
    for answer in answers {
        came_through |= hold(answer);
    }
    came_through
}

/// Sends everything, says so when nothing more is heard, and hears the rest.
async fn send(mut socket: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    // Whoever is refused early cannot send the rest.
    let _ = socket.write_all(bytes).await;
    let mut buffer = [0; 4096];
    loop {
        match tokio::time::timeout(QUIET, socket.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => return heard,
            Ok(Ok(count)) => heard.extend_from_slice(&buffer[..count]),
            Err(_) => break,
        }
    }
    let _ = socket.shutdown().await;
    while let Ok(count) = socket.read(&mut buffer).await
        && count > 0
    {
        heard.extend_from_slice(&buffer[..count]);
    }
    heard
}

/// An answer is one that may be given; whether it was ours, and not the refusal of bytes that are no
/// request.
fn hold(answer: &str) -> bool {
    let (status, rest) = answer.split_at_checked(3).expect("begins with a status");
    let status: u16 = status.parse().expect("begins with a status");
    if status == 100 {
        return false;
    }
    let (head, body) = rest.split_once("\r\n\r\n").expect("has a whole head");
    let head = head.to_ascii_lowercase();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(other, _)| *other == name)
            .map(|(_, value)| value)
    };
    // What is no request never reaches the routes.
    let Some(kind) = header("x-content-type-options") else {
        assert!([400, 414, 431].contains(&status), "{answer}");
        assert_eq!(header("content-length"), Some("0"), "{answer}");
        return false;
    };
    assert_eq!((kind, header("vary")), ("nosniff", Some("origin")));
    let cached = header("cache-control").expect("says that it is not kept");
    assert!(cached.starts_with("no-store"), "{answer}");
    if let Some(origin) = header("access-control-allow-origin") {
        assert_eq!(origin, "https://app.example.org");
    }
    match header("content-type") {
        Some("application/problem+json") => hold_problem(status, body),
        _ => assert!([200, 201, 204].contains(&status), "{answer}"),
    }
    true
}

fn hold_problem(status: u16, body: &str) {
    assert!(
        (400..500).contains(&status) || status == 503,
        "{status} {body}"
    );
    // HEAD asks for the head alone.
    if body.is_empty() {
        assert!(status < 500, "{status} without a word");
        return;
    }
    let problem: Value = serde_json::from_str(body).expect("a problem is JSON");
    assert_eq!(problem["status"], status);
    let kind = problem["type"].as_str().expect("has a type");
    let kind = kind.strip_prefix("urn:tidings:problem:").expect("is ours");
    assert_eq!(status == 503, UNAVAILABLE.contains(&kind), "{body}");
}
