//! Ids and transaction ids are drawn in one order and committed in another: A inserts, B inserts and
//! commits, A commits, and everything else that a few transactions can do to each other. Whatever was
//! seen in between, a cursor leads to all that it has not seen, once.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::room;
use crate::support::backend::{cursor, run};
use crate::support::client::Stream;
use crate::support::postgres::{Database, database};
use crate::support::process::Process;
use crate::support::setting;

const ROUNDS: usize = 30;
const WRITERS: usize = 4;

/// What one of the writers does next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Draws a transaction id, before any id of an event.
    Draw,
    Insert,
    Commit,
    Rollback,
}

/// The sentence itself.
const SENTENCE: [(usize, Step); 4] = [
    (0, Step::Insert),
    (1, Step::Insert),
    (1, Step::Commit),
    (0, Step::Commit),
];

/// Every writer's own steps in their order, shuffled among each other.
fn drawn(rng: &mut Rng) -> Vec<(usize, Step)> {
    let mut own: Vec<Vec<Step>> = (0..WRITERS)
        .map(|_| {
            let mut steps = Vec::new();
            if rng.bool() {
                steps.push(Step::Draw);
            }
            steps.extend(vec![Step::Insert; rng.usize(1..=2)]);
            let rolls_back = rng.f64() < 0.15;
            steps.push(if rolls_back {
                Step::Rollback
            } else {
                Step::Commit
            });
            steps.reverse();
            steps
        })
        .collect();
    let mut schedule = Vec::new();
    while let Some(writer) = rng.choice(unfinished(&own)) {
        schedule.push((writer, own[writer].pop().expect("not empty")));
    }
    schedule
}

fn unfinished(own: &[Vec<Step>]) -> Vec<usize> {
    (0..own.len()).filter(|n| !own[*n].is_empty()).collect()
}

/// What is known of one committed event, by the steps at which it happened.
#[derive(Clone, Copy, Debug)]
struct Fate {
    xid: i64,
    inserted: usize,
    committed: usize,
}

/// The log so far, and every position that somebody has held.
#[derive(Default)]
struct Played {
    step: usize,
    fates: BTreeMap<i64, Fate>,
    /// A cursor, and what whoever holds it has seen.
    cursors: Vec<(String, BTreeSet<i64>)>,
}

impl Played {
    fn ids(&self) -> BTreeSet<i64> {
        self.fates.keys().copied().collect()
    }

    async fn play(&mut self, clients: &[Client], schedule: &[(usize, Step)]) {
        let mut open = vec![Vec::<(i64, i64, usize)>::new(); clients.len()];
        let mut begun = vec![false; clients.len()];
        for (writer, step) in schedule {
            self.step += 1;
            let (client, open) = (&clients[*writer], &mut open[*writer]);
            if !std::mem::replace(&mut begun[*writer], true) {
                run(client, "begin").await;
            }
            match step {
                Step::Draw => run(client, "select pg_current_xact_id()").await,
                Step::Insert => {
                    let insert = "select tidings.publish('t', 'written'), pg_current_xact_id()::text::bigint";
                    let row = client.query_one(insert, &[]).await.expect("publishes");
                    open.push((row.get(0), row.get(1), self.step));
                }
                Step::Commit => {
                    run(client, "commit").await;
                    for (id, xid, inserted) in open.drain(..) {
                        let committed = self.step;
                        let fate = Fate {
                            xid,
                            inserted,
                            committed,
                        };
                        self.fates.insert(id, fate);
                    }
                }
                Step::Rollback => {
                    run(client, "rollback").await;
                    open.clear();
                }
            }
            // The last session never writes, and sees what a page that is made now would see.
            let between = cursor(clients.last().expect("there are some")).await;
            self.cursors.push((between, self.ids()));
        }
    }

    /// Each of these once, none before one that had been committed when it was inserted.
    fn hold(&self, what: &str, came: &[i64], expected: &BTreeSet<i64>) {
        let set: BTreeSet<i64> = came.iter().copied().collect();
        assert_eq!(&set, expected, "{what}");
        assert_eq!(set.len(), came.len(), "{what}: twice in {came:?}");
        for (place, first) in came.iter().enumerate() {
            for second in &came[place + 1..] {
                let (first, second) = (self.fates[first], self.fates[second]);
                let late = second.committed < first.inserted;
                assert!(!late, "{what}: {second:?} came after {first:?}");
            }
        }
    }

