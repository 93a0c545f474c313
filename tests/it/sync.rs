//! Sync: state, what was missed and a cursor, all of one snapshot.

use serde_json::{Value, json};

use crate::sql::run;
use crate::support::client::{Answer, Visit};
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

/// A sync of these topics by a user of its own, who may read everything.
fn ask(gateway: &Gateway, topics: &[&str], more: &str) -> Visit {
    let user = format!("reader-{:08x}", fastrand::u32(..));
    let topics: String = topics
        .iter()
        .map(|topic| format!("topic={topic}&"))
        .collect();
    gateway
        .visit("GET", &format!("/v1/sync?{topics}{more}"))
        .bearer(&token(&user, json!({"topics": ["*"]})))
}

/// The body of an answer, which must be one.
fn told(answer: &Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

fn ids(events: &Value) -> Vec<i64> {
    let events = events.as_array().expect("a list of events");
    let id = |event: &Value| event["id"].as_str().and_then(|id| id.parse().ok());
    events
        .iter()
        .map(|event| id(event).expect("an id"))
        .collect()
}

#[tokio::test]
async fn a_sync_tells_state_what_was_missed_and_where_to_go_on() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    run(
        &backend,
        "create function told(topic text, claims jsonb) returns jsonb language sql
         as $$ select jsonb_build_object('topic', topic, 'events', (select count(*) from tidings.event)) $$;
         select tidings.define_state('user:*', 'told(text, jsonb)')",
    )
    .await;

    let first = ask(&gateway, &["user:a", "other"], "").send().await;
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("cache-control"), Some("no-store"));
    let first = told(&first);
    assert_eq!(
        first["state"],
        json!({"user:a": {"topic": "user:a", "events": 0}})
    );
    assert_eq!(first["events"], json!([]));
    assert_eq!(
        (&first["reset"], &first["more"]),
        (&Value::Null, &json!(false))
    );

    run(
        &backend,
        "select tidings.publish('user:a', 'paid', '{\"n\": 1}'), tidings.publish('user:b', 'paid')",
    )
    .await;
    let since = format!("since={}", first["cursor"].as_str().expect("a cursor"));
    let second = told(&ask(&gateway, &["user:a"], &since).send().await);
    assert_eq!(ids(&second["events"]).len(), 1);
    assert_eq!(second["events"][0]["data"], json!({"n": 1}));
    assert_eq!(second["state"]["user:a"]["events"], 2);

    let cursor = second["cursor"].as_str().expect("a cursor");
    let mut stream = gateway.resume(&["user:a"], Some(cursor)).await;
    assert_eq!(stream.ready().await["replayed"], 0);
    let third = told(
        &ask(&gateway, &["user:a"], &format!("since={cursor}&state=no"))
            .send()
            .await,
    );
    assert_eq!(third["events"], json!([]));
    assert!(third.get("state").is_none());
}

#[tokio::test]
async fn pages_end_at_their_limit_and_each_cursor_goes_on_in_sync_and_stream() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let start = told(&ask(&gateway, &["a"], "").send().await);
    run(
        &backend,
        "select tidings.publish('a', 'b') from generate_series(1, 7)",
    )
    .await;
    let all: Vec<i64> = (1..=7).collect();

    let mut since = start["cursor"].as_str().expect("a cursor").to_owned();
    let mut seen = Vec::new();
    loop {
        let page = ask(&gateway, &["a"], &format!("since={since}&limit=1"));
        let page = told(&page.send().await);
        assert!(ids(&page["events"]).len() <= 1);
        seen.extend(ids(&page["events"]));
        since = page["cursor"].as_str().expect("a cursor").to_owned();
        assert_eq!(page.get("state").is_some(), page["more"] == false);

        let mut stream = gateway.resume(&["a"], Some(&since)).await;
        assert_eq!(stream.replay().await.0, all[seen.len()..]);
        let rest = ask(&gateway, &["a"], &format!("since={since}"))
            .send()
            .await;
        assert_eq!(ids(&told(&rest)["events"]), all[seen.len()..]);
        if page["more"] == false {
            break;
        }
    }
    assert_eq!(seen, all);
}
