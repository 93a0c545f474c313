//! A database restored from an older copy, which then goes another way: new events bear ids and
//! transactions of those that are gone, and neither a client nor a gateway takes the ones for the others.

use std::time::Duration;

use crate::checker::{Terms, Verdict};
use crate::journal::{Record, now};
use crate::rig::returns::{diverged_at, first_told};
use crate::rig::settle::Settled;
use crate::rig::{LOST_HISTORY, PLAN, Plan, Rig};
use crate::support::backend::cursor;

const A_WHILE: Duration = Duration::from_millis(1_500);

const RESTORE: Plan<'static> = Plan {
    terms: Terms {
        lost_history: true,
        ..PLAN.terms
    },
    ..PLAN
};

/// Cursors that clients hold when the copy is put back: one of the history that the copy has, and those of
/// what will be gone.
struct Away {
    kept: String,
    lost: Vec<String>,
    /// The newest id of the lost history.
    newest: i64,
}

/// Writes what will be gone.
async fn write_on(rig: &Rig<'_>, kept: String) -> Away {
    let client = rig.session().await;
    let mut lost = Vec::new();
    for number in 0..6 {
        let key = format!("tail.{number}");
        rig.publish_noted(&client, &[(key, "t0".to_owned(), "written")])
            .await;
        lost.push(cursor(&client).await);
        rig.load_for(A_WHILE / 6).await;
    }
    let newest = rig.newest_id().await;
    Away { kept, lost, newest }
}

/// Clients come back, some at once and some once the new ids have overtaken the lost ones.
async fn come_back(rig: &mut Rig<'_>, away: &Away) {
    rig.comes_back(2000, &away.kept);
    let (at_once, later) = away.lost.split_at(3);
    for (number, cursor) in (2001..).zip(at_once) {
        rig.comes_back(number, cursor);
    }
    rig.load_beyond(away.newest).await;
    rig.fault("the ids of the new history have overtaken those of the lost one");
    for (number, cursor) in (2004..).zip(later) {
        rig.comes_back(number, cursor);
    }
    rig.load_for(A_WHILE).await;
}

/// Who had seen nothing of what is gone goes on; everybody else is told.
fn all_were_told(verdict: &Verdict, records: &[Record]) {
    assert_eq!(
        first_told(records, 2000),
        None,
        "it had seen nothing of what is lost"
    );
    for number in 2001..=2006 {
        assert_eq!(
            first_told(records, number),
            Some("diverged"),
            "client {number}"
        );
    }
    assert_eq!(
        verdict.all("resets"),
        verdict.times("resets, diverged"),
        "{verdict}"
    );
    assert!(
        verdict.times("deliveries of the lost history") > 0,
        "{verdict}"
    );
    assert!(!verdict.lost_history.is_empty(), "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_under_gateways_that_live_through_it() {
    let mut rig = Rig::start("restore", RESTORE).await;
    rig.load_for(A_WHILE).await;
    let kept = cursor(&rig.session().await).await;
    let copy = rig.copy_postgres().await;
    rig.recovers().await;
    let away = write_on(&rig, kept).await;
    rig.restore_postgres(&copy).await;
    rig.recovers().await;
    come_back(&mut rig, &away).await;
    assert!(rig.logged(LOST_HISTORY) >= 2, "{}", rig.context());
    let Settled {
        verdict, records, ..
    } = rig.settle_whole().await;
    all_were_told(&verdict, &records);
    assert!(verdict.times("ends, bye diverged") > 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restored_copy_under_gateways_that_were_started_afterwards() {
    let mut rig = Rig::start("restore-anew", RESTORE).await;
    rig.load_for(A_WHILE).await;
    let kept = cursor(&rig.session().await).await;
    let copy = rig.copy_postgres().await;
    rig.recovers().await;
    let away = write_on(&rig, kept).await;
    for number in [0, 1] {
        rig.kill_gateway(number);
    }
    rig.restore_postgres(&copy).await;
    for number in [0, 1] {
        rig.start_gateway(number).await;
    }
    rig.recovers().await;
    come_back(&mut rig, &away).await;
    // They have read no other history, so that it is for the cursors alone to tell.
    assert_eq!(rig.logged(LOST_HISTORY), 0, "{}", rig.context());
    let Settled {
        verdict, records, ..
    } = rig.settle_whole().await;
    all_were_told(&verdict, &records);
    assert_eq!(verdict.times("ends, bye diverged"), 0, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_lags_a_rewritten_history() {
    let mut rig = Rig::start("lag", RESTORE).await;
    let proxy = rig.put_behind_a_proxy(1).await;
    rig.load_for(A_WHILE).await;
    let kept = cursor(&rig.session().await).await;
    let copy = rig.copy_postgres().await;
    rig.recovers().await;
    let away = write_on(&rig, kept).await;

    // The other gateway is gone, so that all streams are at the one that lags.
    rig.kill_gateway(0);
    rig.recovers().await;
    rig.fault("gateway 1 is cut off");
    proxy.hold();
    rig.restore_postgres(&copy).await;
    rig.start_gateway(0).await;
    // What gateway 1 has read last is somebody else's by now.
    rig.load_beyond(away.newest).await;
    assert_eq!(rig.logged(LOST_HISTORY), 0, "{}", rig.context());
    rig.fault("gateway 1 is let through again");
    let released = now();
    proxy.release();
    rig.recovers().await;
    come_back(&mut rig, &away).await;
    assert_eq!(rig.logged(LOST_HISTORY), 1, "{}", rig.context());
    let Settled {
        verdict, records, ..
    } = rig.settle_whole().await;
    all_were_told(&verdict, &records);
    let ended = diverged_at(&records, 1, released);
    println!("lag: {ended} streams ended by the gateway that lagged");
    assert!(ended > 0, "{verdict}");
}
