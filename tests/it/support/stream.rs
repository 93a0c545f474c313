//! A stream as an EventSource would follow it, block by block; these are compared with `docs/openapi.yaml`.

use serde_json::Value;

use super::client::{Connection, find, header};
use super::interface::check_block;

/// How many blocks of a stream are each compared with the document. Of those after them, and of streams that
/// are read as fast as can be, each thousandth is: comparing takes several times as long as reading, and a
/// reader that it slows down is one whom gateways end, which is not what tests of many events are about.
const COMPARED: usize = 1_000;
const COMPARED_EVERY: usize = 1_000;

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
    /// The stream on a connection whose head has been read.
    pub(super) fn new(connection: Connection) -> Stream {
        Stream {
            connection,
            unread: Vec::new(),
            last_id: None,
            retry: None,
            blocks: 0,
        }
    }

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
