//! The whole way of a client: it connects, hears text that is easily mangled and a beat, is cut at every kind
//! of place, live and within a replay, meets a cursor that is no longer served, sees its gateway go and
//! another come, and in the end has heard every event exactly once, in order.

use std::net::SocketAddr;

use tidings::config::Config;
use tokio::process::Command;

use super::cut::{Cutter, Place};
use super::driver::{Driver, Log, Route};
use super::published::Published;
use super::stage::{LIVE, REPLAYED, Stage};
use crate::support::backend::{cursor, run};
use crate::support::front::free_port;
use crate::support::gateway::Gateway;
use crate::support::postgres::{Database, database};

/// So many events are replayed, and no more.
const REPLAY: usize = 20;
/// A client and what it needs.
pub(crate) struct Traveller {
    pub(crate) name: &'static str,
    /// What runs it.
    pub(crate) command: Command,
    /// How it names this machine.
    pub(crate) host: &'static str,
    /// What its gateway needs besides.
    pub(crate) flags: Vec<String>,
    /// Where a cut costs it the event that was cut.
    pub(crate) loses: &'static [Place],
}

impl Traveller {
    pub(crate) fn new(name: &'static str, command: Command) -> Traveller {
        Traveller {
            name,
            command,
            host: "127.0.0.1",
            flags: Vec::new(),
            loses: &[],
        }
    }
}

/// Takes a client along all of it.
pub(crate) async fn travel(traveller: Traveller) {
    let database = database();
    let server = Server::of(&traveller);
    let gateway = server.start(&database).await;
    let mut published = Published::by(database.connect().await);
    let stages = stages(&database, server.address, &mut published, traveller.loses).await;
    let routes = stages.iter();
    let routes = routes.map(|stage| stage.route(traveller.host, server.address));
    let routes: Vec<Route> = routes.collect();
    let mut journey = Journey {
        driver: Driver::start(traveller.name, traveller.command, &routes),
        stages,
        published,
    };
    journey.goes_live().await;
    journey.is_cut().await;

    // Who was cut comes back to a gateway that is gone, and hears so; who was not is told to come back.
    gateway.drain().await;
    journey.finds_nobody().await;
    let _gateway = server.start(&database).await;
    journey.has_all("another gateway").await;
    journey.published.publish("last").await;
    journey.has_all("the last event").await;

    let log = journey.driver.end().await;
    for stage in &journey.stages {
        stage.judge(traveller.name, &log, &journey.published);
    }
    let reset = log.of("reset", "tidings.reset");
    assert_eq!(reset.len(), 1, "{}: {reset:?}", traveller.name);
    assert_eq!(reset[0]["reason"], "too-far");
}

/// How the gateway is started, both times.
struct Server {
    /// The port is named, as an operator names it: one that was any free port is not given back at once.
    address: SocketAddr,
    flags: Vec<String>,
}

impl Server {
    fn of(traveller: &Traveller) -> Server {
        let mut flags = traveller.flags.clone();
        let own = ["--heartbeat=1s", "--drain=1s", "--streams-per-user=100"];
        flags.extend(own.map(str::to_owned));
        flags.push(format!("--replay={REPLAY}"));
        Server {
            address: free_port(),
            flags,
        }
    }

    async fn start(&self, database: &Database) -> Gateway {
        let flags: Vec<&str> = self.flags.iter().map(|flag| &**flag).collect();
        let at = |config: &mut Config| config.listen = self.address;
        Gateway::start_changed(&database.url(), &flags, at).await
    }
}

/// All routes: two that are not cut, and one for each place, live and within a replay. Publishes what is
/// replayed.
async fn stages(
    database: &Database,
    gateway: SocketAddr,
    published: &mut Published,
    loses: &[Place],
) -> Vec<Stage> {
    let backend = database.connect().await;
    // A cursor that is no longer served, and one from which three events are replayed.
    let far = cursor(&backend).await;
    let old = format!("select tidings.publish('news', 'old') from generate_series(0, {REPLAY})");
    run(&backend, &old).await;
    let near = cursor(&backend).await;
    for kind in ["missed", REPLAYED, "missed"] {
        published.publish(kind).await;
    }
    let mut stages = vec![
        Stage::whole("whole", None, published),
        Stage::whole("reset", Some(far), published),
    ];
    for place in Place::ALL {
        let live = Stage::cut_live(gateway, place, published).await;
        if loses.contains(&place) {
            // In a replay, whose connection is broken, it is a matter of luck what it has read before that.
            stages.push(live.without(LIVE));
            continue;
        }
        stages.push(live);
        stages.push(Stage::cut_in_replay(gateway, place, &near).await);
    }
    stages
}

/// A client on its way.
struct Journey {
    driver: Driver,
    stages: Vec<Stage>,
    published: Published,
}

impl Journey {
    fn cutters(&self) -> impl Iterator<Item = &Cutter> {
        self.stages.iter().filter_map(|stage| stage.cutter.as_ref())
    }

    /// Hears that it is live, an event, and a beat.
    async fn goes_live(&mut self) {
        let all = |log: &Log, kind: &str| {
            let mut live = self.stages.iter().filter(|stage| stage.is_live_first());
            live.all(|stage| !log.of(&stage.name, kind).is_empty())
        };
        let driver = &mut self.driver;
        driver.until("ready", |log| all(log, "tidings.ready")).await;
        self.published.publish("text").await;
        driver.until("an event", |log| all(log, "message")).await;
        driver.until("a beat", |log| all(log, "tidings.beat")).await;
    }

    /// Is cut wherever it can be, and hears the rest on the other routes.
    async fn is_cut(&mut self) {
        self.published.publish(LIVE).await;
        for cutter in self.cutters() {
            cutter.has_cut().await;
        }
        self.published.publish("away").await;
        let all = |log: &Log| {
            let mut whole = self.stages.iter().filter(|stage| stage.cutter.is_none());
            whole.all(|stage| stage.has_all(log, &self.published))
        };
        self.driver.until("what others missed", all).await;
    }

    /// Comes back in vain.
    async fn finds_nobody(&mut self) {
        self.published.publish("away").await;
        self.cutters().for_each(Cutter::release);
        for cutter in self.cutters() {
            cutter.has_excused().await;
        }
    }

    /// Hears all that was published so far.
    async fn has_all(&mut self, when: &str) {
        let all = |log: &Log| {
            let mut stages = self.stages.iter();
            stages.all(|stage| stage.has_all(log, &self.published))
        };
        self.driver.until(when, all).await;
    }
}
