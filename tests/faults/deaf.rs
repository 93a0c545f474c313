//! A thousand clients that never read, under bulk writes: memory stays within what the settings say, they
//! are closed in time and resume completely, and whoever reads beside them notices nothing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::raw::{Raw, catch_up};
use crate::room;
use crate::support::backend::{cursor, run};
use crate::support::postgres::database;
use crate::support::process::Process;

const DEAF: usize = 1_000;
const HONEST: usize = 100;
/// How many connect, or come back, at a time.
const AT_ONCE: usize = 50;

/// Events of each topic in one commit.
const COMMIT_EVENTS: usize = 20;

/// Bytes of the data of one event.
const EVENT_BYTES: usize = 16_000;

const MIB: usize = 1 << 20;

/// What a process of a debug build holds before the first stream, with the page of a look in its three forms.
const BASE_BYTES: usize = 64 * MIB;
/// What a stream holds with its connection when its client takes nothing: twice 16 KiB on their way to
/// the kernel, and what an idle one has.
const STALLED_BYTES: usize = 64 << 10;

/// How long a write may make no progress, and how long it may take until everyone who does not read is
/// gone: three times that, the pace at which they are looked for, and time on a full machine.
const WRITE_TIMEOUT: &str = "--write-timeout=8s";
const CLOSED_WITHIN: Duration = Duration::from_secs(40);

struct Storm {
    /// Whether the deaf follow one topic, all together, or each its own.
    shared: bool,
    /// Events for each of them.
    events: usize,
    queue_bytes: usize,
    window_bytes: usize,
    /// Whether the deaf read at last before the write time-out cuts them, and so hear why they ended.
    reads_in_time: bool,
    flags: &'static [&'static str],
}

impl Storm {
    fn write_timeout(&self) -> &'static str {
        if self.reads_in_time {
            "--write-timeout=10m"
        } else {
            WRITE_TIMEOUT
        }
    }

    fn topic(&self, deaf: usize) -> String {
        if self.shared {
            "all".into()
        } else {
            format!("deaf{deaf}")
        }
    }

    /// What the settings allow for.
    fn budget(&self) -> usize {
        BASE_BYTES + self.queue_bytes + self.window_bytes + (DEAF + HONEST) * STALLED_BYTES
    }

    /// Publishes everything, several events of each topic in one commit.
    async fn publish(&self, backend: &Client) {
        let topics = if self.shared {
            "array['all']".to_owned()
        } else {
            format!(
                "array(select 'deaf' || n from generate_series(0, {}) n)",
                DEAF - 1
            )
        };
        let text = EVENT_BYTES;
        for _ in 0..self.events / COMMIT_EVENTS {
            let publish = format!(
                "select count(tidings.publish(topic, 'bulk', to_jsonb(repeat('x', {text}))))
                 from generate_series(1, {COMMIT_EVENTS}) n, unnest({topics}) topic;
                 select count(tidings.publish('honest', 'bulk'))
                 from generate_series(1, {COMMIT_EVENTS})"
            );
            run(backend, &publish).await;
        }
    }

    /// Runs it; returns how many streams were ended as slow, and how many said so at their sockets.
    async fn run(self) -> (f64, usize) {
        let _room = room::heavy().await;
        let database = database();
        let backend = database.connect().await;
        let flags = [&[self.write_timeout(), "--streams=5000"], self.flags].concat();
        let gateway = Process::serve(&database, &flags);
        let door = gateway.door();
        let start = cursor(&backend).await;

        // Half of those who read follow what the deaf are told as well.
        let own = |n: usize| {
            if n.is_multiple_of(2) {
                self.topic(n)
            } else {
                "honest".into()
            }
        };
        let mut reading = JoinSet::new();
        for n in 0..HONEST {
            let topic = own(n);
            let count = self.events;
            let mut stream = Raw::open(door, &topic, None).await;
            stream.until(0).await;
            reading.spawn(async move {
                stream.until(count).await;
                (topic, stream.arrived)
            });
        }
        let opening = (0..DEAF).map(|n| {
            let (topic, start) = (self.topic(n), start.clone());
            async move { (topic.clone(), Raw::open_deaf(door, &topic, &start).await) }
        });
        let opening = futures::stream::iter(opening).buffer_unordered(AT_ONCE);
        let deaf: Vec<(String, Raw)> = opening.collect().await;
        until_streams(&gateway, |open| open == (DEAF + HONEST) as f64).await;
        let idle = gateway.peak_bytes();

        let begun = Instant::now();
        self.publish(&backend).await;
        let published = begun.elapsed();
        let expected = ids_by_topic(&backend).await;
        let honest = reading.join_all().await;
        assert_eq!(honest.len(), HONEST);
        for (topic, arrived) in &honest {
            assert_eq!(arrived.bye, None, "{topic}");
            assert_eq!(arrived.ids, expected[topic], "{topic}");
        }
        // Their own streams ended with their reading, and so everybody is gone.
        if !self.reads_in_time {
            until_streams(&gateway, |open| open == 0.0).await;
        }
        let closed = begun.elapsed() - published;
        let slow = gateway.metric("tidings_byes_total{reason=\"slow\"}").await;
        let cut = gateway.metric("tidings_streams_cut_total").await;
        let peak = gateway.peak_bytes();

        let resuming = deaf.into_iter().map(|(topic, mut stream)| {
            let (expected, start) = (&expected[&topic], start.clone());
            async move {
                // Whoever begins to read may be in time for everything.
                stream.until(expected.len()).await;
                let arrived = stream.arrived;
                let mut ids = arrived.ids;
                let before = ids.len();
                let since = arrived.cursor.unwrap_or(start);
                let resumes = catch_up(door, &topic, &since, &mut ids, expected).await;
                (before < expected.len(), resumes, arrived.bye)
            }
        });
        let resumed: Vec<_> = futures::stream::iter(resuming)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let missed = resumed.iter().filter(|(missed, ..)| *missed).count();
        let resumes: usize = resumed.iter().map(|(_, resumes, _)| resumes).sum();
        let byes: Vec<&str> = resumed
            .iter()
            .filter_map(|(.., bye)| bye.as_deref())
            .collect();
        assert!(byes.iter().all(|bye| *bye == "slow"), "{byes:?}");
        eprintln!(
            "{DEAF} deaf, {}: {} MiB idle, {} MiB at most of {} MiB; published in {published:.1?}, closed \
             {closed:.1?} later; {slow} ended as slow, {} were told so, {cut} cut; {missed} had missed \
             something, {resumes} resumes",
            if self.shared {
                "one topic"
            } else {
                "own topics"
            },
            idle / MIB,
            peak / MIB,
            self.budget() / MIB,
            byes.len(),
        );
        until_streams(&gateway, |open| open == 0.0).await;
        assert_eq!(gateway.metric("tidings_queued_bytes").await, 0.0);
        assert!(peak <= self.budget(), "{peak} of {}", self.budget());
        if self.reads_in_time {
            assert!(missed > 0, "nobody was ended");
        } else {
            assert_eq!(missed, DEAF, "someone's socket took it all");
        }
        (slow, byes.len())
    }
}

