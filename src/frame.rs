//! Frames: events as SSE bytes, encoded once and shared by every stream that sends them, and the
//! gateway's own blocks.
//!
//! A frame is laid out as a socket takes it, in chunks of HTTP/1.1, so that each form that a stream may want
//! is a slice of one buffer, or two of them:
//!
//! ```text
//! 18\r\n
//! event: payment.settled\n        only with `?named=1`
//! \r\n
//! 8a\r\n
//! data: {…}\n
//! id: 1~…\n                       absent in signals; a replay writes its own
//! \n
//! \r\n
//! ```
//!
//! The `id:` comes last: some clients take it for read as soon as its line is, and one that was cut within long
//! data would otherwise never see the event.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::event::Event;

/// A cursor's text, shared by all who hold it.
pub type Position = Arc<str>;

/// The end of a chunk.
const CHUNK_END: &str = "\r\n";

/// The end of a chunked body.
const BODY_END: &str = "0\r\n\r\n";

/// One event, ready to be written.
#[derive(Clone, Debug)]
pub struct Frame {
    bytes: Bytes,
    /// The cursor of whoever has received the frame; `None` for signals and for positions that do
    /// not fit. It stands beside the bytes so that a stream can remember it without them.
    position: Option<Position>,
    /// The `event:` line.
    event_line: Range<u32>,
    /// Where the chunk of everything else begins.
    chunk: u32,
    /// Where that begins itself, with the `data:` line.
    block: u32,
    /// Where the `id:` line begins, or the empty line if there is none.
    id_line: u32,
}

impl Frame {
    /// Encodes an event; `position` is the cursor of whoever has received it, and is left out when
    /// it does not fit, since a client without a new `id:` keeps its last.
    pub fn event(event: &Event, position: Option<Position>) -> Self {
        let mut json = String::with_capacity(160 + event.data.len());
        event.write_json(&mut json);
        Self::new(&event.kind, position, &json)
    }

    /// Encodes a signal, which has no position; `json` is one line.
    pub fn signal(kind: &str, json: &str) -> Self {
        Self::new(kind, None, json)
    }

    /// A frame with any position.
    #[cfg(test)]
    pub(crate) fn numbered(position: &str, json: &str) -> Self {
        Self::new("k", Some(position.into()), json)
    }

    fn new(kind: &str, position: Option<Position>, json: &str) -> Self {
        let event_size = "event: \n".len() + kind.len();
        let id_size = position
            .as_ref()
            .map_or(0, |text| "id: \n".len() + text.len());
        let block_size = id_size + "data: \n\n".len() + json.len();
        // Each size takes 16 digits at most, and four bytes beside them and at the end.
        let mut text = String::with_capacity(event_size + block_size + 2 * 20);
        let at = |text: &String| u32::try_from(text.len()).expect("an event has bounds");

        push_chunk_size(&mut text, event_size);
        let event_line = at(&text)..at(&text) + event_size as u32;
        push_line(&mut text, "event: ", kind);
        text.push_str(CHUNK_END);
        let chunk = at(&text);
        push_chunk_size(&mut text, block_size);
        let block = at(&text);
        push_line(&mut text, "data: ", json);
        let id_line = at(&text);
        if let Some(position) = &position {
            push_line(&mut text, "id: ", position);
        }
        text.push('\n');
        debug_assert_eq!(text.len(), block as usize + block_size);
        text.push_str(CHUNK_END);
        Self {
            bytes: text.into(),
            position,
            event_line,
            chunk,
            block,
            id_line,
        }
    }

    /// The block in chunks of HTTP/1.1.
    pub fn chunks(&self, named: bool) -> &[u8] {
        &self.bytes[if named { 0 } else { self.chunk as usize }..]
    }

    /// The block as a body holds it: the `event:` line or nothing, and everything else.
    pub fn parts(&self, named: bool) -> [Bytes; 2] {
        let event_line = if named {
            self.slice(self.event_line.clone())
        } else {
            Bytes::new()
        };
        [event_line, self.slice(self.block..self.block_end())]
    }

    /// The size of the block in bytes, with its `event:` line.
    pub fn size(&self) -> usize {
        let block = self.block_end() - self.block;
        self.event_line.len() + block as usize
    }

    /// What it holds in memory, in bytes: the buffer, and the position beside it.
    pub fn cost(&self) -> usize {
        self.bytes.len() + self.position.as_ref().map_or(0, |text| text.len())
    }

    /// The cursor that the frame carries.
    pub fn position(&self) -> Option<&Position> {
        self.position.as_ref()
    }

    /// The block as a replay sends it, with a position of the replay's own.
    pub fn replayed(&self, named: bool, position: Option<&str>) -> Bytes {
        let mut text = String::with_capacity(self.bytes.len() + 64);
        if named {
            text.push_str(self.text(self.event_line.clone()));
        }
        text.push_str(self.text(self.block..self.id_line));
        if let Some(position) = position {
            push_line(&mut text, "id: ", position);
        }
        text.push('\n');
        text.into()
    }

