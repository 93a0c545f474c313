//! A database that has no time: every session of the pool is busy, or no further one can be opened. Live
//! streams do not feel it, nor those that resume within the window; syncs are told soon to come back.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::room;
use crate::support::backend::{cursor, publish, run, until};
use crate::support::client::Answer;
use crate::support::gateway::{Door, token};
use crate::support::postgres::{database, own_cluster};
use crate::support::process::Process;

/// A second, the default of the pool, for a turn and for a session, and what a busy machine adds.
const SOON: Duration = Duration::from_secs(3);

/// Asks for a sync as this user; returns the answer and how long it took.
async fn sync(door: Door, user: &str, topic: &str) -> (Answer, Duration) {
    let bearer = token(user, json!({"topics": ["*"]}));
    let visit = door.visit("GET", &format!("/v1/sync?topic={topic}"));
    let begun = Instant::now();
    let answer = visit.bearer(&bearer).send().await;
    (answer, begun.elapsed())
}

fn is_told_to_come_back(answer: &Answer, took: Duration) {
    assert_eq!(answer.status, 503, "{}", answer.body);
    let after = answer.header("retry-after").expect("when to come back");
    assert!(
        (1..=5).contains(&after.parse::<u32>().expect("seconds")),
        "{after}"
    );
    assert!(took < SOON, "{took:?}");
}

/// Whether streams feel nothing: an open one gets what is published, one comes back with a cursor, and
/// operators are answered.
async fn streams_are_well(door: Door, backend: &Client, open: &mut crate::support::client::Stream) {
    let held = cursor(backend).await;
    let id = publish(backend, "t").await;
    assert_eq!(open.ids(1).await, [id]);
    let begun = Instant::now();
    let (replayed, ready) = door.resume(&["t"], Some(&held)).await.replay().await;
    assert_eq!((replayed, &ready["resumed"]), (vec![id], &json!(true)));
    for path in ["/livez", "/readyz"] {
        assert_eq!(door.ops(path).await.status, 200, "{path}");
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_every_session_of_the_pool_busy_streams_go_on_and_syncs_are_told_to_come_back() {
    let _room = room::beside_others().await;
    let database = database();
    let gateway = Process::serve(&database, &["--pool-size=4", "--statement-timeout=1min"]);
    let door = *gateway;
    let backend = database.connect().await;
    run(
        &backend,
        "create function slow(topic text, claims jsonb) returns jsonb language plpgsql
         as $$ begin perform pg_sleep(60); return '1'; end $$;
         select tidings.define_state('slow', 'slow(text, jsonb)')",
    )
    .await;
    let mut open = gateway.subscribe(&["t"]).await;
    let mut waiting = JoinSet::new();
    // Two users sleep in their functions, which is half of the pool and all that syncs may have.
    for user in ["one", "two"] {
        waiting.spawn(async move { sync(door, user, "slow").await });
    }
    let busy = |count: usize| {
        format!(
            "select count(*) = {count} from pg_stat_activity where application_name = 'tidings/pool'
             and datname = current_database() and state = 'active'"
        )
    };
    until(&backend, &busy(2)).await;
    let mut refused = 0;
    for user in ["one", "three", "four"] {
        let (answer, took) = sync(door, user, "other").await;
        is_told_to_come_back(&answer, took);
        refused += 1;
    }
    streams_are_well(door, &backend, &mut open).await;
    // Two publishers wait for the holder of their key, which is the other half.
    let holder = database.connect().await;
    run(
        &holder,
        "begin; select tidings.publish('k', 'b', key => 'held')",
    )
    .await;
    let bearer = token("backend", json!({"publish": ["*"]}));
    let visit = move || {
        let body = json!({"topic": "k", "type": "b", "key": "held"});
        door.visit("POST", "/v1/events").bearer(&bearer).json(&body)
    };
    for _ in 0..2 {
        let visit = visit();
        waiting.spawn(async move { (visit.send().await, Duration::ZERO) });
    }
    until(&backend, &busy(4)).await;
    for user in ["one", "three", "five"] {
        let (answer, took) = sync(door, user, "other").await;
        is_told_to_come_back(&answer, took);
        refused += 1;
    }
    let begun = Instant::now();
    let published = visit().send().await;
    is_told_to_come_back(&published, begun.elapsed());
    for _ in 0..5 {
        streams_are_well(door, &backend, &mut open).await;
    }
    println!("{refused} syncs were told to come back while the pool was busy");
    // Once they have gone, everything is as before.
    waiting.shutdown().await;
    run(&holder, "rollback").await;
    until(&backend, &busy(0)).await;
    let (answer, _) = sync(door, "three", "other").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_further_session_to_be_had_streams_go_on_and_syncs_are_told_to_come_back() {
    let _room = room::beside_others().await;
    let cluster = own_cluster(&[("max_connections", "20")]);
    let database = cluster.database();
    let gateway = Process::serve(&database, &[]);
    let door = *gateway;
    let backend = database.connect().await;
    let mut open = gateway.subscribe(&["t"]).await;
    streams_are_well(door, &backend, &mut open).await;
    let mut holders = Vec::new();
    // The gateway's own sessions that come and go give theirs up as well, after a while.
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        match database.try_connect().await {
            Ok(holder) => holders.push(holder),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    assert!(holders.len() > 5, "{}", holders.len());
    let mut refused = 0;
    for n in 0..10 {
        let (answer, took) = sync(door, &format!("user-{n}"), "t").await;
        is_told_to_come_back(&answer, took);
        refused += 1;
        streams_are_well(door, &backend, &mut open).await;
    }
    println!(
        "{refused} syncs were told to come back, with {} sessions of others",
        holders.len()
    );
    drop(holders);
    let mine = "select count(*) < 10 from pg_stat_activity where backend_type = 'client backend'";
    until(&backend, mine).await;
    let (answer, _) = sync(door, "user-0", "t").await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
