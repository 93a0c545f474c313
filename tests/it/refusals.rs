//! Refusals: whatever is sent, the answer is a 4xx or a closed connection, and never more than that.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::client::{Answer, PATIENCE, Visit};
use crate::support::gateway::{Gateway, SECRET, token};
use crate::support::postgres::database;

const PAGE: &str = "https://app.example.org";

/// Everything that takes a token.
const ROUTES: [(&str, &str); 4] = [
    ("GET", "/v1/events"),
    ("GET", "/v1/sync"),
    ("POST", "/v1/events"),
    ("POST", "/v1/tickets"),
];

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs() as i64
}

/// The status and the last part of the type of a refusal, which must be whole.
fn problem(answer: &Answer) -> (u16, String) {
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer:?}"
    );
    let json = answer.json();
    assert_eq!(json["status"], answer.status);
    for (header, value) in [
        ("vary", "origin"),
        ("x-content-type-options", "nosniff"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(header), Some(value), "{answer:?}");
    }
    let kind = json["type"].as_str().expect("a type");
    let name = kind.strip_prefix("urn:tidings:problem:").expect("ours");
    (answer.status, name.to_owned())
}

/// Sends bytes as they are; the status of the answer, or `None` when there is none but the end.
async fn raw(gateway: &Gateway, bytes: &[u8]) -> Option<u16> {
    let mut socket = TcpStream::connect(gateway.address())
        .await
        .expect("connects");
    // Whoever refuses early may have closed already.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = tokio::time::timeout(PATIENCE, socket.read(&mut buffer)).await;
        let read = read.unwrap_or_else(|_| panic!("hangs: {:?}", String::from_utf8_lossy(bytes)));
        match read {
            Ok(0) | Err(_) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
        }
        // A stream would go on for ever.
        if answer.windows(4).any(|end| end == b"\r\n\r\n") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let status = text
        .strip_prefix("HTTP/1.")
        .and_then(|text| text.split(' ').nth(1));
    status.map(|status| status.parse().expect("a status"))
}

