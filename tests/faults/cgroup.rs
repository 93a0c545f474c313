//! A gateway in a container that is too small for what is asked of it: it sheds before it is killed, and
//! serves again when the load has gone.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::group::Group;
use crate::raw::{Raw, catch_up};
use crate::room;
use crate::support::backend::{cursor, publish, run};
use crate::support::client::Visit;
use crate::support::gateway::{Door, token};
use crate::support::postgres::database;
use crate::support::process::Process;

const MIB: usize = 1 << 20;
const BOUND: usize = 96 * MIB;

/// Who never reads, each a topic of its own; who comes beyond what fits.
const DEAF: usize = 160;
const CROWD: usize = 3_000;
const SYNCS: usize = 8;
const AT_ONCE: usize = 50;
const COMMITS: usize = 20;

/// How long the load lasts, and how long the gateway may take to be itself again.
const LOAD: Duration = Duration::from_secs(8);
const CALM_WITHIN: Duration = Duration::from_secs(40);

/// Publishes large events to an eighth of all topics at a time.
async fn write_large(backend: &Client) {
    for _ in 0..COMMITS {
        let large = format!(
            "select count(tidings.publish('deaf' || n, 'large', to_jsonb(repeat('x', 250000))))
             from generate_series(0, {}) n where n % 8 = {}",
            DEAF - 1,
            fastrand::u8(..8)
        );
        run(backend, &large).await;
    }
}

/// Asks for everything since the beginning, again and again; returns how many answers were whole.
async fn sync(door: Door, n: usize, since: String, until: Instant) -> usize {
    let bearer = token(&format!("sync-{n}"), json!({"topics": ["*"]}));
    let mut whole = 0;
    while Instant::now() < until {
        let topics: Vec<String> = (0..20)
            .map(|t| format!("topic=deaf{}", n * 20 + t))
            .collect();
        let target = format!(
            "/v1/sync?{}&state=no&limit=1000&since={since}",
            topics.join("&")
        );
        let answer = Visit::new(door.address, "GET", &target)
            .bearer(&bearer)
            .send()
            .await;
        assert!([200, 503].contains(&answer.status), "{}", answer.status);
        whole += usize::from(answer.status == 200);
    }
    whole
}

async fn ids_by_topic(client: &Client) -> HashMap<String, Vec<i64>> {
    let question =
        "select topic, array_agg(id::bigint order by id) from tidings.event group by topic";
    let rows = client.query(question, &[]).await.expect("the log");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_in_a_small_container_sheds_and_is_not_killed() {
    let _room = room::half_heavy().await;
    let Some(group) = Group::make(BOUND) else {
        return;
    };
    let database = database();
    let backend = database.connect().await;
    // More streams than fit: the operator was too hopeful.
    let flags = ["--streams=20000", "--replay=100000", "--write-timeout=5s"];
    let mut gateway = Process::serve_in(&group.processes(), &database, &flags);
    let door = gateway.door();
    let start = cursor(&backend).await;

    let begun = Instant::now();
    while gateway.ops("/readyz").await.status != 200
        || gateway.metric("tidings_memory_bound_bytes").await != BOUND as f64
    {
        assert!(begun.elapsed() < CALM_WITHIN, "it found another bound");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let deaf = (0..DEAF).map(|n| {
        let start = &start;
        async move { (n, Raw::open_deaf(door, &format!("deaf{n}"), start).await) }
    });
    let deaf: Vec<(usize, Raw)> = futures::stream::iter(deaf)
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let end = Instant::now() + LOAD;
    let mut syncing = JoinSet::new();
    for n in 0..SYNCS {
        syncing.spawn(sync(door, n, start.clone(), end));
    }
    let crowd = async {
        let coming = (0..CROWD).map(|_| Raw::open(door, "crowd", Some(&start)));
        let streams: Vec<Raw> = futures::stream::iter(coming)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        streams
    };
    let watched = async {
        let mut asked = 0;
        while Instant::now() < end {
            assert_eq!(gateway.ops("/readyz").await.status, 200);
            asked += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        asked
    };
    let (crowd, (), asked) = tokio::join!(crowd, write_large(&backend), watched);
    let synced: usize = syncing.join_all().await.iter().sum();
    let told = publish(&backend, "crowd").await;

    let sheds = gateway.metric("tidings_sheds_total").await;
    let refused = gateway
        .metric("tidings_byes_total{reason=\"overload\"}")
        .await;
    let slow = gateway.metric("tidings_byes_total{reason=\"slow\"}").await;
    let cut = gateway.metric("tidings_streams_cut_total").await;
    eprintln!(
        "{} MiB at most, {} of them resident, of {}; {sheds} sheds, {slow} slow, {cut} cut, {refused} refused; \
         {synced} syncs; ready {asked} times",
        group.peak() / MIB,
        gateway.peak_bytes() / MIB,
        BOUND / MIB
    );
    assert_eq!(group.kills(), 0);
    assert!(gateway.is_alive());
    assert!(asked > 0 && refused > 0.0 && synced > 0);
    assert!(sheds > 0.0 && slow + cut > 0.0);

    // The load goes, and the gateway takes everybody in again.
    let expected = ids_by_topic(&backend).await;
    let all = |n: usize| expected.get(&format!("deaf{n}")).map_or(0, Vec::len);
    let mut ended = Vec::new();
    for (n, mut stream) in deaf {
        // Whoever was not ended and begins to read is told everything.
        stream.until(all(n)).await;
        ended.push((n, stream.arrived));
    }
    drop(crowd);
    let calm = Instant::now() + CALM_WITHIN;
    loop {
        let mut stream = Raw::open(door, "crowd", Some(&start)).await;
        let arrived = stream.until(1).await;
        if arrived.bye.is_none() {
            assert_eq!(arrived.ids, [told]);
            break;
        }
        let taken = gateway.metric("tidings_memory_bytes").await as usize / MIB;
        assert!(
            Instant::now() < calm,
            "it never opened again: {taken} MiB are taken"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let open = gateway.metric("tidings_memory_bytes").await as usize / MIB;
    eprintln!("open again with {open} MiB taken");
    let resuming = ended.into_iter().map(|(n, arrived)| {
        let topic = format!("deaf{n}");
        let (start, expected) = (
            start.clone(),
            expected.get(&topic).cloned().unwrap_or_default(),
        );
        async move {
            let mut ids = arrived.ids;
            let missed = ids.len() < expected.len();
            let since = arrived.cursor.unwrap_or(start);
            catch_up(door, &topic, &since, &mut ids, &expected).await;
            missed
        }
    });
    let resumed: Vec<bool> = futures::stream::iter(resuming)
        .buffer_unordered(8)
        .collect()
        .await;
    assert!(resumed.iter().filter(|missed| **missed).count() > 0);
    assert_eq!(group.kills(), 0);
    assert!(gateway.is_alive());
    eprintln!(
        "afterwards: {} MiB at most, {} MiB taken",
        group.peak() / MIB,
        gateway.metric("tidings_memory_bytes").await as usize / MIB
    );
}
