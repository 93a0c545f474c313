//! What libraries do by themselves, where the snippets of `docs/clients.md` do something about it. When one of
//! these tests fails, a library has become better, and its snippet may become shorter.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};
use tidings::config::Config;
use tokio::process::Command;

use super::chromium::Chromium;
use super::cut::{Cut, Cutter, Manner, Place};
use super::driver::{Driver, Log, Route};
use super::page::Pages;
use super::{installed, snippet};
use crate::support::backend::run;
use crate::support::client::PATIENCE;
use crate::support::front::{Scratch, free_port};
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;
use crate::support::program;

const PUBLISH: &str = "select tidings.publish('news', 'said', '{\"by\": \"änn\"}')";

fn cut(place: Place) -> Cut {
    Cut {
        mark: "\"said\"",
        place,
        manner: Manner::Closed,
    }
}

fn route(name: &str, cutter: &Cutter) -> Route {
    Route {
        name: name.to_owned(),
        url: format!("http://{}/v1/events?topic=news", cutter.address()),
        token: token("alice", json!({"topics": ["news"]})),
    }
}

#[tokio::test]
async fn sseclient_takes_half_a_block_for_a_whole_one() {
    let Some(python) = installed::python().await else {
        return;
    };
    let database = database();
    let gateway = Gateway::start(&database).await;
    let cutter = Cutter::start(gateway.address(), cut(Place::WithinData)).await;
    let workshop = Scratch::new();
    let script = workshop.write("bare.py", include_str!("drivers/bare.py"));
    let mut command = Command::new(python);
    command.arg(script);
    let mut driver = Driver::start("sseclient", command, &[route("bare", &cutter)]);
    let connected = async {
        while gateway.streams().await < 1.0 {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, connected).await;
    waited.expect("it connects");
    run(&database.connect().await, PUBLISH).await;
    driver
        .until("the end", |log| !log.of("bare", "ended").is_empty())
        .await;
    let log = driver.end().await;
    let [half] = log.of("bare", "message")[..] else {
        panic!("{:?}", log.of("bare", "message"));
    };
    let half = half.as_str().expect("a text");
    assert!(serde_json::from_str::<Value>(half).is_err(), "{half}");
}

#[tokio::test]
async fn rusts_eventsource_client_forgets_its_cursor_at_a_good_bye_without_one() {
    let database = database();
    let backend = database.connect().await;
    let address = free_port();
    let at = |config: &mut Config| config.listen = address;
    let gateway = Gateway::start_changed(&database.url(), &["--drain=1s"], at).await;
    let cutter = Cutter::start(address, cut(Place::After)).await;
    let Some(program) = installed::rust(&snippet("rust-eventsource-client")).await else {
        return;
    };
    let mut driver = Driver::start("rust", Command::new(program), &[route("bare", &cutter)]);
    let count =
        |kind: &'static str, count: usize| move |log: &Log| log.of("bare", kind).len() >= count;
    driver.until("ready", count("tidings.ready", 1)).await;
    run(&backend, PUBLISH).await;
    cutter.has_cut().await;
    driver.until("an event", count("message", 1)).await;
    gateway.drain().await;
    cutter.release();
    cutter.has_excused().await;
    run(&backend, PUBLISH).await;
    let _gateway = Gateway::start_changed(&database.url(), &[], at).await;
    driver.until("ready again", count("tidings.ready", 2)).await;
    let log = driver.end().await;
    assert_eq!(log.of("bare", "tidings.ready")[1]["resumed"], false);
    assert_eq!(
        log.of("bare", "message").len(),
        1,
        "the second event is lost"
    );
}

#[tokio::test]
async fn fetch_event_source_takes_a_clean_end_for_the_end() {
    let Some(chromium) = Chromium::find().await else {
        return;
    };
    let database = database();
    let mut pages = Pages::bind().await;
    let origins = format!("--cors-origins={}", pages.origin());
    let gateway = Gateway::start_with(&database, &[&origins]).await;
    let cutter = Cutter::start(gateway.address(), cut(Place::After)).await;
    let page = r#"<!doctype html>
<script type="module">
import { fetchEventSource } from "/modules/@microsoft/fetch-event-source/lib/esm/index.js";
window.start = async ([route, url, token]) => {
  const headers = { authorization: `Bearer ${token}` };
  const onmessage = (block) => tell(route, block.event || "message", block.data);
  await fetchEventSource(url, { headers, onmessage });
  tell(route, "ended", "null");
};
</script>"#;
    let page = Box::new(|| page.to_owned());
    pages.serve([("/", page)], chromium.modules.clone());
    let command = chromium.open(&format!("{}/", pages.origin()));
    let mut driver = Driver::start("fetch-event-source", command, &[route("bare", &cutter)]);
    driver
        .until("ready", |log| !log.of("bare", "tidings.ready").is_empty())
        .await;
    run(&database.connect().await, PUBLISH).await;
    driver
        .until("the end", |log| !log.of("bare", "ended").is_empty())
        .await;
    driver.end().await;
}

#[tokio::test]
async fn eventsource_stops_at_a_401_and_eventsource_client_never_does() {
    let (Some(node), Some(modules)) = (
        program(&["node"], "nodejs"),
        installed::node_modules().await,
    ) else {
        return;
    };
    let database = database();
    let gateway = Gateway::start(&database).await;
    let workshop = Scratch::new();
    let script = workshop.write("bare.mjs", include_str!("drivers/bare.mjs"));
    symlink(modules, workshop.0.join("node_modules")).expect("a link can be made");
    let mut command = Command::new(node);
    command.arg(script);
    let route = Route {
        name: "bare".to_owned(),
        url: format!("http://{}/v1/events?topic=news", gateway.address()),
        token: String::new(),
    };
    let mut driver = Driver::start("node", command, &[route]);
    driver
        .until("a second attempt", |log| {
            log.of("eventsource-client", "status").len() >= 2
        })
        .await;
    let log = driver.end().await;
    assert_eq!(
        log.of("eventsource-client", "status")[..2],
        [&json!(401), &json!(401)]
    );
    assert_eq!(log.of("eventsource", "status"), [&json!(401)]);
    assert_eq!(log.of("eventsource", "error"), [&json!([401, 2])]);
}
