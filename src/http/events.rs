//! `GET /v1/events`: the stream.
//!
//! Only a wrong request is refused by a status. Whatever is not the caller's fault is a stream
//! that says good-bye, since a browser's EventSource never comes back from anything but a 200.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, Version};
use jiff::Timestamp;

use super::body::{Body, Events};
use super::problem::{Problem, common_headers};
use super::query::Query;
use super::route::App;
use super::takeover::Exit;
use super::{accept, address, presented};
use crate::auth::{Identity, Refusal};
use crate::frame::Bye;
use crate::hub::directory::Guest;
use crate::relay::{Feed, Request, Since};
use crate::topic::Topic;

/// Answers a request for a stream.
pub(crate) async fn events(
    app: &App,
    peer: SocketAddr,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(request.uri.query())?;
    let since = since(&request.headers, &query)?;
    let presented = presented::presented(request, query.one("ticket")?)?;
    let identity = match app.authority.identify(&presented, Timestamp::now()) {
        Err(Refusal::TicketsUnavailable) => {
            let bye = Feed::bye(&app.relay, Bye::Unavailable, &since);
            return Ok(stream(Body::Full(Full::new(bye))));
        }
        identity => identity?,
    };
    let (topics, denied) = choose_topics(&query, &identity, app.limits.topics_per_stream)?;
    let named = match query.one("named")? {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err(Problem::BadRequest("named is 1 or 0.")),
    };
    if request.method == Method::HEAD {
        return Ok(stream(Body::Full(Full::default())));
    }
    let (guest, label) = guest(app, peer, request, &identity);
    let Ok(seat) = app.directory.take(guest.clone()) else {
        let bye = Feed::bye(&app.relay, Bye::Overload, &since);
        return Ok(stream(Body::Full(Full::new(bye))));
    };
    let mut feed = Feed::open(
        app.relay.clone(),
        Request {
            topics,
            denied,
            since,
            named,
            expires: identity.expires_at().map(deadline),
            guest,
            label,
        },
    );
    feed.begin().await;
    let watched = app.directory.watch(accept::cut(request));
    let open = app.metrics.streams("hyper");
    let events = Events::new(feed, seat, watched, open, Exit::of(request));
    let mut response = stream(Body::Events(events));
    if request.version == Version::HTTP_11 {
        // Whoever writes it, the connection carries nothing after it.
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

/// Who asks, as limits count it, and as logs call it.
pub(crate) fn guest(
    app: &App,
    peer: SocketAddr,
    request: &Parts,
    identity: &Identity,
) -> (Guest, Arc<str>) {
    let client = address::client(peer.ip(), &request.headers, &app.trusted_proxies);
    match identity.user() {
        Some(user) => (
            Guest::User(user.into()),
            format!("{user} at {client}").into(),
        ),
        None => {
            let key = address::limit_key(client).to_string();
            (Guest::Address(key.into()), client.to_string().into())
        }
    }
}

/// The topics that are asked for, or the caller's own: those that may be read, each once, and the
/// others.
pub(crate) fn choose_topics(
    query: &Query,
    identity: &Identity,
    most: usize,
) -> Result<(Vec<Topic>, Vec<String>), Problem> {
    let mut asked: Vec<Topic> = Vec::new();
    for text in query.all("topic") {
        let topic = Topic::parse(text)?;
        if !asked.contains(&topic) {
            asked.push(topic);
        }
        if asked.len() > most {
            return Err(Problem::TooManyTopics { most });
        }
    }
    if asked.is_empty() {
        asked.extend(identity.own_topic().cloned());
    }
    if asked.is_empty() {
        return Err(Problem::NoTopic);
    }
    let (topics, denied): (Vec<Topic>, Vec<Topic>) = asked
        .into_iter()
        .partition(|topic| identity.may_read(topic));
    if topics.is_empty() {
        return Err(Problem::TopicsForbidden);
    }
    let denied = denied.iter().map(Topic::to_string).collect();
    Ok((topics, denied))
}

/// Where the stream begins: the header, which a browser sends when it comes back, counts before
/// the parameter, which it repeats for ever.
fn since(headers: &HeaderMap, query: &Query) -> Result<Since, Problem> {
    let mut lines = headers
        .get_all(HeaderName::from_static("last-event-id"))
        .iter();
    let header = lines.next().filter(|value| !value.is_empty());
    if lines.next().is_some() {
        return Err(Problem::BadRequest(
            "Send one Last-Event-ID header at most.",
        ));
    }
    let text = match header {
        Some(value) => match value.to_str() {
            Ok(text) => Some(text),
            Err(_) => return Ok(Since::Malformed),
        },
        None => query.one("since")?,
    };
    Ok(match text.map(str::parse) {
        None => Since::Now,
        Some(Ok(cursor)) => Since::Cursor(Box::new(cursor)),
        Some(Err(_)) => Since::Malformed,
    })
}

/// When a stream ends with its token, on the monotonic clock, and as its client is told.
fn deadline(expires_at: Timestamp) -> (Instant, String) {
    let left = expires_at.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or(Duration::ZERO);
    // A century is as good as never, and no clock overflows on it.
    let left = left.min(Duration::from_secs(100 * 366 * 86_400));
    (Instant::now() + left, expires_at.to_string())
}

fn stream(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    common_headers(headers);
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store, no-transform"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A response that is not a stream.
pub(crate) fn plain(response: Response<Full<Bytes>>) -> Response<Body> {
    response.map(Body::from)
}