/// A token as the parts say, signed or not by the secret of the tests.
fn forge(header: &Value, claims: &Value, secret: Option<&str>) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = match secret {
        None => String::new(),
        Some(secret) => {
            let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
            jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256)
                .expect("signs")
        }
    };
    format!("{message}.{signature}")
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_answer_on_every_route() {
    let database = database();
    let flags = [
        "--jwt-audience=tidings",
        "--jwt-issuer=https://issuer.test",
        "--cookie=session",
        "--tenants=required",
    ];
    let gateway = Gateway::start_with(&database, &flags).await;
    let hs = json!({"alg": "HS256", "typ": "JWT"});
    let good = json!({
        "sub": "alice", "exp": now() + 600, "aud": "tidings", "iss": "https://issuer.test",
        "tenant": "acme", "topics": ["*"], "publish": ["*"],
    });
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        forge(&hs, &claims, Some(SECRET))
    };
    let without = |name: &str| {
        let mut claims = good.clone();
        claims.as_object_mut().expect("claims").remove(name);
        forge(&hs, &claims, Some(SECRET))
    };
    let whole = forge(&hs, &good, Some(SECRET));
    let (message, signature) = whole.rsplit_once('.').expect("a token");
    let bearers: Vec<String> = vec![
        String::new(),
        "x".into(),
        "a.b.c".into(),
        "..".into(),
        whole.replace('.', ""),
        format!("{message}."),
        message.to_owned(),
        format!("{message}.{}", signature.to_lowercase()),
        format!("{whole}x"),
        format!("{whole} x"),
        forge(&json!({"alg": "none"}), &good, None),
        forge(&json!({"alg": "None"}), &good, None),
        forge(&json!({"alg": "none"}), &good, Some(SECRET)),
        forge(&json!({"alg": "HS512"}), &good, Some(SECRET)),
        forge(&json!({"alg": "RS256"}), &good, Some(SECRET)),
        forge(&json!({"alg": "ES256"}), &good, Some(SECRET)),
        forge(&json!({"typ": "JWT"}), &good, Some(SECRET)),
        forge(&json!({"alg": "HS256", "crit": ["x"]}), &good, Some(SECRET)),
        forge(&json!([]), &good, Some(SECRET)),
        forge(
            &hs,
            &good,
            Some("another secret that is long enough to be one"),
        ),
        forge(&hs, &json!([]), Some(SECRET)),
        without("exp"),
        without("sub"),
        without("aud"),
        without("iss"),
        without("tenant"),
        with("sub", json!("")),
        with("sub", json!(42)),
        with("sub", json!("a\u{0}")),
        with("sub", json!("x".repeat(300))),
        with("exp", json!(now() - 60)),
        with("exp", json!("tomorrow")),
        with("exp", json!(null)),
        with("nbf", json!(now() + 600)),
        with("aud", json!("other")),
        with("aud", json!([])),
        with("iss", json!("https://issuer.test.evil.test")),
        with("tenant", json!("a/b")),
        with("tenant", json!("")),
        with("topics", json!("a b")),
        with("topics", json!([1])),
        with("topics", json!(["a*b"])),
        with("publish", json!({"a": 1})),
        with("more", json!("x".repeat(9000))),
    ];
    let mut answers = BTreeSet::new();
    let mut refuse = async |method: &str, target: &str, header: Option<(&str, &str)>| {
        let mut visit = gateway.visit(method, target);
        if let Some((name, value)) = header {
            visit = visit.header(name, value);
        }
        if method == "POST" {
            visit = visit.json(&json!({"topic": "acme/a", "type": "b"}));
        }
        let answer = visit.send().await;
        assert_eq!(
            problem(&answer),
            (401, "unauthorized".into()),
            "{target} {header:?}"
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let mut headers = answer.headers;
        headers.retain(|(name, _)| name != "date");
        answers.insert((headers, answer.body));
    };
    for (method, target) in ROUTES {
        for bearer in &bearers {
            let header = format!("Bearer {bearer}");
            refuse(method, target, Some(("authorization", &header))).await;
        }
        for header in [
            "Basic YTpi",
            "Bearer",
            "bearer",
            "Token x",
            &whole,
            "Bearer\u{e4} x",
        ] {
            refuse(method, target, Some(("authorization", header))).await;
        }
        refuse(method, target, None).await;
        // A bad one never gives way to a good one.
        let twice = format!("Bearer {whole}\r\nauthorization: Bearer {whole}");
        refuse(method, target, Some(("authorization", &twice))).await;
        let beside = format!("Bearer x\r\ncookie: session={whole}");
        refuse(method, target, Some(("authorization", &beside))).await;
    }
    let two = format!("session={whole}; session=x");
    for cookie in ["session=", "session=x", &two] {
        refuse("GET", "/v1/events", Some(("cookie", cookie))).await;
        refuse("GET", "/v1/sync", Some(("cookie", cookie))).await;
    }
    let long = "1.".repeat(5000);
    for ticket in ["x", "1.x.y", "1..", "2.x.y", &whole, &long] {
        refuse("GET", &format!("/v1/events?ticket={ticket}"), None).await;
    }
    assert_eq!(answers.len(), 1, "{answers:?}");

    // The one that all of them were made from is good.
    let answer = gateway.visit("GET", "/v1/sync").bearer(&whole).send().await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn tokens_in_urls_and_cookies_of_strangers_are_refused() {
    let database = database();
    let origins = format!("--cors-origins={PAGE}");
    let gateway = Gateway::start_with(&database, &["--cookie=session", &origins]).await;
    let token = token("alice", json!({}));
    for (method, target) in ROUTES {
        for name in ["token", "access_token", "jwt", "authorization", "TOKEN"] {
            let visit = gateway.visit(method, &format!("{target}?{name}={token}"));
            let answer = visit.bearer(&token).send().await;
            assert_eq!(problem(&answer), (400, "token-in-url".into()), "{name}");
            assert!(!answer.body.contains(&token));
        }
    }
    let cookie = format!("session={token}");
    for target in ["/v1/events", "/v1/sync"] {
        for headers in [
            &[("origin", "null")][..],
            &[("origin", "https://evil.test")],
            &[("origin", "https://app.example.org.evil.test")],
            &[("origin", "http://app.example.org")],
            &[("origin", PAGE), ("origin", PAGE)],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[
                ("origin", "https://evil.test"),
                ("sec-fetch-site", "same-origin"),
            ],
        ] {
            let visit = gateway.visit("GET", target).header("cookie", &cookie);
            let visit = headers
                .iter()
                .fold(visit, |visit, (name, value)| visit.header(name, value));
            let answer = visit.send().await;
            let expected = match headers {
                [("origin", _), ("origin", _)] => (400, "bad-request".into()),
                _ => (403, "cookie-forbidden".into()),
            };
            assert_eq!(problem(&answer), expected, "{headers:?}");
        }
    }
    for headers in [
        &[("origin", PAGE)][..],
        &[("sec-fetch-site", "same-origin")],
        &[],
    ] {
        let visit = gateway.visit("GET", "/v1/sync").header("cookie", &cookie);
        let visit = headers
            .iter()
            .fold(visit, |visit, (name, value)| visit.header(name, value));
        assert_eq!(visit.send().await.status, 200, "{headers:?}");
    }
    let sold = gateway
        .visit("POST", "/v1/tickets")
        .header("cookie", &cookie);
    assert_eq!(
        problem(&sold.send().await),
        (403, "cookie-forbidden".into())
    );
}

#[tokio::test]
async fn every_answer_lets_allowed_pages_see_it_and_no_others() {
    let database = database();
    let origins = format!("--cors-origins={PAGE}");
    let gateway = Gateway::start_with(&database, &[&origins]).await;
    let bearer = token("alice", json!({}));
    let targets = [
        "/v1/events",
        "/v1/sync",
        "/v1/tickets",
        "/nothing",
        "/v1/sync?topic=%",
    ];
    for target in targets {
        for method in ["GET", "HEAD", "POST", "PUT", "OPTIONS"] {
            // Their answers are streams.
            if (method, target) == ("GET", "/v1/events") {
                continue;
            }
            for origin in [
                PAGE,
                "null",
                "*",
                "http://app.example.org",
                "https://app.example.org:444",
                "https://app.example.org.evil.test",
                "https://evil-app.example.org",
                "https://app.example.or",
                "https://APP.example.org/",
            ] {
                let visit = gateway.visit(method, target).bearer(&bearer);
                let answer = visit.header("origin", origin).send().await;
                let named = answer.header("access-control-allow-origin");
                assert_eq!(named, (origin == PAGE).then_some(PAGE), "{method} {target}");
                let rest = answer
                    .headers
                    .iter()
                    .filter(|(name, _)| name.starts_with("access-control"));
                assert_eq!(
                    rest.count() > 0,
                    origin == PAGE,
                    "{method} {target} {origin}"
                );
                assert_eq!(answer.header("vary"), Some("origin"), "{method} {target}");
                if method == "HEAD" {
                    assert_eq!(answer.body, "");
                }
            }
        }
    }
    let stream = gateway
        .visit("GET", "/v1/events")
        .bearer(&bearer)
        .header("origin", PAGE);
    let stream = stream.stream().await;
    assert_eq!(stream.header("access-control-allow-origin"), Some(PAGE));
    assert_eq!(
        stream.header("access-control-allow-credentials"),
        Some("true")
    );

    // A preflight carries no token.
    let preflight = gateway
        .visit("OPTIONS", "/v1/tickets")
        .header("origin", PAGE);
    let preflight = preflight
        .header("access-control-request-method", "POST")
        .send()
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(
        preflight.header("access-control-allow-methods"),
        Some("POST, OPTIONS")
    );
}

#[tokio::test]
async fn methods_and_paths_that_are_not_here_are_refused() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let bearer = token("alice", json!({}));
    for (target, allowed) in [
        ("/v1/events", "GET, HEAD, POST, OPTIONS"),
        ("/v1/sync", "GET, HEAD, OPTIONS"),
        ("/v1/tickets", "POST, OPTIONS"),
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW", "get",
        ] {
            if allowed.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let answer = gateway.visit(method, target).bearer(&bearer).send().await;
            assert_eq!(answer.status, 405, "{method} {target}");
            assert_eq!(answer.header("allow"), Some(allowed));
        }
        let options = gateway.visit("OPTIONS", target).send().await;
        assert_eq!((options.status, options.body.as_str()), (204, ""));
        assert_eq!(options.header("allow"), Some(allowed));
    }
    let deep = format!("/{}", "a/".repeat(2000));
    for target in [
        "/",
        "/v1",
        "/v1/",
        "/v1/events/",
        "//v1/events",
        "/v1/%65vents",
        "/V1/events",
        "/v1/../v1/events",
        "/v1/sync/x",
        "/v1/events;x",
        "/metrics",
        "/livez",
        &deep,
    ] {
        let answer = gateway.visit("GET", target).bearer(&bearer).send().await;
        assert_eq!(problem(&answer), (404, "not-found".into()), "{target}");
        assert!(
            !answer.body.contains(target) || target == "/",
            "{}",
            answer.body
        );
    }
    for target in ["/v1/events", "/v1/sync"] {
        let head = gateway.visit("HEAD", target).bearer(&bearer).send().await;
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{target}");
    }
}

