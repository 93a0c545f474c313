//! Streams: what a subscriber sees, live and after it was away.

use serde_json::json;

use crate::support::gateway::Gateway;
use crate::support::postgres::database;

#[tokio::test]
async fn a_subscriber_gets_what_is_published_in_its_topic_and_nothing_else() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let mut alice = gateway.subscribe(&["user:alice"]).await;
    let backend = database.connect().await;
    let publish = "select tidings.publish($1, 'paid', '{\"text\": \"a\\nb \u{2028} ü\"}')";
    backend
        .query(publish, &[&"user:bob"])
        .await
        .expect("publishes");
    let row = backend
        .query_one(publish, &[&"user:alice"])
        .await
        .expect("publishes");
    let id: i64 = row.get(0);

    let event = alice.event().await;
    assert_eq!(event["id"], id.to_string());
    assert_eq!(event["topic"], "user:alice");
    assert_eq!(event["type"], "paid");
    assert_eq!(event["data"], json!({"text": "a\nb \u{2028} ü"}));
}

#[tokio::test]
async fn who_was_away_gets_exactly_what_it_missed() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let mut alice = gateway.subscribe(&["user:alice"]).await;
    let backend = database.connect().await;
    let publish = async || {
        let row = backend
            .query_one("select tidings.publish('user:alice', 'paid')", &[])
            .await;
        row.expect("publishes").get::<_, i64>(0)
    };
    let first = publish().await;
    assert_eq!(alice.event().await["id"], first.to_string());
    let cursor = alice.cursor().to_owned();
    drop(alice);
    let missed = [publish().await, publish().await];

    let mut alice = gateway.resume(&["user:alice"], Some(&cursor)).await;
    let (replayed, ready) = alice.replay().await;
    assert_eq!(replayed, missed);
    assert_eq!(ready["resumed"], true);
    assert_eq!(ready["replayed"], 2);
    let next = publish().await;
    assert_eq!(alice.event().await["id"], next.to_string());
    assert_eq!(
        gateway
            .metric("tidings_replays_total{source=\"window\"}")
            .await,
        1.0
    );
}
