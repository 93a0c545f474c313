//! Bytes to the gateway as they are, and what comes back: which statuses, and whether it ended.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::PATIENCE;

/// One conversation, from connecting to its end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Input {
    /// What is sent, in pieces with pauses between them.
    pub(crate) pieces: Vec<Vec<u8>>,
    /// Between two pieces.
    pub(crate) pause: Duration,
    /// Whether the client says that it sends no more, or leaves it open.
    pub(crate) shut: bool,
}

impl Input {
    /// All of it at once.
    pub(crate) fn of(bytes: impl Into<Vec<u8>>) -> Input {
        Input {
            pieces: vec![bytes.into()],
            ..Input::default()
        }
    }

    /// What is sent, to be shown when it fails.
    pub(crate) fn shown(&self) -> String {
        let bytes = self.pieces.concat();
        let shown: Vec<u8> = bytes.iter().copied().take(600).collect();
        let (pieces, length) = (self.pieces.len(), bytes.len());
        format!(
            "{length} bytes in {pieces} pieces, shut {}: {}",
            self.shut,
            shown.escape_ascii()
        )
    }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) bytes: Vec<u8>,
    /// Whether it was an open stream, which was left.
    pub(crate) streams: bool,
}

impl Output {
    /// The statuses of all answers, in order. No answer of ours holds the name of the protocol in its body.
    pub(crate) fn statuses(&self) -> Vec<u16> {
        let name = b"HTTP/1.";
        let starts = self.bytes.windows(name.len()).enumerate();
        let starts = starts.filter(|(_, window)| window == name);
        let statuses = starts.filter_map(|(at, _)| {
            let status = self.bytes.get(at + 9..at + 12)?;
            std::str::from_utf8(status).ok()?.parse().ok()
        });
        statuses.collect()
    }
}

/// Has the conversation. It fails when the gateway neither ends it nor streams.
pub(crate) async fn converse(address: SocketAddr, input: &Input) -> Output {
    let socket = TcpStream::connect(address).await.expect("connects");
    let (mut from, mut to) = socket.into_split();
    let say = async {
        for (n, piece) in input.pieces.iter().enumerate() {
            if n > 0 && !input.pause.is_zero() {
                tokio::time::sleep(input.pause).await;
            }
            // Whoever refuses early may have closed already.
            if to.write_all(piece).await.is_err() {
                return;
            }
        }
        if input.shut {
            let _ = to.shutdown().await;
        }
    };
    let hear = async {
        let mut output = Output::default();
        let mut buffer = [0; 16 << 10];
        loop {
            match from.read(&mut buffer).await {
                Ok(0) | Err(_) => return output,
                Ok(count) => output.bytes.extend_from_slice(&buffer[..count]),
            }
            let streams = b"text/event-stream";
            output.streams = output
                .bytes
                .windows(streams.len())
                .any(|window| window == streams);
            if output.streams {
                return output;
            }
        }
    };
    let both = async {
        let mut say = std::pin::pin!(say);
        let mut hear = std::pin::pin!(hear);
        tokio::select! {
            output = &mut hear => output,
            () = &mut say => hear.await,
        }
    };
    let output = tokio::time::timeout(PATIENCE, both).await;
    output.unwrap_or_else(|_| panic!("neither an answer nor an end: {}", input.shown()))
}
