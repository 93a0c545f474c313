//! Bodies of responses: one block of bytes, or a stream of events.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prometheus_client::metrics::gauge::Gauge;

use super::stall::Progress;
use crate::hub::Seat;
use crate::relay::Feed;

/// How much HTTP/2 is handed at once, in bytes: a peer on a slow line has the whole write timeout for
/// this much, and not for a large event.
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
    _seat: Seat,
    open: Gauge,
    /// Watched over HTTP/2 only: over HTTP/1.1 the connection itself is.
    progress: Option<Arc<Progress>>,
    /// What is left of a block.
    rest: Bytes,
}

impl Events {
    /// Counts the stream as open until it is dropped.
    pub(crate) fn new(feed: Feed, seat: Seat, open: Gauge) -> Self {
        open.inc();
        Self {
            feed,
            _seat: seat,
            open,
            progress: Progress::current(),
            rest: Bytes::new(),
        }
    }
}

impl Events {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(progress) = &self.progress else {
            return self.feed.poll_next(cx);
        };
        if self.rest.is_empty() {
            match self.feed.poll_next(cx) {
                Poll::Ready(Some(block)) => self.rest = block,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    progress.waits();
                    return Poll::Pending;
                }
            }
        }
        progress.handed_out();
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