#[tokio::test]
async fn topics_and_queries_that_are_none_are_refused() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let acme = token(
        "alice",
        json!({"tenant": "acme", "topics": ["*", "other/x"]}),
    );
    let anyone = token("alice", json!({"topics": ["news*"]}));
    let long = "x".repeat(256);
    let many: String = (0..51).map(|n| format!("topic=news{n}&")).collect();
    for route in ["/v1/events", "/v1/sync"] {
        for (query, name) in [
            ("topic=", "invalid-topic"),
            ("topic=*", "invalid-topic"),
            ("topic=news*", "invalid-topic"),
            ("topic=a%20b", "invalid-topic"),
            ("topic=a%00", "invalid-topic"),
            ("topic=a%0Ab", "invalid-topic"),
            ("topic=a%0d%0aevent:%20x", "invalid-topic"),
            ("topic=%C3%BC", "invalid-topic"),
            ("topic=a%E2%80%A8", "invalid-topic"),
            ("topic=news&topic=a%22b", "invalid-topic"),
            (&format!("topic={long}"), "invalid-topic"),
            (&many, "too-many-topics"),
            ("topic=%", "bad-request"),
            ("topic=%zz", "bad-request"),
            ("topic=%FF", "bad-request"),
            ("%FF=a", "bad-request"),
            ("topic=news&since=1&since=2", "bad-request"),
        ] {
            let visit = gateway
                .visit("GET", &format!("{route}?{query}"))
                .bearer(&anyone);
            assert_eq!(problem(&visit.send().await), (400, name.into()), "{query}");
        }
        for (bearer, topic) in [
            (&anyone, "user:bob"),
            (&anyone, "user:alice2"),
            (&anyone, "acme/user:alice"),
            (&acme, "user:alice"),
            (&acme, "other/x"),
            (&acme, "acme"),
            (&acme, "acme2/x"),
            (&acme, "acm/x"),
            (&acme, "other/acme/x"),
        ] {
            let visit = gateway
                .visit("GET", &format!("{route}?topic={topic}"))
                .bearer(bearer);
            let answer = visit.send().await;
            assert_eq!(
                problem(&answer),
                (403, "topics-forbidden".into()),
                "{topic}"
            );
        }
    }
    let visit = gateway.visit("GET", "/v1/events?named=2").bearer(&anyone);
    assert_eq!(problem(&visit.send().await), (400, "bad-request".into()));
    // What is covered is served, and what is not is named.
    let visit = gateway
        .visit("GET", "/v1/sync?topic=acme/x&topic=user:alice")
        .bearer(&acme);
    assert_eq!(visit.send().await.json()["denied"], json!(["user:alice"]));
}