    fn block_end(&self) -> u32 {
        (self.bytes.len() - CHUNK_END.len()) as u32
    }

    fn slice(&self, range: Range<u32>) -> Bytes {
        self.bytes.slice(range.start as usize..range.end as usize)
    }

    fn text(&self, range: Range<u32>) -> &str {
        let bytes = &self.bytes[range.start as usize..range.end as usize];
        std::str::from_utf8(bytes).expect("built from strings, cut at line ends")
    }
}

/// A block of the gateway's own, in a chunk of HTTP/1.1.
#[derive(Clone, Debug)]
pub struct Chunk {
    bytes: Bytes,
    block: Range<usize>,
}

impl Chunk {
    /// A chunk of one block.
    pub fn new(block: &[u8]) -> Self {
        Self::build(block, "")
    }

    /// A chunk of one block, and the end of the body after it.
    pub fn last(block: &[u8]) -> Self {
        Self::build(block, BODY_END)
    }

    fn build(block: &[u8], end: &str) -> Self {
        let mut size = String::new();
        push_chunk_size(&mut size, block.len());
        let begin = size.len();
        let mut bytes = Vec::with_capacity(begin + block.len() + CHUNK_END.len() + end.len());
        bytes.extend_from_slice(size.as_bytes());
        bytes.extend_from_slice(block);
        bytes.extend_from_slice(CHUNK_END.as_bytes());
        bytes.extend_from_slice(end.as_bytes());
        Self {
            bytes: bytes.into(),
            block: begin..begin + block.len(),
        }
    }

    /// As a socket takes it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// As a body holds it.
    pub fn block(&self) -> Bytes {
        self.bytes.slice(self.block.clone())
    }
}

/// Why a replay is not possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reset {
    /// What the cursor has not seen may have been trimmed.
    Trimmed,
    /// The history that the cursor has seen is not the database's.
    Diverged,
    /// More was missed than a stream replays; sync pages through it.
    TooFar,
    /// The text is no cursor.
    Malformed,
}

impl Reset {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Diverged => "diverged",
            Self::TooFar => "too-far",
            Self::Malformed => "malformed",
        }
    }
}

/// Why the gateway ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bye {
    /// The gateway is going away, or the stream has reached its age.
    Drain,
    /// The token has expired.
    Expired,
    /// The token has been revoked.
    Revoked,
    /// The client reads more slowly than events arrive.
    Slow,
    /// A limit is reached.
    Overload,
    /// The database is away.
    Unavailable,
    /// History was rewritten under the gateway.
    Diverged,
}

impl Bye {
    /// The word on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Slow => "slow",
            Self::Overload => "overload",
            Self::Unavailable => "unavailable",
            Self::Diverged => "diverged",
        }
    }

    /// How long the client is asked to wait before it comes back, jittered so that those who left
    /// together do not return together. Who met a limit waits for minutes rather than seconds.
    pub fn retry(self) -> Duration {
        let range = match self {
            Self::Overload => 60_000..120_000,
            Self::Drain | Self::Diverged => 500..3_000,
            Self::Expired | Self::Revoked | Self::Slow => 1_000..3_000,
            Self::Unavailable => 2_000..8_000,
        };
        Duration::from_millis(fastrand::u64(range))
    }
}

/// The first line of every stream: how long a client waits before it reconnects.
pub fn retry_line() -> Bytes {
    Bytes::from(format!("retry: {}\n", fastrand::u32(2_000..4_000)))
}

/// The heartbeat at a position.
pub fn beat(position: Option<&str>) -> Bytes {
    own("tidings.beat", position, None, "{}")
}

/// The end of a stream, with the position that the client holds.
pub fn bye(reason: Bye, position: Option<&str>) -> Bytes {
    let data = format!("{{\"reason\":\"{}\"}}", reason.as_str());
    own("tidings.bye", position, Some(reason.retry()), &data)
}

/// The refusal of a cursor, with that cursor, so that a client that is cut meets it again.
/// The wait spreads those who were refused together.
pub fn reset(reason: Reset, position: Option<&str>) -> Bytes {
    let wait_ms = fastrand::u32(0..1_000);
    let data = format!(
        "{{\"reason\":\"{}\",\"wait_ms\":{wait_ms}}}",
        reason.as_str()
    );
    own("tidings.reset", position, None, &data)
}

/// The word that a stream is live; `json` is its data in one line.
pub fn ready(position: Option<&str>, json: &str) -> Bytes {
    own("tidings.ready", position, None, json)
}

fn own(kind: &str, position: Option<&str>, retry: Option<Duration>, json: &str) -> Bytes {
    let mut text = String::with_capacity(64 + json.len() + position.map_or(0, str::len));
    push_line(&mut text, "event: ", kind);
    push_line(&mut text, "data: ", json);
    if let Some(retry) = retry {
        push_line(&mut text, "retry: ", &retry.as_millis().to_string());
    }
    if let Some(position) = position.filter(|position| !position.is_empty()) {
        push_line(&mut text, "id: ", position);
    }
    text.push('\n');
    text.into()
}

