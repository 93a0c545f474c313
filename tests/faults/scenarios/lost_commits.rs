//! A database that answers commits before they are written, and crashes: what was seen may be gone. Whoever
//! has seen it is told so, with the true reason, and what comes afterwards is swallowed by nobody.

use std::time::Duration;

use tidings::dev::cluster::StopMode;

use crate::checker::Terms;
use crate::rig::LOST_HISTORY;
use crate::rig::{PLAN, Plan, Rig};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_a_crash_forgets_are_told_as_diverged_and_nothing_is_swallowed() {
    let plan = Plan {
        settings: &[("synchronous_commit", "off"), ("wal_writer_delay", "10s")],
        terms: Terms {
            lost_history: true,
            ..PLAN.terms
        },
        ..PLAN
    };
    let mut rig = Rig::start("lost-commits", plan).await;
    for _ in 0..5 {
        let pause = Duration::from_millis(rig.rng.u64(800..1_500));
        rig.load_for(pause).await;
        rig.restart_postgres(StopMode::Immediate, Duration::from_millis(50))
            .await;
        rig.recovers().await;
    }
    rig.load_for(Duration::from_secs(1)).await;
    let found = rig.logged(LOST_HISTORY);
    let verdict = rig.settle().await;
    assert!(found > 0, "no gateway found that its history is gone");
    assert!(
        !verdict.lost_history.is_empty(),
        "nothing was lost: {verdict}"
    );
    let diverged = verdict.times("resets, diverged");
    assert!(diverged > 0, "{verdict}");
    assert_eq!(verdict.all("resets"), diverged, "{verdict}");
    assert!(verdict.times("ends, bye diverged") > 0, "{verdict}");
}
