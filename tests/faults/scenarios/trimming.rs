//! Retention trims while clients resume, look and sync: whoever had not seen what is gone is told so, and
//! nobody else; there is never a gap.

use std::time::Duration;

use crate::journal::{Record, now};
use crate::publishers::publish;
use crate::rig::returns::first_told;
use crate::rig::settle::Settled;
use crate::rig::{PLAN, Plan, Rig};
use crate::support::backend::{cursor, run};

const TRIMMED: Plan<'static> = Plan {
    // Longer than a day lasts, so that publishers hold days that are due.
    long: Duration::from_secs(3),
    ..PLAN
};

/// How long clients are away, in steps of this: up to two days more than what is kept.
const STEP: Duration = Duration::from_millis(370);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention_trims_while_clients_resume_look_and_sync() {
    let mut rig = Rig::start("trimming", TRIMMED).await;
    rig.hurry().await;
    rig.fault("a day of the log lasts a second, and all but the last whole one are trimmed");
    let client = rig.session().await;
    let outdated = cursor(&client).await;
    let orphan = rig.session().await;
    let unrelated = rig.session().await;
    let (mut trimmed, mut held_up) = (0, 0);
    let mut away: Vec<(u64, String)> = Vec::new();
    for step in 0..24 {
        if step == 4 {
            rig.fault("a prepared transaction is left alone");
            prepare_orphan(&rig, &orphan).await;
            rig.fault("a transaction that writes elsewhere stays open");
            run(&unrelated, "begin; create temporary table mine (a int)").await;
        }
        if step == 13 {
            rig.fault("the prepared transaction is committed after all, the other rolled back");
            run(&orphan, "commit prepared 'orphan'").await;
            run(&unrelated, "rollback").await;
        }
        let trims = rig.trim_for(STEP).await;
        trimmed += trims.trimmed;
        held_up += trims.held_up;
        for other in 0..2 {
            away.push((2000 + step * 2 + other, cursor(&client).await));
        }
        for _ in 0..2 {
            let one = rig.rng.usize(0..away.len());
            let (number, cursor) = away.swap_remove(one);
            rig.comes_back(number, &cursor);
        }
    }

    rig.fault("nobody publishes any more, and all but the newest event are trimmed");
    rig.stop_publishing().await.expect("they end");
    let trims = rig.trim_for(Duration::from_secs(3)).await;
    trimmed += trims.trimmed;
    let quiet = now();
    rig.load_for(Duration::from_secs(1)).await;
    let left = client.query_one(LEFT, &[]).await.expect("a count");
    let left: i64 = left.get(0);
    let up_to_date = cursor(&client).await;
    rig.trim_for(Duration::from_secs(1)).await;
    rig.fault("the gateways start anew, so that no window vouches for what is gone");
    for number in 0..2 {
        rig.kill_gateway(number);
        rig.start_gateway(number).await;
    }
    rig.comes_back(3000, &up_to_date);
    rig.comes_back(3001, &outdated);
    rig.load_for(Duration::from_millis(500)).await;

    let Settled {
        verdict, records, ..
    } = rig.settle_whole().await;
    let resumed =
        |record: &&Record| matches!(record, Record::Ready { at, resumed: true, .. } if *at > quiet);
    let resumed = records.iter().filter(resumed).count();
    assert_eq!(first_told(&records, 3000), None, "it was up to date");
    assert_eq!(first_told(&records, 3001), Some("trimmed"), "{verdict}");
    println!(
        "trimming: {trimmed} days trimmed, {held_up} passes held up, {left} days left, {resumed} resumes in the quiet"
    );
    assert!(trimmed > 8 && held_up > 0, "{trimmed} {held_up}: {verdict}");
    assert!(left <= 2, "{left} days are left");
    assert!(resumed > 0, "{verdict}");
    assert_eq!(
        verdict.all("resets"),
        verdict.times("resets, trimmed"),
        "{verdict}"
    );
}

/// The days of the past that are not empty.
const LEFT: &str = "select count(distinct tableoid) from tidings.event where created_at < now() - interval '1 day'";

/// A transaction that has published, and that nobody decides for now.
async fn prepare_orphan(rig: &Rig<'_>, client: &tokio_postgres::Client) {
    rig.journal.write(&Record::Intent {
        transaction: "orphan".to_owned(),
        keys: vec!["orphan".to_owned()],
    });
    run(client, "begin; set local tidings.bell = off").await;
    let event = ("orphan".to_owned(), "t0".to_owned(), "written");
    publish(client, &[event]).await.expect("published");
    run(client, "prepare transaction 'orphan'").await;
}
