//! Bodies of responses: one block of bytes, a stream of events, or an answer that may be large. The last
//! two are watched, because their clients may stop taking them.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;

use super::takeover::{Departure, Exit};
use crate::hub::{Seat, Watched};
use crate::relay::Feed;
use crate::relay::turn::Room;

/// How much is handed to the writer at once, in bytes: a client on a slow line has its time for this
/// much, and not for a large event.
const SLICE_BYTES: usize = 16 << 10;

/// What a response carries.
pub enum Body {
    /// All of it at once.
    Full(Full<Bytes>),
    /// A stream of events.
    Events(Events),
    /// An answer that may be large.
    Large(Large),
}

/// An answer that is handed out in slices, so that it is noticed when its client does not take it, and
/// that counts as held until then.
pub struct Large {
    rest: Bytes,
    watched: Watched,
    _room: Room,
}

impl Large {
    pub(crate) fn new(bytes: Bytes, watched: Watched, room: Room) -> Self {
        Self {
            rest: bytes,
            watched,
            _room: room,
        }
    }

    fn next(&mut self) -> Option<Bytes> {
        let slice = self.rest.split_to(self.rest.len().min(SLICE_BYTES));
        self.watched.asked(!slice.is_empty());
        (!slice.is_empty()).then_some(slice)
    }
}

/// An open stream: its bytes, its seat, its place in the count.
pub struct Events {
    feed: Feed,
    /// What is left of a block.
    rest: Bytes,
    watched: Watched,
    /// How its connection leaves hyper, if it can.
    exit: Option<Exit>,
    /// Whoever writes the stream has it.
    taken: Option<(Seat, Counted)>,
}

/// A stream in the gauge of its kind, until it is dropped.
pub(super) struct Counted(Gauge);

impl Counted {
    pub(super) fn new(open: Gauge) -> Self {
        open.inc();
        Self(open)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Events {
    /// A stream that hyper writes, and leaves by `exit` when it is live. It is counted as open until it is dropped.
    pub(super) fn new(
        feed: Feed,
        seat: Seat,
        watched: Watched,
        open: Gauge,
        exit: Option<Exit>,
    ) -> Self {
        Self {
            feed,
            rest: Bytes::new(),
            watched,
            exit,
            taken: Some((seat, Counted::new(open))),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.taken.is_none() {
            // It has left, and its connection will see that.
            return Poll::Pending;
        }
        if self.rest.is_empty() {
            if let Some(exit) = &self.exit
                && let Some(live) = self.feed.leave()
            {
                let (seat, counted) = self.taken.take().expect("a stream leaves once");
                exit.offer(Departure {
                    live,
                    seat,
                    counted,
                });
                self.watched.asked(true);
                return Poll::Pending;
            }
            match self.feed.poll_next(cx) {
                Poll::Ready(Some(block)) => self.rest = block,
                end_or_pending => {
                    self.watched.asked(false);
                    return end_or_pending;
                }
            }
        }
        self.watched.asked(true);
        let slice = self.rest.split_to(self.rest.len().min(SLICE_BYTES));
        Poll::Ready(Some(slice))
    }
}

impl From<Full<Bytes>> for Body {
    fn from(full: Full<Bytes>) -> Self {
        Self::Full(full)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Full(full) => Pin::new(full).poll_frame(cx),
            Self::Events(events) => {
                let next = events.poll_next(cx);
                next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Large(large) => Poll::Ready(large.next().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Events(_) => false,
            Self::Large(large) => large.rest.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Events(_) => SizeHint::default(),
            Self::Large(large) => SizeHint::with_exact(large.rest.len() as u64),
        }
    }
}
