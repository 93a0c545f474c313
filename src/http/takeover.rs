//! Takeover: how a stream leaves hyper, which has parsed its request, answered it and written all that comes before
//! its live frames.
//!
//! The body offers the stream by the exit of its connection, once it is live, and says no more. From then on hyper
//! has nothing left but what is in its buffer; and when the transport is next flushed, that is on the wire, since hyper
//! flushes the transport only after its own buffer. Then the connection is taken apart, and the socket is free.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

use hyper::body::{Body as HttpBody, Incoming};
use hyper::http::request::Parts;
use hyper::server::conn::http1::Connection;
use hyper::service::HttpService;
use hyper::{Method, Request, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Counted;
use super::io::Io;
use crate::hub::Seat;
use crate::relay::Live;

/// A stream that leaves.
pub(super) struct Departure {
    pub(super) live: Live,
    pub(super) seat: Seat,
    /// It counts as hyper's until it is somebody else's.
    pub(super) counted: Counted,
}

/// The exit of one connection, seen by body, socket and connection.
pub(super) struct Exit<D = Departure>(Arc<Mutex<State<D>>>);

enum State<D> {
    /// Nobody wants to leave.
    Quiet,
    /// A stream does, once all before it has been written.
    Offered(D),
    /// And it has.
    Flushed(D),
}

impl<D> Clone for Exit<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D> Default for Exit<D> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State::Quiet)))
    }
}

impl Exit {
    /// The exit of the connection that this request came by, if its answer may leave by one.
    pub(super) fn of(request: &Parts) -> Option<Self> {
        request.extensions.get().cloned()
    }
}

impl<D> Exit<D> {
    /// The body has said all that hyper is to write.
    pub(super) fn offer(&self, departure: D) {
        *self.lock() = State::Offered(departure);
    }

    /// The transport has been flushed.
    pub(super) fn flushed(&self) {
        let mut state = self.lock();
        if let State::Offered(departure) = std::mem::replace(&mut *state, State::Quiet) {
            *state = State::Flushed(departure);
        }
    }

    fn is_offered(&self) -> bool {
        matches!(*self.lock(), State::Offered(_))
    }

    fn take(&self) -> Option<D> {
        let mut state = self.lock();
        match std::mem::replace(&mut *state, State::Quiet) {
            State::Flushed(departure) => Some(departure),
            other => {
                *state = other;
                None
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D>> {
        self.0.lock().expect("nothing panics while it is held")
    }
}

/// Whether the answer to a request may leave: a chunked body follows nothing but its head.
pub(super) fn is_possible(request: &Request<Incoming>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
}

/// How a connection ended.
pub(super) enum End<C, D = Departure> {
    /// As hyper ends it.
    Over(hyper::Result<()>),
    /// A stream leaves it, and wants its socket.
    Left(C, D),
}

/// The socket of a connection that is left.
pub(super) fn socket<T, S, B, D>(connection: Connection<TokioIo<Io<T, D>>, S>) -> T
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let io = connection.into_parts().io.into_inner();
    io.into_socket()
}

/// Runs a connection until it is over, or until a stream leaves it; once `graceful` resolves, it ends with its
/// response.
pub(super) async fn run<T, S, B, D>(
    mut connection: Connection<TokioIo<Io<T, D>>, S>,
    exit: &Exit<D>,
    graceful: impl Future<Output = ()>,
) -> End<Connection<TokioIo<Io<T, D>>, S>, D>
where
    T: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = B>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B: HttpBody + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut graceful = pin!(graceful);
    let mut closing = false;
    let (over, departure) = std::future::poll_fn(|cx| {
        if !closing && graceful.as_mut().poll(cx).is_ready() {
            closing = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        let mut over = Pin::new(&mut connection).poll(cx);
        if over.is_pending() && exit.is_offered() {
            // When its buffer was empty already, hyper has not flushed since the offer.
            over = Pin::new(&mut connection).poll(cx);
        }
        match (exit.take(), over) {
            (Some(departure), Poll::Pending) => Poll::Ready((None, Some(departure))),
            (_, Poll::Ready(result)) => Poll::Ready((Some(result), None)),
            (None, Poll::Pending) => Poll::Pending,
        }
    })
    .await;
    match departure {
        Some(departure) => End::Left(connection, departure),
        None => End::Over(over.expect("it is over, or a stream has left")),
    }
}

#[cfg(test)]
mod tests;
