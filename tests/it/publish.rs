//! Publishing over HTTP: what SQL does, for backends that cannot run it.

use serde_json::{Value, json};

use crate::sql::{run, text};
use crate::support::client::{Answer, Visit};
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;
use crate::sync::{blocked_session, until};

fn post(gateway: &Gateway, body: &Value) -> Visit {
    let bearer = token("backend", json!({"publish": ["user:*", "news"]}));
    gateway
        .visit("POST", "/v1/events")
        .bearer(&bearer)
        .json(body)
}

fn id(answer: &Answer, status: u16) -> String {
    assert_eq!(answer.status, status, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// The status and the last part of the type of a refusal.
fn problem(answer: &Answer) -> (u16, String) {
    let json = answer.json();
    let kind = json["type"].as_str().expect("a type");
    let name = kind.strip_prefix("urn:tidings:problem:").expect("ours");
    (answer.status, name.to_owned())
}

#[tokio::test]
async fn what_is_published_reaches_its_readers_as_it_was_written() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let mut alice = gateway.subscribe(&["user:alice"]).await;
    let data = json!({"text": "a\r\nb \u{2028} data: x\u{1F600}", "n": [1, 2.5, null]});
    let body = json!({"topic": "user:alice", "type": "said", "data": data});
    let sent = post(&gateway, &body).send().await;
    let sent = id(&sent, 201);
    let event = alice.event().await;
    assert_eq!(event["id"], sent);
    assert_eq!(event["type"], "said");
    assert_eq!(event["data"], data);

    let plain = json!({"topic": "user:alice", "type": "said"});
    let sent = id(&post(&gateway, &plain).send().await, 201);
    let event = alice.event().await;
    assert_eq!((&event["id"], &event["data"]), (&json!(sent), &Value::Null));

    // A number is not rounded on its way.
    let exact = br#"{"topic":"user:alice","type":"said","data":123456789012345678901234567890.10}"#;
    let bearer = token("backend", json!({"publish": ["*"]}));
    let visit = gateway.visit("POST", "/v1/events").bearer(&bearer);
    let visit = visit
        .header("content-type", "application/json; charset=utf-8")
        .body(exact);
    let sent = id(&visit.send().await, 201);
    let backend = database.connect().await;
    let stored = text(
        &backend,
        &format!("(select data from tidings.event where id = {sent})"),
    )
    .await;
    assert_eq!(stored, "123456789012345678901234567890.10");
}

#[tokio::test]
async fn a_key_publishes_once_and_the_answer_says_which_time_it_was() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let body = json!({"topic": "news", "type": "said", "key": "k\u{fc}-1"});
    let first = id(&post(&gateway, &body).send().await, 201);
    assert_eq!(id(&post(&gateway, &body).send().await, 200), first);
    let other = json!({"topic": "user:a", "type": "said", "key": "k\u{fc}-1"});
    assert_ne!(id(&post(&gateway, &other).send().await, 201), first);

    // Many at once: one of them publishes.
    let body = json!({"topic": "news", "type": "said", "key": "race"});
    let racers = (0..8).map(|_| post(&gateway, &body).send());
    let answers = futures::future::join_all(racers).await;
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(created, 1);
    let ids: std::collections::BTreeSet<String> = answers
        .iter()
        .map(|answer| id(answer, answer.status))
        .collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let backend = database.connect().await;
    assert_eq!(
        text(&backend, "(select count(*) from tidings.event)").await,
        "3"
    );
}

