//! A client that decides when to read: it asks for a stream and takes nothing of it until it is told to,
//! from a socket with as little room as the kernel grants. Over HTTP/1.0, so that what arrives is the
//! stream itself, up to the end of the connection.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::support::gateway::{Door, token};

/// How long whoever reads waits for a sign of life: longer than beats are apart.
const PATIENCE: Duration = Duration::from_secs(30);

/// Room in the socket of one who does not read, in bytes; the kernel makes a little more of it.
const DEAF_BYTES: u32 = 2048;

/// What a segment carries on an Ethernet, in bytes.
const SEGMENT_BYTES: u32 = 1_400;

/// An open stream of which nothing need have been read.
pub(crate) struct Raw {
    socket: TcpStream,
    /// What has come since the last whole block.
    bytes: Vec<u8>,
    has_head: bool,
    pub(crate) arrived: Arrived,
}

/// What has arrived in whole blocks.
#[derive(Debug, Default)]
pub(crate) struct Arrived {
    /// Events of the log, in order.
    pub(crate) ids: Vec<i64>,
    /// The last `id:`.
    pub(crate) cursor: Option<String>,
    /// Whether the stream became ready, and why it said good-bye.
    pub(crate) ready: bool,
    pub(crate) bye: Option<String>,
}

impl Raw {
    /// Asks for a stream of a topic, with the usual room, as a user of its own.
    pub(crate) async fn open(door: Door, topic: &str, since: Option<&str>) -> Raw {
        Raw::ask(door, topic, since, None).await
    }

    /// The same with next to no room.
    pub(crate) async fn open_deaf(door: Door, topic: &str, since: &str) -> Raw {
        Raw::ask(door, topic, Some(since), Some(DEAF_BYTES)).await
    }

    async fn ask(door: Door, topic: &str, since: Option<&str>, room: Option<u32>) -> Raw {
        let socket = TcpSocket::new_v4().expect("a socket");
        if let Some(room) = room {
            socket.set_recv_buffer_size(room).expect("a small buffer");
            // Loopback's segments are so large that the gateway's kernel would take megabytes for each.
            let segment = socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES);
            segment.expect("segments as those of an Ethernet");
        }
        let mut socket = socket.connect(door.address).await.expect("connects");
        let user = format!("raw-{:016x}", fastrand::u64(..));
        let bearer = token(&user, json!({"topics": ["*"]}));
        let mut head = format!(
            "GET /v1/events?topic={topic} HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n"
        );
        if let Some(since) = since {
            head += &format!("last-event-id: {since}\r\n");
        }
        head += "\r\n";
        // One that is turned away at once may be gone before it has said all.
        let _ = socket.write_all(head.as_bytes()).await;
        Raw {
            socket,
            bytes: Vec::new(),
            has_head: false,
            arrived: Arrived::default(),
        }
    }

    /// Reads until so many events have come and the stream is ready, or to the end.
    pub(crate) async fn until(&mut self, count: usize) -> &Arrived {
        while !(self.arrived.ready && self.arrived.ids.len() >= count) && self.read().await {}
        &self.arrived
    }

    async fn read(&mut self) -> bool {
        self.bytes.reserve(64 << 10);
        match timeout(PATIENCE, self.socket.read_buf(&mut self.bytes)).await {
            Ok(Ok(1..)) => self.parse(),
            // Not even a beat: the other side may have given it up without a word that comes through.
            Ok(_) | Err(_) => return false,
        }
        true
    }

    /// Takes note of the whole blocks that have come; half a block is forgotten in the end, as an
    /// EventSource does.
    fn parse(&mut self) {
        let mut text = std::str::from_utf8(&self.bytes).expect("the data of the tests is ASCII");
        if !self.has_head {
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                return;
            };
            assert!(head.starts_with("HTTP/1.0 200"), "{head}");
            self.has_head = true;
            text = body;
        }
        let whole = text.rfind("\n\n").map_or(0, |end| end + 2);
        for line in text[..whole].lines() {
            self.arrived.note(line);
        }
        self.bytes = text.as_bytes()[whole..].to_vec();
    }
}

impl Arrived {
    fn note(&mut self, line: &str) {
        let quoted = |rest: &str| rest.split_once('"').expect("it is quoted").0.to_owned();
        if let Some(id) = line.strip_prefix("id: ") {
            self.cursor = Some(id.to_owned());
        } else if let Some(rest) = line.strip_prefix("data: {\"id\":\"") {
            self.ids.push(quoted(rest).parse().expect("an id"));
        } else if let Some(rest) = line.strip_prefix("data: {\"reason\":\"") {
            self.bye = Some(quoted(rest));
        }
        self.ready |= line == "event: tidings.ready";
    }
}

/// Comes back from a cursor, again and again, until all that is expected has come; what came is added.
/// Returns how often it came back.
pub(crate) async fn catch_up(
    door: Door,
    topic: &str,
    since: &str,
    ids: &mut Vec<i64>,
    expected: &[i64],
) -> usize {
    let mut cursor = since.to_owned();
    let deadline = Instant::now() + 4 * PATIENCE;
    let mut resumes = 0;
    while ids.len() < expected.len() || resumes == 0 {
        assert!(Instant::now() < deadline, "{topic}: {} came", ids.len());
        let mut stream = Raw::open(door, topic, Some(&cursor)).await;
        let arrived = stream.until(expected.len() - ids.len()).await;
        ids.extend(&arrived.ids);
        if let Some(held) = &arrived.cursor {
            cursor.clone_from(held);
        }
        resumes += 1;
        if arrived.bye.is_some() {
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..250))).await;
        }
    }
    assert_eq!(ids, expected, "{topic}, after {resumes} resumes");
    resumes
}
