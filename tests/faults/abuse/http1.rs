//! HTTP/1 that is wrong: by hand where it is known what must be refused, and drawn by the thousand. The
//! answer is a 4xx or the end, never a 5xx, and everything ends.

use serde_json::json;
use tokio::task::JoinSet;

use super::garbage::Draw;
use super::watched::{EVERYTHING, Watched};
use super::wire::{Input, converse};
use crate::room;
use crate::support::backend::publish;
use crate::support::client::PATIENCE;
use crate::support::gateway::{Door, token};
use crate::support::postgres::{Database, database};
use crate::support::setting;

/// Conversations at a time.
const ABREAST: usize = 32;

/// As short as may be, since much of this ends by them; and nobody is refused because others ask too.
const FLAGS: [&str; 4] = [
    "--head-timeout=300ms",
    "--body-bytes=16KiB",
    "--pool-size=32",
    "--pool-wait=10s",
];

/// A gateway, and what a client holds who is about to abuse it.
pub(super) async fn victim(database: &Database, flags: &[&str], seed: u64) -> (Watched, Draw) {
    let gateway = Watched::serve(database, EVERYTHING, flags).await;
    // A token of each run's own, so that its parts are found in a log.
    let sub = format!("mallory-{seed}");
    let bearer = token(&sub, json!({"topics": ["*"], "publish": ["*"]}));
    let sold = gateway.visit("POST", "/v1/tickets").bearer(&bearer).send();
    let ticket = sold.await.json()["ticket"]
        .as_str()
        .expect("a ticket")
        .to_owned();
    let synced = gateway
        .visit("GET", "/v1/sync")
        .bearer(&bearer)
        .send()
        .await;
    let cursor = synced.json()["cursor"]
        .as_str()
        .expect("a cursor")
        .to_owned();
    let rng = fastrand::Rng::with_seed(seed);
    let draw = Draw {
        rng,
        bearer,
        ticket,
        cursor,
    };
    (gateway, draw)
}

/// What no line of the log may hold. The ways in which a token begins are those of every token.
pub(super) fn secrets(draw: &Draw) -> Vec<String> {
    let mut secrets = vec![draw.cursor.clone()];
    for text in [&draw.bearer, &draw.ticket] {
        secrets.push(text.clone());
        secrets.extend(
            text.split('.')
                .map(str::to_owned)
                .filter(|part| part.len() > 10),
        );
    }
    secrets
}

/// Whether a gateway serves as if nothing had been.
pub(super) async fn is_well(database: &Database, door: Door) {
    let begun = tokio::time::Instant::now();
    let mut stream = door.subscribe(&["after"]).await;
    let id = publish(&database.connect().await, "after").await;
    assert_eq!(stream.ids(1).await, [id]);
    assert!(begun.elapsed() < PATIENCE);
    for path in ["/livez", "/readyz"] {
        assert_eq!(door.ops(path).await.status, 200);
    }
}

