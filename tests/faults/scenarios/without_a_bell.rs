//! Rows that ring no bell: told not to, or written with a transaction's id that the row brings itself. In a system where
//! nobody else publishes, only the look that happens once a second can find them.

use std::time::Duration;

use futures::SinkExt;
use tokio::time::{Instant, timeout};
use tokio_postgres::Client;

use crate::room;
use crate::support::backend::{publish, run};
use crate::support::postgres::database;
use crate::support::process::Process;

/// A second, and as long again as a machine without air may take for the rest.
const DELIVERED: Duration = Duration::from_secs(5);

const ROUNDS: usize = 3;

const INSERT: &str = "insert into tidings.event (topic, type, data) values ('t', 'written', '1')";

/// How a row comes without a bell.
#[derive(Clone, Copy, Debug)]
enum Way {
    Off,
    CopyIntoPartition,
    OwnId,
}

const WAYS: [Way; 3] = [Way::Off, Way::CopyIntoPartition, Way::OwnId];

async fn write(client: &Client, way: Way) {
    match way {
        Way::Off => {
            run(client, "set tidings.bell = off").await;
            run(client, INSERT).await;
            run(client, "reset tidings.bell").await;
        }
        Way::CopyIntoPartition => {
            let today =
                "select tableoid::regclass::text from tidings.event order by id desc limit 1";
            let row = client.query_one(today, &[]).await.expect("a leaf");
            let leaf: String = row.get(0);
            run(client, "begin").await;
            let id = client.query_one("select pg_current_xact_id()::text", &[]);
            let id: String = id.await.expect("an id").get(0);
            let copy = format!("copy {leaf} (topic, type, data, xid) from stdin");
            let sink = client.copy_in(&copy).await.expect("a copy begins");
            let mut sink = std::pin::pin!(sink);
            let rows = bytes::Bytes::from(format!("t\tcopied\t2\t{id}\n"));
            sink.send(rows).await.expect("a row is taken");
            assert_eq!(sink.finish().await.expect("copied"), 1);
            run(client, "commit").await;
        }
        Way::OwnId => {
            let insert = "insert into tidings.event (topic, type, xid) values ('t', 'n', pg_current_xact_id())";
            run(client, insert).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_without_a_bell_is_delivered_by_the_look_of_every_second() {
    let _room = room::beside_others().await;
    let database = database();
    let backend = database.connect().await;
    let gateway = Process::serve(&database, &[]);
    let bells = async || gateway.metric("tidings_bells_total").await;
    let mut stream = gateway.subscribe(&["t"]).await;

    // With a bell one is heard, or what follows would show nothing.
    let id = publish(&backend, "t").await;
    assert_eq!(stream.ids(1).await, [id]);
    let rung = bells().await;
    assert!(rung > 0.0);

    let mut slowest = Duration::ZERO;
    for way in [WAYS; ROUNDS].into_iter().flatten() {
        write(&backend, way).await;
        let written = Instant::now();
        let newest = "select id from tidings.event order by id desc limit 1";
        let row = backend.query_one(newest, &[]).await.expect("the row");
        let id: i64 = row.get(0);
        let came = timeout(DELIVERED, stream.ids(1)).await;
        let came = came.unwrap_or_else(|_| panic!("{way:?}: not within {DELIVERED:?}"));
        assert_eq!(came, [id], "{way:?}");
        assert_eq!(bells().await, rung, "{way:?} rang a bell");
        slowest = slowest.max(written.elapsed());
    }
    println!("the slowest row without a bell took {slowest:.2?}");
}
