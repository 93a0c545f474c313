//! `POST /v1/tickets`: a bearer token buys a ticket, for pages whose EventSource cannot send it.

use hyper::http::request::Parts;
use hyper::{Response, StatusCode};
use jiff::Timestamp;

use super::body::Body;
use super::presented;
use super::problem::Problem;
use super::query::Query;
use super::route::App;
use super::sync::json;

/// Sells a ticket to the bearer of a token, for pages of the request's origin when it names one.
pub(crate) fn tickets(app: &App, request: &Parts) -> Result<Response<Body>, Problem> {
    Query::parse(request.uri.query())?;
    let presented = presented::presented(request, None)?;
    let now = Timestamp::now();
    let identity = app.authority.identify(&presented, now)?;
    let ticket = app
        .authority
        .issue_ticket(&identity, presented.origin, now)?;
    // Neither text has characters that JSON escapes.
    let text = format!(
        "{{\"ticket\":\"{}\",\"expires_at\":\"{}\"}}",
        ticket.text, ticket.opens_until
    );
    Ok(json(StatusCode::CREATED, text))
}
