//! A reconnect storm: everybody is cut at once and comes back at once, while events go on being
//! published. The window answers them; the database does not notice, and neither does an orchestrator.
//!
//! `TIDINGS_TEST_STREAMS` says how many they are, `TIDINGS_TEST_STORMS` how often it happens.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::crowd::{Crowd, Load, Probes, until_ready};
use crate::journal::{Journal, Moment, Record};
use crate::oracle::{Oracle, prepare};
use crate::room;
use crate::support::backend::run;
use crate::support::gateway::Door;
use crate::support::postgres::own_cluster;
use crate::support::process::Process;
use crate::support::setting;

const EVENTS_PER_S: u64 = 500;

/// From the first who comes back to the last who has caught up.
const BACK: Duration = Duration::from_secs(10);

/// Between two storms, and before the first.
const CALM: Duration = Duration::from_secs(3);

/// Beats of sessions, upkeep, and our own questions, while a storm lasts.
const OTHERS: i64 = 50;

/// How many statements the database has been asked: looks, by publishers, all others; and how many
/// sessions the pool has.
const ASKED: &str = "select
        coalesce(sum(calls) filter (where query ~ '^-- The (look|glance|snapshot)'), 0)::bigint,
        coalesce(sum(calls) filter (where query like '%tidings.publish(%'), 0)::bigint,
        -- Who is awake rings once a look, and takes and gives back a lock; that is no stream's doing.
        coalesce(sum(calls) filter (where query !~ '^-- The (look|glance|snapshot)'
                                      and query !~ 'pg_notify|advisory|pg_current_xact_id|^reset'
                                      and query not like '%tidings.publish(%'), 0)::bigint,
        (select count(*) from pg_stat_activity
         where datname = current_database() and application_name = 'tidings/pool')
    from pg_stat_statements join pg_database on pg_database.oid = dbid
    where datname = current_database()";

/// What counters say at one moment, or, of two moments, their difference.
#[derive(Clone, Copy)]
struct Counts {
    window: f64,
    none: f64,
    database: f64,
    looks: i64,
    publishes: i64,
    others: i64,
    pool: i64,
}

impl Counts {
    async fn read(door: &Door, session: &Client) -> Counts {
        let replays = async |source: &str| {
            let name = format!("tidings_replays_total{{source=\"{source}\"}}");
            door.metric(&name).await
        };
        let row = session.query_one(ASKED, &[]).await.expect("counts");
        Counts {
            window: replays("window").await,
            none: replays("none").await,
            database: replays("database").await,
            looks: row.get(0),
            publishes: row.get(1),
            others: row.get(2),
            pool: row.get(3),
        }
    }

