//! Tickets: what a cross-site page uses in place of the token that it cannot send.

use serde_json::json;

use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

#[tokio::test]
async fn a_ticket_opens_streams_of_the_page_that_bought_it_at_any_gateway_and_nothing_else() {
    let database = database();
    let one = Gateway::start(&database).await;
    let two = Gateway::start(&database).await;
    let page = "https://app.test";
    let bearer = token("alice", json!({"topics": ["news"], "publish": ["*"]}));

    let sold = one.visit("POST", "/v1/tickets").bearer(&bearer);
    let sold = sold.header("origin", page).send().await;
    assert_eq!(sold.status, 201, "{}", sold.body);
    let sold = sold.json();
    let ticket = sold["ticket"].as_str().expect("a ticket");
    let expires: jiff::Timestamp = sold["expires_at"]
        .as_str()
        .unwrap()
        .parse()
        .expect("a time");
    let left = expires.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((50..=60).contains(&left), "{left}");

    // Twice, because a browser comes back within its time.
    let target = format!("/v1/events?topic=user:alice&topic=news&topic=other&ticket={ticket}");
    for gateway in [&one, &two, &two] {
        let visit = gateway.visit("GET", &target).header("origin", page);
        let ready = visit.stream().await.ready().await;
        assert_eq!(ready["topics"], json!(["user:alice", "news"]));
        assert_eq!(ready["denied"], json!(["other"]));
    }

    for origin in [None, Some("https://evil.test"), Some("null")] {
        let visit = one.visit("GET", &target);
        let visit = match origin {
            Some(origin) => visit.header("origin", origin),
            None => visit,
        };
        assert_eq!(visit.send().await.status, 401, "{origin:?}");
    }
    let ticket = format!("ticket={ticket}");
    for (method, target) in [
        ("GET", format!("/v1/sync?{ticket}")),
        ("POST", format!("/v1/events?{ticket}")),
        ("POST", format!("/v1/tickets?{ticket}")),
    ] {
        let visit = one.visit(method, &target).header("origin", page);
        let visit = visit.json(&json!({"topic": "a", "type": "b"}));
        assert_eq!(visit.send().await.status, 401, "{method} {target}");
    }
}

#[tokio::test]
async fn without_the_key_of_tickets_none_is_sold_and_streams_are_told_to_come_back() {
    let database = database();
    let backend = database.connect().await;
    let role = database.name();
    crate::sql::run(
        &backend,
        &format!(
            "create role {role} login in role tidings_gateway;
             revoke select on tidings.secret from tidings_gateway"
        ),
    )
    .await;
    let gateway = Gateway::start_at(&database.url_as(role), &["--migrate=check"]).await;

    let sold = gateway.visit("POST", "/v1/tickets");
    let sold = sold.bearer(&token("alice", json!({}))).send().await;
    assert_eq!(sold.status, 503, "{}", sold.body);
    assert!(sold.header("retry-after").is_some());

    let stream = gateway.visit("GET", "/v1/events?ticket=1.x.y");
    let mut stream = stream.stream().await;
    let bye = stream.wait_for("tidings.bye").await;
    assert_eq!(bye.json(), json!({"reason": "unavailable"}));
    assert!(bye.retry.is_some());

    gateway.stop().await;
    crate::sql::run(&backend, &format!("drop role {role}")).await;
}
