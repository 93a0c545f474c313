//! An HTTP client of the tests' own: it sees every byte, and follows an SSE stream block by block.
//! Every answer, and the blocks of every stream, are compared with `docs/openapi.yaml`.
//!
//! Waiting always ends: what does not come within [`PATIENCE`] fails the test with what came
//! before.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::interface::exchange::Exchange;
use super::interface::{Server, check_block, check_exchange};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How many blocks of a stream are each compared with the document. Of those after them, and of streams that
/// are read as fast as can be, each thousandth is: comparing takes several times as long as reading, and a
/// reader that it slows down is one whom gateways end, which is not what tests of many events are about.
const COMPARED: usize = 1_000;
const COMPARED_EVERY: usize = 1_000;

/// A request in the making, over HTTP/1.1 on a connection of its own.
pub(crate) struct Visit {
    address: SocketAddr,
    server: Server,
    head: String,
    body: Vec<u8>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, by its lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let found = headers.iter().find(|(other, _)| other == name);
    found.map(|(_, value)| value.as_str())
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum NoStream {
    /// Nobody answered.
    Unreachable(io::Error),
    /// An answer that is no stream.
    Refused(Answer),
}

impl Visit {
    pub(crate) fn new(address: SocketAddr, method: &str, target: &str) -> Visit {
        Visit {
            address,
            server: Server::Clients,
            head: format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\n"),
            body: Vec::new(),
        }
    }

    /// The same, where somebody else answers than a gateway to its clients.
    pub(crate) fn of(mut self, server: Server) -> Visit {
        self.server = server;
        self
    }

