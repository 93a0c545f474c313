//! The comparison itself: what differs from the document is refused, and the client of the tests compares.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::client::Visit;
use crate::support::interface::exchange::Exchange;
use crate::support::interface::{BLOCKS, DOCUMENT, Server};

/// An exchange that a test can spoil.
#[derive(Clone)]
struct Told {
    server: Server,
    head: String,
    sent: String,
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

impl Told {
    /// An answer with the headers that all have.
    fn new(line: &str, status: u16, kind: &str, body: &str) -> Told {
        let headers = [
            ("vary", "origin"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("content-type", kind),
            ("content-length", "1"),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Told {
            server: Server::Clients,
            head: format!("{line} HTTP/1.1\r\nhost: x\r\n"),
            sent: String::new(),
            status,
            headers: headers.to_vec(),
            body: Some(body.to_owned()),
        }
    }

    fn with(mut self, name: &str, value: &str) -> Told {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn without(mut self, name: &str) -> Told {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    /// The same with one member of its JSON changed.
    fn member(mut self, name: &str, value: Value) -> Told {
        let body = self.body.take().expect("a body");
        let mut json: Value = serde_json::from_str(&body).expect("JSON");
        json[name] = value;
        self.body = Some(json.to_string());
        self
    }

    fn faults(&self) -> String {
        let exchange = Exchange {
            server: self.server,
            head: &self.head,
            sent: self.sent.as_bytes(),
            status: self.status,
            headers: &self.headers,
            body: self.body.as_deref(),
        };
        exchange.faults(&DOCUMENT).join("; ")
    }

    fn described(self) -> Told {
        assert_eq!(self.faults(), "");
        self
    }

    /// Fails unless something is found that tells of this.
    fn refused_for(self, about: &str) {
        let faults = self.faults();
        assert!(faults.contains(about), "not {about:?}, but {faults:?}");
    }
}

fn page() -> Told {
    let body = json!({
        "cursor": "1~1033~3.11c99d1a", "reset": null, "more": false, "denied": [], "state": {"a": 1},
        "events": [
            {"id": "2", "topic": "a", "type": "b", "at": "2026-11-20T18:44:11.517853Z", "data": null},
        ],
    });
    let line = "GET /v1/sync?topic=a%2Fb&limit=5";
    Told::new(line, 200, "application/json", &body.to_string())
}

fn refusal(line: &str, status: u16, kind: &str) -> Told {
    let body = json!({
        "type": format!("urn:tidings:problem:{kind}"), "title": "t", "status": status, "detail": "d",
    });
    Told::new(line, status, "application/problem+json", &body.to_string())
}

fn published() -> Told {
    let mut told = Told::new("POST /v1/events", 201, "application/json", r#"{"id":"4"}"#);
    told.head += "content-type: application/json\r\n";
    told.sent = r#"{"topic":"a","type":"b"}"#.to_owned();
    told
}

fn stream() -> Told {
    let told = Told::new("GET /v1/events?ticket=1.x.y", 200, "text/event-stream", "");
    let mut told = told
        .without("cache-control")
        .with("cache-control", "no-store, no-transform")
        .with("x-accel-buffering", "no");
    told.body = None;
    told
}

#[test]
fn an_answer_that_differs_is_refused() {
    let page = page().described();
    page.clone()
        .with("x-new", "1")
        .refused_for("no header x-new");
    page.clone()
        .with("vary", "origin")
        .refused_for("vary twice");
    page.clone().without("vary").refused_for("vary is required");
    let guessing = page.clone().without("cache-control");
    guessing
        .with("cache-control", "private")
        .refused_for("the header cache-control");
    let kind = page.clone().without("content-type");
    kind.clone().refused_for("no content-type (none)");
    kind.with("content-type", "text/html")
        .refused_for("no content-type text/html");

    let other = |status, server| Told {
        status,
        server,
        ..page.clone()
    };
    other(418, Server::Clients).refused_for("no status 418 of GET /v1/sync");
    other(201, Server::Clients).refused_for("no status 201");
    other(200, Server::Operators).refused_for("no status 200 of the unknown path");

    page.clone()
        .member("new", json!(1))
        .refused_for("'new' was unexpected");
    page.clone()
        .member("more", json!("no"))
        .refused_for("\"/more\"");
    page.clone()
        .member("more", json!(true))
        .refused_for("the body");
    page.clone()
        .member("reset", json!("too-far"))
        .refused_for("\"/reset\"");
    page.clone()
        .member("reset", json!("trimmed"))
        .refused_for("\"/events\"");
    page.clone()
        .member("cursor", json!("a b"))
        .refused_for("\"/cursor\"");
    page.clone()
        .member("events", json!([{"id": "2"}]))
        .refused_for("\"/events/0\"");
    page.clone()
        .member("denied", json!([""]))
        .refused_for("\"/denied/0\"");
    let cut = |body: &str| Told {
        body: Some(body.to_owned()),
        ..page.clone()
    };
    cut("{").refused_for("EOF");
    cut(r#"{"more":false}"#).refused_for("required property");

    let line = "HEAD /v1/sync".to_owned();
    let head = |body: &str| Told {
        head: line.clone(),
        ..cut(body)
    };
    head("").described();
    head("{}").refused_for("a body in answer to HEAD");
}

#[test]
fn a_request_that_is_answered_well_is_described() {
    let asked = |line: &str| Told {
        head: format!("{line} HTTP/1.1\r\n"),
        ..page()
    };
    asked("GET /v1/sync?topic=a+b&topic=&since=&state=no").described();
    asked("GET /v1/sync?page=2").refused_for("no query parameter page");
    asked("GET /v1/sync?ticket=x").refused_for("no query parameter ticket");
    asked("GET /v1/sync?limit=0").refused_for("limit=0");
    asked("GET /v1/sync?topic=%20").refused_for("topic= ");
    asked("PUT /v1/sync").refused_for("no status 200 of another method, PUT");
    asked("get /v1/sync").refused_for("no status 200 of another method, get");
    asked("GET /v1/sink").refused_for("no status 200 of the unknown path /v1/sink");

    let mut told = published().described();
    told.head += "x-tenant: acme\r\n";
    told.refused_for("no request header x-tenant");
    let sent = |text: &str| Told {
        sent: text.to_owned(),
        ..published()
    };
    sent("").refused_for("the body of the request");
    sent(r#"{"topic":"a","type":"b","x":1}"#).refused_for("'x' was unexpected");
    sent(r#"{"topic":"a","type":"tidings.b"}"#).refused_for("\"/type\"");
    let body = || "{}".to_owned();
    Told {
        sent: body(),
        ..page()
    }
    .refused_for("no body of a request");

    // Refusals are of requests that may be anything.
    let refused = refusal("GET /v1/sync?page=2&limit=x", 400, "bad-request");
    Told {
        sent: body(),
        ..refused
    }
    .described();
}

#[test]
fn a_refusal_is_of_the_types_that_its_operation_has() {
    refusal("GET /v1/sync", 400, "no-topic").described();
    refusal("GET /v1/sync", 400, "invalid-body").refused_for("\"/type\"");
    refusal("POST /v1/tickets", 400, "no-topic").refused_for("\"/type\"");
    refusal("GET /v1/sync", 401, "unauthorized").refused_for("www-authenticate is required");
    let late = refusal("GET /v1/sync", 503, "no-cursor");
    late.clone().with("retry-after", "3").described();
    late.clone()
        .with("retry-after", "soon")
        .refused_for("retry-after: soon");
    late.refused_for("retry-after is required");
    let early = refusal("GET /v1/events", 503, "unavailable").with("retry-after", "3");
    early.refused_for("no status 503 of GET /v1/events");
    refusal("GET /x", 404, "not-found").described();
    refusal("GET /x", 401, "unauthorized").refused_for("no status 401 of the unknown path");
    let other = refusal("PUT /v1/sync", 405, "method-not-allowed");
    other
        .clone()
        .with("allow", "GET, HEAD, OPTIONS")
        .described();
    other.with("allow", "PUT").refused_for("the header allow");

    // What the HTTP library says by itself.
    let bare = |status| Told {
        status,
        headers: Vec::new(),
        body: Some(String::new()),
        ..page()
    };
    bare(431).described();
    bare(400).described();
    bare(401).refused_for("vary is required");
}

#[test]
fn a_block_that_differs_is_refused() {
    let head = stream().described();
    let whole = |body: &str| Told {
        body: Some(body.to_owned()),
        ..head.clone()
    };
    whole("retry: 3000\nretry: 90000\nevent: tidings.bye\ndata: {\"reason\":\"slow\"}\n\n")
        .described();
    whole("event: tidings.bye\ndata: {\"reason\":\"slow\"}\n\n").refused_for("no ByeBlock");
    head.without("x-accel-buffering")
        .refused_for("x-accel-buffering is required");

    let event = r#"{"id":"7","topic":"a","type":"b","at":"2026-11-20T18:33:41.288082Z","data":1}"#;
    let signal =
        r#"{"signal":true,"topic":"a","type":"b","at":"2026-11-20T18:33:41.288082Z","data":1}"#;
    for good in [
        format!("id: 1~7~1.00000000\ndata: {event}\n\n"),
        format!("data: {event}\nid: 1~7~1.00000000\n\n"),
        format!("retry: 2000\nevent: b\ndata: {event}\n\n"),
        format!("data: {signal}\n\n"),
        "event: tidings.beat\ndata: {}\n\n".to_owned(),
    ] {
        assert_eq!(BLOCKS.check(&good), Ok(()));
    }
    for (bad, about) in [
        (
            format!("id: 1~7~1.00000000\ndata: {signal}\n\n"),
            "no SignalBlock",
        ),
        (format!("id: a b\ndata: {event}\n\n"), "\"/id\""),
        (
            format!("event: tidings.event\ndata: {event}\n\n"),
            "\"/event\"",
        ),
        (
            format!("data: {}\n\n", event.replace("\"7\"", "7")),
            "\"/id\"",
        ),
        (
            format!("data: {}\n\n", event.replace(".288082", "")),
            "\"/at\"",
        ),
        (
            format!("data: {}\n\n", event.replace("11-20", "13-20")),
            "\"/at\"",
        ),
        (
            format!("data: {}\n\n", event.replace("data", "payload")),
            "payload",
        ),
        (
            "event: tidings.beat\ndata: {\"n\":1}\n\n".to_owned(),
            "no BeatBlock: at \"\": False schema",
        ),
        (
            "event: tidings.new\ndata: {}\n\n".to_owned(),
            "no ReadyBlock",
        ),
        ("event: tidings.beat\ndata: {\n\n".to_owned(), "data: EOF"),
        ("event: tidings.beat\n\n".to_owned(), "data: EOF"),
    ] {
        let fault = BLOCKS.check(&bad).expect_err(&bad);
        assert!(fault.contains(about), "{bad}: {fault}");
    }
}

/// Answers one request with these bytes; what a visit that reads all of it dies of.
async fn dies_of(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let server = async {
        let (mut socket, _) = listener.accept().await.expect("a visit");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut head).await.expect("a head");
        }
        socket.write_all(answer.as_bytes()).await.expect("writes");
    };
    let visit = tokio::spawn(async move {
        let visit = Visit::new(address, "GET", "/v1/events?topic=a");
        if let Ok(mut stream) = visit.try_stream().await {
            while stream.next().await.is_some() {}
        }
    });
    let (died, ()) = tokio::join!(visit, server);
    let panic = died.expect_err("it is refused").into_panic();
    *panic.downcast::<String>().expect("a text")
}

#[tokio::test]
async fn the_client_compares_what_it_sees() {
    let stream = "HTTP/1.1 200 OK\r\nvary: origin\r\nx-content-type-options: nosniff\r\n\
                  cache-control: no-store, no-transform\r\ncontent-type: text/event-stream\r\n";
    let refused = dies_of("HTTP/1.1 418 No\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    assert!(refused.contains("no status 418"), "{refused}");
    let refused = dies_of(format!("{stream}\r\n")).await;
    assert!(
        refused.contains("x-accel-buffering is required"),
        "{refused}"
    );
    let whole = format!("{stream}x-accel-buffering: no\r\n\r\nevent: tidings.beat\ndata: []\n\n");
    let refused = dies_of(whole).await;
    assert!(refused.contains("no BeatBlock"), "{refused}");
}
