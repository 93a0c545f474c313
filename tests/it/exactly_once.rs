//! The promise of promises: every client gets every committed event of its topics exactly once,
//! in order, however often it is cut and wherever it comes back.
//!
//! Twelve writers with savepoints, rollbacks and transactions of two seconds, fifty clients that
//! are cut at random and return through either of two gateways, one of which remembers next to
//! nothing. `TIDINGS_TEST_SECONDS` sets how long they write, `TIDINGS_TEST_SEED` what they draw.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;

use crate::support::client::Visit;
use crate::support::gateway::{Gateway, token};
use crate::support::history::{History, Seen};
use crate::support::postgres::database;
use crate::support::setting;

const WRITERS: u64 = 12;
const CLIENTS: u64 = 50;
const TOPICS: u64 = 8;

/// The type of the event that ends each topic.
const LAST: &str = "last";

/// What a run must have tried, so that it does not pass by doing nothing.
#[derive(Debug, Default)]
struct Tried {
    commits: AtomicU64,
    rollbacks: AtomicU64,
    savepoints: AtomicU64,
    long: AtomicU64,
    resumes: AtomicU64,
    /// Cuts at which the client held a cursor of two marks.
    within: AtomicU64,
    /// Cuts before `ready`.
    replaying: AtomicU64,
    byes: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_every_event_once_and_in_order_wherever_it_comes_back() {
    let seconds = setting("TIDINGS_TEST_SECONDS", 8);
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let database = database();
    // Clients are slower than writers on a busy machine; too far is tried elsewhere.
    let flags = ["--heartbeat=500ms", "--replay=100000"];
    let remembers = Gateway::start_with(&database, &flags).await;
    let forgets =
        Gateway::start_with(&database, &[flags[0], flags[1], "--window-bytes=20KiB"]).await;
    let addresses = [remembers.address(), forgets.address()];
    let tried = Arc::new(Tried::default());

    let start: String = {
        let client = database.connect().await;
        let row = client.query_one("select tidings.cursor()", &[]).await;
        row.expect("a cursor").get(0)
    };
    let mut readers = JoinSet::new();
    for number in 0..CLIENTS {
        let reader = Reader {
            rng: Rng::with_seed(seed * 1000 + number),
            addresses,
            user: format!("reader-{number}"),
            cursor: start.clone(),
            tried: tried.clone(),
        };
        readers.spawn(reader.read());
    }

    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for number in 0..WRITERS {
        let writer = Writer {
            rng: Rng::with_seed(seed * 1000 + 500 + number),
            number,
            written: 0,
            client: database.connect().await,
            commits: HashMap::new(),
            tried: tried.clone(),
        };
        writers.spawn(writer.write(stop.clone()));
    }
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let commits: HashMap<i64, i64> = writers.join_all().await.into_iter().flatten().collect();
    let judge = database.connect().await;
    judge
        .execute(
            &format!(
                "select tidings.publish('t' || n, '{LAST}') from generate_series(0, {TOPICS} - 1) n"
            ),
            &[],
        )
        .await
        .expect("publishes");

    let read = readers.join_all().await;
    let history = History::read(&judge, &commits).await;
    let mut deliveries = 0;
    for (user, topics, seen) in &read {
        deliveries += seen.len();
        let wrong = history.judge(topics, 0, seen);
        assert!(
            wrong.is_empty(),
            "seed {seed}, {user} of {topics:?}: {wrong:?}"
        );
    }

    let window = remembers
        .metric("tidings_replays_total{source=\"window\"}")
        .await;
    let from_database = forgets
        .metric("tidings_replays_total{source=\"database\"}")
        .await;
    eprintln!(
        "seed {seed}: {} events, {deliveries} deliveries, {tried:?}, replays: {window} from the \
         window, {from_database} from the database",
        history.events.len(),
    );
    for (what, times) in [
        ("resumes", &tried.resumes),
        ("cuts within a look or page", &tried.within),
        ("cuts before ready", &tried.replaying),
        ("rollbacks", &tried.rollbacks),
        ("savepoints", &tried.savepoints),
        ("long transactions", &tried.long),
    ] {
        assert!(
            times.load(Ordering::Relaxed) > 10,
            "too few {what}: {tried:?}"
        );
    }
    assert!(
        window > 10.0 && from_database > 10.0,
        "{window}, {from_database}"
    );
}

/// One who publishes.
struct Writer {
    rng: Rng,
    number: u64,
    written: u64,
    client: Client,
    /// When the answer to COMMIT came, by event.
    commits: HashMap<i64, i64>,
    tried: Arc<Tried>,
}

impl Writer {
    async fn write(mut self, stop: Arc<AtomicBool>) -> HashMap<i64, i64> {
        while !stop.load(Ordering::Relaxed) {
            self.transaction().await.expect("writes");
            tokio::time::sleep(Duration::from_micros(self.rng.u64(0..15_000))).await;
        }
        self.commits
    }