fn push_chunk_size(text: &mut String, size: usize) {
    write!(text, "{size:x}{CHUNK_END}").expect("a string takes all");
}

fn push_line(text: &mut String, field: &str, value: &str) {
    text.push_str(field);
    text.push_str(value);
    text.push('\n');
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::topic::Topic;

    /// Where bytes of a chunked body end.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum End {
        /// Between two chunks.
        Between,
        /// Within one, or within its size.
        Within,
        /// After the last.
        Over,
    }

    /// What a chunked body holds, read as strictly as a client may, and where it ends.
    pub(crate) fn dechunk(mut bytes: &[u8]) -> (String, End) {
        let mut body = Vec::new();
        let end = loop {
            if bytes.is_empty() {
                break End::Between;
            }
            let Some(line) = bytes.windows(2).position(|two| two == b"\r\n") else {
                break End::Within;
            };
            let (size, rest) = (&bytes[..line], &bytes[line + 2..]);
            assert!(size.iter().all(u8::is_ascii_hexdigit), "a size: {size:?}");
            let size = std::str::from_utf8(size).expect("digits");
            let size = usize::from_str_radix(size, 16).expect("a size");
            body.extend_from_slice(&rest[..rest.len().min(size)]);
            if rest.len() < size + 2 {
                break End::Within;
            }
            assert_eq!(&rest[size..size + 2], b"\r\n", "the end of a chunk");
            bytes = &rest[size + 2..];
            if size == 0 {
                assert!(bytes.is_empty(), "after the end: {bytes:?}");
                break End::Over;
            }
        };
        (String::from_utf8(body).expect("text"), end)
    }

    #[test]
    fn a_chunked_body_is_read_up_to_where_it_ends() {
        let text = |body: &str, end| (body.to_owned(), end);
        assert_eq!(dechunk(b""), text("", End::Between));
        assert_eq!(dechunk(b"2\r\nab\r\n1\r\nc\r\n"), text("abc", End::Between));
        assert_eq!(dechunk(b"2\r\nab\r\nA"), text("ab", End::Within));
        assert_eq!(dechunk(b"2\r\nab\r\n3\r\nc"), text("abc", End::Within));
        assert_eq!(dechunk(b"1\r\na\r\n0\r\n\r\n"), text("a", End::Over));
    }

    fn event() -> Event {
        Event {
            id: 1,
            xid: 2,
            at: 0,
            topic: Topic::parse("t").expect("a topic"),
            kind: "k".into(),
            data: "null".into(),
        }
    }

    const DATA: &str = "data: {\"id\":\"1\",\"topic\":\"t\",\"type\":\"k\",\"at\":\"1970-01-01T00:00:00.000000Z\",\"data\":null}\n";

    #[test]
    fn each_form_is_a_slice_of_one_buffer() {
        let frame = Frame::event(&event(), Some("1~5~1.00000000".into()));
        let block = format!("{DATA}id: 1~5~1.00000000\n\n");
        assert_eq!(frame.parts(false).concat(), block.as_bytes());
        let named = format!("event: k\n{block}");
        assert_eq!(frame.parts(true).concat(), named.as_bytes());
        assert_eq!(frame.size(), named.len());
        let chunk = format!("{:x}\r\n{block}\r\n", block.len());
        assert_eq!(frame.chunks(false), chunk.as_bytes());
        let chunks = format!("9\r\nevent: k\n\r\n{chunk}");
        assert_eq!(frame.chunks(true), chunks.as_bytes());
        assert_eq!(frame.position().map(|text| &**text), Some("1~5~1.00000000"));
        assert_eq!(frame.replayed(false, Some("x")), format!("{DATA}id: x\n\n"));
        assert_eq!(frame.replayed(true, None), format!("event: k\n{DATA}\n"));
    }

    #[test]
    fn without_a_position_there_is_no_id_line() {
        let frame = Frame::event(&event(), None);
        assert_eq!(frame.parts(false).concat(), format!("{DATA}\n").as_bytes());
        assert_eq!(frame.position(), None);
        assert_eq!(beat(None), "event: tidings.beat\ndata: {}\n\n");
    }

    #[test]
    fn a_chunk_holds_its_block_and_may_be_the_last() {
        let chunk = Chunk::new(b"data: 0123456789\n\n");
        assert_eq!(chunk.bytes(), b"12\r\ndata: 0123456789\n\n\r\n");
        assert_eq!(chunk.block(), "data: 0123456789\n\n");
        let last = Chunk::last(&chunk.block());
        assert_eq!(last.bytes(), b"12\r\ndata: 0123456789\n\n\r\n0\r\n\r\n");
    }
}
