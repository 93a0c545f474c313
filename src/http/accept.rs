//! Accepting: from a listening socket to requests, with a bound on everything that a client could
//! leave unfinished.
//!
//! A silent socket, a head that trickles in and a peer that stops reading each meet a deadline;
//! connections are counted, and quiet ones make room; closing waits for open responses, for as long as
//! it is told to.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::http::request::Parts;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::body::{Body, Counted};
use super::io::{Io, Version};
use super::places::{Answering, Place, Places};
use super::takeover::{self, End, Exit};

/// A pause after the listener could not accept, which means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often HTTP/2 peers are asked whether they live, and how long they may take to answer.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What HTTP/2 buffers for a stream: a frame or two, since the queue of the stream lies behind it.
const H2_SEND_BYTES: usize = 64 << 10;

tokio::task_local! {
    /// Ends the task in which a request is answered: a connection of HTTP/1, a stream of HTTP/2.
    static CUT: CancellationToken;
}

/// What ends the answer to this request at once, whatever its client does.
pub(super) fn cut(request: &Parts) -> CancellationToken {
    let cut = request.extensions.get::<CancellationToken>();
    cut.cloned().unwrap_or_default()
}

/// Runs a task until it ends or is cut.
async fn until_cut(cut: CancellationToken, task: impl Future) {
    tokio::select! {
        () = cut.cancelled() => {}
        _ = CUT.scope(cut.clone(), task) => {}
    }
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request of the client at this address.
    fn handle(
        self: Arc<Self>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// The bounds of a listener.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Connections at once.
    pub connections: usize,
    /// From accepting to the end of the first head, and from one request to the next head.
    pub head_timeout: Duration,
    /// The size of a head.
    pub head_bytes: usize,
    /// How long a write may make no progress.
    pub write_timeout: Duration,
    /// Streams of one HTTP/2 connection.
    pub h2_streams: u32,
    /// The gauge of streams that leave hyper, if they do.
    pub direct: Option<Gauge>,
    /// Counts the connections that were closed for a newcomer.
    pub spared: Counter,
}

/// How a listener is told to end.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    /// No further connection is accepted; open ones end with their responses.
    pub graceful: CancellationToken,
    /// Whatever is still open ends now.
    pub hard: CancellationToken,
}

