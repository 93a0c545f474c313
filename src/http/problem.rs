//! Refusals as clients see them: RFC 9457 `application/problem+json`, one variant for each.
//!
//! A `type` is stable and means one thing, so that programs can act on it; `detail` tells people
//! what to do. Neither says anything about queries, paths, versions, or why a credential was
//! refused: all 401 answers are the same bytes.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;

use crate::auth::{Forbidden, Refusal};
use crate::topic::{Topic, TopicError, TypeError};

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The query, a header or their combination makes no sense; the text says what and is ours.
    BadRequest(&'static str),
    /// A topic or pattern is none.
    InvalidTopic(TopicError),
    /// A type is none.
    InvalidType(TypeError),
    /// There is no topic to read: none named, and the caller has no own one.
    NoTopic,
    /// More topics than a stream may have.
    TooManyTopics {
        /// How many it may have.
        most: usize,
    },
    /// The body is not the JSON that the route takes; the text says what and is ours.
    InvalidBody(&'static str),
    /// The body does not say that it is JSON.
    NotJson,
    /// A raw token stands in the URL.
    TokenInUrl,
    /// No valid credential.
    Unauthorized,
    /// The cookie came from a page that may not use it, or with another method than GET.
    CookieForbidden(Forbidden),
    /// None of the topics may be read.
    TopicsForbidden,
    /// The topic may not be published to.
    PublishForbidden,
    /// Nothing is here.
    NotFound,
    /// The route takes other methods, which these are.
    MethodNotAllowed(&'static str),
    /// The request took too long to arrive.
    RequestTimeout,
    /// The body is too large.
    BodyTooLarge {
        /// How many bytes it may have.
        most: usize,
    },
    /// The data of an event is too large.
    DataTooLarge {
        /// How many bytes it may have.
        most: usize,
    },
    /// The head is too large.
    HeadTooLarge,
    /// The state of a topic is too large, or its function failed.
    StateFailed {
        /// The topic, which the caller named itself.
        topic: Topic,
        /// What happened; ours.
        fault: &'static str,
    },
    /// Something is wrong here, and the log says what.
    Internal,
    /// So many transactions are open in the database that no cursor can name them.
    NoCursor {
        /// Seconds until it is worth trying again.
        retry_after: u32,
    },
    /// The database is away or has no time.
    Unavailable {
        /// Seconds until it is worth trying again.
        retry_after: u32,
    },
}

impl Problem {
    /// The database is away or has no time: come back in a few seconds, not all in the same one.
    pub fn unavailable() -> Problem {
        Problem::Unavailable {
            retry_after: fastrand::u32(1..=5),
        }
    }

    /// No cursor can be given: come back when some of the transactions have ended.
    pub fn no_cursor() -> Problem {
        Problem::NoCursor {
            retry_after: fastrand::u32(1..=5),
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Problem::BadRequest(_)
            | Problem::InvalidTopic(_)
            | Problem::InvalidType(_)
            | Problem::NoTopic
            | Problem::TooManyTopics { .. }
            | Problem::InvalidBody(_)
            | Problem::TokenInUrl => StatusCode::BAD_REQUEST,
            Problem::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Problem::Unauthorized => StatusCode::UNAUTHORIZED,
            Problem::CookieForbidden(_) | Problem::TopicsForbidden | Problem::PublishForbidden => {
                StatusCode::FORBIDDEN
            }
            Problem::NotFound => StatusCode::NOT_FOUND,
            Problem::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Problem::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Problem::BodyTooLarge { .. } | Problem::DataTooLarge { .. } => {
                StatusCode::PAYLOAD_TOO_LARGE
            }
            Problem::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Problem::StateFailed { .. } | Problem::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Problem::NoCursor { .. } | Problem::Unavailable { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// The last part of `type`, which is stable.
    pub fn name(&self) -> &'static str {
        match self {
            Problem::BadRequest(_) => "bad-request",
            Problem::InvalidTopic(_) => "invalid-topic",
            Problem::InvalidType(_) => "invalid-type",
            Problem::NoTopic => "no-topic",
            Problem::TooManyTopics { .. } => "too-many-topics",
            Problem::InvalidBody(_) => "invalid-body",
            Problem::NotJson => "not-json",
            Problem::TokenInUrl => "token-in-url",
            Problem::Unauthorized => "unauthorized",
            Problem::CookieForbidden(_) => "cookie-forbidden",
            Problem::TopicsForbidden => "topics-forbidden",
            Problem::PublishForbidden => "publish-forbidden",
            Problem::NotFound => "not-found",
            Problem::MethodNotAllowed(_) => "method-not-allowed",
            Problem::RequestTimeout => "request-timeout",
            Problem::BodyTooLarge { .. } => "body-too-large",
            Problem::DataTooLarge { .. } => "data-too-large",
            Problem::HeadTooLarge => "head-too-large",
            Problem::StateFailed { .. } => "state-failed",
            Problem::Internal => "internal",
            Problem::NoCursor { .. } => "no-cursor",
            Problem::Unavailable { .. } => "unavailable",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Problem::BadRequest(_) => "The request cannot be understood",
            Problem::InvalidTopic(_) => "That is no topic",
            Problem::InvalidType(_) => "That is no type of an event",
            Problem::NoTopic => "No topic is named",
            Problem::TooManyTopics { .. } => "Too many topics for one stream",
            Problem::InvalidBody(_) => "The body cannot be understood",
            Problem::NotJson => "The body is not JSON",
            Problem::TokenInUrl => "A token does not belong in a URL",
            Problem::Unauthorized => "A valid credential is needed",
            Problem::CookieForbidden(_) => "The cookie cannot be used here",
            Problem::TopicsForbidden => "None of these topics may be read",
            Problem::PublishForbidden => "This topic may not be published to",
            Problem::NotFound => "Nothing is here",
            Problem::MethodNotAllowed(_) => "This cannot be done here",
            Problem::RequestTimeout => "The request took too long",
            Problem::BodyTooLarge { .. } => "The body is too large",
            Problem::DataTooLarge { .. } => "The data of the event is too large",
            Problem::HeadTooLarge => "The head of the request is too large",
            Problem::StateFailed { .. } => "The state of a topic cannot be had",
            Problem::Internal => "Something is wrong here",
            Problem::NoCursor { .. } => "No cursor can be given now",
            Problem::Unavailable { .. } => "Not available now",
        }
    }

    fn detail(&self) -> String {
        let text = match self {
            Problem::BadRequest(text) | Problem::InvalidBody(text) => text,
            Problem::InvalidTopic(fault) => return format!("{fault}."),
            Problem::InvalidType(fault) => return format!("{fault}."),
            Problem::NoTopic => "Name one by ?topic=, or present a token, which has its own.",
            Problem::TooManyTopics { most } => {
                return format!("A stream has at most {most} topics: open another one.");
            }
            Problem::NotJson => "Send JSON, with content-type: application/json.",
            Problem::TokenInUrl => {
                "URLs are logged. Send Authorization: Bearer, or buy a ticket by \
                 POST /v1/tickets and pass that as ?ticket=. Replace this token."
            }
            Problem::Unauthorized => {
                "Send Authorization: Bearer with a token that is signed by the issuer of this \
                 gateway, has sub and exp, and has not expired."
            }
            Problem::CookieForbidden(Forbidden::CookieOrigin) => {
                "The page's origin is not among the allowed ones. Add it there, or send a bearer \
                 token."
            }
            Problem::CookieForbidden(Forbidden::CookieMethod) => {
                "A cookie serves GET only. Send Authorization: Bearer."
            }
            Problem::TopicsForbidden => {
                "The token covers none of the topics that are asked for. Ask for others, or for a \
                 token whose topics cover them."
            }
            Problem::PublishForbidden => "The token's publish claim does not cover this topic.",
            Problem::NotFound => "The gateway's documentation lists what can be asked for.",
            Problem::MethodNotAllowed(allowed) => return format!("Use one of: {allowed}."),
            Problem::RequestTimeout => "Send the whole request at once.",
            Problem::BodyTooLarge { most } => {
                return format!("A body has at most {most} bytes.");
            }
            Problem::DataTooLarge { most } => {
                return format!(
                    "Data has at most {most} bytes: publish where it is to be had instead."
                );
            }
            Problem::HeadTooLarge => "Shorten the URL or the headers.",
            Problem::StateFailed { topic, fault } => return format!("{topic}: {fault}"),
            Problem::Internal => "It is none of your doing. The operator's log says more.",
            Problem::NoCursor { .. } => {
                "More transactions are open in the database than a cursor of 4 KiB can name. Try \
                 again after the time in retry-after."
            }
            Problem::Unavailable { .. } => "Try again after the time in retry-after.",
        };
        text.to_owned()
    }

    /// The answer, with the headers that every one has.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = Body {
            kind: format!("urn:tidings:problem:{}", self.name()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.detail(),
        };
        let body = serde_json::to_vec(&body).expect("texts and a number become JSON");
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        common_headers(headers);
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        match self {
            Problem::Unauthorized => {
                let scheme = HeaderValue::from_static("Bearer");
                headers.insert(header::WWW_AUTHENTICATE, scheme);
            }
            Problem::MethodNotAllowed(allowed) => {
                headers.insert(header::ALLOW, HeaderValue::from_static(allowed));
            }
            Problem::NoCursor { retry_after } | Problem::Unavailable { retry_after } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
            }
            _ => {}
        }
        response
    }
}

/// What every response carries: answers differ by origin, are never to be guessed at by their
/// content, and belong to their caller alone.
pub fn common_headers(headers: &mut HeaderMap) {
    headers.insert(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

#[derive(Serialize)]
struct Body {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    status: u16,
    detail: String,
}

/// The cause of a refused credential ends here, in the operator's log and not in the answer.
impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Problem {
        tracing::debug!(%refusal, "credential refused");
        match refusal {
            Refusal::Unauthorized(_) => Problem::Unauthorized,
            Refusal::Forbidden(reason) => Problem::CookieForbidden(reason),
            Refusal::TokenInUrl => Problem::TokenInUrl,
            Refusal::TicketsUnavailable => Problem::unavailable(),
        }
    }
}

impl From<TopicError> for Problem {
    fn from(fault: TopicError) -> Problem {
        Problem::InvalidTopic(fault)
    }
}

impl From<TypeError> for Problem {
    fn from(fault: TypeError) -> Problem {
        Problem::InvalidType(fault)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt;

    use super::*;
    use crate::auth::Cause;

    fn all() -> Vec<Problem> {
        vec![
            Problem::BadRequest("Say it differently."),
            Topic::parse("a\nb\u{2028}").unwrap_err().into(),
            crate::topic::check_type("error").unwrap_err().into(),
            Problem::NoTopic,
            Problem::TooManyTopics { most: 50 },
            Problem::InvalidBody("It is no JSON."),
            Problem::NotJson,
            Problem::TokenInUrl,
            Problem::Unauthorized,
            Problem::CookieForbidden(Forbidden::CookieOrigin),
            Problem::TopicsForbidden,
            Problem::PublishForbidden,
            Problem::NotFound,
            Problem::MethodNotAllowed("GET, HEAD, OPTIONS"),
            Problem::RequestTimeout,
            Problem::BodyTooLarge { most: 1024 },
            Problem::DataTooLarge { most: 1024 },
            Problem::HeadTooLarge,
            Problem::StateFailed {
                topic: Topic::parse("user:42").unwrap(),
                fault: "its state is larger than 1 MiB.",
            },
            Problem::Internal,
            Problem::no_cursor(),
            Problem::unavailable(),
        ]
    }

    async fn body(response: Response<Full<Bytes>>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.into()).unwrap()
    }

    #[tokio::test]
    async fn every_problem_is_whole_and_has_a_type_of_its_own() {
        let mut types = HashSet::new();
        for problem in all() {
            let status = problem.status();
            let response = problem.clone().into_response();
            assert_eq!(response.status(), status);
            let headers = response.headers().clone();
            assert_eq!(headers["content-type"], "application/problem+json");
            assert_eq!(headers["vary"], "origin");
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["cache-control"], "no-store");
            let later = matches!(status.as_u16(), 429 | 503);
            assert_eq!(headers.contains_key("retry-after"), later, "{problem:?}");
            assert_eq!(headers.contains_key("www-authenticate"), status == 401);
            assert_eq!(headers.contains_key("allow"), status == 405);
            let text = body(response).await;
            assert!(!text.contains(['\n', '\r', '\u{2028}']), "{text}");
            let json: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["status"], status.as_u16());
            let kind = json["type"].as_str().unwrap().to_owned();
            assert!(kind.starts_with("urn:tidings:problem:"), "{kind}");
            for member in ["title", "detail"] {
                assert!(json[member].as_str().unwrap().len() > 10, "{text}");
            }
            assert!(types.insert(kind), "{text}");
        }
    }

    #[tokio::test]
    async fn all_refused_credentials_look_alike() {
        let mut answers = HashSet::new();
        for cause in [
            Cause::Missing,
            Cause::Ambiguous,
            Cause::TooLong,
            Cause::Malformed,
            Cause::UnknownKey,
            Cause::WrongAlgorithm,
            Cause::Incomplete,
            Cause::Expired,
            Cause::NotYetValid,
            Cause::WrongSignature,
            Cause::WrongAudience,
            Cause::WrongIssuer,
            Cause::WrongOrigin,
            Cause::NoTenant,
            Cause::BadClaim,
        ] {
            let response = Problem::from(Refusal::Unauthorized(cause)).into_response();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let headers = format!("{:?}", response.headers());
            answers.insert((headers, body(response).await));
        }
        assert_eq!(answers.len(), 1);
    }
}
