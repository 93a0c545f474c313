//! What takeover relies on and hyper does not document: when the transport is flushed after an offer, all that
//! hyper had to write has been taken by it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Frame;
use hyper::service::service_fn;
use proptest::prelude::*;
use tokio::io::ReadBuf;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::frame::tests::{End as BodyEnd, dechunk};
use crate::http::io::Version as Spoken;

const REQUEST: &[u8] = b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n";

/// A time that no test takes. Time stands still while something happens: what would never end, ends at once.
const FOREVER: Duration = Duration::from_secs(3600);

/// Both ends of a connection.
#[derive(Clone)]
struct Transport(Arc<Mutex<Wire>>);

struct Wire {
    /// What the client has sent.
    sent: VecDeque<u8>,
    /// Whether it sends no more.
    closed: bool,
    reader: Option<Waker>,
    /// What has come to the client.
    written: Vec<u8>,
    /// The most that one write takes, in bytes.
    each: usize,
    /// The most that all of them take.
    room: usize,
    /// Whether no flush ends.
    holds_flush: bool,
    /// Whether the next write or flush is put off, in turn.
    moods: VecDeque<bool>,
    shut: bool,
}

impl Transport {
    fn new(each: usize, moods: &[bool]) -> Self {
        Self(Arc::new(Mutex::new(Wire {
            sent: REQUEST.iter().copied().collect(),
            closed: false,
            reader: None,
            written: Vec::new(),
            each,
            room: usize::MAX,
            holds_flush: false,
            // One that is always put off never ends.
            moods: moods.iter().copied().chain([false]).collect(),
            shut: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().expect("nothing panics while it is held")
    }

    fn close(&self) {
        let mut wire = self.lock();
        wire.closed = true;
        if let Some(reader) = wire.reader.take() {
            reader.wake();
        }
    }

    /// The head and the body that have come to the client.
    fn answer(&self) -> (String, Vec<u8>) {
        let mut head = self.lock().written.clone();
        let end = head.windows(4).position(|four| four == b"\r\n\r\n");
        let body = head.split_off(end.expect("a whole head") + 4);
        (String::from_utf8(head).expect("text"), body)
    }
}

impl Wire {
    fn puts_off(&mut self, cx: &Context<'_>) -> bool {
        self.moods.rotate_left(1);
        let off = self.moods[0];
        if off {
            cx.waker().wake_by_ref();
        }
        off
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        if wire.sent.is_empty() && !wire.closed {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = wire.sent.len().min(buffer.remaining());
        let bytes: Vec<u8> = wire.sent.drain(..count).collect();
        buffer.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.lock();
        let count = bytes.len().min(wire.each).min(wire.room);
        if count == 0 || wire.puts_off(cx) {
            return Poll::Pending;
        }
        wire.room -= count;
        wire.written.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.lock();
        if wire.holds_flush || wire.puts_off(cx) {
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.lock().shut = true;
        Poll::Ready(Ok(()))
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// The next block, of so many bytes.
    Block(usize),
    /// It comes later.
    Pend,
}

/// A body of numbered bytes that leaves at its end, or ends.
struct Blocks {
    steps: VecDeque<Step>,
    said: usize,
    exit: Option<Exit<()>>,
    offered: Arc<AtomicBool>,
}

fn numbered(bytes: std::ops::Range<usize>) -> String {
    bytes.map(|at| char::from(b'0' + (at % 71) as u8)).collect()
}

impl HttpBody for Blocks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.steps.pop_front() {
            Some(Step::Block(size)) => {
                let block = numbered(self.said..self.said + size);
                self.said += size;
                Poll::Ready(Some(Ok(Frame::data(block.into()))))
            }
            Some(Step::Pend) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            None => {
                let Some(exit) = &self.exit else {
                    return Poll::Ready(None);
                };
                if !self.offered.swap(true, Ordering::Relaxed) {
                    exit.offer(());
                }
                Poll::Pending
            }
        }
    }
}

/// A connection whose requests are answered with a body of these steps.
struct Run {
    transport: Transport,
    steps: Vec<Step>,
    leaves: bool,
    /// Whether a body has made its offer.
    offered: Arc<AtomicBool>,
    graceful: CancellationToken,
}

impl Run {
    fn new(transport: &Transport, steps: &[Step], leaves: bool) -> Self {
        Self {
            transport: transport.clone(),
            steps: steps.to_vec(),
            leaves,
            offered: Arc::default(),
            graceful: CancellationToken::new(),
        }
    }

    /// How it ends.
    async fn end(&self) -> End<Transport, ()> {
        let exit = Exit::default();
        let (mut io, version) = Io::detect(self.transport.clone(), FOREVER)
            .await
            .expect("a request");
        assert_eq!(version, Spoken::One);
        io.set_exit(exit.clone());
        let service = service_fn(|_| {
            let body = Blocks {
                steps: self.steps.iter().cloned().collect(),
                said: 0,
                exit: self.leaves.then(|| exit.clone()),
                offered: self.offered.clone(),
            };
            async { Ok::<_, Infallible>(Response::new(body)) }
        });
        // As a listener builds it.
        let connection = hyper::server::conn::http1::Builder::new()
            .max_buf_size(16 << 10)
            .writev(true)
            .serve_connection(TokioIo::new(io), service);
        let end = run(connection, &exit, self.graceful.cancelled());
        let end = tokio::time::timeout(FOREVER * 2, end).await;
        match end.expect("it does not stand still") {
            End::Left(connection, ()) => End::Left(socket(connection), ()),
            End::Over(result) => End::Over(result),
        }
    }
}

/// Runs a future where time passes only when nothing else happens.
fn run_now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Lets others run until something is so.
async fn until(is_so: impl Fn() -> bool) {
    for _ in 0..1_000_000 {
        if is_so() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never was");
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (1usize..200).prop_map(Step::Block),
        1 => (1usize..9_000).prop_map(Step::Block),
        4 => Just(Step::Pend),
    ];
    proptest::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn when_a_stream_leaves_every_byte_before_it_has_been_written_once(
        steps in steps(),
        each in prop_oneof![4 => Just(1usize), 1 => 2usize..5_000, 1 => Just(usize::MAX)],
        moods in proptest::collection::vec(any::<bool>(), 0..6),
    ) {
        let transport = Transport::new(each, &moods);
        let end = run_now(Run::new(&transport, &steps, true).end());
        prop_assert!(matches!(end, End::Left(_, ())), "it did not leave");
        let (head, body) = transport.answer();
        prop_assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{}", head);
        prop_assert!(head.contains("transfer-encoding: chunked\r\n"), "{}", head);
        let size = steps.iter().map(|step| match step {
            Step::Block(size) => *size,
            Step::Pend => 0,
        });
        prop_assert_eq!(dechunk(&body), (numbered(0..size.sum()), BodyEnd::Between));
        prop_assert!(!transport.lock().shut, "its socket is to be written on");
    }
}

#[test]
fn who_closes_while_its_stream_waits_for_the_flush_does_not_leave() {
    // It takes no more within the head, or within a chunk, or all but does not say so.
    for (room, holds_flush) in [(10, false), (300, false), (usize::MAX, true)] {
        let transport = Transport::new(usize::MAX, &[]);
        let run = Run::new(&transport, &[Step::Block(5_000)], true);
        transport.lock().room = room;
        transport.lock().holds_flush = holds_flush;
        let end = run_now(async {
            let closes = async {
                until(|| run.offered.load(Ordering::Relaxed)).await;
                transport.close();
            };
            tokio::join!(run.end(), closes).0
        });
        let End::Over(Err(error)) = end else {
            panic!("it left, or ended well");
        };
        assert!(error.is_incomplete_message(), "{error}");
        let written = transport.lock().written.len();
        assert!(written == room || (holds_flush && written > 5_000));
    }
}

#[test]
fn a_peer_that_takes_no_more_ends_the_connection_though_a_stream_waits_to_leave() {
    let transport = Transport::new(usize::MAX, &[]);
    transport.lock().room = 300;
    let end = run_now(Run::new(&transport, &[Step::Block(5_000)], true).end());
    assert!(matches!(end, End::Over(Err(_))), "its time is over");
}

#[test]
fn a_connection_that_nobody_leaves_ends_as_hyper_ends_it() {
    for each in [1, usize::MAX] {
        let transport = Transport::new(each, &[true, false]);
        transport.lock().sent.extend(REQUEST);
        let steps = [Step::Block(20), Step::Pend, Step::Block(30)];
        let run = Run::new(&transport, &steps, false);
        // It is kept for the next request, and closes with its client.
        let answers = || {
            let text = String::from_utf8(transport.lock().written.clone()).expect("text");
            let answers: Vec<String> = text.split("HTTP/1.1 ").map(str::to_owned).collect();
            answers
        };
        let end = run_now(async {
            let closes = async {
                until(|| answers().len() == 3 && answers()[2].ends_with("\r\n0\r\n\r\n")).await;
                transport.close();
            };
            tokio::join!(run.end(), closes).0
        });
        assert!(matches!(end, End::Over(Ok(()))));
        for answer in &answers()[1..] {
            let (_, body) = answer.split_once("\r\n\r\n").expect("a whole head");
            assert_eq!(dechunk(body.as_bytes()), (numbered(0..50), BodyEnd::Over));
        }
        assert!(transport.lock().shut);
    }
}

#[test]
fn a_connection_that_is_told_to_end_does_so_with_its_response() {
    let transport = Transport::new(1, &[]);
    let run = Run::new(&transport, &[Step::Block(20), Step::Pend], false);
    let end = run_now(async {
        let told = async {
            until(|| !transport.lock().written.is_empty()).await;
            run.graceful.cancel();
        };
        tokio::join!(run.end(), told).0
    });
    assert!(matches!(end, End::Over(Ok(()))));
    assert!(transport.lock().shut && !transport.lock().closed);
    let (_, body) = transport.answer();
    assert_eq!(dechunk(&body), (numbered(0..20), BodyEnd::Over));
}