/// Waits until as many streams are open.
async fn until_streams(gateway: &Process, is_it: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + CLOSED_WITHIN;
    loop {
        let open = gateway.streams().await;
        if is_it(open) {
            return;
        }
        assert!(Instant::now() < deadline, "{open} streams are open");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The ids of each topic, in the order of the log.
async fn ids_by_topic(client: &Client) -> HashMap<String, Vec<i64>> {
    let question =
        "select topic, array_agg(id::bigint order by id) from tidings.event group by topic";
    let rows = client.query(question, &[]).await.expect("the log");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_never_read_one_topic_cost_what_one_costs() {
    let storm = Storm {
        shared: true,
        events: 60,
        queue_bytes: 256 * MIB,
        window_bytes: 64 * MIB,
        reads_in_time: false,
        flags: &["--queue-bytes=256MiB", "--window-bytes=64MiB"],
    };
    let (slow, _) = storm.run().await;
    assert_eq!(slow, DEAF as f64, "each has its own bound");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_who_never_read_topics_of_their_own_stay_within_the_budget_of_all() {
    let storm = Storm {
        shared: false,
        events: 20,
        queue_bytes: 256 * MIB,
        window_bytes: 64 * MIB,
        reads_in_time: false,
        flags: &["--queue-bytes=256MiB", "--window-bytes=64MiB"],
    };
    storm.run().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_budget_of_all_ends_those_furthest_behind_and_nobody_who_reads() {
    let storm = Storm {
        shared: false,
        events: 20,
        queue_bytes: 16 * MIB,
        window_bytes: 8 * MIB,
        reads_in_time: true,
        flags: &["--queue-bytes=16MiB", "--window-bytes=8MiB"],
    };
    let (slow, told) = storm.run().await;
    assert!(slow > DEAF as f64 / 2.0, "{slow}");
    assert!(told > 0);
}
