//! A client over HTTP/2 that grants exactly as much as it wants to be sent: what it does not grant waits in
//! the queue of its stream, to the byte, and not in buffers of the kernel.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::abuse::frames::{self, DATA, END_STREAM, RESET, SETTINGS, WINDOW};
use crate::support::client::PATIENCE;
use crate::support::gateway::Door;

/// The name of the setting for how much each stream is granted at first.
const INITIAL_WINDOW: u16 = 4;
const WINDOW_USUAL: u32 = 65_535;

/// One connection, whose streams are granted nothing more once they are ready.
pub(super) struct Stalled {
    socket: TcpStream,
    bytes: Vec<u8>,
    heard: Vec<frames::Heard>,
}

impl Stalled {
    /// A connection on which nothing has been asked.
    pub(super) async fn connect(door: Door) -> Stalled {
        let mut socket = TcpStream::connect(door.address()).await.expect("connects");
        let opening = frames::opening(&[]);
        socket.write_all(&opening).await.expect("writes");
        Stalled {
            socket,
            bytes: Vec::new(),
            heard: Vec::new(),
        }
    }

    /// Asks for this topic.
    pub(super) async fn ask(&mut self, stream: u32, topic: &str, bearer: &str) {
        let bearer = format!("Bearer {bearer}");
        let target = format!("/v1/events?topic={topic}");
        let block = frames::request("GET", &target, &[("authorization", &bearer)]);
        let bytes = frames::asks(stream, END_STREAM, &block);
        self.socket.write_all(&bytes).await.expect("writes");
    }

    /// A stream of this topic that is ready and granted nothing any more.
    pub(super) async fn on(door: Door, topic: &str, bearer: &str) -> Stalled {
        let mut stalled = Stalled::connect(door).await;
        stalled.ask(1, topic, bearer).await;
        stalled.until(|text| text.contains("tidings.ready")).await;
        let acknowledged = stalled.acknowledged();
        let nothing = frames::settings(&[(INITIAL_WINDOW, 0)]);
        stalled.socket.write_all(&nothing).await.expect("writes");
        while stalled.acknowledged() == acknowledged {
            stalled.read().await;
        }
        stalled
    }

    fn acknowledged(&self) -> usize {
        let heard = self.heard.iter();
        heard
            .filter(|heard| heard.kind == SETTINGS && heard.flags == frames::ACK)
            .count()
    }

    /// Grants as much as anybody could want.
    pub(super) async fn grant(&mut self) {
        let more = 1_u32 << 29;
        for stream in [0, 1] {
            let bytes = frames::frame(WINDOW, 0, stream, &more.to_be_bytes());
            self.socket.write_all(&bytes).await.expect("writes");
        }
        let usual = frames::settings(&[(INITIAL_WINDOW, WINDOW_USUAL)]);
        self.socket.write_all(&usual).await.expect("writes");
    }

    /// Reads until the first stream has said this; returns all of it.
    pub(super) async fn until(&mut self, said: impl Fn(&str) -> bool) -> String {
        loop {
            let data = self
                .heard
                .iter()
                .filter(|heard| heard.kind == DATA && heard.stream == 1);
            let bytes: Vec<u8> = data.flat_map(|heard| heard.payload.clone()).collect();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if said(&text) {
                return text;
            }
            self.read().await;
        }
    }

    /// Reads until this stream has been reset; returns why.
    pub(super) async fn until_reset(&mut self, stream: u32) -> u32 {
        loop {
            let mut heard = self.heard.iter();
            let reset = heard.find(|heard| heard.kind == RESET && heard.stream == stream);
            if let Some(reset) = reset {
                return reset.error().expect("a reset has a code");
            }
            self.read().await;
        }
    }

    /// The frames of one kind so far.
    pub(super) fn of_kind(&self, kind: u8) -> impl Iterator<Item = &frames::Heard> {
        self.heard.iter().filter(move |heard| heard.kind == kind)
    }

    /// Reads some more.
    pub(super) async fn read(&mut self) {
        let mut buffer = [0; 16 << 10];
        let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut buffer)).await;
        let count = read.expect("something comes").expect("a connection");
        assert!(count > 0, "the connection has ended");
        self.bytes.extend_from_slice(&buffer[..count]);
        let (heard, taken) = frames::read(&self.bytes);
        self.bytes.drain(..taken);
        self.heard.extend(heard);
    }
}
