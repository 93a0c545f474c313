//! Tokens, tickets and cursors that somebody has touched: refused alike, whatever was done to them, and none
//! of them in the log.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::garbage::Draw;
use super::http1::{is_well, secrets, victim};
use crate::room;
use crate::support::client::Answer;
use crate::support::postgres::database;
use crate::support::setting;

const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~";

/// A text that differs from this one, in characters that a header and a URL may carry.
fn touch(draw: &mut Draw, text: &str) -> String {
    let rng = &mut draw.rng;
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..rng.usize(1..4) {
        let at = rng.usize(..bytes.len().max(1));
        let byte = ALPHABET[rng.usize(..ALPHABET.len())];
        match rng.u8(..5) {
            0 if !bytes.is_empty() => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            2 => bytes.truncate(at),
            3 => bytes.extend(vec![byte; rng.usize(..12_000)]),
            _ if !bytes.is_empty() => bytes[at] = byte,
            _ => {}
        }
    }
    String::from_utf8(bytes).expect("ASCII")
}

/// A token with other claims or another header under the signature that was made for the true ones.
fn forge(draw: &mut Draw) -> String {
    let bearer = draw.bearer.clone();
    let mut parts: Vec<String> = bearer.split('.').map(str::to_owned).collect();
    let headers = [
        json!({"alg": "none"}),
        json!({"alg": "HS384", "typ": "JWT"}),
        json!({"alg": "RS256", "jku": "http://evil.test"}),
        json!({"alg": "HS256", "kid": "../../dev/null"}),
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}),
    ];
    let claims = [
        json!({"sub": "root", "exp": 9_999_999_999_u64, "topics": ["*"]}),
        json!({"sub": "mallory", "exp": -1}),
        json!({"sub": "mallory", "exp": 1e300}),
        json!({"sub": ["mallory"], "exp": 9_999_999_999_u64}),
        json!([[[[[[[]]]]]]]),
    ];
    match draw.rng.u8(..4) {
        0 => parts[0] = URL_SAFE_NO_PAD.encode(headers[draw.rng.usize(..5)].to_string()),
        1 => parts[1] = URL_SAFE_NO_PAD.encode(claims[draw.rng.usize(..5)].to_string()),
        2 => parts.swap(draw.rng.usize(..2), 2),
        _ => parts[2] = URL_SAFE_NO_PAD.encode(draw.bytes(64)),
    }
    parts.join(".")
}

/// Everything of an answer but its time.
fn look(answer: Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers = answer.headers;
    headers.retain(|(name, _)| name != "date");
    (answer.status, headers, answer.body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_token_and_ticket_that_was_touched_gets_the_same_401() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let total = setting("TIDINGS_TEST_INPUTS", 4_000) / 4;
    let database = database();
    // Room for a head with a token that is longer than any that is read.
    let flags = ["--head-bytes=64KiB"];
    let (gateway, mut draw) = victim(&database, &flags, seed).await;
    let mut answers = BTreeSet::new();
    let mut tried = 0;
    for n in 0..total {
        let (bearer, ticket) = (draw.bearer.clone(), draw.ticket.clone());
        let touched = match n % 4 {
            0 => touch(&mut draw, &ticket),
            1 => forge(&mut draw),
            _ => touch(&mut draw, &bearer),
        };
        if [&bearer, &ticket, ""].contains(&&*touched) {
            continue;
        }
        let visit = match n % 8 {
            0 | 4 => gateway.visit("GET", &format!("/v1/events?ticket={touched}")),
            1 => gateway.visit("GET", "/v1/events").bearer(&touched),
            2 => gateway.visit("POST", "/v1/tickets").bearer(&touched),
            3 => gateway
                .visit("POST", "/v1/events")
                .bearer(&touched)
                .json(&json!({"topic": "a", "type": "b"})),
            _ => gateway.visit("GET", "/v1/sync").bearer(&touched),
        };
        let (status, headers, body) = look(visit.send().await);
        assert_eq!(status, 401, "seed {seed}, number {n}: {touched}");
        answers.insert((headers, body));
        tried += 1;
    }
    println!(
        "seed {seed}: {tried} tokens and tickets, {} different answers",
        answers.len()
    );
    assert!(tried > total / 2);
    assert_eq!(answers.len(), 1, "{answers:?}");
    is_well(&database, *gateway).await;
    gateway.end(&secrets(&draw)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_cursor_that_was_touched_is_served_or_reset_and_nothing_else() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let total = setting("TIDINGS_TEST_INPUTS", 4_000) / 8;
    let database = database();
    let flags = ["--head-bytes=64KiB"];
    let (gateway, mut draw) = victim(&database, &flags, seed).await;
    is_well(&database, *gateway).await;
    let mut cursor = gateway.subscribe(&["after"]).await;
    is_well(&database, *gateway).await;
    cursor.ids(1).await;
    draw.cursor = cursor.cursor().to_owned();
    let (mut resets, mut kept) = (0, 0);
    for n in 0..total {
        let held = draw.cursor.clone();
        let touched = touch(&mut draw, &held);
        let visit = gateway
            .visit("GET", &format!("/v1/sync?topic=after&since={touched}"))
            .bearer(&draw.bearer);
        let answer = visit.send().await;
        assert_eq!(
            answer.status, 200,
            "seed {seed}, number {n}: {touched}: {}",
            answer.body
        );
        match answer.json()["reset"].as_str() {
            Some(reason) => {
                assert!(
                    ["malformed", "diverged", "trimmed"].contains(&reason),
                    "{reason}"
                );
                resets += 1;
            }
            None => kept += 1,
        }
    }
    println!("seed {seed}: {total} cursors: {resets} reset, {kept} still served");
    assert!(resets > total / 2);
    is_well(&database, *gateway).await;
    gateway.end(&secrets(&draw)).await;
}
