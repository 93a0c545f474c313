//! Cursors wherever they come from: ahead of the gateway, of another one, from the middle of a look
//! or of a page, and those that cannot be resumed, each with its true reason.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_postgres::Client;

use crate::support::backend::{cursor, publish, publish_all, run, until};
use crate::support::client::PATIENCE;
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::{Database, database, own_cluster};
use crate::support::proxy::Proxy;

/// A gateway that remembers nothing, so that every replay comes from the database.
async fn forgetful(database: &Database) -> Gateway {
    Gateway::start_with(database, &["--window-bytes=0"]).await
}

/// Whether a cursor has two marks: it comes from the middle of a look or page.
fn is_within(cursor: &str) -> bool {
    cursor.matches('~').count() == 4
}

/// Flips a digit of the tag, which makes it the cursor of another history.
fn of_another_history(cursor: &str) -> String {
    let last = if cursor.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &cursor[..cursor.len() - 1])
}

/// Looks need the floor and publishers do not: holding it holds back all gateways.
const HOLD_LOOKS: &str = "begin; lock table tidings.floor in access exclusive mode";

const LOOK_WAITS: &str =
    "select exists (select from pg_stat_activity where datname = current_database()
    and application_name = 'tidings/tail' and wait_event_type = 'Lock')";

#[tokio::test]
async fn a_cursor_from_sql_that_is_ahead_of_the_gateway_gets_neither_repeat_nor_gap() {
    let database = database();
    for gateway in [Gateway::start(&database).await, forgetful(&database).await] {
        let (backend, holder) = (database.connect().await, database.connect().await);
        let mut bob = gateway.subscribe(&["t"]).await;

        run(&holder, HOLD_LOOKS).await;
        until(&backend, LOOK_WAITS).await;
        let before = [publish(&backend, "t").await, publish(&backend, "t").await];
        let ahead = cursor(&backend).await;
        let mut alice = gateway.resume(&["t"], Some(&ahead)).await;
        let after = [publish(&backend, "t").await, publish(&backend, "u").await];
        run(&holder, "commit").await;

        assert_eq!(bob.ids(3).await, [before[0], before[1], after[0]]);
        let last = publish(&backend, "t").await;
        assert_eq!(alice.ids(2).await, [after[0], last]);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_cursor_within_a_look_of_another_gateway_that_is_ahead_gets_neither_repeat_nor_gap() {
    let database = database();
    let proxy = Proxy::start(&database).await;
    let behind = Gateway::start_at(proxy.url(), &[]).await;
    let ahead = Gateway::start(&database).await;
    let backend = database.connect().await;
    let mut bob = behind.subscribe(&["t"]).await;
    let mut alice = ahead.subscribe(&["t"]).await;

    proxy.hold();
    let ids = publish_all(&backend, &["t", "u", "t", "t", "t"]).await;
    assert_eq!(alice.ids(2).await, [ids[0], ids[2]]);
    let cursor = alice.cursor().to_owned();
    assert!(is_within(&cursor), "{cursor}");
    drop(alice);
    let mut alice = behind.resume(&["t"], Some(&cursor)).await;
    let next = publish(&backend, "t").await;
    proxy.release();

    assert_eq!(alice.ids(3).await, [ids[3], ids[4], next]);
    assert_eq!(bob.ids(5).await, [ids[0], ids[2], ids[3], ids[4], next]);
    let last = publish(&backend, "t").await;
    assert_eq!(alice.ids(1).await, [last]);
    assert_eq!(bob.ids(1).await, [last]);
}

/// A look of more than one page lets streams attach between its pages, but not those who know what
/// the next page holds already.
#[tokio::test]
async fn a_cursor_that_has_seen_the_next_page_of_a_look_does_not_get_it_again() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--replay=100000"]).await;
    let (backend, bulk) = (database.connect().await, database.connect().await);
    let mut bob = gateway.subscribe(&["u"]).await;
    for _ in 0..3 {
        // No bell tells of it, and the look of the second has just been: the stream itself is the
        // reason for the look that finds these two pages.
        run(&bulk, "begin; set local tidings.bell = off").await;
        let publish_bulk = "select count(tidings.publish('t', 'k')) from generate_series(1, 6000)";
        run(&bulk, publish_bulk).await;
        let just_looked = publish(&backend, "u").await;
        assert_eq!(bob.ids(1).await, [just_looked]);
        run(&bulk, "commit").await;
        let ahead = cursor(&backend).await;
        let mut alice = gateway.resume(&["t"], Some(&ahead)).await;
        alice.ready().await;
        let last = publish(&backend, "t").await;
        assert_eq!(alice.ids(1).await, [last]);
    }
}

/// Fills the log so that a replay from the cursor which is returned is not plain: one look of many
/// events, transactions that commit late, and pages that end at their bytes. Returns the ids of
/// the topic `t` beyond the cursor too.
async fn entangled(database: &Database) -> (String, Vec<i64>) {
    let (backend, early, late) = (
        database.connect().await,
        database.connect().await,
        database.connect().await,
    );
    let large = async |client: &Client| {
        let statement = "select tidings.publish('t', 'large', to_jsonb(repeat('x', 100000)))";
        let row = client.query_one(statement, &[]).await;
        row.expect("publishes").get::<_, i64>(0)
    };
    publish(&backend, "t").await;
    run(&early, "begin").await;
    let mut ids = vec![large(&early).await];
    let start = cursor(&backend).await;
    ids.push(publish(&backend, "t").await);
    let look = publish_all(&backend, &["t", "u", "t", "u", "t", "t"]).await;
    ids.extend([look[0], look[2], look[4], look[5]]);
    run(&late, "begin").await;
    ids.push(large(&late).await);
    ids.push(publish(&early, "t").await);
    run(&early, "commit").await;
    for _ in 0..3 {
        ids.push(large(&backend).await);
        ids.push(publish(&backend, "t").await);
    }
    run(&late, "commit").await;
    ids.push(publish(&backend, "t").await);
    (start, ids)
}

#[tokio::test]
async fn a_client_that_is_cut_after_every_few_events_misses_and_repeats_nothing() {
    let database = database();
    // The first has looked before, and serves from its window; to the others the log is new.
    let gateways = [
        Gateway::start(&database).await,
        forgetful(&database).await,
        Gateway::start(&database).await,
    ];
    let (start, mut expected) = entangled(&database).await;
    let topics = ["t"];
    let (mut within, mut before_ready) = (0, 0);
    for step in 1..=4 {
        let mut cursor = start.clone();
        let mut got = Vec::new();
        for turn in 0.. {
            let gateway = &gateways[turn % gateways.len()];
            let mut stream = gateway.resume(&topics, Some(&cursor)).await;
            let left = expected.len() - got.len();
            got.extend(stream.ids(left.min(step)).await);
            cursor = stream.cursor().to_owned();
            within += usize::from(is_within(&cursor));
            before_ready += usize::from(left > step);
            if left <= step {
                // Nothing of it comes again, neither now nor later.
                let last = publish(&database.connect().await, "t").await;
                assert_eq!(stream.ids(1).await, [last]);
                let mut stream = gateway.resume(&topics, Some(stream.cursor())).await;
                let next = publish(&database.connect().await, "t").await;
                assert_eq!(stream.ids(1).await, [next]);
                got.extend([last, next]);
                expected.extend([last, next]);
                break;
            }
        }
        got.sort_unstable();
        expected.sort_unstable();
        assert_eq!(got, expected, "{step} at a time");
    }
    assert!(within > 20 && before_ready > 20, "{within}, {before_ready}");
    for (gateway, source) in gateways.iter().zip(["window", "database"]) {
        let name = format!("tidings_replays_total{{source=\"{source}\"}}");
        assert!(gateway.metric(&name).await > 3.0, "{source}");
    }
}

#[tokio::test]
async fn a_topic_added_on_a_later_connect_replays_from_the_cursor_too() {
    let database = database();
    let backend = database.connect().await;
    for gateway in [Gateway::start(&database).await, forgetful(&database).await] {
        let mut alice = gateway.subscribe(&["t"]).await;
        let old = publish_all(&backend, &["u", "t"]).await;
        assert_eq!(alice.ids(1).await, [old[1]]);
        let cursor = alice.cursor().to_owned();
        drop(alice);
        let missed = publish_all(&backend, &["u", "t"]).await;
        let mut alice = gateway.resume(&["t", "u"], Some(&cursor)).await;
        let (replayed, ready) = alice.replay().await;
        assert_eq!(replayed, missed);
        assert_eq!(ready["topics"], json!(["t", "u"]));
        gateway.stop().await;
    }
}

/// Resumes from a cursor that is refused for `reason`: the reset names that cursor, so that whoever is
/// cut before `ready` meets it again; after `ready` the stream goes on from now.
async fn meets_reset(gateway: &Gateway, backend: &Client, since: &str, reason: &str) {
    for _ in 0..2 {
        let mut cut = gateway.resume(&["t"], Some(since)).await;
        let reset = cut.next().await.expect("a block");
        assert!(reset.is("tidings.reset"), "{reason}: {reset:?}");
        assert_eq!(reset.json()["reason"], reason);
        let wait_ms = reset.json()["wait_ms"].as_u64().expect("a wait");
        assert!(wait_ms < 1_000, "{wait_ms}");
        // No text that is not a cursor comes back as one.
        let named = (reason != "malformed").then_some(since);
        assert_eq!(reset.id.as_deref(), named);
    }
    let mut alice = gateway.resume(&["t"], Some(since)).await;
    alice.wait_for("tidings.reset").await;
    let ready = alice.wait_for("tidings.ready").await;
    assert_eq!(ready.json()["resumed"], false);
    assert_ne!(alice.cursor(), since);
    let now = publish(backend, "t").await;
    assert_eq!(alice.ids(1).await, [now]);
}

#[tokio::test]
async fn a_text_that_is_no_cursor_meets_a_reset() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    publish(&backend, "t").await;
    let good = cursor(&backend).await;
    for text in [
        "x",
        "1~",
        "0",
        "2~5~1.00000000",
        &good[1..],
        &format!("{good}~"),
    ] {
        meets_reset(&gateway, &backend, text, "malformed").await;
    }
    // A header that is not even text is the same.
    let long = format!("1~5{}~1.00000000", ".1".repeat(2_100));
    meets_reset(&gateway, &backend, &long, "malformed").await;
    assert!(
        gateway
            .metric("tidings_resets_total{reason=\"malformed\"}")
            .await
            >= 21.0
    );
}

