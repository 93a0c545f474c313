//! Tokens and tickets that expire while a native `EventSource` of Chromium follows a stream: it gives up for
//! good after a 401, and the page goes on with a new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::chromium::Chromium;
use super::cut::{Cut, Cutter, Manner, Place};
use super::driver::{Driver, Log};
use super::page::{Page, Pages};
use super::snippet;
use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

/// How long a token lasts, in seconds.
const LIFE: u64 = 4;
/// Whose ticket is told to expire, whose expires while nobody can be told, and whose cookie expires.
const ROUTES: [&str; 3] = ["ticket", "cut", "cookie"];

/// Tokens that soon expire, and when the last of them does.
#[derive(Clone, Default)]
struct Issuer(Arc<AtomicU64>);

impl Issuer {
    fn issue(&self) -> String {
        let exp = now() + LIFE;
        self.0.store(exp, Ordering::SeqCst);
        token("alice", json!({"exp": exp}))
    }

    /// Waits until what was issued so far has expired.
    async fn all_is_over(&self) {
        let last = self.0.load(Ordering::SeqCst);
        while now() <= last {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

#[tokio::test]
async fn a_page_renews_its_ticket_or_its_cookie_and_misses_nothing() {
    let Some(chromium) = Chromium::find().await else {
        return;
    };
    let database = database();
    let backend = database.connect().await;
    let mut pages = Pages::bind().await;
    let origins = format!("--cors-origins={}", pages.origin());
    let gateway = Gateway::start_with(&database, &[&origins, "--cookie=session"]).await;
    let cut = Cut {
        mark: "cut.live",
        place: Place::After,
        manner: Manner::Closed,
    };
    let cutter = Cutter::start(gateway.address(), cut).await;
    let page = PAGE
        .replace("RENEW", &snippet("js-renew"))
        .replace("TICKET", &snippet("js-ticket"))
        .replace(
            "GATEWAY",
            &format!("http://localhost:{}", gateway.address().port()),
        )
        .replace(
            "CUTTER",
            &format!("http://localhost:{}", cutter.address().port()),
        );
    let issuer = Issuer::default();
    let issues = issuer.clone();
    let served: [(&str, Page); 2] = [
        ("/", Box::new(move || page.clone())),
        ("/token", Box::new(move || issues.issue())),
    ];
    pages.serve(served, chromium.modules.clone());
    let command = chromium.open(&format!("{}/", pages.origin()));
    let mut driver = Driver::start("renewal", command, &[]);
    let all = |log: &Log, kind: &str, count: usize| {
        ROUTES
            .iter()
            .all(|route| log.of(route, kind).len() >= count)
    };
    let mut published = Vec::new();
    let mut publish = async |kind: &str| {
        let statement = "select tidings.publish('user:alice', $1)";
        let row = backend.query_one(statement, &[&kind]).await;
        published.push(row.expect("publishes").get::<_, i64>(0).to_string());
    };

    driver
        .until("ready", |log| all(log, "tidings.ready", 1))
        .await;
    publish("said").await;
    publish("cut.live").await;
    cutter.has_cut().await;
    driver
        .until("expired", |log| {
            is_told(log, "ticket") && is_told(log, "cookie")
        })
        .await;
    publish("away").await;
    issuer.all_is_over().await;
    cutter.release();
    driver
        .until("all of it", |log| all(log, "message", 3))
        .await;
    publish("last").await;
    driver
        .until("the last event", |log| all(log, "message", 4))
        .await;

    let log = driver.end().await;
    for route in ROUTES {
        let heard = log.of(route, "message");
        let ids: Vec<&str> = heard
            .iter()
            .filter_map(|event| event["id"].as_str())
            .collect();
        assert_eq!(ids, published, "{route}");
    }
    // Whoever was not told has met the 401.
    assert!(
        log.of("cut", "state").contains(&&json!(2)),
        "{:?}",
        log.of("cut", "state")
    );
}

fn is_told(log: &Log, route: &str) -> bool {
    let byes = log.of(route, "tidings.bye");
    byes.iter().any(|bye: &&Value| bye["reason"] == "expired")
}

/// A page that follows one stream by each route, and tells in which state an error leaves each.
const PAGE: &str = r#"<!doctype html>
<script>
class Watched extends EventSource {
  constructor(url, init) {
    super(url, init);
    const route = new URL(url).searchParams.get("route");
    this.addEventListener("error", () => tell(route, "state", String(this.readyState)));
  }
}
</script>
<script type="module">
const EventSource = Watched;
RENEW
TICKET
const hear = (route) => (kind, data) => tell(route, kind, data);
for (const [route, gateway] of [["ticket", "GATEWAY"], ["cut", "CUTTER"]]) {
  follow(() => withTicket(gateway, `topic=user:alice&route=${route}`), hear(route));
}
follow(async () => {
  document.cookie = `session=${await (await fetch("/token")).text()}`;
  return "GATEWAY/v1/events?topic=user:alice&route=cookie";
}, hear("cookie"));
</script>
"#;
