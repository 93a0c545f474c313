//! A stream is cut at every byte: whoever has got no more than so many bytes of an answer comes back
//! with the last complete `id:`, gets the event again of which it had a part, and in the end each
//! event once. Every position is tried, not a sample.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::room;
use crate::support::backend::cursor;
use crate::support::client::{Block, PATIENCE, parse};
use crate::support::gateway::{Door, token};
use crate::support::postgres::database;
use crate::support::process::Process;

/// How many clients are cut beside each other.
const BATCH: usize = 400;

/// Characters of one to four bytes, one that ends lines for some, and what looks like the end of a block.
const TEXT: &str = "a é ‰ 🛎\u{2028}\\n\\ndata: b";

/// What was read of an answer before it was cut.
struct Piece {
    blocks: Vec<Block>,
    /// Where it was cut.
    place: &'static str,
    whole: Vec<u8>,
}

/// Asks for a stream, takes so many bytes of the answer, its head included, and goes away.
async fn take(door: Door, number: usize, topic: String, since: String, bytes: u64) -> Vec<u8> {
    let mut socket = TcpStream::connect(door.address).await.expect("connects");
    let bearer = token(&format!("cut-{number}"), json!({"topics": ["*"]}));
    let request = format!(
        "GET /v1/events?topic={topic} HTTP/1.1\r\nhost: tidings\r\nauthorization: Bearer {bearer}\r\n\
         last-event-id: {since}\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("it asks");
    let mut taken = Vec::new();
    let mut some = socket.take(bytes);
    let read = timeout(PATIENCE, some.read_to_end(&mut taken))
        .await
        .expect("so many bytes come");
    read.expect("they can be read");
    taken
}

/// What a client makes of them.
fn read(whole: Vec<u8>) -> Piece {
    let place = |place, blocks| Piece {
        blocks,
        place,
        whole: whole.clone(),
    };
    let Some(head) = find(&whole, b"\r\n\r\n") else {
        return place("head", Vec::new());
    };
    let (text, mut chunks) = whole.split_at(head + 4);
    let text = String::from_utf8_lossy(text).to_lowercase();
    assert!(text.starts_with("http/1.1 200 "), "{text}");
    assert!(text.contains("transfer-encoding: chunked"), "{text}");
    let mut body = Vec::new();
    while let Some(line) = find(chunks, b"\r\n") {
        let size = std::str::from_utf8(&chunks[..line]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size");
        let rest = &chunks[line + 2..];
        body.extend_from_slice(&rest[..size.min(rest.len())]);
        chunks = rest.get(size + 2..).unwrap_or_default();
    }
    let mut blocks = Vec::new();
    let mut rest = &body[..];
    while let Some(end) = find(rest, b"\n\n") {
        let text = std::str::from_utf8(&rest[..end + 2]).expect("a block is text");
        blocks.push(parse(text));
        rest = &rest[end + 2..];
    }
    let part = String::from_utf8_lossy(rest);
    let place_of_cut = match &*part {
        "" => "between blocks",
        part if part.contains("tidings.ready") => "ready",
        part if part.contains("tidings.beat") => "beat",
        part if part.contains("tidings.reset") => "reset",
        _ if std::str::from_utf8(rest).is_err() => "within a character",
        part if part.contains("\nid: ") => "id",
        part if part.contains("data: ") => "data",
        _ => "beginning of a block",
    };
    place(place_of_cut, blocks)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Publishes one event and returns its id.
async fn say(client: &Client, topic: &str, kind: &str) -> i64 {
    let statement = "select tidings.publish($1, $2, to_jsonb($3::text))";
    let row = client.query_one(statement, &[&topic, &kind, &TEXT]).await;
    row.expect("publishes").get(0)
}

/// A batch of clients, each cut behind another byte.
struct Batch<'a> {
    doors: [Door; 2],
    backend: &'a Client,
    topic: String,
    /// What they bring.
    since: String,
    /// What there is for them: before they come, and once they are there.
    before: Vec<i64>,
    live: Vec<i64>,
    /// The last word, which was said when all had been cut.
    last: i64,
}

impl Batch<'_> {
    /// Everybody connects, something is said, a beat comes, something is said again; returns the pieces.
    async fn cut(&mut self, positions: std::ops::Range<usize>) -> Vec<(usize, Piece)> {
        let mut cuts = JoinSet::new();
        for position in positions {
            let (topic, since) = (self.topic.clone(), self.since.clone());
            let door = self.doors[position % 2];
            cuts.spawn(async move {
                loop {
                    let (topic, since) = (topic.clone(), since.clone());
                    let taken = take(door, position, topic, since, position as u64).await;
                    // Fewer are those of a stream that was asked to come again.
                    if taken.len() == position {
                        return (position, read(taken));
                    }
                }
            });
        }
        for door in self.doors {
            let mut witness = door.subscribe(&[&self.topic]).await;
            self.live.push(say(self.backend, &self.topic, "live").await);
            witness.wait_for("tidings.beat").await;
            self.live.push(say(self.backend, &self.topic, "live").await);
        }
        let mut pieces = cuts.join_all().await;
        pieces.sort_by_key(|(position, _)| *position);
        self.last = say(self.backend, &self.topic, "last").await;
        pieces
    }

    /// Everybody comes back where its piece ended, at the other gateway, and reads to the last word.
    async fn come_back(&self, pieces: Vec<(usize, Piece)>) -> Vec<Return> {
        let mut returning = JoinSet::new();
        for (position, piece) in pieces {
            let mut ids = piece.blocks.iter().filter_map(|block| block.id.clone());
            let cursor = ids.next_back();
            let since = cursor.clone().unwrap_or_else(|| self.since.clone());
            let (door, topic) = (self.doors[(position + 1) % 2], self.topic.clone());
            let last = self.last;
            returning.spawn(async move {
                let blocks = read_on(door, &topic, &since, last).await;
                Return {
                    position,
                    piece,
                    cursor,
                    blocks,
                }
            });
        }
        returning.join_all().await
    }
}

/// Who has come back.
struct Return {
    position: usize,
    piece: Piece,
    /// The last complete `id:` of the piece.
    cursor: Option<String>,
    /// What came then.
    blocks: Vec<Block>,
}

impl Return {
    fn tell(&self) -> String {
        let (position, place, cursor) = (self.position, self.piece.place, &self.cursor);
        let (first, then) = (&self.piece.blocks, &self.blocks);
        format!("cut at byte {position}, in {place}: {first:?}, then with {cursor:?}: {then:?}")
    }
}

/// Reads up to the last word, or up to `ready` where there is nothing to be had of the past. So many come back
/// at once that some are asked to come again.
async fn read_on(door: Door, topic: &str, since: &str, last: i64) -> Vec<Block> {
    let mut cursor = since.to_owned();
    let mut blocks = Vec::new();
    loop {
        let mut stream = door.resume(&[topic], Some(&cursor)).await;
        while let Some(block) = stream.next().await {
            cursor = block.id.clone().unwrap_or(cursor);
            if block.is("tidings.bye") {
                continue;
            }
            let is_last = block.event_id() == Some(last);
            let misses_all = block.is("tidings.ready") && block.json()["resumed"] == false;
            blocks.push(block);
            if is_last || misses_all {
                return blocks;
            }
        }
    }
}

fn events(blocks: &[Block]) -> Vec<i64> {
    blocks.iter().filter_map(Block::event_id).collect()
}

/// Two gateways: one that remembers everything, and one that asks the database.
fn gateways(url: &str) -> [Process; 2] {
    let beats = "--heartbeat=1s";
    [
        Process::serve_at(url, &[beats]),
        Process::serve_at(url, &[beats, "--window-bytes=0"]),
    ]
}

/// How many bytes there are of an answer with all that is said, and a beat.
async fn length(batch: &mut Batch<'_>) -> usize {
    batch.cut(0..1).await;
    let mut most = 0;
    for door in batch.doors {
        let (topic, since) = (batch.topic.clone(), batch.since.clone());
        let mut bytes = 256;
        loop {
            let piece = read(take(door, 0, topic.clone(), since.clone(), bytes).await);
            // Everything that was live is replayed by now; a beat makes up for the rest.
            if events(&piece.blocks).contains(&batch.last)
                && piece.blocks.last().is_some_and(|b| b.is("tidings.beat"))
            {
                most = most.max(piece.whole.len());
                break;
            }
            bytes += 64;
        }
    }
    most
}

async fn prepared<'a>(
    doors: [Door; 2],
    backend: &'a Client,
    topic: String,
    spoil: impl Fn(&str) -> String,
) -> Batch<'a> {
    say(backend, "elsewhere", "before").await;
    let since = spoil(&cursor(backend).await);
    let mut before = Vec::new();
    for _ in 0..2 {
        before.push(say(backend, &topic, "before").await);
    }
    Batch {
        doors,
        backend,
        topic,
        since,
        before,
        live: Vec::new(),
        last: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_cut_at_any_byte_gets_the_partial_event_again() {
    let _room = room::beside_others().await;
    let database = database();
    let backend = database.connect().await;
    let gateways = tokio::task::block_in_place(|| gateways(&database.url()));
    let doors = [gateways[0].door(), gateways[1].door()];
    let same = |cursor: &str| cursor.to_owned();
    let mut sample = prepared(doors, &backend, "sample".to_owned(), same).await;
    let end = length(&mut sample).await;
    let mut places = BTreeMap::<&str, usize>::new();
    for begin in (0..=end).step_by(BATCH) {
        let mut batch = prepared(doors, &backend, format!("t{begin}"), same).await;
        let pieces = batch.cut(begin..(begin + BATCH).min(end + 1)).await;
        let expected = [&batch.before[..], &batch.live, &[batch.last]].concat();
        for back in batch.come_back(pieces).await {
            let got = [events(&back.piece.blocks), events(&back.blocks)].concat();
            assert_eq!(got, expected, "{}", back.tell());
            *places.entry(back.piece.place).or_default() += 1;
        }
    }
    assert_eq!(places.values().sum::<usize>(), end + 1);
    for place in [
        "head",
        "beginning of a block",
        "id",
        "data",
        "within a character",
        "ready",
        "beat",
        "between blocks",
    ] {
        assert!(
            places.contains_key(place),
            "never cut in {place}: {places:?}"
        );
    }
    println!(
        "held: a stream cut at each byte: {} cuts at a byte",
        end + 1
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_is_cut_at_any_byte_is_met_again() {
    let _room = room::beside_others().await;
    let database = database();
    let backend = database.connect().await;
    let gateways = tokio::task::block_in_place(|| gateways(&database.url()));
    let doors = [gateways[0].door(), gateways[1].door()];
    // A cursor of another history: its newest event has another tag here.
    let spoil = |cursor: &str| {
        let (rest, tag) = cursor.rsplit_once('.').expect("a tag");
        let tag = u32::from_str_radix(tag, 16).expect("a tag");
        format!("{rest}.{:08x}", !tag)
    };
    let mut places = BTreeMap::<&str, usize>::new();
    let (mut again, mut resumed) = (0, 0);
    // As long as a stream with two events, a beat, and all of its beginning, which is longer than that.
    let end = 1_400;
    for begin in (0..end).step_by(BATCH) {
        let mut batch = prepared(doors, &backend, format!("t{begin}"), spoil).await;
        let pieces = batch.cut(begin..(begin + BATCH).min(end)).await;
        for back in batch.come_back(pieces).await {
            let (piece, blocks) = (&back.piece, &back.blocks);
            let was_ready = piece.blocks.iter().any(|block| block.is("tidings.ready"));
            if was_ready {
                // What came live before it was there is not for it, and everything since is.
                let got = [events(&piece.blocks), events(blocks)].concat();
                let live = [&batch.live[..], &[batch.last]].concat();
                assert!(
                    live.ends_with(&got) && !got.is_empty(),
                    "{live:?}, {}",
                    back.tell()
                );
                let resets = blocks.iter().any(|block| block.is("tidings.reset"));
                assert!(!resets, "{}", back.tell());
                resumed += 1;
            } else {
                assert!(events(&piece.blocks).is_empty(), "{}", back.tell());
                let brought = |block: &Block| block.id.as_ref() == Some(&batch.since);
                assert!(piece.blocks.iter().all(brought), "{}", back.tell());
                assert!(blocks[0].is("tidings.reset"), "{}", back.tell());
                assert_eq!(blocks[0].json()["reason"], "diverged", "{}", back.tell());
                assert!(blocks[1].is("tidings.ready"), "{}", back.tell());
                again += 1;
            }
            *places.entry(piece.place).or_default() += 1;
        }
    }
    assert!(again > 300 && resumed > 300, "{again}, {resumed}");
    for place in ["head", "reset", "ready", "data", "beat", "between blocks"] {
        assert!(
            places.contains_key(place),
            "never cut in {place}: {places:?}"
        );
    }
    println!("held: a reset cut at each byte: {end} cuts at a byte; {again} resets met again");
}
