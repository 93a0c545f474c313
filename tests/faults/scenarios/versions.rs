//! Gateways of one release migrate at once, and those of two releases run side by side: one migrates,
//! and cursors and frames go from one to the other.
//!
//! `TIDINGS_TEST_PREVIOUS` names the binary of the release before. Without it, what that release
//! wrote is held against what is read and written now, in texts that are frozen here.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tidings::cursor::Cursor;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::sleep;

use crate::room;
use crate::support::backend::{cursor, publish_all, run};
use crate::support::client::Stream;
use crate::support::gateway::Door;
use crate::support::postgres::{empty_database, own_cluster};
use crate::support::process::Process;

fn previous() -> Option<PathBuf> {
    std::env::var_os("TIDINGS_TEST_PREVIOUS").map(PathBuf::from)
}

fn current() -> PathBuf {
    env!("CARGO_BIN_EXE_tidings").into()
}

/// Starts gateways by these binaries at once, on a database without anything in it.
async fn start_at_once(binaries: Vec<PathBuf>, url: &str) -> Vec<Process> {
    let mut starting = JoinSet::new();
    for (number, binary) in binaries.into_iter().enumerate() {
        let url = url.to_owned();
        starting.spawn_blocking(move || {
            let process = Process::serve_by(&binary, &url, &["--heartbeat=1s"]);
            (number, process)
        });
    }
    let mut started = starting.join_all().await;
    started.sort_by_key(|(number, _)| *number);
    started.into_iter().map(|(_, process)| process).collect()
}

/// How many of them say that they have brought the schema up to date.
fn migrated(gateways: &[Process]) -> usize {
    let has = |gateway: &&Process| {
        let log = gateway.log().lock().expect("nobody panics here");
        log.iter()
            .any(|line| line.contains("schema brought up to date"))
    };
    gateways.iter().filter(has).count()
}

/// Follows a topic, each few events at the next gateway, up to so many.
async fn wander(doors: Vec<Door>, since: String, count: usize) -> (Vec<i64>, usize) {
    let (mut ids, mut cursor, mut changes) = (Vec::new(), since, 0);
    for n in 0.. {
        let mut stream = doors[n % doors.len()].resume(&["t"], Some(&cursor)).await;
        let left = count - ids.len();
        ids.extend(stream.ids(left.min(1 + n % 3)).await);
        stream.cursor().clone_into(&mut cursor);
        changes += 1;
        if ids.len() == count {
            break;
        }
    }
    (ids, changes)
}

/// Whether what one has sent is what all others have.
async fn same_frames(streams: &mut [Stream], count: usize) {
    for _ in 0..count {
        let mut frames = Vec::new();
        for stream in &mut *streams {
            let frame = loop {
                let block = stream.next().await.expect("it goes on");
                if block.event_id().is_some() {
                    break block.data.expect("an event has data");
                }
            };
            frames.push(frame);
        }
        assert!(frames.windows(2).all(|two| two[0] == two[1]), "{frames:?}");
    }
}

