//! A store that is fed by the client equals the database's own answer after whatever has happened.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use super::trouble::{System, TOPICS};
use crate::support::gateway::SECRET;
use crate::support::setting;

/// How long clients may take to come back once all is calm: waits between attempts grow to half a minute.
const SETTLING: Duration = Duration::from_secs(60);

/// What a model tells of itself.
#[derive(Debug, Deserialize)]
struct Told {
    name: String,
    counts: BTreeMap<String, i64>,
    wrong: Vec<String>,
    seen: Seen,
    status: Status,
    statuses: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Seen {
    events: u64,
    states: u64,
    resets: u64,
    opened: u64,
}

#[derive(Debug, Deserialize)]
struct Status {
    is: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_equals_the_database_whatever_happens() {
    let seconds = setting("TIDINGS_TEST_CLIENT_S", 60);
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let mut system = System::start(&["--heartbeat=1s", "--drain=1s"]).await;
    let topics: Vec<String> = (1..=TOPICS).map(|n| format!("count:{n}")).collect();
    let url = format!("http://{}", system.address);
    let settings = json!({"url": url, "secret": SECRET, "topics": topics});
    let Some(mut agent) = Agent::start("agent.js", &settings) else {
        return;
    };
    let _: Vec<Told> = agent.ask("look").await;
    system.publish(&mut rng, Duration::from_millis(40));

    let end = Instant::now() + Duration::from_secs(seconds);
    let mut history = BTreeMap::<String, BTreeMap<String, u32>>::new();
    // Everything happens once at least.
    let mut moves: Vec<u8> = (0..8).collect();
    while Instant::now() < end || !moves.is_empty() {
        let next = match moves.len() {
            0 => rng.u8(0..8),
            left => moves.swap_remove(rng.usize(0..left)),
        };
        let moment = Duration::from_millis(rng.u64(50..1_500));
        match next {
            0 => {
                system.kill_gateway();
                sleep(moment).await;
                system.start_gateway();
            }
            1 => system.replace_gateway().await,
            2 => system.end_sessions().await,
            3 => system.crash_server(moment).await,
            4 => system.trim().await,
            5 => {
                // The program sleeps, for longer than a stream may be silent, and its tokens expire.
                agent.signal("STOP").await;
                sleep(moment * 3).await;
                agent.signal("CONT").await;
            }
            6 => {
                // It has slept until no gateway and no log knows what it has missed.
                agent.signal("STOP").await;
                system.kill_gateway();
                sleep(moment).await;
                system.trim().await;
                system.trim().await;
                system.start_gateway();
                agent.signal("CONT").await;
            }
            _ => assert_eq!(agent.ask::<String>("restart").await, "restarted"),
        }
        sleep(Duration::from_millis(rng.u64(200..2_500))).await;
        for told in agent.ask::<Vec<Told>>("look").await {
            assert!(told.wrong.is_empty(), "seed {seed}: {told:?}");
            let known = history.entry(told.name).or_default();
            for status in told.statuses {
                *known.entry(status).or_default() += 1;
            }
        }
    }

    let counts: BTreeMap<String, i64> = system.settle().await.into_iter().collect();
    let deadline = Instant::now() + SETTLING;
    loop {
        let told: Vec<Told> = agent.ask("look").await;
        let settled = told
            .iter()
            .all(|told| told.counts == counts && told.status.is == "live");
        assert!(
            told.iter().all(|told| told.wrong.is_empty()),
            "seed {seed}: {told:?}"
        );
        if settled {
            for told in &told {
                println!("{}: {:?}, {:?}", told.name, told.seen, history[&told.name]);
                let Seen {
                    events,
                    states,
                    resets,
                    opened,
                } = told.seen;
                assert!(events > 100 && states > 0 && resets > 0, "{told:?}");
                assert!(opened > 1 || told.name != "restarts", "{told:?}");
            }
            break;
        }
        assert!(
            Instant::now() < deadline,
            "seed {seed}: not {counts:?}: {told:?}, {history:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
    agent.end().await;
}
