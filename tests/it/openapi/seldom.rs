//! Answers that the document describes and no other test meets: each is asked for once, and so compared.

use serde_json::json;

use crate::support::client::{Answer, Visit};
use crate::support::gateway::{Gateway, token};
use crate::support::interface::Server;
use crate::support::postgres::database;

/// The end of a problem's type; of an answer without a body, nothing.
fn kind(answer: &Answer) -> String {
    match answer.header("content-type") {
        Some("application/problem+json") => answer.json()["type"]
            .as_str()
            .and_then(|kind| kind.strip_prefix("urn:tidings:problem:"))
            .expect("a type of ours")
            .to_owned(),
        _ => String::new(),
    }
}

#[tokio::test]
async fn wrong_requests_of_seldom_kinds_are_refused_as_described() {
    let database = database();
    let flags = ["--public-topics=news", "--head-bytes=8KiB"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let bearer = token("alice", json!({}));
    let clients = |method: &str, target: &str| gateway.visit(method, target);
    let operators = |method: &str, target: &str| {
        Visit::new(gateway.ops_address(), method, target).of(Server::Operators)
    };
    let long = format!("topic={}", "x".repeat(20_000));
    let paths = ["/v1/events", "/v1/sync", "/v1/tickets"];

    for path in &paths[..2] {
        let nobody = clients("GET", path).send().await;
        assert_eq!((nobody.status, &*kind(&nobody)), (400, "no-topic"));
    }
    for path in ["/v1/events?%", "/v1/tickets?%"] {
        let broken = clients("POST", path).bearer(&bearer).send().await;
        assert_eq!((broken.status, &*kind(&broken)), (400, "bad-request"));
    }
    for path in paths {
        for method in ["OPTIONS", "GET", "PUT"] {
            let twice = clients(method, path).header("host", "elsewhere").send();
            let twice = twice.await;
            assert_eq!((twice.status, &*kind(&twice)), (400, "bad-request"));
        }
        for method in ["HEAD", "GET", "POST", "OPTIONS", "PUT"] {
            let large = clients(method, &format!("{path}?{long}")).send().await;
            assert_eq!((large.status, &*kind(&large)), (431, ""), "{method}");
        }
    }

    for path in ["/livez", "/readyz", "/metrics"] {
        for method in ["GET", "HEAD"] {
            let answer = operators(method, path).send().await;
            assert_eq!(answer.status, 200, "{method} {path}");
            // A name of a header that is none.
            let broken = operators(method, path).header("a b", "c").send().await;
            assert_eq!((broken.status, &*kind(&broken)), (400, ""));
        }
        for method in ["POST", "OPTIONS"] {
            let large = operators(method, &format!("{path}?{long}")).send().await;
            assert_eq!((large.status, &*kind(&large)), (431, ""));
            let broken = operators(method, path).header("a b", "c").send().await;
            assert_eq!((broken.status, &*kind(&broken)), (400, ""));
            let other = operators(method, path).send().await;
            assert_eq!((other.status, &*kind(&other)), (405, "method-not-allowed"));
        }
        let large = operators("GET", &format!("{path}?{long}")).send().await;
        assert_eq!((large.status, &*kind(&large)), (431, ""));
    }
    for visit in [&clients as &dyn Fn(&str, &str) -> Visit, &operators] {
        let broken = visit("GET", "/unknown").header("a b", "c").send().await;
        assert_eq!((broken.status, &*kind(&broken)), (400, ""));
        let large = visit("GET", &format!("/unknown?{long}")).send().await;
        assert_eq!((large.status, &*kind(&large)), (431, ""));
    }
    let unknown = operators("GET", "/v1/events").send().await;
    assert_eq!((unknown.status, &*kind(&unknown)), (404, "not-found"));
    let unknown = operators("POST", "/v1/events").send().await;
    assert_eq!(
        (unknown.status, &*kind(&unknown)),
        (405, "method-not-allowed")
    );
}

#[tokio::test]
async fn a_gateway_that_may_not_publish_says_that_it_is_its_own_fault() {
    let database = database();
    let backend = database.connect().await;
    let role = database.name();
    crate::sql::run(
        &backend,
        &format!(
            "create role {role} login in role tidings_gateway;
             revoke execute on function tidings.publish from tidings_gateway"
        ),
    )
    .await;
    let gateway = Gateway::start_at(&database.url_as(role), &["--migrate=check"]).await;
    let bearer = token("backend", json!({"publish": ["*"]}));
    let publish = gateway.visit("POST", "/v1/events").bearer(&bearer);
    let refused = publish.json(&json!({"topic": "a", "type": "b"}));
    let refused = refused.send().await;
    assert_eq!((refused.status, &*kind(&refused)), (500, "internal"));
    gateway.stop().await;
    crate::sql::run(&backend, &format!("drop role {role}")).await;
}
