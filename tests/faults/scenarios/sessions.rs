//! The gateways' sessions die under load, openly or half-open, one kind at a time or all at once:
//! each is found and replaced, and no stream notices.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::checker::Verdict;
use crate::rig::{PLAN, Plan, Rig};

/// Within this a half-open session is to be found.
const FOUND: Duration = Duration::from_secs(15);

const SESSIONS: [&str; 3] = ["tidings/listener", "tidings/tail", "tidings/pool"];

fn nobody_noticed(verdict: &Verdict) {
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "silent", "refused", "unreachable"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_terminated_again_and_again() {
    let mut rig = Rig::start("terminated", PLAN).await;
    let mut ended = [0; SESSIONS.len()];
    for _ in 0..5 {
        for (name, ended) in SESSIONS.iter().zip(&mut ended) {
            let pause = Duration::from_millis(rig.rng.u64(50..400));
            rig.load_for(pause).await;
            *ended += rig.terminate(name).await;
            rig.recovers().await;
        }
    }
    assert!(ended.iter().all(|count| *count > 2), "{ended:?}");
    for session in ["listener", "tail"] {
        let lost = rig.logged(&lost(session));
        assert!(lost > 0, "no {session} was lost; {}", rig.context());
    }
    nobody_noticed(&rig.settle().await);
}

/// What a gateway logs when it has found that a session is lost.
fn lost(session: &str) -> String {
    format!("\"message\":\"database session lost; trying again\",\"session\":\"{session}\"")
}

/// The sessions of this name, or all, become half-open; every gateway finds that these are lost, and listens
/// and looks again, within the time that the promise gives.
async fn half_open(name: &'static str, only: Option<&str>, finds: &[&str]) {
    let plan = Plan {
        proxied: true,
        // A stream that is asked for meanwhile is held, for up to 15 s, and not given up before.
        silence: Duration::from_secs(18),
        ..PLAN
    };
    let rig = Rig::start(name, plan).await;
    let gateways = plan.gateways.len();
    rig.load_for(Duration::from_secs(1)).await;
    let before: Vec<usize> = finds.iter().map(|name| rig.logged(&lost(name))).collect();
    let since = Instant::now();
    match only {
        Some(name) => {
            rig.fault(&format!("all sessions of {name} become half-open"));
            rig.proxy().swallow_only(name);
        }
        None => {
            rig.fault("all sessions become half-open");
            rig.proxy().swallow();
        }
    }
    for (session, before) in finds.iter().zip(before) {
        while rig.logged(&lost(session)) < before + gateways {
            let in_time = since.elapsed() < FOUND;
            assert!(in_time, "{session} is not found; {}", rig.context());
            sleep(Duration::from_millis(20)).await;
        }
        println!("{name}: {session} found after {:.2?}", since.elapsed());
    }
    rig.recovers().await;
    // Whoever listens again hears bells again.
    for number in 0..gateways {
        let bells = async || rig.gateway(number).metric("tidings_bells_total").await;
        let heard = bells().await;
        while bells().await == heard {
            let in_time = since.elapsed() < 2 * FOUND;
            assert!(in_time, "no bell is heard; {}", rig.context());
            sleep(Duration::from_millis(20)).await;
        }
    }
    rig.load_for(Duration::from_secs(1)).await;
    nobody_noticed(&rig.settle().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_session_that_listens_is_found_by_its_own_heartbeat() {
    half_open(
        "half-open-listener",
        Some("tidings/listener"),
        &["listener"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_session_that_looks_is_found() {
    half_open("half-open-tail", Some("tidings/tail"), &["tail"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_are_all_half_open_are_found() {
    half_open("half-open-all", None, &["tail", "listener"]).await;
}
