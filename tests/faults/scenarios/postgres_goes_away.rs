//! Postgres restarts, crashes, and loses single backends, while everybody writes and reads: streams
//! stay open, the gateways listen again and then look again, and nothing is lost.

use std::time::Duration;

use tidings::dev::cluster::StopMode;

use crate::rig::{PLAN, Rig};

const A_WHILE: Duration = Duration::from_millis(1_500);

async fn survives(name: &'static str, mode: StopMode) {
    let mut rig = Rig::start(name, PLAN).await;
    for _ in 0..3 {
        rig.load_for(A_WHILE).await;
        let away = Duration::from_millis(rig.rng.u64(0..1_000));
        rig.restart_postgres(mode, away).await;
        rig.recovers().await;
    }
    rig.load_for(A_WHILE).await;
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "silent", "refused", "unreachable"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_restart() {
    survives("fast-restart", StopMode::Fast).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash() {
    survives("crash", StopMode::Immediate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_backend_killed() {
    let mut rig = Rig::start("backend-killed", PLAN).await;
    let postmaster = rig.server.cluster.pid();
    for name in ["", "tidings/tail", "tidings/listener", ""] {
        rig.load_for(A_WHILE).await;
        rig.kill_backend_of(name).await;
        rig.recovers().await;
    }
    rig.load_for(A_WHILE).await;
    assert_eq!(rig.server.cluster.pid(), postmaster, "not a new postmaster");
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "silent", "refused", "unreachable"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}
