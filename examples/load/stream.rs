//! One stream, as bytes make it: from connecting over the head and the word that it is open to payloads.
//! Between reads it keeps no more than the unfinished tail of a payload.

use std::io::Write;

use clap::ValueEnum;
use memchr::memmem;
use mio::net::TcpStream;

use crate::chunks::Chunks;
use crate::payload::{Finder, Payload};
use crate::{Result, failure};

/// The most bytes before a stream is open: a head, and the gateway's first block.
const OPENING_BYTES: usize = 64 << 10;

/// When a stream counts as open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Await {
    /// When `event: tidings.ready` has come
    Ready,
    /// When the head of the answer has come
    Head,
    /// When the first byte of the body has come
    Body,
}

/// A socket, and how far it is.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    pub(crate) number: usize,
    stage: Stage,
    chunks: Chunks,
    /// What has been read and cannot be understood yet.
    carry: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Head,
    Beginning,
    Open,
}

impl Stream {
    pub(crate) fn new(socket: TcpStream, number: usize) -> Self {
        Self {
            socket,
            number,
            stage: Stage::Connecting,
            chunks: Chunks::None,
            carry: Vec::new(),
        }
    }

    pub(crate) fn is_connecting(&self) -> bool {
        self.stage == Stage::Connecting
    }

    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Sends the request once the socket is connected.
    pub(crate) fn request(&mut self, head: impl FnOnce() -> Result<String>) -> Result<()> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error.into());
        }
        if self.socket.peer_addr().is_err() {
            return Ok(());
        }
        let head = head()?;
        // The buffer of a new socket holds far more than a head.
        if self.socket.write(head.as_bytes())? < head.len() {
            return Err("the request did not fit into the socket".into());
        }
        self.stage = Stage::Head;
        Ok(())
    }

    /// Takes what has been read, and hands out the payloads that are whole with it.
    pub(crate) fn receive(
        &mut self,
        bytes: &[u8],
        awaited: Await,
        finder: &Finder,
        mut found: impl FnMut(Payload),
    ) -> Result<()> {
        if self.stage != Stage::Head {
            return self.body(bytes, awaited, finder, &mut found);
        }
        self.carry.extend_from_slice(bytes);
        let Some(end) = memmem::find(&self.carry, b"\r\n\r\n") else {
            return self.check_size();
        };
        let mut read = std::mem::take(&mut self.carry);
        let body = read.split_off(end + 4);
        self.chunks = Chunks::begin(is_chunked(&read)?);
        self.stage = match awaited {
            Await::Head => Stage::Open,
            Await::Body | Await::Ready => Stage::Beginning,
        };
        self.body(&body, awaited, finder, &mut found)
    }

    fn body(
        &mut self,
        mut bytes: &[u8],
        awaited: Await,
        finder: &Finder,
        found: &mut impl FnMut(Payload),
    ) -> Result<()> {
        let mut last: &[u8] = &[];
        while let Some(text) = self.chunks.next(&mut bytes) {
            match self.stage {
                Stage::Open => self.scan(text, finder, found),
                _ => self.begin(text, awaited, finder, found)?,
            }
            last = text;
        }
        // The connection may stay, for another request.
        if self.chunks == Chunks::Over {
            let last = String::from_utf8_lossy(last);
            return Err(failure(format!(
                "the server has ended it, at last with {last:?}"
            )));
        }
        Ok(())
    }

    /// Reads on until the stream says that it is open.
    fn begin(
        &mut self,
        text: &[u8],
        awaited: Await,
        finder: &Finder,
        found: &mut impl FnMut(Payload),
    ) -> Result<()> {
        self.carry.extend_from_slice(text);
        let end = match awaited {
            Await::Ready => ready_end(&self.carry),
            Await::Head | Await::Body => Some(0),
        };
        let Some(end) = end else {
            return self.check_size();
        };
        self.stage = Stage::Open;
        let read = std::mem::take(&mut self.carry);
        self.scan(&read[end..], finder, found);
        Ok(())
    }

    fn scan(&mut self, text: &[u8], finder: &Finder, found: &mut impl FnMut(Payload)) {
        if self.carry.is_empty() {
            let kept = finder.scan(text, found);
            self.carry.extend_from_slice(&text[kept..]);
        } else {
            self.carry.extend_from_slice(text);
            let kept = finder.scan(&self.carry, found);
            self.carry.drain(..kept);
        }
    }

    fn check_size(&self) -> Result<()> {
        if self.carry.len() <= OPENING_BYTES {
            return Ok(());
        }
        Err(failure(format!("it does not open: {}", self.last_words())))
    }

    /// What was read last and not understood, for people.
    pub(crate) fn last_words(&self) -> String {
        let shown = &self.carry[..self.carry.len().min(1 << 10)];
        String::from_utf8_lossy(shown).into_owned()
    }
}

/// Whether the body that follows this head comes in chunks. Any status but 200 is a failure.
fn is_chunked(head: &[u8]) -> Result<bool> {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") && !text.starts_with("http/1.0 200") {
        return Err(failure(format!("it is refused: {text}")));
    }
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    Ok(fields.any(|(name, value)| name == "transfer-encoding" && value.trim() == "chunked"))
}

/// Where the block ends by which the gateway says that a stream is live.
fn ready_end(text: &[u8]) -> Option<usize> {
    let start = memmem::find(text, b"event: tidings.ready\n")?;
    Some(start + memmem::find(&text[start..], b"\n\n")? + 2)
}
