//! The disk is full under the log: publishers get the error, the gateways go on delivering what was
//! committed, and all goes on when there is space again.
//!
//! The log's newest days lie in a tablespace of some megabytes on a file system of its own, which
//! takes a right to mount that not every machine grants: then this is skipped, with a notice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;

use crate::rig::{PLAN, Plan, Rig};
use crate::support::backend::run;

/// A small file system in memory; dropping it takes it away.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many megabytes; `None` where nobody may mount.
    fn mount(megabytes: u32) -> Option<SmallDisk> {
        let name = format!("tidings-disk-{:08x}", fastrand::u32(..));
        let place = std::env::temp_dir().join(name);
        fs::create_dir(&place).expect("a directory");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={megabytes}m,mode=0777"),
                "tmpfs",
            ])
            .arg(&place)
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(SmallDisk(place));
        }
        let _ = fs::remove_dir(&place);
        let demanded = std::env::var("TIDINGS_TEST_PROGRAMS").is_ok_and(|wish| wish == "all");
        assert!(!demanded, "a small file system cannot be mounted");
        eprintln!("skipped: a small file system cannot be mounted: run as root");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A server that is still going down may hold it for a moment longer.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

/// What moves every part of the log, with what belongs to it, into the tablespace; each by itself, since
/// whoever looks has locks on all parts.
const MOVES: &str = "
    with part as (select inhrelid as id from pg_inherits where inhparent = 'tidings.event'::regclass)
    select format('alter table %s set tablespace small', id::regclass) from part
    union all
    select format('alter index %s set tablespace small', indexrelid::regclass)
    from part join pg_index on indrelid = id";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_under_the_log() {
    let Some(disk) = SmallDisk::mount(16) else {
        return;
    };
    let plan = Plan {
        publishers: 8,
        pause: Duration::from_millis(10),
        ..PLAN
    };
    let rig = Rig::start("disk-full", plan).await;
    let client = rig.session().await;
    // Of the server's own, whoever that runs as.
    let place = disk.0.join("space");
    fs::create_dir(&place).expect("a directory");
    let owner = fs::metadata(rig.server.cluster.data()).expect("it is there");
    use std::os::unix::fs::{MetadataExt, chown};
    chown(&place, Some(owner.uid()), Some(owner.gid())).expect("it is given");
    run(
        &client,
        &format!("create tablespace small location '{}'", place.display()),
    )
    .await;
    for row in client.query(MOVES, &[]).await.expect("parts") {
        run(&client, row.get(0)).await;
    }
    run(
        &client,
        "create table app.ballast (n bigint) tablespace small",
    )
    .await;
    rig.load_for(Duration::from_secs(2)).await;

    for round in 0..2 {
        rig.fault("the disk fills up");
        let fill = "insert into app.ballast select generate_series(1, 20000)";
        let error = loop {
            if let Err(error) = client.execute(fill, &[]).await {
                break error;
            }
        };
        assert_eq!(error.code(), Some(&SqlState::DISK_FULL), "{error:?}");
        // What is left of pages in use is soon used up.
        let refused = until_refused(&rig).await;
        rig.load_for(Duration::from_secs(3)).await;
        for number in [0, 1] {
            let door = rig.gateway(number).door();
            assert_eq!(door.ops("/readyz").await.status, 200);
            let since = "1~3~0.00000000";
            let mut stream = door.resume(&["t0"], Some(since)).await;
            let (replayed, ready) = stream.replay().await;
            assert!(!replayed.is_empty(), "what was committed is there: {ready}");
        }
        println!("round {round}: {refused} publications before one was refused");
        rig.fault("there is space again");
        run(&client, "truncate app.ballast").await;
        rig.recovers().await;
        rig.load_for(Duration::from_secs(1)).await;
    }
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "silent", "refused", "unreachable"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}

/// Publishes what is rolled back again until the disk is too full for that; how often it was not.
async fn until_refused(rig: &Rig<'_>) -> u32 {
    let client = rig.session().await;
    let deadline = Instant::now() + Duration::from_secs(30);
    for times in 0.. {
        let publish = "begin; select tidings.publish('ballast', 'b', to_jsonb(repeat(md5(random()::text), 40))); rollback";
        if let Err(error) = client.batch_execute(publish).await {
            assert_eq!(error.code(), Some(&SqlState::DISK_FULL), "{error:?}");
            return times;
        }
        assert!(Instant::now() < deadline, "never full; {}", rig.context());
        sleep(Duration::from_millis(1)).await;
    }
    unreachable!("it is counted without end")
}
