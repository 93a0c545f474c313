//! The database is not there: at the start, without its schema, of too old a release, and for more
//! than a minute. The gateway says so clearly, waits or exits as configured, keeps its streams,
//! and serves when there is something to serve from.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use serde_json::json;
use tidings::dev::cluster::StopMode;
use tokio::process::Child;
use tokio::task::block_in_place;
use tokio::time::{Instant, sleep, timeout};

use crate::readers::Habit;
use crate::rig::{PLAN, Plan, Rig};
use crate::room;
use crate::support::backend::{cursor, publish, run};
use crate::support::client::{PATIENCE, Visit};
use crate::support::command::{self, Outcome, tidings};
use crate::support::gateway::{Door, SECRET, token};
use crate::support::interface::Server;
use crate::support::postgres::{Database, empty_database, own_cluster};

/// How soon all must be well again once a fault has healed.
const RECOVERY: Duration = Duration::from_secs(15);

/// A gateway that may not have started yet.
struct Starting {
    door: Door,
    child: Child,
}

impl Starting {
    fn at(database: &Database, migrate: &str) -> Starting {
        let door = Door {
            address: free_address(),
            ops_address: free_address(),
        };
        let url = database.url();
        let (address, ops_address) = (door.address.to_string(), door.ops_address.to_string());
        let environment = [
            ("DATABASE_URL", &*url),
            ("TIDINGS_JWT_SECRET", SECRET),
            ("TIDINGS_LISTEN", &address),
            ("TIDINGS_OPS_LISTEN", &ops_address),
            ("TIDINGS_MIGRATE", migrate),
        ];
        let child = tidings(&["serve"], &environment).spawn();
        Starting {
            door,
            child: child.expect("it starts"),
        }
    }