#[tokio::test]
async fn cursors_that_are_none_reset_and_never_more() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    crate::sql::run(&backend, "select tidings.publish('user:alice', 'b')").await;
    let long = format!("1~{}", "9".repeat(5000));
    let wide = format!("1~3.9999{}~1.00000000", ".1".repeat(1900));
    let bearer = token("alice", json!({}));
    for (cursor, reason) in [
        ("0", "malformed"),
        ("1", "malformed"),
        ("1~", "malformed"),
        ("1~~", "malformed"),
        ("2~9~1.00000000", "malformed"),
        ("1~9~1.0000000", "malformed"),
        ("1~9~1.000000000", "malformed"),
        ("1~9~-1.00000000", "malformed"),
        ("1~09~1.00000000", "malformed"),
        ("1~0~1.00000000", "malformed"),
        ("1~0.5~1.00000000", "malformed"),
        ("1~0~0~0~0.0.00000000", "malformed"),
        ("1~0~0~-0~0.0.00000000", "malformed"),
        ("1~99999999999999999999~1.00000000", "malformed"),
        ("1~9~1.00000000~", "malformed"),
        ("1~9~1.00000000'--", "malformed"),
        ("1~18446744073709551615.1~1.00000000", "malformed"),
        (&long, "malformed"),
        ("1~9~1.00000000", "diverged"),
        ("1~1~1.00000000", "diverged"),
        ("1~18446744073709551615~1.00000000", "diverged"),
        ("1~9~9223372036854775807.ffffffff", "diverged"),
        ("1~1~0~18446744073709551614~1.0.ffffffff", "diverged"),
        (
            "1~1~9223372036854775807~0~9223372036854775807.0.ffffffff",
            "diverged",
        ),
        ("1~9~0~-1~0.1.00000000", "diverged"),
        (&wide, "diverged"),
    ] {
        let sync = gateway
            .visit("GET", &format!("/v1/sync?since={cursor}"))
            .bearer(&bearer);
        let sync = sync.send().await;
        assert_eq!(sync.status, 200, "{cursor}: {}", sync.body);
        assert_eq!(sync.json()["reset"], reason, "{cursor}");

        let since = gateway.visit("GET", &format!("/v1/events?since={cursor}"));
        let header = gateway
            .visit("GET", "/v1/events")
            .header("last-event-id", cursor);
        for visit in [since, header] {
            let mut stream = visit.bearer(&bearer).stream().await;
            let reset = stream.wait_for("tidings.reset").await;
            assert_eq!(reset.json()["reason"], reason, "{cursor}");
            assert_eq!(stream.ready().await["resumed"], false, "{cursor}");
        }
    }
    let head = |value: &[u8]| {
        let mut head = b"GET /v1/events HTTP/1.1\r\nhost: x\r\nlast-event-id: ".to_vec();
        head.extend_from_slice(value);
        head.extend_from_slice(format!("\r\nauthorization: Bearer {bearer}\r\n\r\n").as_bytes());
        head
    };
    assert_eq!(raw(&gateway, &head(b"\xff\xfe")).await, Some(200));
    assert_eq!(raw(&gateway, &head(b"a\x00b")).await, Some(400));
}

