//! `GET /v1/sync`: state and what was missed, for who arrives or comes back.
//!
//! The answer is one JSON object. State and payloads pass through as Postgres wrote them.

use std::net::SocketAddr;

use hyper::header::{self, HeaderValue};
use hyper::http::request::Parts;
use hyper::{Method, Response, StatusCode};
use jiff::Timestamp;

use super::accept;
use super::body::{Body, Large};
use super::events::{choose_topics, guest, plain};
use super::presented;
use super::problem::{Problem, common_headers};
use super::query::Query;
use super::route::App;
use crate::postgres::state::StateError;
use crate::relay::Since;
use crate::relay::sync::{Answer, Failure, Question};
use crate::relay::turn::Busy;

/// The most events of a page when the caller does not say.
const PAGE_USUAL: usize = 200;

/// Answers a sync.
pub(crate) async fn sync(
    app: &App,
    peer: SocketAddr,
    request: &Parts,
) -> Result<Response<Body>, Problem> {
    let query = Query::parse(request.uri.query())?;
    let presented = presented::presented(request, None)?;
    let identity = app.authority.identify(&presented, Timestamp::now())?;
    let (topics, denied) = choose_topics(&query, &identity, app.limits.topics_per_stream)?;
    let question = Question {
        topics,
        since: match query.one("since")?.map(str::parse) {
            None => Since::Now,
            Some(Ok(cursor)) => Since::Cursor(Box::new(cursor)),
            Some(Err(_)) => Since::Malformed,
        },
        limit: limit(query.one("limit")?, app.limits.sync_page)?,
        state: match query.one("state")? {
            None | Some("yes") => true,
            Some("no") => false,
            Some(_) => return Err(Problem::BadRequest("state is yes or no.")),
        },
        claims: identity.claims().to_owned(),
        guest: guest(app, peer, request, &identity).0,
    };
    if request.method == Method::HEAD {
        return Ok(json(StatusCode::OK, String::new()));
    }
    let answer = app.relay.sync(&question, app.limits.statement_timeout);
    let answer = answer.await.map_err(|failure| problem(app, failure))?;
    let text = write(&answer, &denied);
    drop(answer);
    let room = app.relay.turns.room(text.len());
    let room = room.map_err(|Busy| Problem::unavailable())?;
    let watched = app.directory.watch(accept::cut(request));
    let body = Large::new(text.into(), watched, room);
    Ok(json(StatusCode::OK, String::new()).map(|_| Body::Large(body)))
}

/// How many events a page may have: as many as are asked for, within bounds.
fn limit(asked: Option<&str>, most: usize) -> Result<usize, Problem> {
    let Some(text) = asked else {
        return Ok(PAGE_USUAL.min(most));
    };
    match text.parse::<usize>() {
        Ok(limit) if limit > 0 => Ok(limit.min(most)),
        _ => Err(Problem::BadRequest("limit is a number from 1 on.")),
    }
}

fn problem(app: &App, failure: Failure) -> Problem {
    match failure {
        Failure::Unserved(unserved) => {
            unserved.log("sync");
            Problem::unavailable()
        }
        Failure::State(topic, error) => {
            let fault = match &error {
                StateError::TooLarge => "its state is larger than 1 MiB.",
                _ => "its state function failed; the operator's log says how.",
            };
            tracing::warn!(%topic, ?error, "the state of a topic could not be told");
            Problem::StateFailed { topic, fault }
        }
        Failure::NoCursor => {
            app.metrics.positions_too_long.inc();
            tracing::warn!("too many open transactions for a cursor: syncs are not answered");
            Problem::no_cursor()
        }
    }
}

/// The answer as JSON. Topics, cursors and reasons consist of characters that JSON does not escape.
fn write(answer: &Answer, denied: &[String]) -> String {
    let payloads = answer.events.iter().map(|event| 160 + event.data.len());
    let states = answer.state.iter().flatten();
    let states = states.map(|(topic, state)| 4 + topic.as_str().len() + state.len());
    let mut out = String::with_capacity(256 + payloads.chain(states).sum::<usize>());
    out.push_str("{\"cursor\":\"");
    out.push_str(&answer.cursor);
    out.push_str("\",\"reset\":");
    match answer.reset {
        None => out.push_str("null"),
        Some(reason) => push_text(&mut out, reason.as_str()),
    }
    out.push_str(",\"more\":");
    out.push_str(if answer.more { "true" } else { "false" });
    out.push_str(",\"denied\":");
    push_all(&mut out, "[]", denied, |out, topic| push_text(out, topic));
    if let Some(states) = &answer.state {
        out.push_str(",\"state\":");
        push_all(&mut out, "{}", states, |out, (topic, state)| {
            push_text(out, topic.as_str());
            out.push(':');
            out.push_str(state);
        });
    }
    out.push_str(",\"events\":");
    push_all(&mut out, "[]", &answer.events, |out, event| {
        event.write_json(out)
    });
    out.push('}');
    out
}

fn push_text(out: &mut String, text: &str) {
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// Writes items between these brackets, with commas.
fn push_all<T>(out: &mut String, brackets: &str, items: &[T], write: impl Fn(&mut String, &T)) {
    let (open, close) = brackets.split_at(1);
    out.push_str(open);
    for (n, item) in items.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write(out, item);
    }
    out.push_str(close);
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(bytes::Bytes::from(text).into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    common_headers(headers);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    plain(response)
}
