//! A crash forgets transactions that were rolled back and never reached the disk, and their ids are given
//! out again, below what cursors and gateways have taken for seen. Every event written under such
//! an id is new all the same, from the window and from the log.

use tidings::dev::cluster::StopMode;
use tokio::task::block_in_place;
use tokio_postgres::Client;

use crate::room;
use crate::support::backend::{cursor, publish, run};
use crate::support::client::Stream;
use crate::support::postgres::own_cluster;
use crate::support::process::Process;
use crate::support::setting;

const ROUNDS: usize = 5;
const ABORTS: usize = 300;

/// Nothing but a commit writes the log of the server: a crash then forgets whatever came after the last one.
const FORGETFUL: [(&str, &str); 6] = [
    ("fsync", "off"),
    ("autovacuum", "off"),
    ("wal_level", "minimal"),
    ("max_wal_senders", "0"),
    ("wal_writer_delay", "10s"),
    ("checkpoint_timeout", "1h"),
];

/// Somebody's position, and how many events had been committed by then.
struct Held {
    cursor: String,
    seen: usize,
}

/// The transaction id that comes next.
async fn next_xid(client: &Client) -> i64 {
    let question = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let row = client.query_one(question, &[]).await;
    row.expect("a snapshot").get(0)
}

async fn xid_of(client: &Client, id: i64) -> i64 {
    let question = "select xid::text::bigint from tidings.event where id = $1";
    let row = client.query_one(question, &[&id]).await;
    row.expect("an event").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_under_reused_transaction_ids_reach_every_cursor_from_before_the_crash() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut server = block_in_place(|| own_cluster(&FORGETFUL));
    let database = block_in_place(|| server.database());
    let gateways = [
        &["--replay=10000"][..],
        &["--replay=10000", "--window-bytes=1KiB"][..],
    ]
    .map(|flags| Process::serve(&database, flags));
    let mut ids = Vec::new();
    let mut held: Vec<Held> = Vec::new();
    let mut live: Vec<(Stream, usize)> = Vec::new();
    let (mut crashes, mut below, mut resumed) = (0, 0, 0);
    for _ in 0..ROUNDS {
        let client = database.connect().await;
        for _ in 0..rng.usize(1..4) {
            ids.push(publish(&client, "t").await);
            let cursor = cursor(&client).await;
            held.push(Held {
                cursor,
                seen: ids.len(),
            });
        }
        let aborts = format!(
            "do $$ begin for n in 1..{ABORTS} loop perform tidings.publish('t', 'doomed'); rollback; end loop; end $$"
        );
        run(&client, &aborts).await;
        // Everybody now takes those transactions for seen: pages, streams and the gateways themselves.
        for gateway in &gateways {
            let mut stream = gateway.resume(&["t"], None).await;
            stream.ready().await;
            let cursor = stream.cursor().to_owned();
            held.push(Held {
                cursor,
                seen: ids.len(),
            });
            live.push((stream, ids.len()));
        }
        let cursor = cursor(&client).await;
        held.push(Held {
            cursor,
            seen: ids.len(),
        });
        let before = next_xid(&client).await;
        block_in_place(|| server.cluster.stop(StopMode::Immediate)).expect("it stops");
        block_in_place(|| server.cluster.start_again()).expect("it starts again");
        let client = database.connect().await;
        crashes += usize::from(next_xid(&client).await < before);

        for _ in 0..rng.usize(5..20) {
            let id = publish(&client, "t").await;
            below += usize::from(xid_of(&client, id).await < before);
            assert!(ids.last().is_none_or(|last| *last < id), "ids only grow");
            ids.push(id);
        }
        for (number, gateway) in gateways.iter().enumerate() {
            for Held { cursor, seen } in &held {
                let mut stream = gateway.resume(&["t"], Some(cursor)).await;
                let (replayed, ready) = stream.replay().await;
                let what = format!("seed {seed}, gateway {number}, from {cursor}");
                assert_eq!(ready["resumed"], true, "{what}");
                assert_eq!(replayed, ids[*seen..], "{what}");
                resumed += 1;
            }
        }
    }
    for (stream, seen) in &mut live {
        let came = stream.ids(ids.len() - *seen).await;
        assert_eq!(came, ids[*seen..], "seed {seed}, a stream that stayed open");
    }
    let window = "tidings_replays_total{source=\"window\"}";
    let log = "tidings_replays_total{source=\"database\"}";
    let (window, log) = (
        gateways[0].metric(window).await,
        gateways[1].metric(log).await,
    );
    println!(
        "held: reused transaction ids, seed {seed}: {crashes} crashes that reused some; {below} events under \
         reused ids; {resumed} resumes; {} streams stayed open; {window} replays from the window; {log} from the database",
        live.len()
    );
    // The server may write down what it has just when it is not to; it seldom does.
    assert!(crashes > ROUNDS / 2, "only {crashes} crashes reused ids");
    assert!(below > crashes && window > 0.0 && log > 0.0);
}