async fn side_by_side(binaries: Vec<PathBuf>) {
    let database = block_in_place(empty_database);
    let gateways = start_at_once(binaries, &database.url()).await;
    assert_eq!(migrated(&gateways), 1, "one migrates");
    let backend = database.connect().await;
    let once = "select count(*) = max(version) and count(*) > 0 from tidings.migration";
    let row = backend.query_one(once, &[]).await.expect("asks");
    assert!(row.get::<_, bool>(0));

    let doors: Vec<Door> = gateways.iter().map(|gateway| gateway.door()).collect();
    let since = cursor(&backend).await;
    let mut streams = Vec::new();
    for door in &doors {
        streams.push(door.subscribe(&["t"]).await);
    }
    // Some are in progress at each moment, so that cursors have every form.
    let others = [database.connect().await, database.connect().await];
    let mut expected = Vec::new();
    let mut wandering = JoinSet::new();
    for first in 0..doors.len() {
        let mut doors = doors.clone();
        doors.rotate_left(first);
        wandering.spawn(wander(doors, since.clone(), 150));
    }
    for n in 0..50 {
        run(
            &others[n % 2],
            "begin; select tidings.publish('elsewhere', 'said')",
        )
        .await;
        expected.extend(publish_all(&backend, &["t", "t", "t"]).await);
        run(&others[(n + 1) % 2], "commit").await;
        sleep(Duration::from_millis(5)).await;
    }
    same_frames(&mut streams, 150).await;
    for (ids, changes) in wandering.join_all().await {
        assert_eq!(ids, expected);
        assert!(changes > 50, "{changes}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_start_at_once_migrate_once() {
    let _room = room::beside_others().await;
    side_by_side(vec![current(); 5]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_and_the_one_before_run_side_by_side() {
    let _room = room::beside_others().await;
    let Some(previous) = previous() else {
        println!("without TIDINGS_TEST_PREVIOUS, by frozen texts alone");
        return the_forms_of_a_cursor();
    };
    side_by_side(vec![previous.clone(), current()]).await;
    side_by_side(vec![current(), previous.clone()]).await;
    side_by_side(vec![previous.clone(), current(), previous, current()]).await;
    // The other way round: whoever comes later finds what it needs, and changes nothing.
    println!("ran beside the binary that TIDINGS_TEST_PREVIOUS names");
}

/// What a text has seen and has not, each as transaction and id.
type Meaning = (&'static [(u64, i64)], &'static [(u64, i64)]);

/// Every form that a cursor may have, as version 1 writes it. Never change one: texts like these are in the
/// hands of clients.
const FROZEN: [(&str, Meaning); 9] = [
    // Before the first event.
    ("1~3~0.00000000", (&[], &[(2, 1), (3, 1)])),
    // One mark, nothing in progress.
    (
        "1~1031~7.8e310c96",
        (&[(1030, 7), (3, 1)], &[(1031, 7), (1030, 8)]),
    ),
    // One in progress, which is the lowest; and several, each as distance.
    (
        "1~740.3~12.0000002a",
        (&[(739, 12), (741, 12), (742, 1)], &[(740, 12), (743, 12)]),
    ),
    (
        "1~740.9.2.5~12.ffffffff",
        (
            &[(741, 3), (746, 12)],
            &[(740, 3), (742, 3), (747, 3), (749, 3)],
        ),
    ),
    // Two marks, in the middle of a look: nothing in progress in either.
    (
        "1~1031~1~2~2.1.11c99d1a",
        (&[(1030, 1), (1032, 2), (1030, 2)], &[(1032, 3), (1033, 2)]),
    ),
    // One of the first has finished since; none has begun.
    (
        "1~740.3~12~4_1~14.2.0badcafe",
        (&[(741, 12), (740, 14), (746, 13)], &[(740, 15), (747, 14)]),
    ),
    // None has finished, some have begun.
    (
        "1~740.3~12~9__2.3~14.0.0badcafe",
        (
            &[(743, 14), (745, 13)],
            &[(740, 1), (744, 14), (747, 14), (752, 1)],
        ),
    ),
    // Some have finished and some have begun.
    (
        "1~740.9.2.5~12~6_2_1~15.4.deadbeef",
        (
            &[(742, 15), (750, 15)],
            &[(740, 15), (747, 15), (749, 15), (742, 16)],
        ),
    ),
    // The second does not follow the first, and is written in full.
    (
        "1~1031~7~-900.20.4~9.1.00c0ffee",
        (
            &[(1030, 7), (901, 9), (905, 9)],
            &[(1030, 8), (900, 8), (904, 8), (920, 8)],
        ),
    ),
];

#[test]
fn the_forms_of_a_cursor() {
    let mut forms = BTreeMap::<&str, usize>::new();
    for (text, (seen, unseen)) in FROZEN {
        let cursor: Cursor = text
            .parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            cursor.to_text().as_deref(),
            Some(text),
            "it is written as it was"
        );
        for &(xid, id) in seen {
            assert!(cursor.sees(xid, id), "{text} has seen {id} of {xid}");
        }
        for &(xid, id) in unseen {
            assert!(!cursor.sees(xid, id), "{text} has not seen {id} of {xid}");
        }
        let form = match cursor {
            Cursor::At(_) => "one mark",
            Cursor::Between { .. } => "two marks",
        };
        *forms.entry(form).or_default() += 1;
    }
    assert_eq!(forms, BTreeMap::from([("one mark", 4), ("two marks", 5)]));
    // A version to come is not taken for this one.
    assert!("2~1031~7.8e310c96".parse::<Cursor>().is_err());
}

/// What a client may parse, but for what differs each time. Frozen, too: fields may be added and none
/// changed; the order of lines within a block means nothing to anybody.
const BLOCKS: &str = "\
event: tidings.ready\ndata: {\"resumed\":true,\"replayed\":0,\"topics\":[\"t\"],\"denied\":[],\"expires_at\":\"AT\"}\nid: 1~X\n\n\
data: {\"id\":\"1\",\"topic\":\"t\",\"type\":\"said\",\"at\":\"AT\",\"data\":\"t\"}\nid: 1~X\n\n\
event: tidings.beat\ndata: {}\nid: 1~X\n\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocks_of_a_stream() {
    let _room = room::beside_others().await;
    let server = block_in_place(|| own_cluster(&[("fsync", "off")]));
    let database = block_in_place(|| server.database());
    let gateway = block_in_place(|| Process::serve(&database, &["--heartbeat=1s"]));
    let backend = database.connect().await;
    let since = cursor(&backend).await;
    let mut stream = gateway.resume(&["t"], Some(&since)).await;
    let mut blocks = stream.text().await.expect("a block");
    let retry = blocks.find('\n').expect("a line") + 1;
    assert!(blocks[..retry].starts_with("retry: "), "{blocks}");
    blocks.replace_range(..retry, "");
    publish_all(&backend, &["t"]).await;
    blocks += &stream.text().await.expect("a block");
    blocks += &stream.text().await.expect("a block");
    assert_eq!(normal(&blocks), BLOCKS);
}

/// The same without cursors and moments.
fn normal(blocks: &str) -> String {
    let line = |line: &str| -> String {
        if let Some(cursor) = line.strip_prefix("id: 1~") {
            assert!(format!("1~{cursor}").parse::<Cursor>().is_ok(), "{line}");
            return "id: 1~X\n".to_owned();
        }
        let mut line = format!("{line}\n");
        for name in ["\"at\":\"", "\"expires_at\":\""] {
            if let Some(begin) = line.find(name).map(|at| at + name.len()) {
                let end = begin + line[begin..].find('"').expect("it is closed");
                line.replace_range(begin..end, "AT");
            }
        }
        line
    };
    blocks.lines().map(line).collect()
}