    /// Appends to the query, which must have begun.
    pub(crate) fn and_query(mut self, query: &str) -> Visit {
        let end = self.head.find(" HTTP/1.1\r\n").expect("a request line");
        self.head.insert_str(end, &format!("&{query}"));
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Visit {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Visit {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Visit {
        let body = body.to_string();
        self.header("content-type", "application/json")
            .body(body.as_bytes())
    }

    pub(crate) fn body(mut self, body: &[u8]) -> Visit {
        self.body = body.to_vec();
        self.header("content-length", &body.len().to_string())
    }

    /// Sends it and reads the whole answer; the connection is closed after it.
    pub(crate) async fn send(self) -> Answer {
        self.try_send().await.expect("an answer")
    }

    /// The same, where nobody may be there to answer.
    pub(crate) async fn try_send(self) -> io::Result<Answer> {
        let visit = self.header("connection", "close");
        let connection = visit.open().await?;
        Ok(visit.answer(connection).await)
    }

    /// Sends it and follows the stream, which must be one.
    pub(crate) async fn stream(self) -> Stream {
        self.try_stream()
            .await
            .unwrap_or_else(|error| panic!("no stream: {error:?}"))
    }

    /// Sends it and follows the stream, if it becomes one.
    pub(crate) async fn try_stream(self) -> Result<Stream, NoStream> {
        let connection = self.open().await.map_err(NoStream::Unreachable)?;
        if connection.status != 200 {
            return Err(NoStream::Refused(self.answer(connection).await));
        }
        self.check(connection.status, &connection.headers, None);
        assert_eq!(
            header(&connection.headers, "content-type"),
            Some("text/event-stream")
        );
        Ok(Stream {
            connection,
            unread: Vec::new(),
            last_id: None,
            retry: None,
            blocks: 0,
        })
    }

    /// Reads the whole answer, which the document must describe.
    async fn answer(&self, connection: Connection) -> Answer {
        let (answer, whole) = connection.answer().await;
        let whole = whole || self.head.starts_with("HEAD ");
        let body = whole.then_some(&*answer.body);
        self.check(answer.status, &answer.headers, body);
        answer
    }

    fn check(&self, status: u16, headers: &[(String, String)], body: Option<&str>) {
        check_exchange(&Exchange {
            server: self.server,
            head: &self.head,
            sent: &self.body,
            status,
            headers,
            body,
        });
    }

    async fn open(&self) -> io::Result<Connection> {
        let mut socket = TcpStream::connect(self.address).await?;
        let head = format!("{}\r\n", self.head);
        socket.write_all(head.as_bytes()).await?;
        // A server may refuse a body before it has read it all.
        let _ = socket.write_all(&self.body).await;
        let mut connection = Connection {
            socket,
            bytes: Vec::new(),
            status: 0,
            headers: Vec::new(),
            framing: Framing::Close,
        };
        patiently("the head of an answer", connection.read_head()).await?;
        Ok(connection)
    }
}

enum Framing {
    Length(usize),
    Chunked,
    Close,
    Over,
}

struct Connection {
    socket: TcpStream,
    bytes: Vec<u8>,
    status: u16,
    headers: Vec<(String, String)>,
    framing: Framing,
}

impl Connection {
    async fn read_head(&mut self) -> io::Result<()> {
        let end = loop {
            if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                let read = format!("closed within the head: {:?}", self.bytes);
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, read));
            }
        };
        let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("a head is text");
        let mut lines = head.split("\r\n").filter(|line| !line.is_empty());
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        self.status = status.expect("a status line").parse().expect("a status");
        self.headers = lines
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_lowercase(), value.trim().to_owned())
            })
            .collect();
        self.framing = match (
            header(&self.headers, "content-length"),
            header(&self.headers, "transfer-encoding"),
        ) {
            (Some(length), _) => Framing::Length(length.parse().expect("a length")),
            (None, Some(_)) => Framing::Chunked,
            (None, None) => Framing::Close,
        };
        Ok(())
    }

    /// Reads the rest of the answer; whether it came whole, as far as its framing says.
    async fn answer(mut self) -> (Answer, bool) {
        let mut body = Vec::new();
        while let Some(bytes) = self.read_body().await {
            body.extend_from_slice(&bytes);
        }
        let whole = !matches!(self.framing, Framing::Chunked | Framing::Length(1..));
        let answer = Answer {
            status: self.status,
            headers: self.headers,
            body: String::from_utf8(body).expect("UTF-8"),
        };
        (answer, whole)
    }

    /// The next bytes of the body; `None` at its end, clean or not.
    async fn read_body(&mut self) -> Option<Vec<u8>> {
        loop {
            match self.framing {
                Framing::Over | Framing::Length(0) => return None,
                Framing::Length(left) if !self.bytes.is_empty() => {
                    let count = left.min(self.bytes.len());
                    self.framing = Framing::Length(left - count);
                    return Some(self.bytes.drain(..count).collect());
                }
                Framing::Close if !self.bytes.is_empty() => {
                    return Some(std::mem::take(&mut self.bytes));
                }
                Framing::Chunked => {
                    if let Some(chunk) = self.take_chunk() {
                        if chunk.is_empty() {
                            self.framing = Framing::Over;
                            return None;
                        }
                        return Some(chunk);
                    }
                }
                _ => {}
            }
            if !patiently("bytes of a body", self.fill()).await {
                return None;
            }
        }
    }

    fn take_chunk(&mut self) -> Option<Vec<u8>> {
        let line = find(&self.bytes, b"\r\n")?;
        let size = std::str::from_utf8(&self.bytes[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        let end = line + 2 + size;
        if self.bytes.len() < end + 2 {
            return None;
        }
        let chunk = self.bytes[line + 2..end].to_vec();
        self.bytes.drain(..end + 2);
        Some(chunk)
    }

    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.socket.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(count) => {
                self.bytes.extend_from_slice(&buffer[..count]);
                true
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

async fn patiently<T>(what: &str, act: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, act).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}

/// One block of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<u64>,
}

impl Block {
    /// The data as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.data.as_deref().expect("a block with data")).expect("JSON")
    }

    /// Whether it is the gateway's own block of this kind.
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.event.as_deref() == Some(kind)
    }

    /// The id of the event in it, if it is one of the log.
    pub(crate) fn event_id(&self) -> Option<i64> {
        let own = self.event.as_deref();
        if own.is_some_and(|kind| kind.starts_with("tidings.")) {
            return None;
        }
        self.json()["id"]
            .as_str()
            .map(|id| id.parse().expect("an id"))
    }
}

/// An open stream, as an EventSource would follow it.
pub(crate) struct Stream {
    connection: Connection,
    unread: Vec<u8>,
    last_id: Option<String>,
    retry: Option<u64>,
    /// How many have come.
    blocks: usize,
}

