//! Replay meets live: writes go on during every step of a resume, and there is no gap and no repeat,
//! however small the pages, wherever a cursor was left, and whatever waits meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::readers::{Habit, LAST};
use crate::rig::{PLAN, Plan, Rig};
use crate::room;
use crate::support::backend::{cursor, run};
use crate::support::gateway::{Door, token};
use crate::support::postgres::database;
use crate::support::process::Process;
use crate::support::proxy::Proxy;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replays_from_a_slow_database_meet_what_is_written_meanwhile() {
    let plan = Plan {
        // Nothing is remembered, and little may wait.
        gateways: &[
            &["--heartbeat=1s", "--replay=100000", "--window-bytes=0"],
            &[
                "--heartbeat=1s",
                "--replay=100000",
                "--window-bytes=0",
                "--stream-queue-bytes=16KiB",
            ],
        ],
        proxied: true,
        publishers: 8,
        readers: 12,
        pause: Duration::from_millis(30),
        habits: &[Habit::Cut, Habit::Alternate, Habit::Phone, Habit::Stay],
        ..PLAN
    };
    let rig = Rig::start("seams", plan).await;
    rig.load_for(Duration::from_secs(2)).await;
    for delay in [1, 5] {
        rig.fault(&format!(
            "the way to the database takes {delay} ms each time"
        ));
        rig.proxy().slow_down(Duration::from_millis(delay));
        rig.load_for(Duration::from_secs(4)).await;
    }
    rig.fault("the way is quick again");
    rig.proxy().slow_down(Duration::ZERO);
    rig.recovers().await;
    let mut replays = 0.0;
    for number in [0, 1] {
        let door = rig.gateway(number).door();
        let metric = "tidings_replays_total{source=\"database\"}";
        replays += door.metric(metric).await;
    }
    assert!(replays > 20.0, "{replays}");
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for what in ["cursors within a look or page", "seams from replay to live"] {
        assert!(verdict.times(what) > 10, "too few {what}: {verdict}");
    }
}

/// How long everybody may take to the end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Content of an event, of which a page takes a dozen.
const DATA: &str = "to_jsonb(repeat(md5(random()::text), 600))";

/// One whose streams are cut after so many events, as long as there are more of them to come.
struct Picky {
    door: Door,
    user: String,
    cursor: String,
    after: usize,
    ids: Vec<i64>,
    counts: BTreeMap<String, usize>,
}

impl Picky {
    fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    /// Reads up to the last word.
    async fn follow(mut self) -> Picky {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && !self.visit().await {}
        self
    }

    /// One stream; whether the last word was on it.
    async fn visit(&mut self) -> bool {
        let reader = token(&self.user, json!({"topics": ["*"]}));
        let visit = self.door.events(&["t"]).bearer(&reader);
        let mut stream = visit.header("last-event-id", &self.cursor).stream().await;
        let (mut got, mut ready) = (0, false);
        while let Some(block) = stream.next().await {
            assert!(!block.is("tidings.reset"), "{block:?}");
            if let Some(cursor) = &block.id {
                self.cursor.clone_from(cursor);
            }
            if let Some(id) = block.event_id() {
                self.ids.push(id);
                got += 1;
                if block.json()["type"] == LAST {
                    return true;
                }
                if got == self.after {
                    self.count(if ready { "cut live" } else { "cut in a replay" });
                    return false;
                }
                if ready && got > 0 {
                    self.count("live");
                }
            } else if block.is("tidings.ready") {
                ready = true;
                self.count(if got > 0 {
                    "seams"
                } else {
                    "resumed with nothing"
                });
            } else if block.is("tidings.bye") {
                let reason = block.json()["reason"]
                    .as_str()
                    .expect("a reason")
                    .to_owned();
                self.count(&format!("bye {reason}"));
            }
        }
        false
    }
}

