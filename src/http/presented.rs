//! What a request presents about who sent it, gathered without believing any of it.

use hyper::Method;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;

use super::problem::Problem;
use crate::auth::Presented;

/// Query parameters by which others pass raw tokens (RFC 6750, Mercure, common habit).
const TOKEN_PARAMETERS: [&str; 4] = ["access_token", "authorization", "jwt", "token"];

/// Gathers it. `ticket` is the query parameter, on routes where tickets serve.
pub fn presented<'a>(
    request: &'a Parts,
    ticket: Option<&'a str>,
) -> Result<Presented<'a>, Problem> {
    let headers = &request.headers;
    // Proxies and servers differ in which of two headers counts, so that two are none.
    let authorization =
        single(headers, header::AUTHORIZATION).map_err(|_| Problem::Unauthorized)?;
    let bad = |_| Problem::BadRequest("Send one Origin and one Sec-Fetch-Site header at most.");
    Ok(Presented {
        authorization,
        ticket,
        // Other applications of the domain may have put anything into the line.
        cookies: headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|line| str::from_utf8(line.as_bytes()).ok())
            .collect(),
        origin: single(headers, header::ORIGIN).map_err(bad)?,
        fetch_site: single(headers, HeaderName::from_static("sec-fetch-site")).map_err(bad)?,
        get: matches!(request.method, Method::GET | Method::HEAD),
        token_in_url: request.uri.query().is_some_and(holds_token),
    })
}

struct NotOne;

/// The only value of a header, as ASCII text.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, NotOne> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| NotOne),
        _ => Err(NotOne),
    }
}

fn holds_token(query: &str) -> bool {
    query.split('&').any(|pair| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        TOKEN_PARAMETERS
            .iter()
            .any(|parameter| name.eq_ignore_ascii_case(parameter))
    })
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use hyper::header::HeaderValue;

    use super::*;

    fn parts(method: Method, uri: &str, headers: &[(&'static str, &[u8])]) -> Parts {
        let (mut parts, ()) = Request::builder()
            .method(method)
            .uri(uri)
            .body(())
            .unwrap()
            .into_parts();
        for (name, value) in headers {
            parts
                .headers
                .append(*name, HeaderValue::from_bytes(value).unwrap());
        }
        parts
    }

    #[test]
    fn everything_is_gathered() {
        let request = parts(
            Method::HEAD,
            "/v1/events?topic=token",
            &[
                ("authorization", b"Bearer a.b.c"),
                ("cookie", b"a=b"),
                ("cookie", b"\xff=c"),
                ("cookie", b"n=\xc3\xbc; session=x"),
                ("origin", b"https://a.test"),
                ("sec-fetch-site", b"cross-site"),
            ],
        );
        let presented = presented(&request, Some("1.x.y")).unwrap();
        assert_eq!(presented.authorization, Some("Bearer a.b.c"));
        assert_eq!(presented.ticket, Some("1.x.y"));
        assert_eq!(presented.cookies, ["a=b", "n=ü; session=x"]);
        assert_eq!(presented.origin, Some("https://a.test"));
        assert_eq!(presented.fetch_site, Some("cross-site"));
        assert!(presented.get);
        assert!(!presented.token_in_url);
        assert!(
            !super::presented(&parts(Method::POST, "/", &[]), None)
                .unwrap()
                .get
        );
    }

    #[test]
    fn two_of_a_kind_are_refused() {
        for (name, problem) in [
            ("authorization", "unauthorized"),
            ("origin", "bad-request"),
            ("sec-fetch-site", "bad-request"),
        ] {
            for values in [[&b"x"[..], b"x"].as_slice(), &[b"\xff"]] {
                let headers: Vec<_> = values.iter().map(|value| (name, *value)).collect();
                let request = parts(Method::GET, "/", &headers);
                assert_eq!(presented(&request, None).unwrap_err().name(), problem);
            }
        }
    }

    #[test]
    fn a_raw_token_in_the_url_is_noticed() {
        for query in [
            "token=x",
            "topic=a&access_token=x",
            "JWT=x",
            "jwt",
            "authorization=x",
        ] {
            let request = parts(Method::GET, &format!("/v1/events?{query}"), &[]);
            assert!(presented(&request, None).unwrap().token_in_url, "{query}");
        }
        for query in ["ticket=x", "topic=token", "tokens=x", "mytoken=x"] {
            let request = parts(Method::GET, &format!("/v1/events?{query}"), &[]);
            assert!(!presented(&request, None).unwrap().token_in_url, "{query}");
        }
    }
}
