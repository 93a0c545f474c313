//! The page of `tidings dev` and what it needs to know, embedded in the binary.
//!
//! The page itself is public; the token is not. Loopback is shared with every other user of the
//! machine and, by a rebound name, with pages of other sites, so the session is only answered to
//! whoever knows the key of this start, which the printed address carries behind its `#`.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use hyper::{Method, Response};
use serde::Serialize;

/// Everything of the page that is the same for everybody.
const FILES: [(&str, &str, &str); 7] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("page/page.html"),
    ),
    (
        "/dev/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/dev/page.js", JAVASCRIPT, include_str!("page/page.js")),
    ("/dev/line.js", JAVASCRIPT, include_str!("page/line.js")),
    ("/dev/chart.js", JAVASCRIPT, include_str!("page/chart.js")),
    ("/dev/cursor.js", JAVASCRIPT, include_str!("page/cursor.js")),
    ("/dev/small.js", JAVASCRIPT, include_str!("page/small.js")),
];
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";

/// The page, for one start of `tidings dev`.
pub struct Page {
    session_path: String,
    session: Bytes,
}

/// What the page is told once it has shown the key.
#[derive(Serialize)]
pub(super) struct Session<'a> {
    pub(super) token: &'a str,
    pub(super) topics: &'a [&'a str],
    pub(super) commands: &'a [Command],
}

/// A line for the terminal that shows tidings working.
#[derive(Serialize)]
pub(super) struct Command {
    pub(super) title: &'static str,
    pub(super) text: String,
}

impl Page {
    pub(super) fn new(key: &str, session: &Session<'_>) -> Page {
        let session = serde_json::to_vec(session).expect("a session is plain data");
        Page {
            session_path: format!("/dev/session/{key}"),
            session: session.into(),
        }
    }

    /// The answer to a request, or `None` when it is not for the page. A new build serves a new
    /// page, so nothing is kept by the browser.
    pub fn respond(&self, method: &Method, path: &str) -> Option<Response<Full<Bytes>>> {
        if *method != Method::GET {
            return None;
        }
        let (kind, body) = self.answer(path)?;
        let response = Response::builder()
            .header(CONTENT_TYPE, kind)
            .header(CACHE_CONTROL, "no-store")
            .header(X_CONTENT_TYPE_OPTIONS, "nosniff")
            .header(REFERRER_POLICY, "no-referrer")
            .header(CONTENT_SECURITY_POLICY, "frame-ancestors 'none'")
            .body(Full::new(body));
        Some(response.expect("constant headers are valid"))
    }

    /// The content type and body of a path, or `None` when it is not the page's.
    pub fn answer(&self, path: &str) -> Option<(&'static str, Bytes)> {
        if path == self.session_path {
            return Some(("application/json", self.session.clone()));
        }
        let (_, kind, text) = FILES.into_iter().find(|(known, _, _)| *known == path)?;
        Some((kind, Bytes::from_static(text.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> Page {
        Page::new(
            "k3y",
            &Session {
                token: "t0ken",
                topics: &["demo"],
                commands: &[],
            },
        )
    }

    #[test]
    fn the_token_is_for_whoever_knows_the_key() {
        let (_, session) = page().answer("/dev/session/k3y").unwrap();
        assert!(String::from_utf8_lossy(&session).contains("t0ken"));
        for path in [
            "/dev/session/",
            "/dev/session/k3",
            "/dev/session/k3y/",
            "/dev/session",
        ] {
            assert!(page().answer(path).is_none(), "{path}");
        }
        assert!(FILES.iter().all(|(_, _, text)| !text.contains("t0ken")));
    }

    #[test]
    fn every_file_that_the_page_names_is_served() {
        for (from, _, text) in FILES {
            let named = text.split(['"', '\'']).filter_map(|word| match word {
                word if word.starts_with("/dev/page.") => Some(word.to_owned()),
                word if word.starts_with("./") => Some(format!("/dev/{}", &word[2..])),
                _ => None,
            });
            for path in named {
                assert!(page().answer(&path).is_some(), "{path}, named by {from}");
            }
        }
    }

    #[test]
    fn the_page_asks_nobody_but_the_gateway() {
        for (path, _, text) in FILES {
            let foreign = text.replace("http://www.w3.org/2000/svg", "");
            assert!(
                !foreign.contains("http://") && !foreign.contains("https://"),
                "{path}"
            );
        }
    }
}