    /// How many pairs were committed in another order than this number of theirs has.
    fn inversions(&self, number: impl Fn(i64, &Fate) -> i64) -> usize {
        let numbered = self
            .fates
            .iter()
            .map(|(id, fate)| (number(*id, fate), fate.committed));
        let numbered: Vec<(i64, usize)> = numbered.collect();
        let inverted = |a: &(i64, usize), b: &(i64, usize)| a.0 < b.0 && a.1 > b.1;
        let pairs = numbered
            .iter()
            .flat_map(|a| numbered.iter().map(move |b| (a, b)));
        pairs.filter(|(a, b)| inverted(a, b)).count()
    }
}

/// Reads so many events, and notes the cursor after each.
async fn read(stream: &mut Stream, count: usize) -> (Vec<i64>, Vec<String>) {
    let (mut ids, mut cursors) = (Vec::new(), Vec::new());
    for _ in 0..count {
        ids.extend(stream.ids(1).await);
        cursors.push(stream.cursor().to_owned());
    }
    (ids, cursors)
}

async fn gateways(database: &Database) -> [Process; 2] {
    [
        &["--streams-per-user=1000"][..],
        &["--window-bytes=1KiB"][..],
    ]
    .map(|flags| Process::serve(database, flags))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_commits_in_another_order_than_its_ids_is_delivered_once() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let database = database();
    let gateways = gateways(&database).await;
    let mut clients = Vec::new();
    for _ in 0..=WRITERS {
        clients.push(database.connect().await);
    }
    let mut streams = Vec::new();
    for gateway in &gateways {
        streams.push(gateway.subscribe(&["t"]).await);
    }
    let mut played = Played::default();
    let (mut resumed, mut within) = (0, 0);
    for round in 0..ROUNDS {
        let what = format!("seed {seed}, round {round}");
        let before = played.ids();
        let schedule = match round % 3 {
            0 => SENTENCE.to_vec(),
            _ => drawn(&mut rng),
        };
        played.play(&clients, &schedule).await;
        let new: BTreeSet<i64> = played.ids().difference(&before).copied().collect();
        for stream in &mut streams {
            let (ids, cursors) = read(stream, new.len()).await;
            played.hold(&format!("{what}, live"), &ids, &new);
            for (place, cursor) in cursors.into_iter().enumerate() {
                let seen = before.iter().chain(&ids[..=place]).copied().collect();
                within += usize::from(cursor.matches('~').count() > 2);
                played.cursors.push((cursor, seen));
            }
        }
        let all = played.ids();
        let mut replays = JoinSet::new();
        for (cursor, seen) in std::mem::take(&mut played.cursors) {
            for (number, gateway) in gateways.iter().enumerate() {
                let (door, cursor) = (gateway.door(), cursor.clone());
                let missing: BTreeSet<i64> = all.difference(&seen).copied().collect();
                replays.spawn(async move {
                    let mut stream = door.resume(&["t"], Some(&cursor)).await;
                    let (ids, ready) = stream.replay().await;
                    assert_eq!(ready["resumed"], true, "{cursor}");
                    (number, cursor, ids, missing)
                });
            }
        }
        for (number, cursor, ids, missing) in replays.join_all().await {
            let what = format!("{what}, gateway {number}, resumed from {cursor}");
            played.hold(&what, &ids, &missing);
            resumed += 1;
        }
    }
    let by_id = played.inversions(|id, _| id);
    let by_xid = played.inversions(|_, fate| fate.xid);
    let window = "tidings_replays_total{source=\"window\"}";
    let log = "tidings_replays_total{source=\"database\"}";
    let (window, log) = (
        gateways[0].metric(window).await,
        gateways[1].metric(log).await,
    );
    println!(
        "held: commit order, seed {seed}: {} events; {resumed} resumes; {by_id} pairs against the order of ids; \
         {by_xid} against that of transactions; {within} cursors within a look; {window} replays from the window; \
         {log} from the database",
        played.fates.len()
    );
    assert!(by_id > ROUNDS / 3 && by_xid > ROUNDS / 3);
    assert!(resumed > 0 && within > 0 && window > 0.0 && log > 0.0);
}
