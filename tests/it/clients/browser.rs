//! Clients in a browser: the native `EventSource` of Chromium, and `@microsoft/fetch-event-source` in it.

use super::chromium::Chromium;
use super::cut::Place;
use super::journey::{Traveller, travel};
use super::page::Pages;
use super::snippet;
use crate::support::gateway::token;
use serde_json::json;

/// How a page follows routes without a header: a cookie says who it is.
const BY_COOKIE: &str = "for (const [route, url] of routes) {
    follow(url, (kind, data) => tell(route, kind, data));
}";
/// How a page follows routes with a token.
const BY_TOKEN: &str = "for (const [route, url, token] of routes) {
    follow(url, token, (kind, data) => tell(route, kind, data));
}";

/// By itself, fetch-event-source sends the cursor of the last `id:` line that it has read. Every block ends
/// with that line, so that only what is cut before the very last byte is lost.
#[tokio::test]
async fn eventsource_and_fetch_event_source_miss_nothing() {
    let native = snippet("js-native");
    let fetching = snippet("js-fetch-event-source");
    tokio::join!(
        travels("native", &native, BY_COOKIE, &[]),
        travels("fetch-event-source", &fetching, BY_TOKEN, &[]),
        travels("bare", BARE, BY_TOKEN, &[Place::BeforeEmptyLine]),
    );
}

/// fetch-event-source with no more than it takes to come back at all.
const BARE: &str = r#"
import { fetchEventSource } from "@microsoft/fetch-event-source";

const follow = (url, token, hear) => fetchEventSource(url, {
    headers: { authorization: `Bearer ${token}` },
    onmessage: (block) => hear(block.event || "message", block.data),
    onclose() { throw new Error(); },
});
"#;

async fn travels(name: &'static str, snippet: &str, start: &str, loses: &'static [Place]) {
    let Some(chromium) = Chromium::find().await else {
        return;
    };
    let mut pages = Pages::bind().await;
    let cookie = token("traveller", json!({"topics": ["news"]}));
    let page = format!(
        r#"<!doctype html>
<script type="importmap">
{{ "imports": {{ "@microsoft/fetch-event-source": "/modules/@microsoft/fetch-event-source/lib/esm/index.js" }} }}
</script>
<script type="module">
{}
document.cookie = "session={cookie}";
window.start = (given) => {{
    const routes = [];
    for (let at = 0; at < given.length; at += 3) routes.push(given.slice(at, at + 3));
    {start}
}};
</script>
"#,
        snippet
    );
    pages.serve(
        [("/", Box::new(move || page.clone()))],
        chromium.modules.clone(),
    );
    let origins = format!("--cors-origins={}", pages.origin());
    let command = chromium.open(&format!("{}/", pages.origin()));
    travel(Traveller {
        host: "localhost",
        flags: vec![origins, "--cookie=session".to_owned()],
        loses,
        ..Traveller::new(name, command)
    })
    .await;
}
