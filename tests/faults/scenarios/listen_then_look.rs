//! What no load can show, in a system where nothing happens: a session that listens anew has committed LISTEN
//! before the look that catches up, and a session that looks anew verifies first. The server's log is witness.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use tokio::time::sleep;

use crate::rig::backends::kill_backend;
use crate::room;
use crate::support::backend::{cursor, publish, run, until};
use crate::support::postgres::{OwnCluster, own_cluster};
use crate::support::process::Process;

/// The server notes every statement, by whom, and when it was done.
const NOTED: [(&str, &str); 4] = [
    ("fsync", "off"),
    ("log_statement", "all"),
    ("log_duration", "on"),
    ("log_line_prefix", "%n|%a|%p|"),
];

/// A line of the server's log.
struct Line {
    /// Seconds since 1970.
    at: f64,
    session: String,
    pid: String,
    text: String,
}

fn log(server: &OwnCluster) -> Vec<Line> {
    let log = fs::read_to_string(server.cluster.log()).expect("the server's log");
    let lines = log.lines().filter_map(|line| {
        let mut parts = line.splitn(4, '|');
        Some(Line {
            at: parts.next()?.parse().ok()?,
            session: parts.next()?.to_owned(),
            pid: parts.next()?.to_owned(),
            text: parts.next()?.to_owned(),
        })
    });
    lines.collect()
}

/// Whatever a look asks first: for the snapshot, for a glance, or for all of it.
fn is_look(line: &Line) -> bool {
    ["look: ", "glance: ", "snapshot of now"]
        .into_iter()
        .any(|kind| asks_for(line, kind))
}

fn asks_for(line: &Line, what: &str) -> bool {
    line.session == "tidings/tail" && line.text.contains(&format!(": -- The {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listen_is_committed_before_the_look_that_catches_up() {
    const ROUNDS: usize = 6;
    let _room = room::beside_others().await;
    let server = tokio::task::block_in_place(|| own_cluster(&NOTED));
    let database = tokio::task::block_in_place(|| server.database());
    let _gateway = Process::serve(&database, &[]);
    let backend = database.connect().await;
    let listening =
        "application_name = 'tidings/listener' and query like 'listen%' and state = 'idle'";
    let all = "select count(*) from pg_stat_activity where application_name = 'tidings/listener'";
    for _ in 0..ROUNDS {
        until(
            &backend,
            &format!("select exists (select from pg_stat_activity where {listening})"),
        )
        .await;
        // Two looks for want of a bell.
        sleep(Duration::from_millis(2_000 + fastrand::u64(0..900))).await;
        let end = format!(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity where {listening}"
        );
        run(&backend, &end).await;
        until(&backend, &format!("select ({all}) = 1")).await;
    }
    sleep(Duration::from_secs(2)).await;

    // Nobody publishes and nobody comes, so that two looks are a second apart at least, but for one
    // that a bell called for; and nobody rings but the listener itself.
    let lines = log(&server);
    let mut caught_up = 0;
    let mut listened = 0;
    for (place, line) in lines.iter().enumerate() {
        if line.session != "tidings/listener" || !line.text.contains("statement: listen ") {
            continue;
        }
        let done = lines[place..]
            .iter()
            .position(|other| other.pid == line.pid && other.text.starts_with("LOG:  duration: "));
        let committed = place + done.expect("LISTEN is done");
        let before = lines[..committed].iter().rfind(|line| is_look(line));
        let after = lines[committed..].iter().find(|line| is_look(line));
        let (Some(before), Some(after)) = (before, after) else {
            continue;
        };
        listened += 1;
        caught_up += usize::from(after.at - before.at < 0.99);
    }
    assert!(listened >= ROUNDS, "{listened}");
    assert!(
        caught_up > listened / 2,
        "after {listened} LISTENs only {caught_up} looks came before their time"
    );
    println!("after {listened} LISTENs {caught_up} looks caught up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_backend_was_killed_the_newest_event_is_verified_and_the_window_is_empty() {
    let _room = room::beside_others().await;
    let server = tokio::task::block_in_place(|| own_cluster(&NOTED));
    let database = tokio::task::block_in_place(|| server.database());
    let gateway = Process::serve(&database, &[]);
    let replays = async |source: &str| {
        let name = format!("tidings_replays_total{{source=\"{source}\"}}");
        gateway.metric(&name).await
    };
    let mut backend = database.connect().await;
    let start = cursor(&backend).await;
    let mut live = gateway.subscribe(&["t"]).await;
    let mut ids = Vec::new();
    for round in 1..=3 {
        ids.push(publish(&backend, "t").await);
        assert_eq!(live.ids(1).await, ids[ids.len() - 1..]);
        let newest = ids[ids.len() - 1].to_string();
        if round == 1 {
            let (replayed, _) = gateway.resume(&["t"], Some(&start)).await.replay().await;
            assert_eq!(replayed, ids);
            assert_eq!(
                (replays("window").await, replays("database").await),
                (1.0, 0.0)
            );
        }

        let victim = ["tidings/tail", "tidings/listener", ""][round - 1];
        let another = database.connect().await;
        kill_backend(&server.cluster, another, victim).await;
        let (replayed, _) = gateway.resume(&["t"], Some(&start)).await.replay().await;
        assert_eq!(replayed, ids);
        assert_eq!(replays("window").await, 1.0, "the window is empty");
        assert_eq!(replays("database").await, round as f64);
        backend = loop {
            match database.try_connect().await {
                Ok(client) => break client,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        };
        let latest = first_looks(&server).pop().expect("there are looks");
        assert!(latest.contains("$4 = 't'"), "not verified: {latest}");
        let asked = format!("$3 = '{newest}'");
        assert!(latest.contains(&asked), "not of event {newest}: {latest}");
    }
    // The stream has been open all the while.
    ids.push(publish(&backend, "t").await);
    assert_eq!(live.ids(1).await, ids[ids.len() - 1..]);
    assert_eq!(first_looks(&server).len(), 4, "one session after each");
}

/// With which parameters each session that looks has looked first; no later look of it verifies.
fn first_looks(server: &OwnCluster) -> Vec<String> {
    let lines = log(server);
    let mut firsts = Vec::new();
    let mut looking = HashSet::<&str>::new();
    for (place, line) in lines.iter().enumerate().filter(|(_, line)| is_look(line)) {
        let first = !looking.contains(line.pid.as_str());
        let whole = asks_for(line, "look: ");
        assert!(whole || !first, "only a look verifies: {}", line.text);
        if !whole {
            continue;
        }
        let detail = lines[place + 1..].iter().find(|next| next.pid == line.pid);
        // The log may end between a statement and its parameters.
        let Some(detail) = detail else { continue };
        assert!(detail.text.starts_with("DETAIL:"), "{}", detail.text);
        if first {
            looking.insert(&line.pid);
            firsts.push(detail.text.clone());
        } else {
            assert!(detail.text.contains("$4 = 'f'"), "{}", detail.text);
        }
    }
    firsts
}
