//! Events whose types and data look like the protocol that carries them: they come back as they went in,
//! one block each, by SQL as by HTTP, live and replayed.

use serde_json::{Value, json};

use super::http1::{is_well, secrets, victim};
use crate::room;
use crate::support::postgres::database;
use crate::support::setting;

const PARTS: [&str; 24] = [
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "data: x",
    "\ndata: {\"id\":\"1\"}\n\n",
    "id: 1~0~0",
    "event: tidings.bye",
    "retry: 0",
    ":",
    "\u{2028}",
    "\u{2029}",
    "\u{85}",
    "\u{b}",
    "\u{c}",
    "\u{feff}",
    "\u{1}",
    "\u{7f}",
    "\\",
    "\"",
    "</script>",
    "\u{1f4a5}",
    "\u{fffd}",
    "plain",
];
const TYPE: &[u8] = b"ABCXYZabcxyz0189_.:@=+~|%-";

fn text(rng: &mut fastrand::Rng) -> String {
    let count = rng.usize(..8);
    (0..count)
        .map(|_| PARTS[rng.usize(..PARTS.len())])
        .collect()
}

fn data(rng: &mut fastrand::Rng, depth: usize) -> Value {
    match rng.u8(..if depth > 3 { 4 } else { 7 }) {
        0 => json!(text(rng)),
        1 => json!(rng.i64(..)),
        2 => json!(rng.bool()),
        3 => Value::Null,
        4 => (0..rng.usize(..4)).map(|_| data(rng, depth + 1)).collect(),
        _ => {
            let members = 0..rng.usize(..4);
            Value::Object(members.map(|_| (text(rng), data(rng, depth + 1))).collect())
        }
    }
}

fn kind(rng: &mut fastrand::Rng) -> String {
    let own = [
        "data:", "id:", "retry:0", "event:x", "Error", "tidings", "a.b",
    ];
    if rng.u8(..4) == 0 {
        return own[rng.usize(..own.len())].to_owned();
    }
    let letters = 1..=rng.usize(1..64);
    let kind: String = letters
        .map(|_| char::from(TYPE[rng.usize(..TYPE.len())]))
        .collect();
    // What is the gateway's own, or EventSource's.
    match kind.starts_with("tidings.") || ["error", "open", "message"].contains(&&*kind) {
        true => "other".to_owned(),
        false => kind,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_looks_like_the_protocol_comes_back_as_it_went_in() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let total = setting("TIDINGS_TEST_INPUTS", 4_000) as usize / 8;
    let database = database();
    let (gateway, mut draw) = victim(&database, &[], seed).await;
    let backend = database.connect().await;
    let mut live = gateway.subscribe(&["t"]).await;
    let start = live.cursor().to_owned();
    let mut named = gateway.visit("GET", "/v1/events?topic=t&named=1");
    named = named.bearer(&draw.bearer);
    let mut named = named.stream().await;
    named.ready().await;
    let mut sent = Vec::new();
    for n in 0..total {
        let (kind, data) = (kind(&mut draw.rng), data(&mut draw.rng, 0));
        if n % 2 == 0 {
            let publish = "select tidings.publish('t', $1, $2::text::jsonb)";
            let done = backend
                .query_one(publish, &[&kind, &data.to_string()])
                .await;
            done.unwrap_or_else(|error| panic!("seed {seed}: {kind} {data}: {error:?}"));
        } else {
            let body = json!({"topic": "t", "type": kind, "data": data});
            let visit = gateway.visit("POST", "/v1/events").bearer(&draw.bearer);
            let answer = visit.json(&body).send().await;
            assert_eq!(answer.status, 201, "seed {seed}: {body}: {}", answer.body);
        }
        sent.push((kind, data));
    }
    let mut replayed = gateway.resume(&["t"], Some(&start)).await;
    for (kind, data) in &sent {
        for stream in [&mut live, &mut replayed, &mut named] {
            let block = loop {
                let block = stream.text().await.expect("a stream that goes on");
                if !block
                    .lines()
                    .any(|line| line.starts_with("event: tidings."))
                {
                    break block;
                }
            };
            // Whatever ends a line for an EventSource stands at the end of ours only.
            assert!(!block.contains('\r'), "seed {seed}: {block:?}");
            let lines: Vec<&str> = block.trim_end_matches('\n').split('\n').collect();
            let mut told = None;
            for line in &lines {
                let (field, value) = line.split_once(": ").expect("a field");
                match field {
                    "data" => assert!(told.replace(value).is_none(), "{block:?}"),
                    "event" => assert_eq!(value, kind),
                    "id" | "retry" => {}
                    _ => panic!("seed {seed}: {block:?}"),
                }
            }
            let told: Value = serde_json::from_str(told.expect("data")).expect("JSON");
            assert_eq!(
                (&told["type"], &told["data"]),
                (&json!(kind), data),
                "seed {seed}"
            );
        }
    }
    println!("seed {seed}: {total} events, three times each");
    assert!(total > 0);
    is_well(&database, *gateway).await;
    gateway.end(&secrets(&draw)).await;
}
