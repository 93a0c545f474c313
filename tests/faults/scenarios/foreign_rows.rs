//! A log whose rows bear transactions of another cluster, since they came by dump or by hand: nobody
//! serves it until it is adopted, and then everything runs.

use tidings::dev::cluster::Cluster;
use tokio::task::block_in_place;

use crate::rig::{PLAN, Rig, SETTINGS};
use crate::room;
use crate::support::backend::{cursor, publish, run};
use crate::support::client::Visit;
use crate::support::command;
use crate::support::gateway::{Door, SECRET, token};
use crate::support::postgres::{Database, OwnCluster, own_cluster};
use crate::support::process::Process;

/// Publishes events, each in a transaction of its own: more than there are in loading a copy.
const PUBLISH: &str = "
    do $$ begin
        for n in 1..3000 loop
            perform tidings.publish('t' || n % 8, 'written', to_jsonb(n));
            commit;
        end loop;
    end $$";

async fn tidings(arguments: &[&str], database: &Database) -> command::Outcome {
    let url = database.url();
    let variables = [
        ("DATABASE_URL", url.as_str()),
        ("TIDINGS_JWT_SECRET", SECRET),
    ];
    command::run(arguments, &variables).await
}

/// Every command that would use the log refuses it and says what to do, until that has been done.
async fn is_refused_until_adopted(database: &Database) {
    let serve = ["serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"];
    let check = [&serve[..], &["--migrate=check"]].concat();
    for arguments in [&serve[..], &check, &["migrate"]] {
        let refused = tidings(arguments, database).await;
        assert!(!matches!(refused.code, Some(0) | None), "{refused:?}");
        assert!(
            refused.err.contains("tidings migrate --adopt"),
            "{refused:?}"
        );
    }
    let adopted = tidings(&["migrate", "--adopt"], database).await;
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
}

/// A cursor from before is told so, and the position that comes with it can be resumed.
async fn is_reset(door: Door, since: &str) {
    let bearer = token("away", serde_json::json!({"topics": ["t0"]}));
    let target = "/v1/events?topic=t0";
    let stream = |since: &str| {
        let visit = Visit::new(door.address, "GET", target).bearer(&bearer);
        visit.header("last-event-id", since).stream()
    };
    let mut old = stream(since).await;
    let reset = old.next().await.expect("a block");
    assert!(reset.is("tidings.reset"), "{reset:?}");
    assert_eq!(reset.id.as_deref(), Some(since));
    let ready = old.next().await.expect("a block");
    assert!(ready.is("tidings.ready"), "{ready:?}");
    let mut new = stream(ready.id.as_deref().expect("a position")).await;
    loop {
        // What was published meanwhile is replayed before.
        let block = new.next().await.expect("a block");
        assert!(!block.is("tidings.reset"), "{block:?}");
        if block.is("tidings.ready") {
            assert_eq!(block.json()["resumed"], true, "{block:?}");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_dumped_and_restored_elsewhere() {
    let room = room::beside_others().await;
    let (origin, server) = block_in_place(|| (own_cluster(&SETTINGS), own_cluster(&SETTINGS)));
    let dumped = block_in_place(|| origin.database());
    let client = dumped.connect().await;
    run(&client, "select tidings.publish('t0', 'written')").await;
    let early = cursor(&client).await;
    run(&client, PUBLISH).await;
    let late = cursor(&client).await;
    let database = block_in_place(|| restore(&origin, &dumped, &server));
    let client = database.connect().await;
    let moved =
        "select count(*) from tidings.event where xid >= pg_snapshot_xmax(pg_current_snapshot())";
    let foreign: i64 = client.query_one(moved, &[]).await.expect("a count").get(0);
    assert!(
        foreign > 0,
        "transactions of the origin are not above those of the copy"
    );

    is_refused_until_adopted(&database).await;
    let rig = Rig::start_at("dumped", PLAN, room, server, database).await;
    rig.fault("clients come from the origin, and others are cut");
    for number in [0, 1] {
        let door = rig.gateway(number).door();
        is_reset(door, &early).await;
        is_reset(door, &late).await;
    }
    rig.load_for(std::time::Duration::from_secs(3)).await;
    let verdict = rig.settle().await;
    println!("dumped: {foreign} rows bore transactions that had not begun");
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
}

/// Copies a database by `pg_dump`, with the roles of its cluster, into another cluster.
fn restore(origin: &OwnCluster, dumped: &Database, server: &OwnCluster) -> Database {
    let database = server.empty_database();
    let roles = origin.cluster.url("postgres");
    let roles = output(
        &origin.cluster,
        "pg_dumpall",
        &["--roles-only", "--dbname", &roles],
    );
    // That the superuser exists already is no reason to stop.
    load(server, &database, &roles, "0");
    let log = output(&origin.cluster, "pg_dump", &["--dbname", &dumped.url()]);
    load(server, &database, &log, "1");
    database
}

fn output(cluster: &Cluster, program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = cluster.command(program).args(arguments).output();
    let output = output.expect("it runs");
    assert!(output.status.success(), "{program}: {output:?}");
    output.stdout
}

fn load(server: &OwnCluster, database: &Database, statements: &[u8], stop: &str) {
    let file = server.cluster.data().with_file_name("dump.sql");
    std::fs::write(&file, statements).expect("it is written");
    let file = file.to_str().expect("a path of ours");
    let stop = format!("ON_ERROR_STOP={stop}");
    let url = database.url();
    let arguments = [
        "--no-psqlrc",
        "--quiet",
        "--set",
        &stop,
        "--file",
        file,
        "--dbname",
        &url,
    ];
    output(&server.cluster, "psql", &arguments);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_was_inserted_with_a_transaction_of_somewhere_else() {
    let _room = room::beside_others().await;
    let server = block_in_place(|| own_cluster(&SETTINGS));
    let database = block_in_place(|| server.database());
    let client = database.connect().await;
    publish(&client, "t0").await;
    let old = cursor(&client).await;
    let insert = "insert into tidings.event (xid, topic, type) values ('99000000000', 't0', 'b')";
    run(&client, insert).await;
    is_refused_until_adopted(&database).await;
    let gateway = block_in_place(|| Process::serve(&database, &[]));
    let newest = publish(&client, "t0").await;
    is_reset(gateway.door(), &old).await;
    // And whoever comes with a cursor of the adopted log gets everything.
    let start = cursor(&client).await;
    let next = publish(&client, "t0").await;
    assert!(next > newest);
    let bearer = token("anew", serde_json::json!({"topics": ["t0"]}));
    let visit = Visit::new(gateway.door().address, "GET", "/v1/events?topic=t0").bearer(&bearer);
    let mut stream = visit.header("last-event-id", &start).stream().await;
    let event = stream.next().await.expect("a block");
    assert_eq!(event.event_id(), Some(next), "{event:?}");
}
