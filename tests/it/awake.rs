//! Being awake: a gateway that is rung often silences the bell and looks by itself, for the others as well, and gives
//! that up when little comes, when its session is lost, and when it ends. Whatever it does, each event
//! comes once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use crate::support::backend::{publish, run, until};
use crate::support::client::PATIENCE;
use crate::support::gateway::{Door, Gateway};
use crate::support::postgres::{Database, database};

/// Whether a session of this name holds the lock of whoever is awake.
const HELD: &str = "select exists (select from pg_locks l join pg_stat_activity a using (pid)
    where l.locktype = 'advisory' and l.mode = 'ExclusiveLock' and l.granted
      and (l.classid::bigint << 32 | l.objid::bigint) = 8386654097862812519
      and a.datname = current_database() and a.application_name = 'tidings/tail')";

/// Bells a second that wake: few, so that a gateway stays awake also where a busy machine makes traffic slow.
const RATE: &str = "--awake=20";

/// Commits that come one after the other, several hundred a second.
struct Traffic {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<i64>>,
}

impl Traffic {
    async fn begin(database: &Database) -> Traffic {
        let (client, stop) = (database.connect().await, Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut ids = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                ids.push(publish(&client, "t").await);
                sleep(Duration::from_millis(1)).await;
            }
            ids
        });
        Traffic { stop, task }
    }

    /// Ends it; the ids of all that was published, in order.
    async fn end(self) -> Vec<i64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("publishing does not fail")
    }
}

