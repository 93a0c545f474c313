//! A store that is fed by the client equals the database's own answer after whatever has happened.

use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use super::judge::{Judge, Seen};
use super::trouble::{System, TROUBLES, topics};
use crate::support::gateway::SECRET;
use crate::support::setting;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_equals_the_database_whatever_happens() {
    let seconds = setting("TIDINGS_TEST_CLIENT_S", 60);
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let mut system = System::start(&["--heartbeat=1s", "--drain=1s"]).await;
    let url = format!("http://{}", system.address);
    let settings = json!({"url": url, "secret": SECRET, "topics": topics()});
    let (Some(mut agent), Some(mut native)) = (
        Agent::start("agent.js", &settings),
        Agent::start("native.js", &settings),
    ) else {
        return;
    };
    let mut judge = Judge::new(seed);
    judge.look(&mut agent).await;
    system.publish(&mut rng, Duration::from_millis(40));

    let end = Instant::now() + Duration::from_secs(seconds);
    // Everything happens once at least.
    let mut moves: Vec<u8> = (0..TROUBLES + 3).collect();
    while Instant::now() < end || !moves.is_empty() {
        let next = match moves.len() {
            0 => rng.u8(0..TROUBLES + 3),
            left => moves.swap_remove(rng.usize(0..left)),
        };
        let moment = Duration::from_millis(rng.u64(50..1_500));
        match next.checked_sub(TROUBLES) {
            None => system.trouble(next, moment).await,
            Some(0) => {
                // Programs sleep, for longer than a stream may be silent, and their tokens expire.
                for agent in [&agent, &native] {
                    agent.signal("STOP").await;
                }
                sleep(moment * 3).await;
                for agent in [&agent, &native] {
                    agent.signal("CONT").await;
                }
            }
            Some(1) => {
                // They have slept until no gateway and no log knows what they have missed.
                for agent in [&agent, &native] {
                    agent.signal("STOP").await;
                }
                system.forget(moment).await;
                for agent in [&agent, &native] {
                    agent.signal("CONT").await;
                }
            }
            Some(_) => assert_eq!(agent.ask::<String>("restart").await, "restarted"),
        }
        sleep(Duration::from_millis(rng.u64(200..2_500))).await;
        judge.look(&mut agent).await;
        judge.look(&mut native).await;
    }

    let mut models = judge.settle(&mut agent, &mut system).await;
    models.extend(judge.settle(&mut native, &mut system).await);
    for told in models {
        let Seen {
            events,
            states,
            resets,
            opened,
        } = told.seen;
        assert_eq!(told.counts.len(), topics().len(), "{told:?}");
        assert!(states > 0 && resets > 0, "{told:?}");
        // One that polls every five seconds may be told more by states than by events.
        assert!(events > 100 || told.name == "native", "{told:?}");
        assert!(opened > 1 || told.name != "restarts", "{told:?}");
    }
    agent.end().await;
    native.end().await;
}