fn bad_heads(bearer: &str) -> Vec<Vec<u8>> {
    let get =
        format!("GET /v1/sync?topic=a HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n");
    let post = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n"
    );
    let body = r#"{"topic":"a","type":"b"}"#;
    let length = body.len();
    let mut cases: Vec<String> = Vec::new();
    for line in [
        "host: y",
        &format!("authorization: Bearer {bearer}"),
        "x: a\rb",
        "x\r: a",
        "x : a",
        " x: a",
        "x: a\r\n folded",
        "\u{e9}: a",
        "x: \u{7f}",
    ] {
        cases.push(format!("{get}{line}\r\n\r\n"));
    }
    for line in [
        "content-length: 24, 24",
        "content-length: +24",
        "content-length: 0x18",
        "content-length: 24 24",
        "content-length: 23\r\ncontent-length: 24",
        "transfer-encoding: identity",
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: gzip",
        "transfer-encoding : chunked",
        "content-type: application/json\r\ncontent-length: 24",
        "content-encoding: gzip",
    ] {
        cases.push(format!("{post}{line}\r\n\r\n{body}"));
    }
    let chunked = format!("{post}transfer-encoding: chunked\r\n\r\n");
    for chunks in [
        format!("{length:x}\r\n{body}xx\r\n0\r\n\r\n"),
        format!("10000000000000000{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("0x{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{length:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{length:x}\n{body}\r\n0\r\n\r\n"),
        format!("{length:x};{}\r\n{body}\r\n0\r\n\r\n", "e".repeat(40_000)),
        format!(
            "{length:x}\r\n{body}\r\n0\r\nx: {}\r\n\r\n",
            "y".repeat(40_000)
        ),
        format!(
            "{length:x}\r\n{body}\r\n0\r\n{}\r\n",
            "x: y\r\n".repeat(5_000)
        ),
        "1\r\n \r\n".repeat(20_000),
    ] {
        cases.push(format!("{chunked}{chunks}"));
    }
    // What HTTP/1.0 does not know.
    cases.push(chunked.replace("HTTP/1.1", "HTTP/1.0") + "18\r\n" + body + "\r\n0\r\n\r\n");
    for line in [
        "GET http://evil.test/v1/sync HTTP/1.1\r\nhost: evil.test\r\n",
        "CONNECT gateway:80 HTTP/1.1\r\nhost: gateway:80\r\n",
        "GET /v1/sync HTTP/1.1 HTTP/1.1\r\nhost: x\r\n",
        "GET\t/v1/sync\tHTTP/1.1\r\nhost: x\r\n",
        "GET /v1/sync HTTP/1.10\r\nhost: x\r\n",
        "GET /v1/sync http/1.1\r\nhost: x\r\n",
        "GET /v1/events?topic=a HTTP/1.1\r\nhost: x\r\nlast-event-id: 1\r\nlast-event-id: 1\r\n",
    ] {
        cases.push(format!("{line}\r\n"));
    }
    cases.into_iter().map(String::into_bytes).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_that_is_wrong_gets_a_4xx_or_the_end() {
    let _room = room::beside_others().await;
    let database = database();
    let (gateway, draw) = victim(&database, &FLAGS, 1).await;
    let cases = bad_heads(&draw.bearer);
    for case in &cases {
        // Alone, and with a right one behind it, which must not be taken for one of its own.
        let right = b"GET /v1/sync?topic=a HTTP/1.1\r\nhost: x\r\n\r\n";
        for bytes in [case.clone(), [&case[..], right].concat()] {
            let input = Input::of(bytes);
            let statuses = converse(gateway.address(), &input).await.statuses();
            let refused = statuses.iter().all(|status| (400..500).contains(status));
            assert!(refused, "{statuses:?}: {}", input.shown());
        }
    }
    println!("{} requests that are wrong were refused", cases.len() * 2);
    is_well(&database, *gateway).await;
    gateway.end(&secrets(&draw)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lengths_of_a_body_never_make_two_requests_of_one() {
    let _room = room::beside_others().await;
    let database = database();
    let (gateway, draw) = victim(&database, &FLAGS, 2).await;
    let bearer = &draw.bearer;
    let smuggled = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {bearer}\r\n\
         content-type: application/json\r\ncontent-length: 31\r\n\r\n{{\"topic\":\"smuggled\",\"type\":\"b\"}}"
    );
    let mut tried = 0;
    for (first, second) in [
        ("content-length: LENGTH", "transfer-encoding: chunked"),
        ("transfer-encoding: chunked", "content-length: LENGTH"),
        ("content-length: 5", "transfer-encoding: chunked"),
        ("content-length: LENGTH", "transfer-encoding:\tchunked"),
        ("content-length: LENGTH", "transfer-encoding: Chunked"),
    ] {
        for (method, target) in [("POST", "/v1/events"), ("GET", "/v1/sync?topic=a")] {
            let first = first.replace("LENGTH", &(5 + smuggled.len()).to_string());
            let second = second.replace("LENGTH", &(5 + smuggled.len()).to_string());
            let input = Input::of(format!(
                "{method} {target} HTTP/1.1\r\nhost: x\r\n{first}\r\n{second}\r\n\r\n0\r\n\r\n{smuggled}"
            ));
            let statuses = converse(gateway.address(), &input).await.statuses();
            assert!(statuses.len() <= 1, "{statuses:?}: {}", input.shown());
            tried += 1;
        }
    }
    let backend = database.connect().await;
    let row = backend
        .query_one("select count(*) from tidings.event", &[])
        .await;
    assert_eq!(row.expect("a count").get::<_, i64>(0), 0);
    println!("{tried} requests of two lengths");
    is_well(&database, *gateway).await;
    gateway.end(&secrets(&draw)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_requests_that_are_wrong_are_refused_and_leave_nothing_behind() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let total = setting("TIDINGS_TEST_INPUTS", 4_000);
    let database = database();
    let (gateway, mut draw) = victim(&database, &FLAGS, seed).await;
    is_well(&database, *gateway).await;
    let address = gateway.address();
    let mut conversations = JoinSet::new();
    let (mut refused, mut silent, mut served) = (0, 0, 0);
    let mut judge = |(input, statuses): (Input, Vec<u16>)| {
        for status in &statuses {
            assert!(
                *status < 500,
                "seed {seed}: {statuses:?}: {}",
                input.shown()
            );
        }
        match statuses.iter().max() {
            None => silent += 1,
            Some(400..) => refused += 1,
            Some(_) => served += 1,
        }
    };
    for _ in 0..total {
        if conversations.len() == ABREAST {
            let done = conversations.join_next().await.expect("there are some");
            judge(done.expect("an end"));
        }
        let input = draw.conversation();
        conversations.spawn(async move {
            let statuses = converse(address, &input).await.statuses();
            (input, statuses)
        });
    }
    while let Some(done) = conversations.join_next().await {
        judge(done.expect("an end"));
    }
    println!(
        "seed {seed}: {total} conversations: {refused} refused, {silent} ended without an answer, \
         {served} served in spite of it"
    );
    assert!(refused > total / 4 && silent > 0 && served > 0);
    is_well(&database, *gateway).await;
    let records = gateway.end(&secrets(&draw)).await;
    println!("seed {seed}: {records} records in the log");
}