    fn since(self, before: Counts) -> Counts {
        Counts {
            window: self.window - before.window,
            none: self.none - before.none,
            database: self.database - before.database,
            looks: self.looks - before.looks,
            publishes: self.publishes - before.publishes,
            others: self.others - before.others,
            pool: self.pool,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_is_back_within_ten_seconds_and_no_stream_costs_a_query() {
    let _room = room::heavy().await;
    let size = setting("TIDINGS_TEST_STREAMS", 1_000) as usize;
    let storms = setting("TIDINGS_TEST_STORMS", 2);
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let context = format!("TIDINGS_TEST_SEED={seed} TIDINGS_TEST_STREAMS={size}");
    let server = own_cluster(&[
        ("fsync", "off"),
        ("shared_preload_libraries", "pg_stat_statements"),
    ]);
    let database = server.database();
    let session = database.connect().await;
    prepare(&session).await;
    run(&session, "create extension pg_stat_statements").await;
    let gateway = Process::serve(&database, &[]);
    until_ready(&gateway).await;
    let journal = Journal::create("storm");
    let crowd = Crowd::open(&journal, &session, &[gateway.address()], size).await;
    let rng = &mut Rng::with_seed(seed);
    let load = Load::start(&database, &journal, rng, size, EVENTS_PER_S).await;
    let probes = Probes::watch(gateway.door());

    for number in 0..storms {
        sleep(CALM).await;
        let before = Counts::read(&gateway, &session).await;
        let back = crowd.cut().await;
        let after = Counts::read(&gateway, &session).await;
        let storm = after.since(before);
        let told = format!(
            "storm {number} of {size} streams: all back after {back:.2?}; {} from the window, {} had missed \
             nothing, {} from the database; meanwhile {} transactions of publishers, {} looks, {} other \
             statements, {} sessions of the pool",
            storm.window,
            storm.none,
            storm.database,
            storm.publishes,
            storm.looks,
            storm.others,
            storm.pool
        );
        println!("{told}");
        assert!(back < BACK, "{told}; {context}");
        assert!(
            storm.publishes > 0 && storm.window > 0.0,
            "{told}; {context}"
        );
        assert_eq!(storm.window + storm.none, size as f64, "{told}; {context}");
        // Sessions of the pool stay once they are opened, and none was.
        assert_eq!((storm.database, storm.pool), (0.0, 0), "{told}; {context}");
        assert!(storm.others < OTHERS, "{told}; {context}");
    }

    sleep(CALM).await;
    let published = load.stop().await;
    let answers = probes.answers();
    let (verdict, records, oracle) = crowd.settle(&session).await;
    assert_eq!(answers.ill, Vec::<String>::new(), "{context}");
    assert!(answers.well > 0, "{context}");
    assert_eq!(
        verdict.times("ends, cut"),
        storms * size as u64,
        "{context}"
    );
    let missed = caught_up(&records, &oracle);
    assert!(
        missed > 0,
        "nobody had missed anything: {verdict}; {context}"
    );
    println!(
        "held: {storms} storms of {size} streams, seed {seed}: {verdict}; {published} published; {missed} \
         missed and had once ready; {} probes; {} ms for the slowest probe; {} MiB at most",
        answers.well,
        answers.slowest.as_millis(),
        gateway.peak_bytes() >> 20
    );
}

/// Whoever is ready has received all that was committed before it came; returns how much of that it
/// received in a stream that it came back with.
fn caught_up(records: &[Record], oracle: &Oracle) -> usize {
    let mut keys_of: HashMap<&str, &[String]> = HashMap::new();
    let mut committed: HashMap<&str, Vec<(Moment, &str)>> = HashMap::new();
    for record in records {
        match record {
            Record::Intent { transaction, keys } => _ = keys_of.insert(transaction, keys),
            Record::Answer {
                at, transaction, ..
            } => {
                for key in keys_of[transaction.as_str()] {
                    let topic = &oracle.facts[key].topic;
                    committed.entry(topic).or_default().push((*at, key));
                }
            }
            _ => {}
        }
    }
    let mut topics_of: HashMap<u64, &[String]> = HashMap::new();
    let mut seen: HashMap<u64, HashSet<&str>> = HashMap::new();
    let mut came: HashMap<u64, (Moment, usize)> = HashMap::new();
    let mut missed = 0;
    for record in records {
        match record {
            Record::Client { client, topics, .. } => _ = topics_of.insert(*client, topics),
            Record::Connect { at, client, .. } => {
                let count = seen.entry(*client).or_default().len();
                came.insert(*client, (*at, count));
            }
            Record::Event { client, event, .. } => {
                let key = event["data"]["key"].as_str().expect("a key");
                seen.entry(*client).or_default().insert(key);
            }
            Record::Ready { client, .. } => {
                let (at, before) = came[client];
                let seen = &seen[client];
                missed += seen.len() - before;
                for topic in topics_of[client] {
                    let earlier = committed.get(topic.as_str()).into_iter().flatten();
                    for (_, key) in earlier.filter(|(answered, _)| *answered < at) {
                        assert!(seen.contains(key), "client {client} is ready without {key}");
                    }
                }
            }
            _ => {}
        }
    }
    missed
}