#[tokio::test]
async fn a_publish_that_waits_for_another_key_holder_ends_in_time_and_frees_its_session() {
    let database = database();
    let flags = ["--statement-timeout=300ms", "--pool-size=2"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let backend = database.connect().await;
    run(
        &backend,
        "begin; select tidings.publish('news', 'said', key => 'held')",
    )
    .await;
    let body = json!({"topic": "news", "type": "said", "key": "held"});
    for _ in 0..3 {
        let refused = post(&gateway, &body).send().await;
        assert_eq!(problem(&refused), (503, "unavailable".into()));
        assert!(refused.header("retry-after").is_some());
    }
    let other = json!({"topic": "news", "type": "said", "key": "other"});
    id(&post(&gateway, &other).send().await, 201);
    run(&backend, "commit").await;
    id(&post(&gateway, &body).send().await, 200);
}

#[tokio::test]
async fn a_publisher_that_goes_away_leaves_no_session_behind() {
    let database = database();
    let flags = ["--statement-timeout=60s", "--pool-size=2"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let backend = database.connect().await;
    let watcher = database.connect().await;
    run(
        &backend,
        "begin; select tidings.publish('news', 'said', key => 'held')",
    )
    .await;
    let body = json!({"topic": "news", "type": "said", "key": "held"});
    for _ in 0..3 {
        let waiting = tokio::spawn(post(&gateway, &body).send());
        let pid = blocked_session(&watcher).await;
        waiting.abort();
        // Its query has a minute, and its client has none.
        let there = format!("(select count(*) from pg_stat_activity where pid = {pid})");
        until("its session's end", async || {
            text(&watcher, &there).await == "0"
        })
        .await;
    }
    let other = json!({"topic": "news", "type": "said"});
    id(&post(&gateway, &other).send().await, 201);
}

#[tokio::test]
async fn what_cannot_be_published_is_refused_with_the_reason() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--head-timeout=1s"]).await;
    let large = "x".repeat(262_143);
    let deep = format!(
        "{{\"topic\":\"news\",\"type\":\"b\",\"data\":{}{}}}",
        "[".repeat(200_000),
        "]".repeat(200_000)
    );
    for (body, status, name) in [
        (
            json!({"topic": "a b", "type": "b"}).to_string(),
            400,
            "invalid-topic",
        ),
        (
            json!({"topic": "", "type": "b"}).to_string(),
            400,
            "invalid-topic",
        ),
        (
            json!({"topic": "news*", "type": "b"}).to_string(),
            400,
            "invalid-topic",
        ),
        (
            json!({"topic": "news", "type": "error"}).to_string(),
            400,
            "invalid-type",
        ),
        (
            json!({"topic": "news", "type": "tidings.x"}).to_string(),
            400,
            "invalid-type",
        ),
        (
            json!({"topic": "news", "type": "a/b"}).to_string(),
            400,
            "invalid-type",
        ),
        (
            json!({"topic": "other", "type": "b"}).to_string(),
            403,
            "publish-forbidden",
        ),
        (
            json!({"topic": "news2", "type": "b"}).to_string(),
            403,
            "publish-forbidden",
        ),
        (
            json!({"topic": "news", "type": "b", "key": ""}).to_string(),
            400,
            "invalid-body",
        ),
        (
            json!({"topic": "news", "type": "b", "key": "k".repeat(256)}).to_string(),
            400,
            "invalid-body",
        ),
        (
            json!({"topic": "news", "type": "b", "key": "a\u{0}"}).to_string(),
            400,
            "invalid-body",
        ),
        (
            json!({"topic": "news", "type": "b", "data": "\u{0}"}).to_string(),
            400,
            "invalid-body",
        ),
        (
            json!({"topic": "news", "type": "b", "data": {"\u{0}": 1}}).to_string(),
            400,
            "invalid-body",
        ),
        (
            r#"{"topic":"news","type":"b","data":"\ud800"}"#.into(),
            400,
            "invalid-body",
        ),
        (
            r#"{"topic":"news","type":"b","data":1e999999}"#.into(),
            400,
            "invalid-body",
        ),
        (
            r#"{"topic":"news","type":"b","data":NaN}"#.into(),
            400,
            "invalid-body",
        ),
        (deep, 400, "invalid-body"),
        (
            json!({"topic": "news", "type": "b", "data": large.clone()}).to_string(),
            413,
            "data-too-large",
        ),
        (
            json!({"topic": "news", "type": "b", "data": large.repeat(2)}).to_string(),
            413,
            "body-too-large",
        ),
        ("{}".into(), 400, "invalid-body"),
        (String::new(), 400, "invalid-body"),
    ] {
        let bearer = token("backend", json!({"publish": ["user:*", "news"]}));
        let visit = gateway.visit("POST", "/v1/events").bearer(&bearer);
        let visit = visit
            .header("content-type", "application/json")
            .body(body.as_bytes());
        let answer = visit.send().await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(
            problem(&answer),
            (status, name.into()),
            "{shown}: {}",
            answer.body
        );
    }
    let exact = json!({"topic": "news", "type": "b", "data": &large[1..]});
    id(&post(&gateway, &exact).send().await, 201);
    let backend = database.connect().await;
    assert_eq!(
        text(&backend, "(select count(*) from tidings.event)").await,
        "1"
    );

    let bearer = token("backend", json!({"publish": ["*"]}));
    let visit = || gateway.visit("POST", "/v1/events").bearer(&bearer);
    let body = br#"{"topic":"a","type":"b"}"#;
    assert_eq!(
        problem(&visit().body(body).send().await),
        (415, "not-json".into())
    );
    let form = visit().header("content-type", "text/plain").body(body);
    assert_eq!(problem(&form.send().await), (415, "not-json".into()));
    // One byte is announced and never sent.
    let slow = visit()
        .header("content-type", "application/json")
        .header("content-length", "25");
    assert_eq!(problem(&slow.send().await), (408, "request-timeout".into()));
}

#[tokio::test]
async fn only_a_bearer_publishes() {
    let database = database();
    let flags = ["--cookie=session", "--public-topics=*"];
    let gateway = Gateway::start_with(&database, &flags).await;
    let body = json!({"topic": "a", "type": "b"});
    let token = token("backend", json!({"publish": ["*"]}));
    let visit = || gateway.visit("POST", "/v1/events").json(&body);
    let cookie = visit()
        .header("cookie", &format!("session={token}"))
        .send()
        .await;
    assert_eq!(problem(&cookie), (403, "cookie-forbidden".into()));
    assert_eq!(problem(&visit().send().await), (401, "unauthorized".into()));
    let in_url = gateway.visit("POST", &format!("/v1/events?token={token}"));
    assert_eq!(
        problem(&in_url.json(&body).send().await),
        (400, "token-in-url".into())
    );
    let backend = database.connect().await;
    assert_eq!(
        text(&backend, "(select count(*) from tidings.event)").await,
        "0"
    );
}
