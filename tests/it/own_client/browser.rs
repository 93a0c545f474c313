//! The same in tabs of a browser, some of which share a stream, while people and machines do what they do to tabs.

use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::agent::Agent;
use super::judge::{Judge, Told};
use super::trouble::{System, TROUBLES, topics};
use crate::support::front::free_port;
use crate::support::gateway::SECRET;
use crate::support::{program, setting};

/// Where pages come from, and what a gateway has to know of it.
pub(super) struct Pages {
    port: u16,
    pub(super) origin: String,
}

impl Pages {
    pub(super) fn new() -> Pages {
        let port = free_port().port();
        Pages {
            port,
            origin: format!("--cors-origins=http://localhost:{port}"),
        }
    }

    /// A browser with these tabs, each with its own options.
    pub(super) fn open(&self, gateway: SocketAddr, tabs: &Value) -> Option<Agent> {
        let executable = program(&["chromium"], "chromium")?;
        let gateway = format!("http://{gateway}");
        let common = json!({
            "url": gateway,
            "secret": SECRET,
            "sub": "alice",
            "topics": topics(),
            "beat": 1_000,
        });
        let settings = json!({
            "executable": executable,
            "port": self.port,
            "gateway": gateway,
            "common": common,
            "tabs": tabs,
        });
        Agent::start("browser.js", &settings)
    }
}

/// How many things happen to tabs.
const HAPPENINGS: u8 = 10;

/// One of them, as the agent is told of it.
fn happening(number: u8, rng: &mut Rng) -> String {
    let moment = rng.u32(50..1_500);
    let tab = rng.u8(1..4);
    let leader = ["leader:tab", "leader:bare"][rng.usize(0..2)];
    match number {
        0 => format!("close {leader}"),
        1 => format!("crash {leader}"),
        2 => format!("reload {leader}"),
        3 => format!("leave {leader} {moment}"),
        4 => format!("leave tab-{tab} {moment}"),
        5 => format!("freeze {leader} {}", moment * 3),
        6 => format!("freeze tab-{tab} {}", moment * 3),
        7 => format!("offline {moment}"),
        8 => format!("show tab-{tab}"),
        _ => r#"together ["reload tab-1","reload tab-2","reload bare-1"]"#.into(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_equals_the_database_in_tabs_too() {
    let seconds = setting("TIDINGS_TEST_CLIENT_S", 60);
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let pages = Pages::new();
    let mut system = System::start(&["--heartbeat=1s", "--drain=1s", &pages.origin]).await;
    let tabs = json!({
        "tab-1": {}, "tab-2": {"feed": "slow"}, "tab-3": {"limit": 7},
        "bare-1": {"state": false}, "bare-2": {"state": false, "limit": 7},
        "plain": {"share": false},
    });
    let Some(mut agent) = pages.open(system.address, &tabs) else {
        return;
    };
    let mut judge = Judge::new(seed);
    judge.look(&mut agent).await;
    system.publish(&mut rng, Duration::from_millis(40));

    let end = Instant::now() + Duration::from_secs(seconds);
    let all = TROUBLES + HAPPENINGS + 3;
    // Everything happens once at least.
    let mut moves: Vec<u8> = (0..all).collect();
    while Instant::now() < end || !moves.is_empty() {
        let next = match moves.len() {
            0 => rng.u8(0..all),
            left => moves.swap_remove(rng.usize(0..left)),
        };
        let moment = Duration::from_millis(rng.u64(50..1_500));
        match next.checked_sub(TROUBLES) {
            None => system.trouble(next, moment).await,
            Some(0) => {
                // The machine sleeps.
                let _: String = agent.ask("stop").await;
                sleep(moment * 3).await;
                let _: String = agent.ask("continue").await;
            }
            Some(1) => {
                // It has slept until no gateway and no log knows what it has missed.
                let _: String = agent.ask("stop").await;
                system.forget(moment).await;
                let _: String = agent.ask("continue").await;
            }
            Some(2) => {
                // The leader hangs for so long that another takes the lead, and not only that happens.
                let trouble = system.trouble(rng.u8(0..TROUBLES), moment);
                let _: (String, ()) = tokio::join!(agent.ask("hang leader:tab 9000"), trouble);
            }
            Some(number) => {
                let command = happening(number - 3, &mut rng);
                let tab: Value = agent.ask(&command).await;
                if command.starts_with("close") || command.starts_with("crash") {
                    let name = tab.as_str().expect("which");
                    let _: String = agent.ask(&format!("open {name}")).await;
                }
            }
        }
        sleep(Duration::from_millis(rng.u64(100..800))).await;
        judge.look(&mut agent).await;
    }

    let models = judge.settle(&mut agent, &mut system).await;
    let resets = |name: &str| {
        let named = models.iter().filter(|told| told.name.starts_with(name));
        named.map(|told| told.seen.resets).sum::<u64>()
    };
    for Told {
        name, seen, counts, ..
    } in &models
    {
        let whole = seen.states > 0 && counts.len() == topics().len();
        let whole = whole || name.starts_with("bare");
        assert!(seen.events > 100 && whole, "{models:?}");
    }
    // A page that was loaded anew may have met none.
    assert!(resets("plain") > 0 && resets("tab") > 0, "{models:?}");
    assert!(agent.ask::<u32>("kept").await > 0, "no page was kept");
    // Those that share have one, those without state another, and who is alone its own.
    system.until_streams(3.0).await;
    agent.end().await;
}