#[tokio::test]
async fn a_cursor_of_another_history_meets_a_reset() {
    let database = database();
    let backend = database.connect().await;
    for gateway in [Gateway::start(&database).await, forgetful(&database).await] {
        let mut alice = gateway.subscribe(&["t"]).await;
        publish_all(&backend, &["t", "t", "t"]).await;
        // Of the middle and of the end of a look, and from before events that this gateway knows.
        alice.ids(2).await;
        let within = of_another_history(alice.cursor());
        assert!(is_within(&within));
        alice.ids(1).await;
        let whole = of_another_history(alice.cursor());
        for since in [&within, &whole] {
            meets_reset(&gateway, &backend, since, "diverged").await;
        }
        // An event that is gone is not known either, also when newer ones have taken its place.
        let lost = publish(&backend, "t").await;
        alice.ids(3).await;
        let orphan = cursor(&backend).await;
        publish(&backend, "t").await;
        alice.ids(1).await;
        run(
            &backend,
            &format!("delete from tidings.event where id = {lost}"),
        )
        .await;
        let forgetful = forgetful(&database).await;
        meets_reset(&forgetful, &backend, &orphan, "diverged").await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn what_was_trimmed_meets_a_reset_and_who_had_seen_it_does_not() {
    // On a server of its own: a transaction of whatever database that was open when a cursor was made, and is older
    // than what was trimmed, might have written some of that.
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let gateway = forgetful(&database).await;
    let backend = database.connect().await;
    let mut alice = gateway.subscribe(&["t"]).await;
    let old = "insert into tidings.event (topic, type, created_at)
        select 't', 'old', clock_timestamp() - interval '3 days' from generate_series(1, 2)";
    let before = cursor(&backend).await;
    run(&backend, old).await;
    alice.ids(1).await;
    let within = alice.cursor().to_owned();
    assert!(is_within(&within));
    alice.ids(1).await;
    let seen = alice.cursor().to_owned();
    let new = publish(&backend, "t").await;
    alice.ids(1).await;
    let after = alice.cursor().to_owned();
    run(&backend, "select tidings.trim('1 day')").await;

    for since in [&before, &within] {
        meets_reset(&gateway, &backend, since, "trimmed").await;
    }
    let mut who_had_seen = gateway.resume(&["t"], Some(&seen)).await;
    assert_eq!(who_had_seen.ids(1).await, [new]);
    let mut up_to_date = gateway.resume(&["t"], Some(&after)).await;
    assert_eq!(up_to_date.replay().await.1["resumed"], true);
}

#[tokio::test]
async fn who_missed_more_than_a_stream_replays_is_sent_to_sync() {
    let database = database();
    let backend = database.connect().await;
    for bytes in ["64MiB", "0"] {
        let flags = ["--replay=10", &format!("--window-bytes={bytes}")];
        let gateway = Gateway::start_with(&database, &flags).await;
        let mut live = gateway.subscribe(&["t"]).await;
        let far = cursor(&backend).await;
        let first = publish(&backend, "t").await;
        let near = cursor(&backend).await;
        let mut ids = publish_all(&backend, &["t"; 9]).await;
        ids.push(publish(&backend, "t").await);
        publish_all(&backend, &["u"; 20]).await;
        assert_eq!(live.ids(1).await, [first]);
        assert_eq!(live.ids(10).await, ids);
        let mut just_enough = gateway.resume(&["t"], Some(&near)).await;
        assert_eq!(just_enough.replay().await.0, ids, "window of {bytes}");
        meets_reset(&gateway, &backend, &far, "too-far").await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn the_header_counts_before_the_parameter() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let _live = gateway.subscribe(&["t"]).await;
    let old = cursor(&backend).await;
    let first = publish(&backend, "t").await;
    let new = cursor(&backend).await;
    let second = publish(&backend, "t").await;
    let bearer = token("alice", json!({"topics": ["t"]}));
    let visit = || {
        gateway
            .visit("GET", &format!("/v1/events?topic=t&since={old}"))
            .bearer(&bearer)
    };
    assert_eq!(visit().stream().await.replay().await.0, [first, second]);
    let mut both = visit().header("last-event-id", &new).stream().await;
    assert_eq!(both.replay().await.0, [second]);
}

#[tokio::test]
async fn named_events_carry_their_type_live_and_replayed() {
    let database = database();
    let backend = database.connect().await;
    let bearer = token("alice", json!({"topics": ["t"]}));
    for gateway in [Gateway::start(&database).await, forgetful(&database).await] {
        let visit = || {
            gateway
                .visit("GET", "/v1/events?topic=t&named=1")
                .bearer(&bearer)
        };
        let mut stream = visit().stream().await;
        stream.ready().await;
        publish(&backend, "t").await;
        let live = stream.next().await.expect("an event");
        assert_eq!(live.event.as_deref(), Some("said"));
        let cursor = stream.cursor().to_owned();
        publish(&backend, "t").await;
        let live = stream.next().await.expect("an event");
        let mut stream = visit().header("last-event-id", &cursor).stream().await;
        let replayed = stream.next().await.expect("an event");
        assert_eq!((&replayed.event, &replayed.data), (&live.event, &live.data));
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_head_answers_like_a_get_without_its_body() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let bearer = token("alice", json!({}));
    let head = gateway
        .visit("HEAD", "/v1/events")
        .bearer(&bearer)
        .send()
        .await;
    let get = gateway
        .visit("GET", "/v1/events")
        .bearer(&bearer)
        .stream()
        .await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    for name in [
        "content-type",
        "cache-control",
        "x-accel-buffering",
        "x-content-type-options",
        "vary",
    ] {
        assert!(head.header(name).is_some(), "{name}");
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
    let refused = gateway
        .visit("HEAD", "/v1/events?topic=other")
        .bearer(&bearer)
        .send()
        .await;
    assert_eq!(refused.status, 403);
    // It took no seat and no place among the streams.
    assert_eq!(gateway.streams().await, 1.0);
}

#[tokio::test]
async fn a_stream_over_http_2_has_the_same_bytes() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let backend = database.connect().await;
    let since = cursor(&backend).await;
    publish_all(&backend, &["t", "u", "t"]).await;

    let socket = TcpStream::connect(gateway.address())
        .await
        .expect("connects");
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(socket))
            .await
            .expect("speaks HTTP/2");
    let driver = tokio::spawn(connection);
    let request = Request::get(format!(
        "http://{}/v1/events?topic=t&since={since}",
        gateway.address()
    ))
    .header(
        "authorization",
        format!("Bearer {}", token("alice", json!({"topics": ["t"]}))),
    )
    .body(Empty::<Bytes>::new())
    .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut body = answer.into_body();
    let mut over_two = String::new();

    let bearer = token("bob", json!({"topics": ["t"]}));
    let visit = gateway.visit("GET", &format!("/v1/events?topic=t&since={since}"));
    let mut over_one = visit.bearer(&bearer).stream().await;
    let mut over_one_text = String::new();
    while !over_one_text.contains("tidings.ready") {
        over_one_text += &over_one.text().await.expect("a block");
    }
    publish(&backend, "t").await;
    over_one_text += &over_one.text().await.expect("a block");
    // The wait before coming back is drawn for each stream, tokens differ in when they end, and each stream
    // attached to a look of its own, between which other databases' transactions may have ended.
    let plain = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with("retry: "));
        lines
            .map(|line| {
                if line.starts_with("id: ") {
                    return "id: …".to_owned();
                }
                line.split(",\"expires_at\"")
                    .next()
                    .unwrap_or(line)
                    .to_owned()
            })
            .collect()
    };
    let last_id = |text: &str| {
        let id = text.lines().rfind(|line| line.starts_with("id: "));
        id.expect("an id").to_owned()
    };
    while plain(&over_two).len() < plain(&over_one_text).len() {
        let frame = tokio::time::timeout(PATIENCE, body.frame())
            .await
            .expect("bytes in time");
        let bytes = frame
            .expect("a stream that goes on")
            .expect("no error")
            .into_data()
            .expect("data");
        over_two.push_str(std::str::from_utf8(&bytes).expect("UTF-8"));
    }
    assert_eq!(plain(&over_two), plain(&over_one_text));
    // The live event is one and the same frame.
    assert_eq!(last_id(&over_two), last_id(&over_one_text));
    assert_eq!(over_two.matches("data: {\"id\"").count(), 3);
    drop(body);
    // The stream ends with its body, and not with the connection.
    until_streams(&gateway, 1.0).await;
    drop((sender, over_one));
    let _ = tokio::time::timeout(Duration::from_secs(5), driver).await;
}

async fn until_streams(gateway: &Gateway, count: f64) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while gateway.streams().await != count {
        assert!(
            tokio::time::Instant::now() < deadline,
            "never {count} streams"
        );
    }
}
