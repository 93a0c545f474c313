//! Proxies: the snippets of `docs/operations.md`, run as they stand there before a real gateway.
//!
//! Each is taken out of the page, given ports and a certificate of the test's own, and started with
//! the real program. Through it, a stream must come at once and be resumed; and when the gateway is
//! gone, the stream's route must still answer 200 with a `retry:`, while everything else fails.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::Command;

use crate::support::client::{PATIENCE, Stream, Visit};
use crate::support::front::{Scratch, free_port, listens, snippet};
use crate::support::gateway::{Gateway, token};
use crate::support::interface::Server;
use crate::support::postgres::database;
use crate::support::program;

/// What a client calls soon: proxies that collect an answer first would take for ever.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn streams_pass_nginx() {
    stands_before_a_gateway(|scratch, gateway| {
        let plain = free_port();
        let snippet = snippet("nginx")
            .replace("127.0.0.1:8080", &gateway.to_string())
            .replace(
                "listen 443 ssl http2;",
                &format!("listen {} ssl http2; listen {plain};", free_port()),
            )
            .replace("/etc/ssl/app.example.org", &scratch.certificate());
        let directory = scratch.0.display();
        // Where nginx keeps bodies is fixed when it is built, and may not be ours to write.
        let kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|part| format!("{part}_temp_path {directory}/{part};"))
            .join("\n");
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {directory}/pid;\nevents {{}}\n\
             http {{\naccess_log off;\n{kept}\n{snippet}\n}}\n"
        );
        let mut command = Command::new(program(&["nginx"], "nginx-light")?);
        command.args(["-e", "stderr", "-c"]);
        command.arg(scratch.write("nginx.conf", &whole));
        Some((command, plain))
    })
    .await;
}

#[tokio::test]
async fn streams_pass_caddy() {
    stands_before_a_gateway(|scratch, gateway| {
        let plain = free_port();
        let snippet = snippet("caddy")
            .replace("127.0.0.1:8080", &gateway.to_string())
            .replacen("app.example.org", &format!("http://{plain}"), 1);
        let whole = format!("{{\n\tadmin off\n}}\n{snippet}");
        let mut command = Command::new(program(&["caddy"], "caddy")?);
        command.args(["run", "--adapter", "caddyfile", "--config"]);
        command.arg(scratch.write("Caddyfile", &whole));
        for variable in ["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
            command.env(variable, &scratch.0);
        }
        Some((command, plain))
    })
    .await;
}

#[tokio::test]
async fn streams_pass_haproxy() {
    stands_before_a_gateway(|scratch, gateway| {
        let plain = free_port();
        let snippet = snippet("haproxy")
            .replace("127.0.0.1:8080", &gateway.to_string())
            .replace(
                "bind :443",
                &format!("bind {plain}\n    bind {}", free_port()),
            )
            .replace("/etc/ssl/app.example.org", &scratch.certificate());
        let mut command = Command::new(program(&["haproxy"], "haproxy")?);
        command.args(["-db", "-f"]);
        command.arg(scratch.write("haproxy.cfg", &snippet));
        Some((command, plain))
    })
    .await;
}

/// What every snippet promises. `configure` makes the command of a proxy before the gateway at this
/// address, where it is installed, and says where the proxy listens without TLS.
async fn stands_before_a_gateway(
    configure: impl FnOnce(&Scratch, SocketAddr) -> Option<(Command, SocketAddr)>,
) {
    let database = database();
    let gateway = Gateway::start(&database).await;
    let scratch = Scratch::new();
    let Some((mut command, proxy)) = configure(&scratch, gateway.address()) else {
        return;
    };
    let mut running = command
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    listens(&mut running, proxy).await;
    let backend = database.connect().await;
    let publish = async || {
        let row = backend
            .query_one("select tidings.publish('user:alice', 'paid')", &[])
            .await;
        row.expect("publishes").get::<_, i64>(0)
    };

    let asked = Instant::now();
    let mut alice = open(proxy, None).await;
    alice.ready().await;
    assert!(asked.elapsed() < SOON, "ready after {:?}", asked.elapsed());

    let published = Instant::now();
    let first = publish().await;
    assert_eq!(alice.event().await["id"], first.to_string());
    let late = published.elapsed();
    assert!(late < SOON, "an event came after {late:?}");

    let cursor = alice.cursor().to_owned();
    drop(alice);
    let missed = publish().await;
    let mut alice = open(proxy, Some(&cursor)).await;
    let (replayed, ready) = alice.replay().await;
    assert_eq!(replayed, [missed]);
    assert_eq!(ready["resumed"], true);

    gateway.stop().await;
    assert!(
        ends(&mut alice).await,
        "an open stream ends with its gateway"
    );
    let mut alice = open(proxy, Some(&cursor)).await;
    let allowed = alice.header("access-control-allow-origin");
    assert_eq!(allowed, Some("https://page.example.org"));
    let bye = alice.wait_for("tidings.bye").await;
    assert_eq!(bye.json(), json!({"reason": "unavailable"}));
    assert_eq!(alice.retry(), Some(5000));
    assert_eq!(alice.next().await, None, "the stream ends with its bye");

    let event = json!({"topic": "user:alice", "type": "paid"});
    let published = visit(proxy, "POST", "/v1/events").json(&event).send();
    let status = published.await.status;
    assert!((502..=504).contains(&status), "a publish got {status}");
    let synced = visit(proxy, "GET", "/v1/sync").send().await.status;
    assert!((502..=504).contains(&synced), "a sync got {synced}");
}

/// A request to the proxy.
fn visit(proxy: SocketAddr, method: &str, target: &str) -> Visit {
    Visit::new(proxy, method, target).of(Server::Proxy)
}

/// Opens Alice's stream through the proxy, from a page of another origin.
async fn open(proxy: SocketAddr, since: Option<&str>) -> Stream {
    let mut visit = visit(proxy, "GET", "/v1/events?topic=user:alice")
        .header("origin", "https://page.example.org")
        .bearer(&token("alice", json!({})));
    if let Some(since) = since {
        visit = visit.header("last-event-id", since);
    }
    visit.stream().await
}

/// Whether the stream ends, whatever it still says.
async fn ends(stream: &mut Stream) -> bool {
    let end = async { while stream.next().await.is_some() {} };
    tokio::time::timeout(PATIENCE, end).await.is_ok()
}
