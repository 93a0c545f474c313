//! An HTTP client of the tests' own: it sees every byte. Every answer is compared with `docs/openapi.yaml`.
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
use super::interface::{Server, check_exchange};
pub(crate) use super::stream::{Block, Stream, parse};

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

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

pub(super) fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
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
        Ok(Stream::new(connection))
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

/// A connection whose answer is being read.
pub(super) struct Connection {
    socket: TcpStream,
    bytes: Vec<u8>,
    status: u16,
    pub(super) headers: Vec<(String, String)>,
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
    pub(super) async fn read_body(&mut self) -> Option<Vec<u8>> {
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

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

async fn patiently<T>(what: &str, act: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, act).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain for {what}"),
    }
}
