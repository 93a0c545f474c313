//! What a page shows of its connection, and how often it asks while there is none.

use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::browser::Pages;
use super::judge::{Judge, Told};
use super::trouble::System;
use crate::support::gateway::Gateway;
use crate::support::postgres::database;

/// How long a page is watched that should ask for nothing.
const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_tell_how_they_stand() {
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=1s", &pages.origin]).await;
    system.kill_gateway();
    // One that leads, one that follows, and one that is on its own.
    let tabs = json!({"tab-1": {}, "tab-2": {}, "plain": {"share": false}});
    let Some(mut agent) = pages.open(system.address, &tabs) else {
        return;
    };
    let mut judge = Judge::new(0);
    let all = |is: &'static str, reason: &'static str| {
        let so = move |told: &Told| told.status.is == is && told.status.reason == reason;
        move |models: &[Told]| models.iter().all(so)
    };
    judge.until(&mut agent, all("connecting", "network")).await;
    system.start_gateway();
    judge.all_live(&mut agent, 3).await;
    system.kill_gateway();
    judge.until(&mut agent, all("stale", "network")).await;
    system.start_gateway();
    judge.until(&mut agent, all("live", "stream")).await;
    let _: String = agent.ask("offline 1000").await;
    judge.until(&mut agent, all("live", "stream")).await;
    for name in ["tab-1", "tab-2", "plain"] {
        assert_eq!(judge.times(name, "offline: network"), 1, "{name}");
        assert_eq!(judge.times(name, "connecting: network"), 1, "{name}");
    }
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_with_bad_tokens_is_denied_and_asks_no_more() {
    let pages = Pages::new();
    let database = database();
    let gateway = Gateway::start_with(&database, &[&pages.origin]).await;
    let tabs = json!({"tab": {"given": "bad"}});
    let Some(mut agent) = pages.open(gateway.address(), &tabs) else {
        return;
    };
    let mut judge = Judge::new(0);
    let denied = |models: &[Told]| {
        let status = &models[0].status;
        status.is == "denied" && status.reason == "unauthorized"
    };
    judge.until(&mut agent, denied).await;
    sleep(QUIET).await;
    // The token that there was, and a fresh one.
    assert_eq!(judge.look(&mut agent).await[0].asked, 2);
    let _: String = agent.ask("giveTokens tab good").await;
    let _: String = agent.ask("refresh tab").await;
    judge.all_live(&mut agent, 1).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_keeps_the_wait_of_a_gateway_that_is_overloaded() {
    let pages = Pages::new();
    let database = database();
    let flags = ["--heartbeat=1s", "--streams-per-user=1", &pages.origin];
    let gateway = Gateway::start_with(&database, &flags).await;
    // The first does not come back of itself while the others try.
    let tab = json!({"share": false, "lasts": 3_600});
    let Some(mut agent) = pages.open(gateway.address(), &json!({"first": tab})) else {
        return;
    };
    let mut judge = Judge::new(0);
    judge.all_live(&mut agent, 1).await;
    let _: String = agent.ask(&format!("open second {tab}")).await;
    let overloaded = |asked: u64| {
        move |models: &[Told]| models[1].status.reason == "overload" && models[1].asked == asked
    };
    // The state, and a stream.
    judge.until(&mut agent, overloaded(2)).await;
    let _: String = agent.ask("show second").await;
    sleep(QUIET).await;
    assert!(overloaded(2)(&judge.look(&mut agent).await));
    let _: String = agent.ask("refresh second").await;
    judge.until(&mut agent, overloaded(3)).await;
    let _: String = agent.ask("close first").await;
    let _: String = agent.ask("refresh second").await;
    judge.all_live(&mut agent, 1).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_that_may_share_nothing_asks_by_itself() {
    let pages = Pages::new();
    let database = database();
    let gateway = Gateway::start_with(&database, &[&pages.origin]).await;
    let tabs = json!({"alone": {"path": "/sandboxed"}});
    let Some(mut agent) = pages.open(gateway.address(), &tabs) else {
        return;
    };
    // A page in a sandbox has no origin, and no gateway lets it in.
    let alone = |models: &[Told]| models[0].status.reason == "network" && models[0].asked > 0;
    Judge::new(0).until(&mut agent, alone).await;
    agent.end().await;
}
