//! One GET over one connection, for commands that ask a gateway something.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;

/// An answer, whose connection lasts as long as it is held.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    _connection: JoinSet<()>,
}

/// Sends the request over HTTP/1.1 and waits for the head of the answer.
pub(super) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<Answer> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // An error of the connection reaches whoever awaits the answer.
        let _ = connection.await;
    });
    Ok(Answer {
        response: sender.send_request(request).await?,
        _connection: driver,
    })
}
