//! `POST /v1/events`: publishing, for backends that cannot run SQL.
//!
//! Data passes through as the caller wrote it: Postgres alone decides whether it is jsonb.

use std::borrow::Cow;

use hyper::body::Incoming;
use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::body::Body;
use super::presented;
use super::problem::Problem;
use super::query::Query;
use super::read_body::read_json;
use super::route::App;
use super::sync::json;
use crate::auth::Credential;
use crate::postgres::publish::{self, Draft, PublishError, Published};
use crate::postgres::{Lease, Unserved};
use crate::relay::sync::GRACE;
use crate::topic::{Topic, check_type};

/// The most bytes of data, which the schema holds: larger things belong where they can be fetched.
const DATA_BYTES: usize = 256 << 10;

/// The most characters of a key, which the schema holds.
const KEY_CHARACTERS: usize = 255;

/// What the body says.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    key: Option<Cow<'a, str>>,
}

/// Publishes what the body says.
pub(crate) async fn publish(
    app: &App,
    request: &Parts,
    body: Incoming,
) -> Result<Response<Body>, Problem> {
    Query::parse(request.uri.query())?;
    let presented = presented::presented(request, None)?;
    let identity = app.authority.identify(&presented, Timestamp::now())?;
    if identity.credential() != Credential::Bearer {
        return Err(Problem::Unauthorized);
    }
    // Nobody's body is waited for who could not publish it.
    if !identity.publishes() {
        return Err(Problem::PublishForbidden);
    }
    let (most, within) = (app.limits.body_bytes, app.limits.body_timeout);
    let body = read_json(&request.headers, body, most, within).await?;
    let wanted = read(&body)?;
    let topic = Topic::parse(&wanted.topic)?;
    check_type(&wanted.kind)?;
    if wanted.key.as_deref().is_some_and(|key| !is_key(key)) {
        return Err(Problem::InvalidBody(
            "A key has 1 to 255 characters, none of them \\u0000.",
        ));
    }
    if !identity.may_publish(&topic) {
        return Err(Problem::PublishForbidden);
    }
    let draft = Draft {
        topic: &topic,
        kind: &wanted.kind,
        data: wanted.data.map_or("null", RawValue::get),
        key: wanted.key.as_deref(),
    };
    let (status, id) = match send(app, &draft).await? {
        Published::Now(id) => (StatusCode::CREATED, id),
        Published::Before(id) => (StatusCode::OK, id),
    };
    Ok(json(status, format!("{{\"id\":\"{id}\"}}")))
}

async fn send(app: &App, draft: &Draft<'_>) -> Result<Published, Problem> {
    let act = async {
        let mut session = Lease::take(&app.relay.pool)
            .await
            .map_err(PublishError::Unserved)?;
        let published = publish::publish(&mut session, draft).await;
        session.release();
        published
    };
    let published = timeout(app.limits.statement_timeout + GRACE, act).await;
    published
        .unwrap_or(Err(PublishError::Unserved(Unserved::Busy)))
        .map_err(problem)
}

fn problem(error: PublishError) -> Problem {
    match error {
        PublishError::TooLarge => Problem::DataTooLarge { most: DATA_BYTES },
        PublishError::Data(fault) => Problem::InvalidBody(fault),
        PublishError::Unserved(unserved) => {
            unserved.log("publish");
            Problem::unavailable()
        }
        PublishError::Forbidden(error) => {
            tracing::error!(?error, "the gateway's database user cannot publish");
            Problem::Internal
        }
    }
}

fn is_key(key: &str) -> bool {
    (1..=KEY_CHARACTERS).contains(&key.chars().count()) && !key.contains('\0')
}

fn read(body: &[u8]) -> Result<Wanted<'_>, Problem> {
    let wanted = serde_json::from_slice(body).map_err(|error| fault(&error))?;
    // A list of the members' values would pass as well.
    match body.trim_ascii_start().first() {
        Some(b'{') => Ok(wanted),
        _ => Err(Problem::InvalidBody(EXAMPLE)),
    }
}

const EXAMPLE: &str = "It is an object whose topic, type and key are texts: \
     {\"topic\":\"user:42\",\"type\":\"payment.settled\",\"data\":{},\"key\":\"p-1\"}.";

/// What is wrong with the body, without repeating anything of it.
fn fault(error: &serde_json::Error) -> Problem {
    let text = error.to_string();
    Problem::InvalidBody(if !error.is_data() {
        "It is not valid JSON in UTF-8."
    } else if text.starts_with("missing field `topic`") {
        "It has no topic."
    } else if text.starts_with("missing field `type`") {
        "It has no type."
    } else if text.starts_with("unknown field") {
        "It has a member besides topic, type, data and key."
    } else if text.starts_with("duplicate field") {
        "It has a member twice."
    } else {
        EXAMPLE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_that_is_wrong_is_told_what_is() {
        for (body, part) in [
            ("", "not valid JSON"),
            ("{", "not valid JSON"),
            ("{\"topic\":\"a\",\"type\":\"b\"} x", "not valid JSON"),
            ("{\"type\":\"b\"}", "no topic"),
            ("{\"topic\":\"a\"}", "no type"),
            ("{\"topic\":\"a\",\"type\":\"b\",\"x\":1}", "besides"),
            ("{\"topic\":\"a\",\"topic\":\"a\",\"type\":\"b\"}", "twice"),
            ("{\"topic\":1,\"type\":\"b\"}", "are texts"),
            ("[]", "are texts"),
            ("[\"a\",\"b\",null,null]", "are texts"),
            ("null", "are texts"),
        ] {
            let Err(Problem::InvalidBody(text)) = read(body.as_bytes()) else {
                panic!("{body} was read");
            };
            assert!(text.contains(part), "{body}: {text}");
        }
        for body in [
            "{\"topic\":\"a\",\"type\":\"b\"}",
            "{\"topic\":\"\\u0061\",\"type\":\"b\",\"data\":null,\"key\":null}",
            "{\"key\":\"\\u00fc\",\"data\":{\"a\":[1e400]},\"topic\":\"a\",\"type\":\"b\"}",
        ] {
            assert!(read(body.as_bytes()).is_ok(), "{body}");
        }
    }
}