    async fn transaction(&mut self) -> Result<(), tokio_postgres::Error> {
        let mut ids = Vec::new();
        self.client.batch_execute("begin").await?;
        for _ in 0..self.rng.u64(1..=3) {
            if self.rng.f64() < 0.2 {
                count(&self.tried.savepoints);
                self.client.batch_execute("savepoint here").await?;
                self.publish(1).await?;
                self.client.batch_execute("rollback to here").await?;
            }
            let events = if self.rng.f64() < 0.05 { 40 } else { 1 };
            ids.extend(self.publish(events).await?);
            if self.rng.f64() < 0.3 {
                tokio::time::sleep(Duration::from_micros(self.rng.u64(0..10_000))).await;
            }
        }
        // The first of them stay open for long more often, so that a short run has enough of it.
        if self.rng.f64() < if self.number < 4 { 0.2 } else { 0.01 } {
            count(&self.tried.long);
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        if self.rng.f64() < 0.2 {
            count(&self.tried.rollbacks);
            return self.client.batch_execute("rollback").await;
        }
        self.client.batch_execute("commit").await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("after 1970").as_micros() as i64;
        self.commits.extend(ids.into_iter().map(|id| (id, now)));
        count(&self.tried.commits);
        Ok(())
    }

    async fn publish(&mut self, events: i32) -> Result<Vec<i64>, tokio_postgres::Error> {
        self.written += 1;
        let first = self.rng.u64(0..TOPICS) as i32;
        let data = json!({"writer": self.number, "n": self.written}).to_string();
        let rows = self
            .client
            .query(
                "select tidings.publish('t' || ($1 + n) % 8, 'written', $2::text::jsonb) \
                 from generate_series(1, $3) n",
                &[&first, &data, &events],
            )
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}

/// One who reads, is cut, and comes back.
struct Reader {
    rng: Rng,
    addresses: [SocketAddr; 2],
    user: String,
    cursor: String,
    tried: Arc<Tried>,
}

impl Reader {
    /// Reads until the end of all its topics.
    async fn read(mut self) -> (String, Vec<String>, Vec<Seen>) {
        let mut topics: Vec<u64> = (0..TOPICS).collect();
        self.rng.shuffle(&mut topics);
        topics.truncate(self.rng.usize(1..=4));
        let topics: Vec<String> = topics.iter().map(|n| format!("t{n}")).collect();
        let mut seen = Vec::new();
        let mut left = topics.len();
        while left > 0 {
            self.visit(&topics, &mut seen, &mut left).await;
        }
        (self.user, topics, seen)
    }

    /// One stream, up to its cut.
    async fn visit(&mut self, topics: &[String], seen: &mut Vec<Seen>, left: &mut usize) {
        let address = self.addresses[self.rng.usize(0..2)];
        let query: Vec<String> = topics
            .iter()
            .map(|topic| format!("topic={topic}"))
            .collect();
        let bearer = token(&self.user, json!({"topics": ["*"]}));
        let visit = Visit::new(address, "GET", &format!("/v1/events?{}", query.join("&")));
        let visit = visit.bearer(&bearer).header("last-event-id", &self.cursor);
        let mut stream = visit.stream().await;
        count(&self.tried.resumes);

        let until = Instant::now() + Duration::from_millis(self.rng.u64(0..1_500));
        let mut blocks = if self.rng.bool() {
            self.rng.u64(0..8)
        } else {
            self.rng.u64(0..200)
        };
        let mut ready = false;
        while *left > 0 {
            let block = match tokio::time::timeout_at(until, stream.next()).await {
                Ok(Some(block)) => block,
                Ok(None) | Err(_) => break,
            };
            if let Some(id) = &block.id {
                self.cursor.clone_from(id);
            }
            if block.event_id().is_some() {
                let event = block.json();
                *left -= usize::from(event["type"] == LAST);
                seen.push(Seen::read(&event));
            } else if block.is("tidings.ready") {
                assert!(!ready, "{}: ready twice", self.user);
                assert_eq!(block.json()["resumed"], true, "{}", self.user);
                ready = true;
            } else if block.is("tidings.bye") {
                count(&self.tried.byes);
                break;
            } else {
                assert!(block.is("tidings.beat"), "{}: {block:?}", self.user);
            }
            if blocks == 0 {
                break;
            }
            blocks -= 1;
        }
        if self.cursor.matches('~').count() > 2 {
            count(&self.tried.within);
        }
        if !ready {
            count(&self.tried.replaying);
        }
    }
}