#[tokio::test]
async fn heads_and_bodies_that_are_broken_end_the_connection() {
    let database = database();
    let flags = [
        "--head-timeout=300ms",
        "--body-bytes=2KiB",
        "--head-bytes=8KiB",
    ];
    let gateway = Gateway::start_with(&database, &flags).await;
    let bearer = token("backend", json!({"publish": ["*"], "topics": ["*"]}));
    let get = "GET /v1/sync?topic=a HTTP/1.1\r\nhost: x\r\n";
    let post = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: Bearer {bearer}\r\n"
    );
    let post = post.as_str();
    let big = "x".repeat(20_000);
    let headers: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    let chunk = format!(
        "{post}transfer-encoding: chunked\r\n\r\nbb8\r\n{}\r\n0\r\n\r\n",
        "x".repeat(3000)
    );
    let cases: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n\r\n".to_vec(),
        b"\0\0\0\0\0\0\0\0".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET /v1/sync\r\n\r\n".to_vec(),
        b"GET /v1/sync HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /v1/sy\0nc HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET /v1/\xff\xfe HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET /v1/sync?topic=\xff HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET  /v1/sync  HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"G\xc3\xa4T /v1/sync HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"CONNECT evil.test:443 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET http://evil.test/v1/sync HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        b"GET * HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        format!("{get}no colon\r\n\r\n").into_bytes(),
        format!("{get}: empty\r\n\r\n").into_bytes(),
        format!("{get}a b: c\r\n\r\n").into_bytes(),
        format!("{get}a: b\0c\r\n\r\n").into_bytes(),
        format!("{get} folded: x\r\n\r\n").into_bytes(),
        format!("{get}content-length: -1\r\n\r\n").into_bytes(),
        format!("{get}content-length: x\r\n\r\n").into_bytes(),
        format!("{get}content-length: 99999999999999999999999\r\n\r\n").into_bytes(),
        format!("{get}content-length: 1\r\ncontent-length: 2\r\n\r\n").into_bytes(),
        format!("{get}transfer-encoding: x\r\n\r\n").into_bytes(),
        format!("{get}x: {big}\r\n\r\n").into_bytes(),
        format!("{get}{headers}\r\n").into_bytes(),
        format!("GET /v1/sync?topic={big} HTTP/1.1\r\nhost: x\r\n\r\n").into_bytes(),
        // Bodies: too large by announcement and by chunks, cut, slow, and no chunks at all.
        format!("{post}content-length: 3000\r\n\r\n").into_bytes(),
        format!("{post}content-length: 18446744073709551615\r\n\r\n").into_bytes(),
        chunk.into_bytes(),
        format!("{post}transfer-encoding: chunked\r\n\r\nzz\r\n").into_bytes(),
        format!("{post}transfer-encoding: chunked\r\n\r\n5\r\n{{").into_bytes(),
        format!("{post}content-length: 5\r\n\r\n{{").into_bytes(),
        format!("{post}\r\n").into_bytes(),
        [post.as_bytes(), b"content-length: 3\r\n\r\n\"\xff\""].concat(),
        // Heads that trickle, and nothing at all.
        b"".to_vec(),
        b"G".to_vec(),
        b"GET /v1/sync HTTP/1.1\r\nhost: x\r\nx-".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_vec(),
    ];
    for case in &cases {
        let status = raw(&gateway, case).await;
        let shown: String = String::from_utf8_lossy(case).chars().take(120).collect();
        assert!(
            status.is_none_or(|status| (400..500).contains(&status)),
            "{status:?}: {shown:?}"
        );
    }
    for (case, status) in [
        (format!("{get}x: {big}\r\n\r\n"), 431),
        (format!("{post}content-length: 3000\r\n\r\n"), 413),
        (format!("{post}content-length: 5\r\n\r\n{{"), 408),
        (format!("{get}content-length: x\r\n\r\n"), 400),
    ] {
        assert_eq!(raw(&gateway, case.as_bytes()).await, Some(status));
    }
    // All the while it is well.
    let answer = gateway
        .visit("GET", "/v1/sync?topic=a")
        .bearer(&bearer)
        .send()
        .await;
    assert_eq!(answer.status, 200);
    let backend = database.connect().await;
    assert_eq!(
        crate::sql::text(&backend, "(select count(*) from tidings.event)").await,
        "0"
    );
}

