//! The operations listener: whether the process lives, whether it is ready, and what it counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::accept::Handler;
use super::body::Body;
use super::events::plain;
use super::problem::{Problem, common_headers};
use crate::hub::Budget;
use crate::metrics::Metrics;
use crate::relay::Status;

/// How long a lost database leaves the gateway ready: an ingress that answers 503 in its place
/// closes every EventSource for good, and open streams are better than none.
const PATIENCE: Duration = Duration::from_secs(60);

/// What operators ask.
pub struct Ops {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How looking goes.
    pub status: Arc<Status>,
    /// What waits for streams.
    pub budget: Arc<Budget>,
    /// Whether the gateway is going away.
    pub draining: Arc<AtomicBool>,
}

impl Handler for Ops {
    async fn handle(
        self: Arc<Self>,
        _peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return plain(Problem::MethodNotAllowed("GET, HEAD").into_response());
        }
        plain(match request.uri().path() {
            "/livez" => text(StatusCode::OK, "live\n"),
            "/readyz" => match self.unready() {
                None => text(StatusCode::OK, "ready\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, reason),
            },
            "/metrics" => self.metrics(),
            _ => Problem::NotFound.into_response(),
        })
    }
}

impl Ops {
    fn unready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            return Some("draining\n");
        }
        if !self.status.has_looked() {
            return Some("has not read the log yet\n");
        }
        (self.status.away_for() > PATIENCE).then_some("the database is away\n")
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        self.metrics.queued_bytes.set(self.budget.used() as i64);
        let mut response = Response::new(Full::from(self.metrics.encode()));
        common_headers(response.headers_mut());
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    common_headers(response.headers_mut());
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
