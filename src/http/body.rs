//! Bodies of responses: one block of bytes, or a stream of events.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;

use crate::hub::Seat;
use crate::relay::Feed;

/// How much is handed to the writer at once, in bytes: a client on a slow line has its time for this
/// much, and not for a large event.
const SLICE_BYTES: usize = 16 << 10;

/// What a response carries.
pub enum Body {
    /// All of it at once.
    Full(Full<Bytes>),
    /// A stream of events.
    Events(Events),
}

/// An open stream: its bytes, its seat, its place in the count.
pub struct Events {
    feed: Feed,
    /// What is left of a block.
    rest: Bytes,
    seat: Seat,
    open: Gauge,
}

impl Events {
    /// Counts the stream as open until it is dropped.
    pub(crate) fn new(feed: Feed, seat: Seat, open: Gauge) -> Self {
        open.inc();
        Self {
            feed,
            rest: Bytes::new(),
            seat,
            open,
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.rest.is_empty() {
            match self.feed.poll_next(cx) {
                Poll::Ready(Some(block)) => self.rest = block,
                end_or_pending => {
                    self.seat.asked(false);
                    return end_or_pending;
                }
            }
        }
        self.seat.asked(true);
        let slice = self.rest.split_to(self.rest.len().min(SLICE_BYTES));
        Poll::Ready(Some(slice))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.open.dec();
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(full) => full.is_end_stream(),
            Self::Events(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(full) => full.size_hint(),
            Self::Events(_) => SizeHint::default(),
        }
    }
}