#[tokio::test]
async fn logs_carry_neither_tokens_nor_tickets_nor_cursors_and_one_record_a_line() {
    let database = database();
    let backend = database.connect().await;
    crate::sql::run(
        &backend,
        "create function broken(topic text, claims jsonb) returns jsonb language plpgsql
         as $$ begin raise exception E'one\nline'; end $$;
         select tidings.define_state('broken', 'broken(text, jsonb)'), tidings.publish('user:alice', 'b')",
    )
    .await;
    let mut process = tokio::process::Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"])
        .env("DATABASE_URL", database.url())
        .env("TIDINGS_JWT_SECRET", SECRET)
        .env("TIDINGS_COOKIE", "session")
        // What an operator turns on who looks for a fault.
        .env("TIDINGS_LOG", "info,tidings=trace,hyper=debug,h2=debug")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the gateway starts");
    let mut lines = BufReader::new(process.stderr.take().expect("piped")).lines();
    let mut logged: Vec<String> = Vec::new();
    let address = loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line
            .expect("in time")
            .expect("readable")
            .expect("a gateway that starts");
        let record: Value = serde_json::from_str(&line).expect("a record in JSON");
        logged.push(line);
        if let Some(address) = record["fields"]["address"].as_str() {
            break address.parse().expect("an address");
        }
    };
    let visit = |method, target: &str| Visit::new(address, method, target);

    let bearer = token("alice", json!({"topics": ["*"], "publish": ["*"]}));
    let forged = forge(
        &json!({"alg": "HS256"}),
        &json!({"sub": "mallory"}),
        Some(SECRET),
    );
    let sold = visit("POST", "/v1/tickets")
        .bearer(&bearer)
        .send()
        .await
        .json();
    let ticket = sold["ticket"].as_str().expect("a ticket").to_owned();
    let synced = visit("GET", "/v1/sync").bearer(&bearer).send().await.json();
    let cursor = synced["cursor"].as_str().expect("a cursor").to_owned();
    let garbage = "1~77~not-a-cursor";
    let mut secrets = vec![
        ("the secret", SECRET.to_owned()),
        ("a token", bearer.clone()),
        ("a forged token", forged.clone()),
        ("a ticket", ticket.clone()),
        ("a cursor", cursor.clone()),
        ("a bad cursor", garbage.to_owned()),
    ];
    for since in [&*cursor, garbage] {
        let mut stream = visit("GET", &format!("/v1/events?ticket={ticket}&since={since}"))
            .stream()
            .await;
        stream.wait_for("tidings.ready").await;
        secrets.push(("a cursor of a stream", stream.cursor().to_owned()));
        let sync = visit("GET", &format!("/v1/sync?since={since}")).bearer(&bearer);
        assert_eq!(sync.send().await.status, 200);
    }
    for (target, status) in [("/v1/sync", 401), ("/v1/events", 401)] {
        assert_eq!(
            visit("GET", target).bearer(&forged).send().await.status,
            status
        );
        let cookie = format!("session={bearer}");
        let visit = visit("GET", target)
            .header("cookie", &cookie)
            .header("origin", "https://evil.test");
        assert_eq!(visit.send().await.status, 403);
    }
    let in_url = visit("GET", &format!("/v1/events?token={bearer}"))
        .send()
        .await;
    assert_eq!(in_url.status, 400);
    let body = json!({"topic": "user:alice", "type": "b", "data": "\u{0}"});
    assert_eq!(
        visit("POST", "/v1/events")
            .bearer(&bearer)
            .json(&body)
            .send()
            .await
            .status,
        400
    );
    let broken = visit("GET", &format!("/v1/sync?topic=broken&since={cursor}")).bearer(&bearer);
    assert_eq!(broken.send().await.status, 500);

    let pid = rustix::process::Pid::from_raw(process.id().expect("runs") as i32).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
    let rest = async {
        while let Some(line) = lines.next_line().await.expect("readable") {
            logged.push(line);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), rest)
        .await
        .expect("it ends");
    assert!(process.wait().await.expect("ends").success());

    for line in &logged {
        let record: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line}"));
        assert!(record["level"].is_string(), "{line}");
        for (what, secret) in &secrets {
            assert!(!line.contains(secret), "{what} in {line}");
            // A prefix that is long enough to be of use would be as bad.
            let part: String = secret.chars().take(60).collect();
            assert!(
                secret.len() < 60 || !line.contains(&part),
                "part of {what} in {line}"
            );
        }
    }
    // It did say what the operator has to know.
    assert!(
        logged
            .iter()
            .any(|line| line.contains("broken") && line.contains("WARN")),
        "{logged:?}"
    );
}

#[tokio::test]
async fn a_request_has_one_host_and_one_last_event_id() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let bearer = token("alice", json!({}));
    let twice = gateway
        .visit("GET", "/v1/events")
        .bearer(&bearer)
        .header("host", "elsewhere.example.org");
    assert_eq!(twice.send().await.status, 400);
    let twice = gateway
        .visit("GET", "/v1/events")
        .bearer(&bearer)
        .header("last-event-id", "1~5~0.00000000")
        .header("last-event-id", "1~6~0.00000000");
    assert_eq!(twice.send().await.status, 400);
}
