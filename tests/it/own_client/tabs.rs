//! Tabs of one origin share a stream, and each gets every event once whatever becomes of the one that holds it.

use std::time::Duration;

use fastrand::Rng;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::browser::Pages;
use super::judge::{Judge, Told};
use super::trouble::System;
use crate::support::setting;

/// What a person calls soon, on a machine that is busy.
const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_tabs_hold_one_stream_and_hand_it_over_without_loss() {
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=1s", &pages.origin]).await;
    let tabs: Map<String, Value> = (1..=10).map(|n| (format!("tab-{n}"), json!({}))).collect();
    let Some(mut agent) = pages.open(system.address, &tabs.into()) else {
        return;
    };
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut judge = Judge::new(seed);
    system.publish(&mut Rng::with_seed(seed), Duration::from_millis(40));
    judge.all_live(&mut agent, 10).await;
    system.until_streams(1.0).await;

    // Six connections are all that a browser opens to one host: others are left.
    let asked = Instant::now();
    assert_eq!(agent.ask::<u16>("fetch tab-7 /nothing").await, 404);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());

    for end in ["close", "crash", "close", "reload", "leave", "crash"] {
        let gone: String = agent.ask(&format!("{end} leader 300")).await;
        let next: String = agent.ask("leader").await;
        if end == "close" || end == "crash" {
            assert_ne!(next, gone, "{end}");
            judge.all_live(&mut agent, 9).await;
            let _: String = agent.ask(&format!("open {gone}")).await;
        }
        // Who comes has the state at once.
        let came = Instant::now();
        judge.all_live(&mut agent, 10).await;
        assert!(came.elapsed() < SOON, "{end}: {:?}", came.elapsed());
        system.until_streams(1.0).await;
    }
    // One goes after the other, while the next has not come to its stream, and others come meanwhile.
    let mut gone = Vec::new();
    for _ in 0..6 {
        gone.push(agent.ask::<String>("close leader").await);
        if gone.len() > 3 {
            let come: Vec<String> = gone.drain(..2).map(|name| format!("open {name}")).collect();
            let come = json!([come[0], come[1], "close leader"]);
            let [_, _, left]: [String; 3] = agent.ask(&format!("together {come}")).await;
            gone.push(left);
        }
    }
    judge.all_live(&mut agent, 10 - gone.len()).await;
    system.until_streams(1.0).await;

    // The network goes and comes back, and ten tabs hear of it.
    let asked = |models: Vec<Told>| models.iter().map(|told| told.asked).sum::<u64>();
    let before = asked(judge.look(&mut agent).await);
    let _: String = agent.ask("offline 500").await;
    let after = asked(judge.all_live(&mut agent, 10 - gone.len()).await);
    assert!(after - before < 6, "{}", after - before);

    for told in judge.settle(&mut agent, &mut system).await {
        assert!(told.seen.events > 100, "{told:?}");
    }
    system.until_streams(1.0).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_hangs_is_robbed() {
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=500ms", &pages.origin]).await;
    let Some(mut agent) = pages.open(
        system.address,
        &json!({"tab-1": {"beat": 500}, "tab-2": {"beat": 500}, "tab-3": {"beat": 500, "keeps": "badly"}}),
    ) else {
        return;
    };
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut judge = Judge::new(seed);
    system.publish(&mut Rng::with_seed(seed), Duration::from_millis(40));
    judge.all_live(&mut agent, 3).await;
    let hung: String = agent.ask("hang leader 5000").await;
    let next: String = agent.ask("leader").await;
    assert_ne!(next, hung);
    judge.all_live(&mut agent, 3).await;
    system.until_streams(1.0).await;
    judge.settle(&mut agent, &mut system).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tab_that_is_robbed_before_it_leads_holds_no_stream() {
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=500ms", &pages.origin]).await;
    // No stream ends for its token, so that none that is too many is missed.
    let tab = json!({"beat": 500, "lasts": 3_600});
    let Some(mut agent) = pages.open(system.address, &json!({"tab-1": tab})) else {
        return;
    };
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut judge = Judge::new(seed);
    system.publish(&mut Rng::with_seed(seed), Duration::from_millis(40));
    for (count, next) in [(1, "tab-2"), (2, "tab-3")] {
        judge.all_live(&mut agent, count).await;
        let _: String = agent.ask(&format!("open {next} {tab}")).await;
    }
    judge.all_live(&mut agent, 3).await;
    // The second has the lock when it can do nothing with it, and the third takes it away.
    let _: String = agent.ask("pause tab-2 7000").await;
    let _: String = agent.ask("close tab-1").await;
    let _: String = agent.ask("hang tab-2 6500").await;
    assert_eq!(agent.ask::<String>("leader").await, "tab-3");
    judge.settle(&mut agent, &mut system).await;
    system.until_streams(1.0).await;
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tabs_share_only_what_is_theirs() {
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=1s", &pages.origin]).await;
    // Users have topics of their own, and where a browser lacks something each tab has its own stream.
    let tabs = json!({
        "alice": {"topics": ["count:1"]},
        "alice-again": {"topics": ["count:1"]},
        "bob": {"sub": "bob", "topics": ["count:2"]},
        "carol": {"sub": "carol", "topics": ["count:2"]},
        "no-locks": {"without": ["locks"]},
        "no-channel": {"without": ["BroadcastChannel"]},
    });
    let Some(mut agent) = pages.open(system.address, &tabs) else {
        return;
    };
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut judge = Judge::new(seed);
    system.publish(&mut Rng::with_seed(seed), Duration::from_millis(40));
    judge.all_live(&mut agent, 6).await;
    system.until_streams(5.0).await;
    for told in judge.settle(&mut agent, &mut system).await {
        let topics: Vec<&str> = told.counts.keys().map(String::as_str).collect();
        match told.name.as_str() {
            "alice" | "alice-again" => assert_eq!(topics, ["count:1"]),
            "bob" | "carol" => assert_eq!(topics, ["count:2"]),
            _ => assert_eq!(topics.len(), 4),
        }
    }
    agent.end().await;
}