impl Stream {
    /// The next block; `None` when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<Block> {
        let text = self.raw().await?;
        if self.blocks <= COMPARED || self.blocks.is_multiple_of(COMPARED_EVERY) {
            check_block(&text);
        }
        let block = parse(&text);
        if block.id.is_some() {
            self.last_id.clone_from(&block.id);
        }
        if block.retry.is_some() {
            self.retry = block.retry;
        }
        Some(block)
    }

    /// The next block as it came, as fast as can be; the position is not kept.
    pub(crate) async fn text(&mut self) -> Option<String> {
        let text = self.raw().await?;
        if self.blocks.is_multiple_of(COMPARED_EVERY) {
            check_block(&text);
        }
        Some(text)
    }

    async fn raw(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\n\n") {
                self.blocks += 1;
                let block = self.unread.drain(..end + 2).collect();
                return Some(String::from_utf8(block).expect("a block is text"));
            }
            // It may end within a character.
            self.unread.extend(self.connection.read_body().await?);
        }
    }

    /// Reads up to `ready` and returns its data; fails on anything that is not replayed before it.
    pub(crate) async fn ready(&mut self) -> Value {
        let (events, ready) = self.replay().await;
        assert!(events.is_empty(), "replayed {events:?}");
        ready
    }

    /// Reads up to `ready`: the ids that were replayed, and the data of `ready`.
    pub(crate) async fn replay(&mut self) -> (Vec<i64>, Value) {
        let mut events = Vec::new();
        loop {
            let block = self.next().await.expect("a stream that becomes ready");
            if block.is("tidings.ready") {
                return (events, block.json());
            }
            match block.event_id() {
                Some(id) => events.push(id),
                None => panic!("before ready: {block:?}"),
            }
        }
    }

    /// The next event of the log; beats are passed over, anything else fails.
    pub(crate) async fn event(&mut self) -> Value {
        loop {
            let block = self.next().await.expect("a stream that goes on");
            if block.is("tidings.beat") {
                continue;
            }
            assert!(block.event_id().is_some(), "not an event: {block:?}");
            return block.json();
        }
    }

    /// The ids of the next events of the log, replayed or live; beats and `ready` are passed over,
    /// anything else fails.
    pub(crate) async fn ids(&mut self, count: usize) -> Vec<i64> {
        let mut ids = Vec::new();
        while ids.len() < count {
            let block = self.next().await;
            let block = block.unwrap_or_else(|| panic!("a stream that goes on after {ids:?}"));
            match block.event_id() {
                Some(id) => ids.push(id),
                None if block.is("tidings.beat") || block.is("tidings.ready") => {}
                None => panic!("not an event: {block:?}"),
            }
        }
        ids
    }

    /// The next block of this kind; whatever comes before it is passed over.
    pub(crate) async fn wait_for(&mut self, kind: &str) -> Block {
        let mut before = Vec::new();
        while let Some(block) = self.next().await {
            if block.is(kind) {
                return block;
            }
            before.push(block);
        }
        panic!("no {kind} before the end, but {before:?}");
    }

    /// The cursor that the client holds: the last `id:` it has read.
    pub(crate) fn cursor(&self) -> &str {
        self.last_id
            .as_deref()
            .expect("a stream that has sent an id")
    }

    /// How long the client has been asked to wait before it comes back, in milliseconds.
    pub(crate) fn retry(&self) -> Option<u64> {
        self.retry
    }

    /// The headers of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.connection.headers, name)
    }
}

/// One block by the rules of the EventSource standard, as far as blocks of ours use them.
pub(crate) fn parse(text: &str) -> Block {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (field, value) = line
            .split_once(": ")
            .unwrap_or_else(|| panic!("line {line:?}"));
        match field {
            "id" => block.id = Some(value.to_owned()),
            "event" => block.event = Some(value.to_owned()),
            "data" => {
                assert!(block.data.is_none(), "two data lines: {text:?}");
                block.data = Some(value.to_owned());
            }
            "retry" => block.retry = Some(value.parse().expect("milliseconds")),
            _ => panic!("unknown field: {line:?}"),
        }
    }
    block
}