/// Waits until a metric has at least this value.
async fn reaches(door: Door, metric: &str, value: f64) {
    let deadline = Instant::now() + PATIENCE;
    while door.metric(metric).await < value {
        assert!(Instant::now() < deadline, "{metric} does not reach {value}");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn falls_asleep(door: Door, backend: &Client) {
    until(backend, &HELD.replacen("exists", "not exists", 1)).await;
    let deadline = Instant::now() + PATIENCE;
    while door.metric("tidings_awake").await != 0.0 {
        assert!(Instant::now() < deadline, "it says that it is awake");
        sleep(Duration::from_millis(5)).await;
    }
}

async fn holds(backend: &Client) -> bool {
    backend.query_one(HELD, &[]).await.expect("asks").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_wakes_under_traffic_silences_the_bell_and_sleeps_after_it() {
    let database = database();
    let backend = database.connect().await;
    let gateway = Gateway::start_with(&database, &[RATE]).await;
    let mut stream = gateway.subscribe(&["t"]).await;
    assert!(!holds(&backend).await);
    let traffic = Traffic::begin(&database).await;
    reaches(*gateway, "tidings_awake", 1.0).await;
    assert!(holds(&backend).await);
    // What was rung before the lock was taken may be heard a little later.
    let deadline = Instant::now() + PATIENCE;
    let mut bells = -1.0;
    while gateway.metric("tidings_bells_total").await != bells {
        assert!(Instant::now() < deadline, "bells go on ringing");
        bells = gateway.metric("tidings_bells_total").await;
        let looks = gateway.metric("tidings_looks_total").await;
        let seen = gateway.metric("tidings_events_in_total").await;
        reaches(*gateway, "tidings_events_in_total", seen + 200.0).await;
        assert!(gateway.metric("tidings_looks_total").await > looks);
    }
    assert!(gateway.metric("tidings_awake_seconds_total").await > 0.0);
    let published = traffic.end().await;
    assert_eq!(stream.ids(published.len()).await, published);

    falls_asleep(*gateway, &backend).await;
    let bells = gateway.metric("tidings_bells_total").await;
    let id = publish(&backend, "t").await;
    assert_eq!(stream.ids(1).await, [id]);
    assert_eq!(gateway.metric("tidings_bells_total").await, bells + 1.0);
}

#[tokio::test]
async fn a_gateway_that_is_told_not_to_never_wakes() {
    let database = database();
    let backend = database.connect().await;
    let gateway = Gateway::start_with(&database, &["--awake=off"]).await;
    reaches(*gateway, "tidings_listener_up", 1.0).await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let mut published = Vec::new();
    for _ in 0..400 {
        published.push(publish(&backend, "t").await);
    }
    assert_eq!(stream.ids(400).await, published);
    // Each of them has rung, which is far more often than wakes others.
    reaches(*gateway, "tidings_bells_total", 400.0).await;
    assert_eq!(gateway.metric("tidings_wakes_total").await, 0.0);
    assert!(!holds(&backend).await);
}

/// A gateway without the look that happens anyway, so that what it has to do itself must be done.
async fn without_looks(database: &Database, awake: &str) -> Gateway {
    Gateway::start_changed(&database.url(), &[awake, "--drain=1s"], |config| {
        config.look_every = Duration::from_secs(3_600);
    })
    .await
}

/// A gateway that can wake, and one that hears bells and nothing else.
async fn pair(database: &Database) -> (Gateway, Gateway) {
    let awake = without_looks(database, RATE).await;
    (awake, without_looks(database, "--awake=off").await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_awake_rings_for_the_others() {
    let database = database();
    let backend = database.connect().await;
    let (awake, other) = pair(&database).await;
    let mut stream = other.subscribe(&["t"]).await;
    let traffic = Traffic::begin(&database).await;
    reaches(*awake, "tidings_awake", 1.0).await;
    reaches(*awake, "tidings_bells_rung_total", 50.0).await;
    assert!(holds(&backend).await);
    let published = traffic.end().await;
    assert_eq!(stream.ids(published.len()).await, published);
    assert_eq!(other.metric("tidings_wakes_total").await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_went_to_sleep_rings_for_the_others_what_came_in_silence() {
    let database = database();
    let (backend, late) = (database.connect().await, database.connect().await);
    let (awake, other) = pair(&database).await;
    let mut streams = [
        awake.subscribe(&["late"]).await,
        other.subscribe(&["late"]).await,
    ];
    let traffic = Traffic::begin(&database).await;
    reaches(*awake, "tidings_awake", 1.0).await;
    run(&late, "begin").await;
    let id = publish(&late, "late").await;
    traffic.end().await;
    falls_asleep(*awake, &backend).await;
    // Nobody rings at this commit, and nothing else does.
    run(&late, "commit").await;
    for stream in &mut streams {
        assert_eq!(stream.ids(1).await, [id]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_awake_gateway_whose_session_is_ended_loses_nothing() {
    let database = database();
    let (backend, late) = (database.connect().await, database.connect().await);
    let gateway = without_looks(&database, RATE).await;
    let mut stream = gateway.subscribe(&["t"]).await;
    let mut silent = gateway.subscribe(&["late"]).await;
    for wakes in 1..=3 {
        let traffic = Traffic::begin(&database).await;
        reaches(*gateway, "tidings_wakes_total", f64::from(wakes)).await;
        run(&late, "begin").await;
        let id = publish(&late, "late").await;
        let published = traffic.end().await;
        run(
            &backend,
            "select pg_terminate_backend(pid) from pg_stat_activity
             where datname = current_database() and application_name = 'tidings/tail'",
        )
        .await;
        falls_asleep(*gateway, &backend).await;
        reaches(*gateway, "tidings_tail_up", 1.0).await;
        assert_eq!(stream.ids(published.len()).await, published);
        run(&late, "commit").await;
        assert_eq!(silent.ids(1).await, [id]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_awake_gateway_that_ends_gives_the_lock_back() {
    let database = database();
    let backend = database.connect().await;
    for drains in [true, false] {
        let (gateway, other) = pair(&database).await;
        let mut stream = other.subscribe(&["after"]).await;
        let traffic = Traffic::begin(&database).await;
        reaches(*gateway, "tidings_awake", 1.0).await;
        match drains {
            true => gateway.drain().await,
            false => gateway.stop().await,
        }
        traffic.end().await;
        until(&backend, &HELD.replacen("exists", "not exists", 1)).await;
        let id = publish(&backend, "after").await;
        assert_eq!(stream.ids(1).await, [id]);
    }
}
