//! The sizes of a request, to the byte: its head and its body.

use serde_json::json;

use crate::abuse::wire::{Input, converse};
use crate::room;
use crate::support::gateway::{Door, token};
use crate::support::postgres::database;
use crate::support::process::Process;

async fn status(door: Door, bytes: impl Into<Vec<u8>>) -> Vec<u16> {
    converse(door.address(), &Input::of(bytes)).await.statuses()
}

#[tokio::test]
async fn a_head_has_as_many_bytes_as_it_may_and_not_one_more() {
    let _room = room::beside_others().await;
    let database = database();
    for most in [8 << 10, 16 << 10] {
        let gateway = Process::serve(&database, &[&format!("--head-bytes={most}")]);
        let head = |length: usize| {
            let (begin, end) = (
                "GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx: ",
                "\r\n\r\n",
            );
            format!(
                "{begin}{}{end}",
                "y".repeat(length - begin.len() - end.len())
            )
        };
        for (length, expected) in [
            (most - 1, 404),
            (most, 404),
            (most + 1, 431),
            (2 * most, 431),
        ] {
            let got = status(*gateway, head(length)).await;
            assert_eq!(got, [expected], "{length} of {most} bytes");
        }
    }
}

#[tokio::test]
async fn a_body_has_as_many_bytes_as_it_may_and_not_one_more() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--body-bytes=4KiB"]);
    let bearer = token("backend", json!({"publish": ["*"]}));
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {bearer}\r\ncontent-type: application/json\r\n"
    );
    let body = |length: usize| {
        let (begin, end) = (r#"{"topic":"t","type":"b","data":""#, "\"}");
        format!(
            "{begin}{}{end}",
            "y".repeat(length - begin.len() - end.len())
        )
    };
    for (length, expected) in [(4095, 201), (4096, 201), (4097, 413), (40_000, 413)] {
        let body = body(length);
        let whole = format!("{head}content-length: {length}\r\n\r\n{body}");
        assert_eq!(status(*gateway, whole).await, [expected], "{length} bytes");
        let (one, two) = body.split_at(1000);
        let chunks = format!(
            "{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
            one.len(),
            two.len()
        );
        let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(
            status(*gateway, chunked).await,
            [expected],
            "{length} bytes in chunks"
        );
    }
    // Nobody's body is waited for who may publish nothing.
    let reader = token("reader", json!({}));
    let head = head.replace(&bearer, &reader);
    let input = Input::of(format!("{head}content-length: 100\r\n\r\n"));
    let begun = std::time::Instant::now();
    let answer = converse(gateway.address(), &input).await;
    assert_eq!(answer.statuses(), [403]);
    assert!(begun.elapsed().as_secs() < 8, "{:?}", begun.elapsed());
}