/// Publishes until it is told to stop, each event in a transaction that others overlap.
async fn write(client: Client, topic: &'static str, stop: Arc<AtomicBool>) -> Vec<i64> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        run(&client, "begin").await;
        let publish = format!("select tidings.publish('{topic}', 'said', {DATA})");
        let row = client.query_one(&publish, &[]).await.expect("publishes");
        sleep(Duration::from_millis(fastrand::u64(10..30))).await;
        run(&client, "commit").await;
        ids.push(row.get(0));
    }
    ids
}

/// The pages of a replay are bounded at 256 KiB, and a look at 8 MiB: what is written here fills several of the
/// former at each resume, while what is written meanwhile fills the queue of whoever is replaying.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resume_with_writes_during_each_of_its_pages_and_cursors_left_within_them() {
    let _room = room::beside_others().await;
    let database = database();
    let proxy = Proxy::start(&database).await;
    let flags = [
        "--heartbeat=1s",
        "--replay=100000",
        "--window-bytes=0",
        "--stream-queue-bytes=256KiB",
    ];
    let gateway = block_in_place(|| Process::serve_at(proxy.url(), &flags));
    let backend = database.connect().await;
    let start = cursor(&backend).await;
    let bulk = format!("select tidings.publish('t', 'said', {DATA}) from generate_series(1, 60)");
    run(&backend, &bulk).await;
    proxy.slow_down(Duration::from_millis(4));

    let stop = Arc::<AtomicBool>::default();
    // One alone writes what is read, so that the order is that of ids; the others are in progress meanwhile.
    let mut writers = JoinSet::new();
    for topic in ["t", "u", "v"] {
        writers.spawn(write(database.connect().await, topic, stop.clone()));
    }
    let mut clients = JoinSet::new();
    for (number, after) in [usize::MAX, usize::MAX, 5, 11, 17, 29]
        .into_iter()
        .enumerate()
    {
        let picky = Picky {
            door: gateway.door(),
            user: format!("picky-{number}"),
            cursor: start.clone(),
            after,
            ids: Vec::new(),
            counts: BTreeMap::new(),
        };
        clients.spawn(picky.follow());
    }
    // They catch up only when the way is quick again, and then it is the live ones that are cut.
    sleep(Duration::from_secs(3)).await;
    proxy.slow_down(Duration::ZERO);
    sleep(Duration::from_secs(3)).await;
    stop.store(true, Ordering::Relaxed);
    let written: usize = writers.join_all().await.iter().map(Vec::len).sum();
    run(&backend, &format!("select tidings.publish('t', '{LAST}')")).await;
    let healed = Instant::now();
    let clients = clients.join_all().await;
    let caught_up = healed.elapsed();

    let rows = "select id from tidings.event where topic = 't' order by id";
    let rows = backend.query(rows, &[]).await.expect("the log");
    let expected: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let mut counts = BTreeMap::<String, usize>::new();
    for client in &clients {
        let distinct: BTreeSet<_> = client.ids.iter().collect();
        assert_eq!(
            distinct.len(),
            client.ids.len(),
            "{}: a repeat",
            client.user
        );
        assert_eq!(
            client.ids, expected,
            "{}, cut after {}: {:?}",
            client.user, client.after, client.counts
        );
        for (what, times) in &client.counts {
            *counts.entry(what.clone()).or_default() += times;
        }
    }
    assert!(
        written > 20 && expected.len() > 70,
        "{written}, {}",
        expected.len()
    );
    for what in ["cut in a replay", "seams", "live", "bye slow"] {
        assert!(
            counts.get(what).is_some_and(|times| *times > 0),
            "no {what}: {counts:?}"
        );
    }
    println!(
        "held: seams behind a slow database: {} events; {written} written meanwhile; {} replays cut; {} seams; \
         {} ends, bye slow; {} ms to the slowest to catch up",
        expected.len(),
        counts["cut in a replay"],
        counts["seams"],
        counts["bye slow"],
        caught_up.as_millis()
    );
}
