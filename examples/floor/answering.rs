//! hyper over HTTP/1 with its defaults: the head of a stream, its first block, and an open body.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream;
use futures::{Stream, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Result;

/// How a stream of the gateway begins, without a cursor.
const BEGINNING: &str = "retry: 3000\nevent: tidings.ready\ndata: {}\n\n";

/// Answers whoever connects, for ever.
pub(crate) async fn answer(listener: TcpListener) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                connections.spawn(serve(accepted?.0));
            }
            Some(ended) = connections.join_next() => ended?,
        }
    }
}

/// One connection, to its end.
async fn serve(socket: TcpStream) {
    if let Err(error) = socket.set_nodelay(true) {
        eprintln!("a socket option is refused: {error}");
    }
    let service = service_fn(async |_: Request<Incoming>| {
        let body = StreamBody::new(beginning());
        let response = Response::builder()
            .header(header::CONTENT_TYPE, "text/event-stream")
            .header(header::CACHE_CONTROL, "no-store, no-transform")
            .header("x-accel-buffering", "no");
        response.body(body)
    });
    let connection = hyper::server::conn::http1::Builder::new();
    // Clients go without good-bye.
    let _ = connection
        .serve_connection(TokioIo::new(socket), service)
        .await;
}

fn beginning() -> impl Stream<Item = std::result::Result<Frame<Bytes>, Infallible>> {
    let first = Frame::data(Bytes::from_static(BEGINNING.as_bytes()));
    stream::iter([Ok(first)]).chain(stream::pending())
}
