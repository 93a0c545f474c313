//! One client of a crowd: an EventSource. It keeps its last `id:`, waits as `retry:` says, comes back
//! with `Last-Event-ID`, and gives up for good when the answer is no stream.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::Board;
use super::wire::{Heard, Wire};
use crate::journal::{End, Journal, Record, now};
use crate::readers::LAST;
use crate::support::client::Block;

/// How long a browser waits before it comes back, unless it is told.
const RETRY: Duration = Duration::from_secs(3);

/// How long nothing may come before a stream counts as dead: several beats.
const SILENCE: Duration = Duration::from_secs(60);

/// How long an answer may take to begin.
const ANSWER: Duration = Duration::from_secs(60);

pub(super) struct Client {
    pub(super) number: u64,
    pub(super) from: Ipv4Addr,
    pub(super) door: SocketAddr,
    pub(super) topics: Vec<String>,
    pub(super) token: String,
    pub(super) cursor: String,
    pub(super) journal: Journal,
    pub(super) board: Arc<Board>,
    /// Changes when everybody is cut.
    pub(super) cut: watch::Receiver<u64>,
}

/// One stream, as far as it has come.
struct Visit {
    wire: Wire,
    ready: bool,
    bye: Option<String>,
    retry: Duration,
}

impl Client {
    /// Reads until the event that ends the run. The first stream waits for its turn to open.
    pub(super) async fn read(mut self, opening: Arc<Semaphore>) {
        self.journal.write(&Record::Client {
            client: self.number,
            topics: self.topics.clone(),
            since: self.cursor.clone(),
        });
        let mut turn = opening.acquire_owned().await.ok();
        let mut retry = RETRY;
        loop {
            let mut visit = Visit {
                wire: Wire::new(),
                ready: false,
                bye: None,
                retry,
            };
            let why = self.stream(&mut visit, &mut turn).await;
            if visit.ready {
                self.board.over();
            }
            let is_last = matches!(why, End::Done | End::Refused(_));
            self.journal.write(&Record::End {
                at: now(),
                client: self.number,
                why,
                cursor: self.cursor.clone(),
            });
            if is_last {
                return;
            }
            retry = visit.retry;
            sleep(retry).await;
        }
    }

    /// Opens a stream and reads it to its end.
    async fn stream<T>(&mut self, visit: &mut Visit, turn: &mut Option<T>) -> End {
        let mut cut = self.cut.clone();
        cut.mark_unchanged();
        let at = now();
        self.board.connects(at);
        self.journal.write(&Record::Connect {
            at,
            client: self.number,
            gateway: 0,
            since: self.cursor.clone(),
            expires: i64::MAX,
        });
        let socket = tokio::select! {
            socket = timeout(ANSWER, self.connect()) => socket,
            _ = cut.changed() => return End::Cut,
        };
        let Ok(Ok(socket)) = socket else {
            return End::Unreachable;
        };
        loop {
            tokio::select! {
                biased;
                _ = cut.changed() => {
                    // Gone without a word: what is on its way meets a reset.
                    let socket = socket2::SockRef::from(&socket);
                    socket.set_linger(Some(Duration::ZERO)).expect("it is open");
                    return End::Cut;
                }
                readable = timeout(SILENCE, socket.readable()) => {
                    if readable.is_err() {
                        return End::Silent;
                    }
                }
            }
            if let Some(end) = self.hear(&socket, visit) {
                return end;
            }
            if visit.ready {
                turn.take();
            }
        }
    }

    /// Reads what is there. Its buffer lives for the length of this call only.
    fn hear(&mut self, socket: &TcpStream, visit: &mut Visit) -> Option<End> {
        let mut buffer = [0; 4096];
        let over = match socket.try_read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Ok(0) | Err(_) => true,
            Ok(count) => {
                visit.wire.take(&buffer[..count]);
                false
            }
        };
        while let Some(heard) = visit.wire.next() {
            match heard {
                Heard::Refused(status) => return Some(End::Refused(status)),
                Heard::Over => return Some(visit.end()),
                Heard::Block(block) => {
                    if let Some(end) = self.take(&block, visit) {
                        return Some(end);
                    }
                }
            }
        }
        over.then(|| visit.end())
    }

    /// One block; an answer is the reason to go.
    fn take(&mut self, block: &Block, visit: &mut Visit) -> Option<End> {
        let (at, client) = (now(), self.number);
        assert!(
            visit.bye.is_none(),
            "client {client}, after a bye: {block:?}"
        );
        if let Some(retry) = block.retry {
            visit.retry = Duration::from_millis(retry);
        }
        if let Some(id) = &block.id {
            self.cursor.clone_from(id);
        }
        let data = block.json();
        match block.event.as_deref() {
            None => {
                let is_last = data["type"] == LAST;
                self.journal.write(&Record::Event {
                    at,
                    client,
                    cursor: self.cursor.clone(),
                    event: data,
                });
                return is_last.then_some(End::Done);
            }
            Some("tidings.ready") => {
                visit.ready = true;
                self.board.ready(at);
                self.journal.write(&Record::Ready {
                    at,
                    client,
                    resumed: data["resumed"] == true,
                    replayed: data["replayed"].as_u64().expect("a count"),
                });
            }
            Some("tidings.reset") => self.journal.write(&Record::Reset {
                at,
                client,
                cursor: self.cursor.clone(),
                reason: data["reason"].as_str().expect("a reason").to_owned(),
            }),
            Some("tidings.bye") => {
                visit.bye = Some(data["reason"].as_str().expect("a reason").to_owned());
            }
            Some("tidings.beat") => {}
            Some(_) => panic!("client {client}: {block:?}"),
        }
        None
    }

    /// Asks for the stream.
    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let mut stream = socket.connect(self.door).await?;
        let (door, token, cursor) = (self.door, &self.token, &self.cursor);
        let topics = self.topics.join("&topic=");
        let head = format!(
            "GET /v1/events?topic={topics} HTTP/1.1\r\nhost: {door}\r\n\
             authorization: Bearer {token}\r\nlast-event-id: {cursor}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
        Ok(stream)
    }
}

impl Visit {
    fn end(&mut self) -> End {
        match self.bye.take() {
            Some(reason) => End::Bye(reason),
            None => End::Broken,
        }
    }
}
