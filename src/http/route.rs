//! Routes: which request goes where.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, Version, header};
use ipnet::IpNet;

use super::accept::Handler;
use super::body::Body;
use super::cors;
use super::events::{events, plain};
use super::problem::Problem;
use super::publish::publish;
use super::sync::sync;
use super::tickets::tickets;
use crate::auth::{Authority, Origins};
use crate::hub::Directory;
use crate::metrics::Metrics;
use crate::relay::Relay;

/// What the routes ask of a request, beside what it may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Topics of one stream, or of one sync.
    pub topics_per_stream: usize,
    /// Events of one page of a sync.
    pub sync_page: usize,
    /// How long a whole sync, or publishing an event, may take.
    pub statement_timeout: Duration,
    /// Bytes of a body.
    pub body_bytes: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
}

/// Answers what the gateway has no route for, given method and path; `None` is a 404.
pub type Pages = Arc<dyn Fn(&Method, &str) -> Option<Response<Full<Bytes>>> + Send + Sync>;

/// Everything that answers clients.
pub struct App {
    /// Who is calling.
    pub authority: Arc<Authority>,
    /// Whose pages may ask.
    pub origins: Origins,
    /// Whose word about the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Who is here.
    pub directory: Arc<Directory>,
    /// Where streams come from.
    pub relay: Relay,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Bounds.
    pub limits: Limits,
    /// Pages beside the interface.
    pub pages: Option<Pages>,
}

impl Handler for App {
    async fn handle(
        self: Arc<Self>,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let (request, body) = request.into_parts();
        let methods = match request.uri.path() {
            "/v1/events" => "GET, HEAD, POST, OPTIONS",
            "/v1/sync" => "GET, HEAD, OPTIONS",
            "/v1/tickets" => "POST, OPTIONS",
            path => {
                let page = self.pages.as_ref();
                let page = page.and_then(|pages| pages(&request.method, path));
                let mut response = page.unwrap_or_else(|| Problem::NotFound.into_response());
                cors::expose(&self.origins, &request.headers, response.headers_mut());
                return plain(response);
            }
        };
        if let Err(problem) = check_host(&request) {
            return plain(problem.into_response());
        }
        if request.method == Method::OPTIONS {
            return plain(cors::preflight(&self.origins, &request.headers, methods));
        }
        // A stream says good-bye, and comes back; anything else is asked again.
        if self.directory.is_closed() && !is_stream(&request) {
            let mut response = Problem::unavailable().into_response();
            cors::expose(&self.origins, &request.headers, response.headers_mut());
            return plain(response);
        }
        // What takes long stands in boxes: a connection keeps room for the largest answer that it may
        // be asked for, and most of them carry a stream for hours.
        let answer = match (request.uri.path(), &request.method) {
            ("/v1/events", &Method::GET | &Method::HEAD) => {
                Box::pin(events(&self, peer, &request)).await
            }
            ("/v1/events", &Method::POST) => Box::pin(publish(&self, &request, body)).await,
            ("/v1/tickets", &Method::POST) => tickets(&self, &request),
            ("/v1/sync", &Method::GET | &Method::HEAD) => {
                Box::pin(sync(&self, peer, &request)).await
            }
            _ => Err(Problem::MethodNotAllowed(methods)),
        };
        let mut response = answer.unwrap_or_else(|problem| plain(problem.into_response()));
        cors::expose(&self.origins, &request.headers, response.headers_mut());
        response
    }
}

/// Whether the request is for a stream.
fn is_stream(request: &Parts) -> bool {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    reads && request.uri.path() == "/v1/events"
}

/// HTTP/1.1 asks for exactly one `Host`: two may mean another server to a proxy than to us.
fn check_host(request: &Parts) -> Result<(), Problem> {
    let hosts = request.headers.get_all(header::HOST).iter().count();
    if request.version == Version::HTTP_11 && hosts != 1 {
        return Err(Problem::BadRequest("Send one Host header."));
    }
    Ok(())
}
