//! Reading the body of a request: JSON of a bounded size that arrives in a bounded time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap};

use super::problem::Problem;

/// Reads a body that says that it is JSON and has at most `most` bytes, within this time.
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: Incoming,
    most: usize,
    within: Duration,
) -> Result<Bytes, Problem> {
    if !says_json(headers) {
        return Err(Problem::NotJson);
    }
    // A length that is announced need not be waited for.
    if body.size_hint().lower() > most as u64 {
        return Err(Problem::BodyTooLarge { most });
    }
    match tokio::time::timeout(within, Limited::new(body, most).collect()).await {
        Err(_) => Err(Problem::RequestTimeout),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Problem::BodyTooLarge { most }),
        Ok(Err(_)) => Err(Problem::InvalidBody("It did not arrive whole.")),
    }
}

/// Whether the one content type is JSON, with or without parameters.
fn says_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let essence = value.to_str().unwrap_or("").split(';').next();
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn only_json_is_json() {
        let headers = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(value));
            }
            headers
        };
        for value in [
            "application/json",
            "Application/JSON ; charset=utf-8",
            "application/json;",
        ] {
            assert!(says_json(&headers(&[value])), "{value}");
        }
        for value in [
            "",
            "text/plain",
            "application/json-seq",
            "application/jsonp",
            "text/plain; application/json",
        ] {
            assert!(!says_json(&headers(&[value])), "{value}");
        }
        assert!(!says_json(&headers(&[])));
        assert!(!says_json(&headers(&[
            "application/json",
            "application/json"
        ])));
    }
}