/// Accepts until closing begins; returns when every connection has ended.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    handler: Arc<H>,
    bounds: Bounds,
    closing: Closing,
) {
    let connections = TaskTracker::new();
    let places = Places::new(bounds.connections, bounds.spared.clone());
    let bounds = Arc::new(bounds);
    loop {
        let accepted = tokio::select! {
            () = closing.graceful.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; are descriptors used up?");
                places.end_oldest();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = closing.graceful.cancelled() => break,
            place = places.take() => place,
        };
        let connection = Connection {
            handler: handler.clone(),
            peer,
            place: place.clone(),
            bounds: bounds.clone(),
            closing: closing.clone(),
            tasks: connections.clone(),
        };
        connections.spawn(async move {
            let hard = connection.closing.hard.clone();
            tokio::select! {
                () = hard.cancelled() => {}
                () = until_cut(place.cut.clone(), connection.run(stream)) => {}
            }
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

/// One client's connection.
struct Connection<H> {
    handler: Arc<H>,
    peer: SocketAddr,
    place: Arc<Place>,
    bounds: Arc<Bounds>,
    closing: Closing,
    tasks: TaskTracker,
}

impl<H: Handler> Connection<H> {
    async fn run(self, stream: TcpStream) {
        let deadline = Instant::now() + self.bounds.head_timeout;
        if let Err(error) = prepare(&stream, self.bounds.write_timeout) {
            tracing::debug!(%error, "socket option refused");
        }
        let detect = Io::detect(stream, self.bounds.write_timeout);
        let (io, version) = match tokio::time::timeout_at(deadline, detect).await {
            Ok(Ok(detected)) => detected,
            // Gone or silent before it said a word: there is nobody to answer.
            Ok(Err(_)) | Err(_) => return,
        };
        let place = self.place.clone();
        let silent = async {
            tokio::time::sleep_until(deadline).await;
            if place.has_begun() {
                std::future::pending::<()>().await;
            }
        };
        // Each in a box of its own size, since a connection lives long and this task is as large as
        // the largest thing in it.
        let run = async {
            match version {
                Version::One => Box::pin(self.one(io)).await,
                Version::Two => Box::pin(self.two(io)).await,
            }
        };
        tokio::select! {
            () = silent => {}
            result = run => {
                if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
            }
        }
    }

    async fn one(self, mut io: Io) -> hyper::Result<()> {
        let mut answers = Answers::new(self.handler, self.peer, self.place);
        let exit = Exit::default();
        if self.bounds.direct.is_some() {
            io.set_exit(exit.clone());
            answers.exit = Some(exit.clone());
        }
        let service = service_fn(|request| answers.answer(request));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head_timeout)
            .max_buf_size(self.bounds.head_bytes)
            .writev(true);
        let connection = builder.serve_connection(TokioIo::new(io), service);
        let graceful = self.closing.graceful.cancelled();
        match takeover::run(connection, &exit, graceful).await {
            End::Over(result) => result,
            End::Left(connection, departure) => {
                // Before the connection says that nothing is being answered on it any more.
                let answering = answers.place.answering();
                let counted = self.bounds.direct.clone().map(Counted::new);
                drop(departure.counted);
                let keep = (departure.seat, counted, answering, self.tasks.token());
                match takeover::socket(connection).into_std() {
                    Ok(socket) => departure.live.onto(socket, Box::new(keep)).await,
                    Err(error) => tracing::warn!(%error, "a stream's socket is lost"),
                }
                Ok(())
            }
        }
    }

    async fn two(self, io: Io) -> hyper::Result<()> {
        let answers = Answers::new(self.handler, self.peer, self.place);
        let service = service_fn(|request| answers.answer(request));
        let mut builder = hyper::server::conn::http2::Builder::new(Tracked {
            tasks: self.tasks,
            hard: self.closing.hard.clone(),
        });
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.bounds.h2_streams)
            .max_header_list_size(u32::try_from(self.bounds.head_bytes).unwrap_or(u32::MAX))
            .max_send_buf_size(H2_SEND_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        let connection = builder.serve_connection(TokioIo::new(io), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            result = &mut connection => return result,
            () = self.closing.graceful.cancelled() => {}
            // HTTP/1 has its time-out for the next head; here nothing else ends an idle connection.
            () = answers.place.idle(self.bounds.head_timeout) => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            result = &mut connection => result,
            // A client that never says that it has heard of the end would otherwise put it off.
            () = answers.place.idle(self.bounds.head_timeout) => Ok(()),
        }
    }
}

/// Answers the requests of one connection.
struct Answers<H> {
    handler: Arc<H>,
    peer: SocketAddr,
    place: Arc<Place>,
    /// How a stream leaves its connection.
    exit: Option<Exit>,
}

impl<H: Handler> Answers<H> {
    fn new(handler: Arc<H>, peer: SocketAddr, place: Arc<Place>) -> Self {
        Self {
            handler,
            peer,
            place,
            exit: None,
        }
    }

    fn answer(
        &self,
        mut request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Open>, Infallible>> + use<H> {
        let (handler, peer) = (self.handler.clone(), self.peer);
        let answering = self.place.answering();
        let exit = self.exit.clone();
        if let Some(exit) = exit.filter(|_| takeover::is_possible(&request)) {
            request.extensions_mut().insert(exit);
        }
        async move {
            request.extensions_mut().insert(CUT.with(Clone::clone));
            let response = handler.handle(peer, request).await;
            Ok(response.map(|body| Open {
                body,
                _answering: answering,
            }))
        }
    }
}

/// A body that counts as open while it lives.
struct Open {
    body: Body,
    _answering: Answering,
}

impl hyper::body::Body for Open {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Small frames leave at once, and a peer that has vanished is noticed by its silence.
fn prepare(stream: &TcpStream, write_timeout: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(write_timeout))?;
    #[cfg(not(target_os = "linux"))]
    let _ = write_timeout;
    socket.set_keepalive(true)
}

/// Runs the tasks of HTTP/2 streams where their end is awaited.
#[derive(Clone)]
struct Tracked {
    tasks: TaskTracker,
    hard: CancellationToken,
}

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        let hard = self.hard.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = hard.cancelled() => {}
                () = until_cut(CancellationToken::new(), task) => {}
            }
        });
    }
}
