//! Pages that are rendered on the server with the cursor of their own snapshot: what is committed between
//! rendering and connecting is shown, and nothing is shown twice.

use serde_json::json;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::chromium::Chromium;
use super::driver::Driver;
use super::page::{Page, Pages};
use super::snippet;
use crate::support::backend::run;
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

/// The ways to read state and cursor together, by the names of their snippets.
const WAYS: [&str; 2] = ["statement", "transaction"];

#[tokio::test]
async fn a_rendered_page_shows_what_was_committed_before_it_connects() {
    let Some(chromium) = Chromium::find().await else {
        return;
    };
    let database = database();
    let backend = database.connect().await;
    let mut pages = Pages::bind().await;
    let origins = format!("--cors-origins={}", pages.origin());
    let gateway = Gateway::start_with(&database, &[&origins, "--cookie=session"]).await;
    run(
        &backend,
        "create table request (id int primary key, title text, answered_by text);
         insert into request values (7, 'A new lamp');
         select tidings.publish('request:7', 'request.opened')",
    )
    .await;

    // One that has published before the pages are rendered, and commits after it.
    let slow = database.connect().await;
    run(
        &slow,
        "begin; select tidings.publish('request:7', 'request.seen')",
    )
    .await;
    let cursors = [
        render(&backend, WAYS[0]).await,
        render(&backend, WAYS[1]).await,
    ];
    run(
        &backend,
        "begin;
         update request set answered_by = 'ann' where id = 7;
         select tidings.publish('request:7', 'request.answered', '{\"by\": \"ann\"}');
         commit",
    )
    .await;
    run(&slow, "commit").await;

    let events = format!("http://localhost:{}/v1/events", gateway.address().port());
    let tag = snippet("html-rendered").replace("/v1/events", &events);
    let page = |way: &str, cursor: &str| -> Page {
        let page = format!(
            "<!doctype html><script>
             const show = (event) => tell('{way}', event.type, JSON.stringify(event));
             </script>{}",
            tag.replace("{{ cursor }}", cursor)
        );
        Box::new(move || page.clone())
    };
    let cookie = token("alice", json!({"topics": ["request:7"]}));
    let frames = format!(
        "<!doctype html><script>document.cookie = 'session={cookie}'</script>
         <iframe src=/statement></iframe><iframe src=/transaction></iframe>"
    );
    let served: [(&str, Page); 3] = [
        ("/", Box::new(move || frames.clone())),
        ("/statement", page(WAYS[0], &cursors[0])),
        ("/transaction", page(WAYS[1], &cursors[1])),
    ];
    pages.serve(served, chromium.modules.clone());
    let command = chromium.open(&format!("{}/", pages.origin()));
    let mut driver = Driver::start("rendered", command, &[]);
    let shown = ["request.seen", "request.answered"];
    driver
        .until("what the page missed", |log| {
            let mut all = WAYS.iter().flat_map(|way| shown.map(|kind| (way, kind)));
            all.all(|(way, kind)| !log.of(way, kind).is_empty())
        })
        .await;
    run(
        &backend,
        "select tidings.publish('request:7', 'request.closed')",
    )
    .await;
    driver
        .until("what comes live", |log| {
            WAYS.iter()
                .all(|way| !log.of(way, "request.closed").is_empty())
        })
        .await;
    let log = driver.end().await;
    for way in WAYS {
        for kind in shown {
            assert_eq!(log.of(way, kind).len(), 1, "{way}: {kind}");
        }
        let opened = log.of(way, "request.opened");
        assert!(
            opened.is_empty(),
            "{way}: the page has had this: {opened:?}"
        );
    }
}

/// Reads a page's state and cursor in this way, as the page of documentation shows it; returns the cursor.
async fn render(backend: &Client, way: &str) -> String {
    let statements = snippet(&format!("sql-rendered-{way}"));
    let answer = backend
        .simple_query(&statements)
        .await
        .expect("it can be read");
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let mut cursor = None;
    let mut title = None;
    for row in rows {
        cursor = row.try_get("cursor").ok().flatten().or(cursor);
        title = row.try_get("title").ok().flatten().or(title);
    }
    assert_eq!(title, Some("A new lamp"));
    cursor.expect("it reads the cursor").to_owned()
}
