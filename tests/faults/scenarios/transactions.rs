//! Transactions of every shape and length: only what was committed is seen, each open one holds back its
//! own events and nobody else's, and whoever commits late is delivered late, once.

use std::collections::BTreeSet;
use std::time::Duration;

use tidings::cursor::Cursor;
use tidings::dev::cluster::StopMode;
use tokio::time::Instant;

use crate::held::Held;
use crate::journal::{Moment, Record};
use crate::rig::settle::Settled;
use crate::rig::{PLAN, Rig};
use crate::support::backend::run;

const SHAPES: [&str; 6] = [
    "commit",
    "rollback",
    "savepoint rolled back",
    "savepoint within a savepoint kept",
    "two-phase commit",
    "two-phase rollback",
];

/// Which of them have happened so far.
fn happened(rig: &Rig<'_>) -> BTreeSet<&'static str> {
    let records = rig.journal.read();
    let noted = |name: &str| {
        let is = |record: &Record| matches!(record, Record::Shape { shape, .. } if shape == name);
        records.iter().any(is)
    };
    SHAPES.into_iter().filter(|name| noted(name)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_transactions_of_every_shape_only_what_was_committed_is_seen() {
    let rig = Rig::start("every-shape", PLAN).await;
    rig.fault("transactions roll back, save, nest and prepare at random");
    rig.load_for(Duration::from_secs(6)).await;
    // On a machine without air the rarest may need longer.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !happened(&rig).is_superset(&SHAPES.into()) && Instant::now() < deadline {
        rig.load_for(Duration::from_millis(500)).await;
    }
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for shape in SHAPES {
        let times = verdict.times(&format!("shapes, {shape}"));
        assert!(times > 0, "no {shape}: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_holds_back_its_own_events_and_nobody_elses() {
    let rig = Rig::start("stays-open", PLAN).await;
    rig.load_for(Duration::from_secs(1)).await;
    rig.fault("one transaction has published and stays open, another holds an old transaction id");
    let old = rig.session().await;
    let begin = "begin isolation level repeatable read; select pg_current_xact_id()";
    run(&old, begin).await;
    let mut writer = Held::begin(&rig, "held").await;
    let xid = writer.publish(rig.plan.topics).await;
    for _ in 0..6 {
        rig.load_for(Duration::from_millis(700)).await;
        rig.recovers().await;
    }
    rig.fault("the publisher commits");
    let committed_at = writer.commit().await;
    rig.recovers().await;
    rig.load_for(Duration::from_secs(1)).await;
    run(&old, "rollback").await;
    let settled = rig.settle_whole().await;

    assert_eq!(settled.verdict.all("resets"), 0, "{}", settled.verdict);
    assert!(came_after(&settled, "held.", committed_at) > 0);
    let later = |key: &str| settled.oracle.facts[key].xid > xid;
    let flowed = deliveries(&settled)
        .filter(|(at, key)| *at < committed_at && later(key))
        .count();
    assert!(
        flowed > 100,
        "only {flowed} events flowed while it was open"
    );
    let carried = cursors(&settled)
        .filter(|cursor| {
            let seen = &cursor.anchor().snapshot;
            seen.xmax() > xid && !seen.sees(xid)
        })
        .count();
    assert!(carried > 10, "only {carried} cursors named it as open");
    println!("{flowed} deliveries of later transactions and {carried} resumes while it was open");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_transactions_that_everybody_forgot_are_delivered_once_somebody_commits_them() {
    const ORPHANS: usize = 6;
    let mut rig = Rig::start("orphans", PLAN).await;
    rig.load_for(Duration::from_secs(1)).await;
    rig.fault("transactions are prepared, and their sessions leave");
    let mut orphans = Vec::new();
    for number in 0..ORPHANS {
        let held = Held::begin(&rig, &format!("orphan-{number}")).await;
        let mut held = held.without_bell().await;
        held.publish(rig.plan.topics).await;
        orphans.push(held.prepare().await);
    }
    rig.load_for(Duration::from_secs(1)).await;
    rig.restart_postgres(StopMode::Immediate, Duration::from_millis(100))
        .await;
    rig.recovers().await;
    rig.load_for(Duration::from_secs(1)).await;
    let client = rig.session().await;
    let mut decided = Vec::new();
    for (number, orphan) in orphans.into_iter().enumerate() {
        let commit = number % 2 == 0;
        let word = if commit { "committed" } else { "rolled back" };
        rig.fault(&format!("orphan {number} is {word}"));
        decided.push((commit, orphan.decide(&client, commit).await));
        let pause = Duration::from_millis(rig.rng.u64(50..500));
        rig.load_for(pause).await;
    }
    rig.recovers().await;
    let settled = rig.settle_whole().await;
    assert_eq!(settled.verdict.all("resets"), 0, "{}", settled.verdict);
    for (number, (commit, at)) in decided.into_iter().enumerate() {
        let came = came_after(&settled, &format!("orphan-{number}."), at);
        assert_eq!(came > 0, commit, "orphan {number}: {came}");
    }
}

/// Every delivery of an event: when, and of which key.
fn deliveries(settled: &Settled) -> impl Iterator<Item = (Moment, &str)> {
    settled.records.iter().filter_map(|record| match record {
        Record::Event { at, event, .. } => Some((*at, event["data"]["key"].as_str()?)),
        _ => None,
    })
}

/// Every cursor by which a stream was resumed.
fn cursors(settled: &Settled) -> impl Iterator<Item = Cursor> {
    settled.records.iter().filter_map(|record| match record {
        Record::Connect { since, .. } => since.parse().ok(),
        _ => None,
    })
}

/// How often events were delivered whose keys begin like this, all of which must come after this moment.
fn came_after(settled: &Settled, keys: &str, moment: Moment) -> usize {
    let of_these = deliveries(settled).filter(|(_, key)| key.starts_with(keys));
    let moments: Vec<Moment> = of_these.map(|(at, _)| at).collect();
    let early = moments.iter().filter(|at| **at < moment).count();
    assert_eq!(early, 0, "{keys} was delivered before it was committed");
    moments.len()
}
