//! Cross-origin requests: which pages of a browser may see an answer (the Fetch Standard, CORS).
//!
//! An allowed origin is named back exactly, with credentials; any other gets an answer without
//! these headers, which its browser then keeps from the page. A preflight needs no token, since
//! browsers send none with it.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::problem::common_headers;
use crate::auth::Origins;

/// How many seconds a browser may remember a preflight, so that a page asks once and not before
/// every sync, and a changed configuration is noticed soon.
const MAX_AGE: &str = "600";

/// Answers OPTIONS for a route with these methods, asked by a preflight or by a person.
pub fn preflight(
    origins: &Origins,
    request: &HeaderMap,
    methods: &'static str,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    common_headers(headers);
    headers.insert(header::ALLOW, HeaderValue::from_static(methods));
    if allow(origins, request, headers) {
        let fixed = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type, last-event-id",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
        ];
        for (name, value) in fixed {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
    response
}

/// Adds to any other answer, refusals included, what lets an allowed page see it.
pub fn expose(origins: &Origins, request: &HeaderMap, response: &mut HeaderMap) {
    if allow(origins, request, response) {
        response.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("retry-after"),
        );
    }
}

/// Names the origin of a request back if it is an allowed one, and says whether.
fn allow(origins: &Origins, request: &HeaderMap, response: &mut HeaderMap) -> bool {
    let mut values = request.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (values.next(), values.next()) else {
        return false;
    };
    if !origin.to_str().is_ok_and(|origin| origins.allow(origin)) {
        return false;
    }
    response.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    response.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        Origins::parse(["https://app.example.org"]).unwrap()
    }

    fn from(values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::ORIGIN, HeaderValue::from_static(value));
        }
        headers
    }

    fn cors_headers(headers: &HeaderMap) -> usize {
        headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .count()
    }

    #[test]
    fn an_allowed_page_is_named_back() {
        let request = from(&["https://app.example.org"]);
        let response = preflight(&origins(), &request, "GET, HEAD, POST, OPTIONS");
        let headers = response.headers();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(
            headers["access-control-allow-origin"],
            "https://app.example.org"
        );
        assert_eq!(headers["access-control-allow-credentials"], "true");
        assert_eq!(
            headers["access-control-allow-methods"],
            "GET, HEAD, POST, OPTIONS"
        );
        assert_eq!(
            headers["access-control-allow-headers"],
            "authorization, content-type, last-event-id"
        );
        assert_eq!(headers["vary"], "origin");

        let mut headers = HeaderMap::new();
        expose(&origins(), &request, &mut headers);
        assert_eq!(
            headers["access-control-allow-origin"],
            "https://app.example.org"
        );
        assert_eq!(headers["access-control-expose-headers"], "retry-after");
    }

    #[test]
    fn no_other_page_is() {
        for values in [
            &[][..],
            &["null"],
            &["*"],
            &[""],
            &["http://app.example.org"],
            &["https://app.example.org.evil.test"],
            &["https://evil-app.example.org"],
            &["https://app.example.org:8443"],
            &["https://app.example.org", "https://app.example.org"],
            &["https://app.example.org", "https://evil.test"],
        ] {
            let response = preflight(&origins(), &from(values), "GET");
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            assert_eq!(cors_headers(response.headers()), 0, "{values:?}");
            assert_eq!(response.headers()["allow"], "GET");
            let mut headers = HeaderMap::new();
            expose(&origins(), &from(values), &mut headers);
            assert_eq!(cors_headers(&headers), 0, "{values:?}");
        }
    }
}
