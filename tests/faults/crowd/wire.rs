//! What comes over the wire to one client of a crowd: an HTTP/1.1 answer, taken apart as it arrives, into
//! the blocks of an event stream. It holds no more than what is not whole yet.

use crate::support::client::{Block, parse};

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    /// An answer that is no stream.
    Refused(u16),
    Block(Block),
    /// The answer is over.
    Over,
}

enum Framing {
    /// Nothing is known yet.
    Head,
    Chunked,
    Length(usize),
    Close,
    Over,
}

/// An answer, as far as it has come.
pub(super) struct Wire {
    bytes: Vec<u8>,
    text: Vec<u8>,
    framing: Framing,
}

impl Wire {
    pub(super) fn new() -> Wire {
        Wire {
            bytes: Vec::new(),
            text: Vec::new(),
            framing: Framing::Head,
        }
    }

    /// Takes what has arrived.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// What of it is whole, one at a time.
    pub(super) fn next(&mut self) -> Option<Heard> {
        loop {
            if let Some(end) = find(&self.text, b"\n\n") {
                let block: Vec<u8> = self.text.drain(..end + 2).collect();
                if self.text.is_empty() {
                    self.text = Vec::new();
                }
                let block = std::str::from_utf8(&block).expect("a stream is text");
                return Some(Heard::Block(parse(block)));
            }
            match self.framing {
                Framing::Head => {
                    if let Some(status) = self.head()? {
                        return Some(Heard::Refused(status));
                    }
                }
                Framing::Chunked => self.chunk()?,
                Framing::Length(0) | Framing::Over => return Some(Heard::Over),
                Framing::Length(left) => {
                    let count = left.min(self.bytes.len());
                    self.text.extend(self.bytes.drain(..count));
                    self.framing = Framing::Length(left - count);
                    if count == 0 {
                        return None;
                    }
                }
                Framing::Close if self.bytes.is_empty() => return None,
                Framing::Close => self.text.append(&mut self.bytes),
            }
        }
    }

    /// Reads the head, once it is whole; answers the status of whatever is no stream.
    fn head(&mut self) -> Option<Option<u16>> {
        let end = find(&self.bytes, b"\r\n\r\n")?;
        let head: Vec<u8> = self.bytes.drain(..end + 4).collect();
        let head = String::from_utf8(head)
            .expect("a head is text")
            .to_lowercase();
        let value = |name: &str| {
            let mut lines = head.split("\r\n").skip(1);
            lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let status = head.split(' ').nth(1).expect("a status line");
        let status = status.parse().expect("a status");
        if status != 200 || value("content-type") != Some("text/event-stream") {
            return Some(Some(status));
        }
        self.framing = match (value("content-length"), value("transfer-encoding")) {
            (Some(length), _) => Framing::Length(length.parse().expect("a length")),
            (None, Some(_)) => Framing::Chunked,
            (None, None) => Framing::Close,
        };
        Some(None)
    }

    fn chunk(&mut self) -> Option<()> {
        let line = find(&self.bytes, b"\r\n")?;
        let size = std::str::from_utf8(&self.bytes[..line]).expect("a chunk size");
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        let end = line + 2 + size;
        if self.bytes.len() < end + 2 {
            return None;
        }
        self.text.extend_from_slice(&self.bytes[line + 2..end]);
        self.bytes.drain(..end + 2);
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        if size == 0 {
            self.framing = Framing::Over;
        }
        Some(())
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
