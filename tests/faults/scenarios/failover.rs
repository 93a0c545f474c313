//! A standby takes the primary's place. If it had everything, nobody notices: cursors stay valid. If it
//! had not, whoever has seen what is gone is told so, and nothing of the new history is swallowed.

use std::process::Stdio;
use std::time::Duration;

use tidings::dev::cluster::StopMode;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use crate::checker::Terms;
use crate::rig::returns::first_told;
use crate::rig::settle::Settled;
use crate::rig::{LOST_HISTORY, PLAN, Plan, Rig};
use crate::support::backend::cursor;
use crate::support::client::PATIENCE;
use crate::support::command::tidings;
use crate::support::gateway::SECRET;

const A_WHILE: Duration = Duration::from_millis(1_500);

const FAILOVER: Plan<'static> = Plan {
    proxied: true,
    ..PLAN
};

const LOOKS: &str = "tidings_looks_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promotion_of_a_standby_that_has_everything() {
    let mut rig = Rig::start("promotion", FAILOVER).await;
    let standby = rig.standby().await;
    rig.load_for(A_WHILE).await;
    rig.stop_postgres(StopMode::Fast).await;
    let looks = [
        rig.gateway(0).metric(LOOKS).await,
        rig.gateway(1).metric(LOOKS).await,
    ];

    rig.fault("gateways are led to the standby, which is none they may read from yet");
    rig.lead_to(&standby.server);
    // One that starts now says what it waits for.
    let url = rig.proxy().url().to_owned();
    let mut newcomer = tidings(
        &["serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"],
        &[("DATABASE_URL", &url), ("TIDINGS_JWT_SECRET", SECRET)],
    );
    let mut newcomer = newcomer.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = BufReader::new(newcomer.stderr.take().expect("piped")).lines();
    let mut says = async |part: &str| loop {
        let line = timeout(PATIENCE, said.next_line())
            .await
            .expect("it speaks");
        let line = line.expect("text").expect("it runs");
        if line.contains(part) {
            return line;
        }
        assert!(!line.contains("gateway started"), "on a standby: {line}");
    };
    let refusal = says("database session lost").await;
    assert!(refusal.contains("is a standby"), "{refusal}");
    rig.load_for(Duration::from_secs(3)).await;
    for (number, before) in looks.into_iter().enumerate() {
        let now = rig.gateway(number).metric(LOOKS).await;
        assert_eq!(now, before, "gateway {number} looked at a standby");
    }
    // They have been there all the same.
    let log = std::fs::read_to_string(standby.server.cluster.log()).expect("a log");
    let came = log.matches("application_name=tidings/tail").count();
    assert!(came >= 2, "{log}");

    rig.promote(standby).await;
    rig.recovers().await;
    says("gateway started").await;
    rig.load_for(A_WHILE).await;
    let verdict = rig.settle().await;
    println!("promotion: {came} sessions of tails were refused");
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["bye diverged", "broken", "silent", "refused"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promotion_of_a_standby_that_lost_the_tail() {
    let plan = Plan {
        terms: Terms {
            lost_history: true,
            ..PLAN.terms
        },
        ..FAILOVER
    };
    let mut rig = Rig::start("lost-tail", plan).await;
    let standby = rig.standby().await;
    rig.load_for(A_WHILE).await;
    let primary = rig.session().await;
    let kept = cursor(&primary).await;
    wait_for_replay(&rig, &standby).await;

    rig.fault("replication is cut");
    standby.cut_off();
    let mut lost = Vec::new();
    for number in 0..6 {
        let key = format!("tail.{number}");
        rig.publish_noted(&primary, &[(key, "t0".to_owned(), "written")])
            .await;
        lost.push(cursor(&primary).await);
        rig.load_for(A_WHILE / 6).await;
    }
    let newest = rig.newest_id().await;
    rig.stop_postgres(StopMode::Immediate).await;
    rig.lead_to(&standby.server);
    rig.promote(standby).await;
    rig.recovers().await;

    rig.comes_back(2000, &kept);
    let (at_once, later) = lost.split_at(3);
    for (number, cursor) in (2001..).zip(at_once) {
        rig.comes_back(number, cursor);
    }
    rig.load_beyond(newest).await;
    rig.fault("the ids of the new history have overtaken those of the lost one");
    for (number, cursor) in (2004..).zip(later) {
        rig.comes_back(number, cursor);
    }
    rig.load_for(A_WHILE).await;
    assert!(rig.logged(LOST_HISTORY) >= 2, "{}", rig.context());
    let Settled {
        verdict, records, ..
    } = rig.settle_whole().await;
    assert_eq!(
        first_told(&records, 2000),
        None,
        "it had seen nothing of what is lost"
    );
    for number in 2001..=2006 {
        assert_eq!(
            first_told(&records, number),
            Some("diverged"),
            "client {number}"
        );
    }
    assert_eq!(
        verdict.all("resets"),
        verdict.times("resets, diverged"),
        "{verdict}"
    );
    for what in ["ends, bye diverged", "deliveries of the lost history"] {
        assert!(verdict.times(what) > 0, "no {what}: {verdict}");
    }
    assert!(!verdict.lost_history.is_empty(), "{verdict}");
}

/// Waits until the standby has all that the primary has written so far.
async fn wait_for_replay(rig: &Rig<'_>, standby: &crate::rig::standby::Standby) {
    let primary = rig.session().await;
    let written = "select pg_current_wal_insert_lsn()::text";
    let written: String = primary
        .query_one(written, &[])
        .await
        .expect("a place")
        .get(0);
    let url = standby.server.cluster.url("postgres");
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("a hot standby");
    tokio::spawn(connection);
    let replayed = format!("select pg_last_wal_replay_lsn() >= '{written}'::pg_lsn");
    crate::support::backend::until(&client, &replayed).await;
}