    /// Waits until the operations listener answers like this.
    async fn answers(&self, path: &str, status: u16) -> String {
        let deadline = Instant::now() + RECOVERY;
        loop {
            let visit = Visit::new(self.door.ops_address, "GET", path).of(Server::Operators);
            match visit.try_send().await {
                Ok(answer) if answer.status == status => return answer.body,
                other => assert!(Instant::now() < deadline, "not {status}: {other:?}"),
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// It is alive, is not ready and says why, and nobody can connect to it, so that a proxy goes elsewhere.
    async fn waits(&self) {
        assert_eq!(self.answers("/livez", 200).await, "live\n");
        let why = self.answers("/readyz", 503).await;
        assert_eq!(why, "has not read the log yet\n");
        self.answers("/metrics", 200).await;
        let refused = tokio::net::TcpStream::connect(self.door.address).await;
        let kind = refused.expect_err("nobody listens").kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionRefused);
    }

    /// It becomes ready, and an event goes through it.
    async fn serves(&self, database: &Database) {
        assert_eq!(self.answers("/readyz", 200).await, "ready\n");
        let mut stream = self.door.subscribe(&["t"]).await;
        let id = publish(&database.connect().await, "t").await;
        assert_eq!(stream.ids(1).await, [id]);
    }

    /// What it says until it ends by itself.
    async fn ends(self) -> Outcome {
        command::finish(self.child).await
    }

    /// What it has said, once it is told to end, which it does with 0.
    async fn log(self) -> Vec<String> {
        let pid = self.child.id().expect("it runs").to_string();
        let kill = std::process::Command::new("kill").arg(&pid).status();
        assert!(kill.expect("kill runs").success());
        let outcome = self.ends().await;
        assert_eq!(outcome.code, Some(0), "{}", outcome.err);
        outcome.err.lines().map(str::to_owned).collect()
    }
}

/// An address at which nobody listens.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    listener.local_addr().expect("an address")
}

/// The warnings among these lines.
fn warnings(log: &[String]) -> Vec<&String> {
    log.iter()
        .filter(|line| !line.contains("\"INFO\""))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_down_at_the_start_is_waited_for() {
    let _room = room::beside_others().await;
    let mut server = block_in_place(|| own_cluster(&[("fsync", "off")]));
    let database = block_in_place(|| server.database());
    for down in [true, false] {
        if down {
            block_in_place(|| server.cluster.stop(StopMode::Fast)).expect("it stops");
        }
        let starting = ["auto", "check", "off"].map(|mode| Starting::at(&database, mode));
        if down {
            for gateway in &starting {
                gateway.waits().await;
            }
            // For several tries, each of which fails.
            sleep(Duration::from_secs(2)).await;
            for gateway in &starting {
                gateway.waits().await;
            }
            block_in_place(|| server.cluster.start_again()).expect("it starts again");
        }
        for gateway in &starting {
            gateway.serves(&database).await;
        }
        for gateway in starting {
            let log = gateway.log().await;
            let warned = warnings(&log);
            assert_eq!(
                warned.len(),
                usize::from(down),
                "an outage is one line: {warned:?}"
            );
            let clear = |line: &&String| line.contains("Connection refused");
            assert!(warned.iter().all(clear), "{warned:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_that_is_missing_is_made_or_refused_or_waited_for_as_configured() {
    let _room = room::beside_others().await;
    let database = block_in_place(empty_database);
    let refused = Starting::at(&database, "check").ends().await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let last = refused.err.lines().last().unwrap_or_default();
    assert!(
        last.starts_with("tidings: this database lacks 0001_log")
            && last.ends_with("run `tidings migrate`"),
        "{refused:?}"
    );

    let waiting = Starting::at(&database, "off");
    waiting.waits().await;
    let made = Starting::at(&database, "auto");
    made.serves(&database).await;
    // Somebody else has made it: that is what the other one waited for.
    waiting.serves(&database).await;
    // It may have begun while the migrations were still on their way, each of which stands by itself.
    let log = waiting.log().await;
    let warned = warnings(&log);
    let says =
        |line: &&String| line.contains("the database says: ") && line.contains(" does not exist");
    assert!(!warned.is_empty() && warned.iter().all(says), "{warned:?}");
    assert_eq!(warnings(&made.log().await), Vec::<&String>::new());
    Starting::at(&database, "check").serves(&database).await;
}

/// There is no old server here. What the gateway asks it is answered as an old one would: by a function that stands
/// before that of the catalog. So the whole way from the answer to the exit is shown, but not
/// what else an old server would do, which is never asked for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_old_a_postgres_is_refused_before_anything_is_changed() {
    let _room = room::beside_others().await;
    let database = block_in_place(empty_database);
    let client = database.connect().await;
    let name = database.name();
    run(
        &client,
        &format!(
            "create schema old;
             create function old.current_setting(name text) returns text language sql as $$
                 select case name when 'server_version_num' then '140011' when 'server_version' then '14.11'
                                  else pg_catalog.current_setting(name) end
             $$;
             alter database {name} set search_path = old, pg_catalog, public"
        ),
    )
    .await;
    for mode in ["auto", "check"] {
        let refused = Starting::at(&database, mode).ends().await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(
            refused.err.lines().last(),
            Some("tidings: this is PostgreSQL 14.11: tidings needs PostgreSQL 15 or newer"),
            "{refused:?}"
        );
    }
    let untouched = "select to_regnamespace('tidings') is null";
    let row = client.query_one(untouched, &[]).await.expect("asks");
    assert!(row.get::<_, bool>(0));
    // And it was for its age alone.
    run(&client, &format!("alter database {name} reset search_path")).await;
    Starting::at(&database, "auto").serves(&database).await;
}

/// When a gateway first said that it is not ready, if it did until `until`, and when it was asked last before.
async fn watch_ready(door: Door, since: Instant, until: Instant) -> Option<(Duration, Duration)> {
    let mut ready = Duration::ZERO;
    while Instant::now() < until {
        match door.ops("/readyz").await.status {
            200 => ready = since.elapsed(),
            503 => return Some((ready, since.elapsed())),
            other => panic!("{other}"),
        }
        sleep(Duration::from_millis(100)).await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_for_more_than_a_minute() {
    let plan = Plan {
        publishers: 3,
        readers: 12,
        habits: &[Habit::Stay, Habit::Stay, Habit::Cut, Habit::Phone],
        // Longer than a stream is held.
        silence: Duration::from_secs(18),
        may_be_unready: true,
        ..PLAN
    };
    let mut rig = Rig::start("away-for-a-minute", plan).await;
    rig.load_for(Duration::from_secs(2)).await;
    let position = cursor(&rig.session().await).await;
    rig.fault("postgres stops for more than a minute");
    let begun = Instant::now();
    block_in_place(|| rig.server.cluster.stop(StopMode::Fast)).expect("it stops");
    let until = begun + Duration::from_secs(80);
    let watching: Vec<_> = [0, 1]
        .map(|n| tokio::spawn(watch_ready(rig.gateway(n).door(), begun, until)))
        .into();
    for number in [0, 1] {
        let door = rig.gateway(number).door();
        let reader = token(&format!("needy-{number}"), json!({"topics": ["*"]}));
        // What needs the database is held, and told to come back.
        let asked = Instant::now();
        let visit = door.events(&["t0"]).bearer(&reader);
        let mut held = visit.header("last-event-id", &position).stream().await;
        let block = held.next().await.expect("a good-bye");
        let lasted = asked.elapsed();
        assert!(block.is("tidings.bye"), "{block:?}");
        assert_eq!(block.json()["reason"], "unavailable", "{block:?}");
        assert_eq!(block.id.as_deref(), Some(&*position), "{block:?}");
        assert!(block.retry.is_some(), "{block:?}");
        assert!(
            held.next().await.is_none(),
            "nothing comes after a good-bye"
        );
        assert!((14..19).contains(&lasted.as_secs()), "held for {lasted:?}");
        // A sync is refused, so that its client asks again.
        let sync = door.visit("GET", "/v1/sync?topic=t0").bearer(&reader);
        let answer = timeout(Duration::from_secs(10), sync.send()).await;
        let answer = answer.expect("it is answered soon");
        assert_eq!(answer.status, 503, "{answer:?}");
        let after = answer.header("retry-after").expect("when to ask again");
        assert!(after.parse::<u64>().is_ok(), "{after}");
    }
    // What needs no database is served: from the position that is known.
    let mut fresh = rig.gateway(0).subscribe(&["probe"]).await;

    for watched in watching {
        let turned = watched.await.expect("it is watched");
        let (ready, unready) = turned.expect("it says so in the end");
        assert!(
            unready >= Duration::from_secs(60),
            "not ready after {unready:?}"
        );
        assert!(
            ready < Duration::from_secs(75),
            "still ready after {ready:?}"
        );
        println!("not ready after {unready:.1?}");
    }
    rig.fault("postgres starts again");
    block_in_place(|| rig.server.cluster.start_again()).expect("it starts again");
    let healed = Instant::now();
    for number in [0, 1] {
        let door = rig.gateway(number).door();
        while door.ops("/readyz").await.status != 200 {
            assert!(healed.elapsed() < RECOVERY, "not ready; {}", rig.context());
            sleep(Duration::from_millis(20)).await;
        }
    }
    rig.recovers().await;
    let probe = timeout(PATIENCE, fresh.event()).await.expect("it goes on");
    assert_eq!(probe["topic"], "probe");
    rig.load_for(Duration::from_secs(2)).await;
    let away = rig.logged("database session lost; trying again");
    assert!(
        away <= 4,
        "one line for each session of each gateway, not {away}"
    );
    let verdict = rig.settle().await;
    assert_eq!(verdict.all("resets"), 0, "{verdict}");
    for why in ["broken", "silent", "refused", "unreachable"] {
        let ended = verdict.times(&format!("ends, {why}"));
        assert_eq!(ended, 0, "streams stay open: {verdict}");
    }
}
