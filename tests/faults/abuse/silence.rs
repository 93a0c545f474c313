//! Clients that leave things unfinished: silent, a byte at a time, or quiet after an answer, over both
//! versions of HTTP. Each meets its deadline, counted from accepting or from the last answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::frames::{self, ACK, END_STREAM, PING, PREFACE};
use super::watched::{USUAL, Watched};
use crate::room;
use crate::support::client::PATIENCE;
use crate::support::gateway::token;
use crate::support::postgres::database;

const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// What a busy machine may take to notice that a deadline is over.
const SLACK: Duration = Duration::from_secs(2);

/// How somebody leaves things unfinished.
struct Manner {
    name: &'static str,
    /// How long nothing is sent.
    delay: Duration,
    /// Sent then, at once.
    first: Vec<u8>,
    /// Sent a byte at a time after that, for ever.
    trickle: &'static [u8],
    /// Whether pings are answered, but for the one that asks to leave.
    pongs: bool,
    within: Duration,
}

fn manners(bearer: &str) -> Vec<Manner> {
    let post = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {bearer}\r\n"
    );
    let opening = frames::opening(&[]);
    let asked = |target: &str| {
        let block = frames::request("GET", target, &[]);
        [opening.clone(), frames::asks(1, END_STREAM, &block)].concat()
    };
    let publishes = frames::request(
        "POST",
        "/v1/events",
        &[
            ("content-type", "application/json"),
            ("authorization", &format!("Bearer {bearer}")),
        ],
    );
    let unfinished = frames::frame(frames::HEADERS, 0, 1, &frames::request("GET", "/", &[]));
    let head: (Vec<u8>, _) = (Vec::new(), HEAD_TIMEOUT);
    // An answer may come first, and who is asked to leave has as long once more.
    let twice = 2 * HEAD_TIMEOUT;
    let manner = |name, first: &[u8], trickle: &'static [u8], pongs, within| Manner {
        name,
        delay: Duration::ZERO,
        first: first.to_vec(),
        trickle,
        pongs,
        within,
    };
    let late = Manner {
        // So late that who counted from then on would be far too patient.
        delay: HEAD_TIMEOUT - Duration::from_millis(300),
        ..manner("a late first word", b"GET", b"", false, HEAD_TIMEOUT)
    };
    vec![
        late,
        manner("nothing", &head.0, b"", false, HEAD_TIMEOUT),
        manner("a first byte of either", b"P", b"", false, HEAD_TIMEOUT),
        manner(
            "a preface by bytes",
            b"",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            false,
            HEAD_TIMEOUT,
        ),
        manner(
            "a head by bytes",
            b"",
            b"GET /v1/events HTTP/1.1\r\nhost: x\r\nx: y",
            false,
            HEAD_TIMEOUT,
        ),
        manner(
            "half a head",
            b"GET /v1/events HTTP/1.1\r\nhost: x\r\n",
            b"",
            false,
            HEAD_TIMEOUT,
        ),
        manner(
            "quiet after an answer",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
            b"",
            false,
            HEAD_TIMEOUT,
        ),
        manner(
            "half a head after an answer",
            b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET",
            b"",
            false,
            HEAD_TIMEOUT,
        ),
        manner(
            "a body by bytes",
            format!("{post}content-length: 9999\r\n\r\n{{").as_bytes(),
            b"    ",
            false,
            twice,
        ),
        manner(
            "chunks by bytes",
            format!("{post}transfer-encoding: chunked\r\n\r\n").as_bytes(),
            b"1\r\n \r\n",
            false,
            twice,
        ),
        manner("a preface alone", PREFACE, b"", false, HEAD_TIMEOUT),
        manner("no request", &opening, b"", false, HEAD_TIMEOUT),
        manner("no request, but pongs", &opening, b"", true, HEAD_TIMEOUT),
        manner(
            "a request that is never whole",
            &[opening.clone(), unfinished].concat(),
            b"",
            true,
            HEAD_TIMEOUT,
        ),
        manner(
            "quiet after an answer of HTTP/2",
            &asked("/"),
            b"",
            false,
            twice,
        ),
        manner(
            "quiet after an answer, but pongs",
            &asked("/"),
            b"",
            true,
            twice,
        ),
        manner(
            "a body of HTTP/2 that never comes",
            &[opening.clone(), frames::asks(1, 0, &publishes)].concat(),
            b"",
            true,
            3 * HEAD_TIMEOUT,
        ),
    ]
}

/// Behaves in this manner until the gateway ends it; returns how long that took.
async fn behave(address: SocketAddr, manner: &Manner) -> Duration {
    let socket = TcpStream::connect(address).await.expect("connects");
    let begun = Instant::now();
    let (mut from, mut to) = socket.into_split();
    // Being silent for so long is what is tried.
    tokio::time::sleep(manner.delay).await;
    let _ = to.write_all(&manner.first).await;
    let mut trickle = manner.trickle.iter().cycle();
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            count = from.read(&mut buffer) => match count {
                Ok(0) | Err(_) => return begun.elapsed(),
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            },
            _ = tick.tick(), if !manner.trickle.is_empty() => {
                let byte = *trickle.next().expect("it goes round");
                // Whoever has been ended learns it by reading.
                let _ = to.write_all(&[byte]).await;
            }
        }
        let (heard, taken) = frames::read(&bytes);
        bytes.drain(..taken);
        for ping in heard
            .iter()
            .filter(|heard| heard.kind == PING && manner.pongs)
        {
            // What a server sends to find out whether all have heard that it leaves.
            if ping.flags & ACK == 0 && ping.payload != [11, 123, 162, 240, 139, 155, 254, 84] {
                let _ = to
                    .write_all(&frames::frame(PING, ACK, 0, &ping.payload))
                    .await;
            }
        }
        assert!(
            begun.elapsed() < 3 * PATIENCE,
            "{} goes on for ever",
            manner.name
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_leaves_something_unfinished_is_ended_in_time_and_costs_nobody() {
    let _room = room::beside_others().await;
    let database = database();
    let timeout = format!("--head-timeout={}s", HEAD_TIMEOUT.as_secs());
    let gateway = Watched::serve(&database, USUAL, &[&timeout]).await;
    let bearer = token("backend", json!({"publish": ["*"]}));
    let mut stream = gateway.subscribe(&["t"]).await;
    let mut ended = JoinSet::new();
    let address = gateway.address();
    for manner in manners(&bearer) {
        for _ in 0..5 {
            let manner = Manner {
                first: manner.first.clone(),
                ..manner
            };
            ended.spawn(async move { (behave(address, &manner).await, manner) });
        }
    }
    let mut count = 0;
    let mut late = Vec::new();
    while let Some(one) = ended.join_next().await {
        let (took, manner) = one.expect("an end");
        count += 1;
        if took > manner.within + SLACK {
            late.push(format!("{}: {took:?}", manner.name));
        }
    }
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(count, 85);
    println!("{count} clients of 17 manners were ended in time");
    let id = crate::support::backend::publish(&database.connect().await, "t").await;
    assert_eq!(stream.ids(1).await, [id]);
    drop(stream);
    gateway.end(&[bearer]).await;
}
