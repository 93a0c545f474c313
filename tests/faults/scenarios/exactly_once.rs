//! The promise of promises: every client gets every committed event of its topics exactly once, in
//! order, however often it is cut and wherever it comes back.

use std::time::Duration;

use fastrand::Rng;

use crate::checker::mutations::MUTATIONS;
use crate::rig::{PLAN, Plan, Rig};
use crate::support::setting;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_client_gets_every_event_once_and_in_order_wherever_it_comes_back() {
    let seconds = setting("TIDINGS_TEST_SECONDS", 8);
    let plan = Plan {
        publishers: 12,
        readers: 50,
        pause: Duration::from_millis(15),
        // Tokens that expire while streams are open.
        token_s: 3,
        ..PLAN
    };
    let rig = Rig::start("exactly-once", plan).await;
    rig.fault("clients are cut at random and return through either gateway");
    rig.load_for(Duration::from_secs(seconds)).await;
    let replays = |gateway: usize, source: &str| {
        let metric = format!("tidings_replays_total{{source=\"{source}\"}}");
        let door = rig.gateway(gateway).door();
        async move { door.metric(&metric).await }
    };
    let (window, database) = (replays(0, "window").await, replays(1, "database").await);
    assert!(window > 10.0 && database > 10.0, "{window}, {database}");
    let settled = rig.settle_whole().await;
    let verdict = settled.verdict;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for what in [
        "resumes",
        "cursors within a look or page",
        "syncs",
        "ends, bye expired",
    ] {
        assert!(verdict.times(what) > 10, "too few {what}: {verdict}");
    }

    // The checker would have found it, had one thing been otherwise.
    let mut rng = Rng::with_seed(setting("TIDINGS_TEST_SEED", 7));
    for (name, mutate, finds) in MUTATIONS {
        let mutated = mutate(settled.records.clone(), &settled.oracle, &mut rng);
        let mutated = mutated.unwrap_or_else(|| panic!("nothing to be {name}"));
        let verdict = crate::checker::judge(&mutated, &settled.oracle, plan.terms);
        assert!(
            verdict.wrongs.iter().any(|(_, wrong)| finds(wrong)),
            "{name}: {:?}",
            verdict.wrongs
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_in_which_nothing_happened_proves_nothing() {
    let plan = Plan {
        publishers: 0,
        ..PLAN
    };
    let mut rig = Rig::start("nothing", plan).await;
    let fault = rig.try_settle().await.err().expect("it fails");
    assert!(fault.starts_with("nothing happened"), "{fault}");
    rig.journal.was_right();
}
