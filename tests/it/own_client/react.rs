//! The hooks for React, in a page of Chromium: what components show, and how long they are connected.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, sleep};

use super::agent::Agent;
use super::trouble::System;
use crate::support::backend::run;
use crate::support::client::PATIENCE;
use crate::support::front::free_port;
use crate::support::gateway::SECRET;
use crate::support::program;

/// What a component shows.
#[derive(Debug, Deserialize)]
struct Shown {
    is: String,
    state: Option<Value>,
    heard: Vec<String>,
}

struct Page {
    agent: Agent,
}

impl Page {
    async fn show(&mut self, views: &Value) {
        assert_eq!(
            self.agent.ask::<String>(&format!("show {views}")).await,
            "shown"
        );
    }

    /// Waits until what the components show is right.
    async fn until(
        &mut self,
        right: impl Fn(&BTreeMap<String, Shown>) -> bool,
    ) -> BTreeMap<String, Shown> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = self.agent.ask("look").await;
            if right(&shown) {
                return shown;
            }
            assert!(Instant::now() < deadline, "{shown:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components_show_what_is_true_over_one_connection_while_they_are_there() {
    let Some(chromium) = program(&["chromium"], "chromium") else {
        return;
    };
    let port = free_port().port();
    let system = System::start(&[
        "--heartbeat=1s",
        &format!("--cors-origins=http://localhost:{port}"),
    ])
    .await;
    let settings = json!({
        "executable": chromium, "port": port, "secret": SECRET,
        "url": format!("http://{}", system.address), "topics": ["count:*"],
    });
    let Some(agent) = Agent::start("react.js", &settings) else {
        return;
    };
    let mut page = Page { agent };
    let client = system.database.connect().await;
    let view = |id: &str, topic: &str| json!({"id": id, "topics": [topic]});
    let live = |shown: &BTreeMap<String, Shown>| {
        shown
            .values()
            .all(|shown| shown.is == "live" && shown.state.is_some())
    };

    let rendered: String = page.agent.ask("render").await;
    assert!(rendered.contains("connecting"), "{rendered}");
    assert_eq!(system.streams().await, 0.0);

    // Two want the same, and share it; strict mode mounts each twice.
    page.show(&json!([
        view("a", "count:1"),
        view("b", "count:1"),
        view("c", "count:2")
    ]))
    .await;
    let shown = page.until(live).await;
    assert_eq!(shown["a"].state, Some(json!({"count:1": {"n": 1}})));
    assert_eq!(system.streams().await, 2.0);
    run(
        &client,
        "select app.count('count:1'); select app.count('count:2'); select app.count('count:1')",
    )
    .await;
    let shown = page
        .until(|shown| shown["b"].heard.len() == 2 && !shown["c"].heard.is_empty())
        .await;
    for one in ["a", "b"] {
        assert_eq!(
            shown[one].state,
            Some(json!({"count:1": {"n": 3}})),
            "{one}"
        );
        assert_eq!(shown[one].heard, ["count:1 2", "count:1 3"], "{one}");
    }
    assert_eq!(shown["c"].heard, ["count:2 2"]);

    // Who comes later sees the same at once, and has not heard what was before.
    page.show(&json!([view("a", "count:1"), view("d", "count:1")]))
        .await;
    let shown = page.until(live).await;
    assert_eq!(shown["d"].state, shown["a"].state);
    assert!(shown["d"].heard.is_empty());
    system.until_streams(1.0).await;

    // Another topic is another connection; the old one goes with its last component.
    page.show(&json!([view("a", "count:2")])).await;
    let shown = page.until(live).await;
    assert_eq!(shown["a"].state, Some(json!({"count:2": {"n": 2}})));
    system.until_streams(1.0).await;
    page.show(&json!([])).await;
    system.until_streams(0.0).await;

    // And back again, with what has happened meanwhile.
    run(&client, "select app.count('count:1')").await;
    page.show(&json!([view("a", "count:1")])).await;
    let shown = page.until(live).await;
    assert_eq!(shown["a"].state, Some(json!({"count:1": {"n": 4}})));
    page.agent.end().await;
}
