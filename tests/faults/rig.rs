//! The rig: a Postgres of its own, gateways in processes of their own, publishers and readers who go
//! on whatever happens, and a journal of it all.
//!
//! A scenario starts a [`Rig`], does to it what its name says, and [settles](Rig::settle): the load
//! ends, everybody reads to the end, and the checker judges. A run in which nothing happened fails.

pub(crate) mod backends;
mod copy;
mod health;
pub(crate) mod returns;
pub(crate) mod settle;
pub(crate) mod standby;
mod trimmer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use tidings::dev::cluster::StopMode;
use tokio::sync::{SemaphorePermit, watch};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::Client;

use self::health::Health;
use crate::checker::Terms;
use crate::journal::{Journal, Outcome, Record, now};
use crate::oracle::prepare;
use crate::place::Place;
use crate::publishers::{Asked, Publisher, publish};
use crate::readers::{Doors, Habit, Reader};
use crate::room;
use crate::support::backend::cursor;
use crate::support::postgres::{Database, OwnCluster, own_cluster};
use crate::support::process::{Log, Process};
use crate::support::proxy::Proxy;
use crate::support::setting;

/// How soon all must be well again once a fault has healed.
const RECOVERY: Duration = Duration::from_secs(15);

/// How often a probe is published until it has been seen.
const PROBE_AGAIN: Duration = Duration::from_millis(500);

/// How long everybody may take to read to the end, on a busy machine.
const SETTLING: Duration = Duration::from_secs(90);

/// What a gateway logs when the database is not the one that it has read.
pub(crate) const LOST_HISTORY: &str = "does not continue the history";

/// Settings of every cluster here. Nothing survives the machine, so nothing waits for its disk; what a
/// crash of the server alone keeps is kept.
pub(crate) const SETTINGS: [(&str, &str); 3] = [
    ("fsync", "off"),
    ("max_connections", "200"),
    ("max_prepared_transactions", "64"),
];

/// What a scenario needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// Settings of the server, beyond those of every rig.
    pub(crate) settings: &'a [(&'a str, &'a str)],
    /// The flags of each gateway.
    pub(crate) gateways: &'a [&'a [&'a str]],
    /// The gateways reach the server through a proxy.
    pub(crate) proxied: bool,
    pub(crate) publishers: u64,
    pub(crate) readers: u64,
    /// What the readers do, in turn.
    pub(crate) habits: &'a [Habit],
    pub(crate) topics: u64,
    /// The longest pause of a publisher.
    pub(crate) pause: Duration,
    /// How long the longest transactions stay open.
    pub(crate) long: Duration,
    /// How long a token lasts at least, in seconds.
    pub(crate) token_s: u64,
    /// How long nothing may come before a reader takes a stream for dead.
    pub(crate) silence: Duration,
    /// A gateway may say that it is not ready: it drains, or its database is away for long.
    pub(crate) may_be_unready: bool,
    pub(crate) terms: Terms,
}

/// Two gateways, one of which remembers next to nothing, under a load that leaves the machine some air.
pub(crate) const PLAN: Plan<'static> = Plan {
    settings: &[],
    gateways: &[
        &["--heartbeat=1s", "--replay=100000"],
        &["--heartbeat=1s", "--replay=100000", "--window-bytes=20KiB"],
    ],
    proxied: false,
    publishers: 6,
    readers: 24,
    habits: &[Habit::Stay, Habit::Phone, Habit::Cut, Habit::Cut],
    topics: 8,
    pause: Duration::from_millis(100),
    long: Duration::from_secs(2),
    token_s: 3600,
    silence: Duration::from_secs(8),
    may_be_unready: false,
    terms: Terms {
        lost_history: false,
        replay_limit: 100_000,
    },
};

struct Slot {
    flags: Vec<String>,
    /// Where it finds the database, if not where the others do.
    url: Option<String>,
    process: Option<Process>,
    /// What its witness has seen of the topic `probe`.
    probed: watch::Receiver<BTreeSet<String>>,
}

/// A running system.
pub(crate) struct Rig<'a> {
    pub(crate) name: &'static str,
    pub(crate) plan: Plan<'a>,
    pub(crate) seed: u64,
    pub(crate) rng: Rng,
    pub(crate) journal: Journal,
    /// Where the primary is.
    pub(crate) place: Place,
    pub(crate) proxy: Option<Proxy>,
    gateways: Vec<Slot>,
    pub(crate) doors: Doors,
    logs: Vec<Log>,
    health: Health,
    /// Nobody publishes any more.
    stop: Arc<AtomicBool>,
    /// Nobody is cut any more.
    calm: Arc<AtomicBool>,
    publishers: JoinSet<()>,
    readers: JoinSet<()>,
    probes: AtomicU64,
    recoveries: Mutex<Vec<Duration>>,
    // Dropped in this order.
    pub(crate) database: Database,
    pub(crate) server: OwnCluster,
    _room: SemaphorePermit<'static>,
}

impl<'a> Rig<'a> {
    /// Starts everything, with publishers and readers at work.
    pub(crate) async fn start(name: &'static str, plan: Plan<'a>) -> Rig<'a> {
        let room = room::beside_others().await;
        let settings = [&SETTINGS[..], plan.settings].concat();
        let server = block_in_place(|| own_cluster(&settings));
        let database = block_in_place(|| server.database());
        Rig::start_at(name, plan, room, server, database).await
    }

    /// The same with a server that is there already, and a database of it that no application uses.
    pub(crate) async fn start_at(
        name: &'static str,
        plan: Plan<'a>,
        room: SemaphorePermit<'static>,
        server: OwnCluster,
        database: Database,
    ) -> Rig<'a> {
        let seed = setting("TIDINGS_TEST_SEED", 7);
        let client = database.connect().await;
        prepare(&client).await;
        let proxy = match plan.proxied {
            true => Some(Proxy::start(&database).await),
            false => None,
        };
        let doors = Doors::default();
        let mut rig = Rig {
            name,
            plan,
            seed,
            rng: Rng::with_seed(seed),
            journal: Journal::create(name),
            place: Place::new(database.url()),
            proxy,
            gateways: Vec::new(),
            health: Health::watch(doors.clone()),
            doors,
            logs: Vec::new(),
            stop: Arc::default(),
            calm: Arc::default(),
            publishers: JoinSet::new(),
            readers: JoinSet::new(),
            probes: AtomicU64::new(0),
            recoveries: Mutex::default(),
            database,
            server,
            _room: room,
        };
        let start = cursor(&client).await;
        for (number, flags) in plan.gateways.iter().enumerate() {
            let (told, probed) = watch::channel(BTreeSet::new());
            rig.gateways.push(Slot {
                flags: flags.iter().map(|flag| flag.to_string()).collect(),
                url: None,
                process: None,
                probed,
            });
            rig.start_gateway(number).await;
            let witness = Reader {
                habit: Habit::Stay,
                at: Some(number),
                topics: vec!["probe".to_owned()],
                told: Some(told),
                ..rig.reader(1000 + number as u64, &start)
            };
            rig.readers.spawn(witness.read());
        }
        for number in 0..plan.readers {
            let reader = rig.reader(number, &start);
            rig.readers.spawn(reader.read());
        }
        for number in 0..plan.publishers {
            let publisher = Publisher {
                number,
                rng: rig.rng.fork(),
                place: rig.place.clone(),
                journal: rig.journal.clone(),
                topics: plan.topics,
                pause: plan.pause,
                long: plan.long,
                stop: rig.stop.clone(),
            };
            rig.publishers.spawn(publisher.write());
        }
        rig
    }

    fn reader(&mut self, number: u64, start: &str) -> Reader {
        let mut rng = self.rng.fork();
        let mut topics: Vec<u64> = (0..self.plan.topics).collect();
        rng.shuffle(&mut topics);
        topics.truncate(rng.usize(1..=4));
        Reader {
            number,
            doors: self.doors.clone(),
            journal: self.journal.clone(),
            habit: self.plan.habits[number as usize % self.plan.habits.len()],
            at: None,
            last: None,
            topics: topics.iter().map(|n| format!("t{n}")).collect(),
            cursor: start.to_owned(),
            silence: self.plan.silence,
            calm: self.calm.clone(),
            token_s: self.plan.token_s,
            told: None,
            left: BTreeSet::new(),
            must_sync: false,
            rng,
        }
    }

    /// Lets the load go on for a while.
    pub(crate) async fn load_for(&self, duration: Duration) {
        sleep(duration).await;
    }

    /// Notes what is being done to the system.
    pub(crate) fn fault(&self, fault: &str) {
        self.journal.write(&Record::Fault {
            at: now(),
            fault: fault.to_owned(),
        });
    }

    /// A session at the primary, as its superuser; waits until there is one.
    pub(crate) async fn session(&self) -> Client {
        let deadline = Instant::now() + SETTLING;
        loop {
            match self.place.try_connect().await {
                Ok(client) => return client,
                Err(error) => assert!(Instant::now() < deadline, "{}: {error}", self.context()),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the server, and starts it again after that time.
    pub(crate) async fn restart_postgres(&mut self, mode: StopMode, away: Duration) {
        self.fault(&format!("postgres stops, {mode:?}, for {away:?}"));
        let stopped = block_in_place(|| self.server.cluster.stop(mode));
        stopped.expect("it stops");
        sleep(away).await;
        let started = block_in_place(|| self.server.cluster.start_again());
        started.expect("it starts again");
    }

    /// The proxy before the server, in a plan that has one.
    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("it is planned")
    }

    /// A gateway that runs.
    pub(crate) fn gateway(&self, number: usize) -> &Process {
        let process = self.gateways[number].process.as_ref();
        process.expect("it runs")
    }

    /// Starts a gateway, for the first time or again, and waits until it is ready.
    pub(crate) async fn start_gateway(&mut self, number: usize) {
        let slot = &self.gateways[number];
        let url = match (&slot.url, &self.proxy) {
            (Some(url), _) => url.clone(),
            (None, Some(proxy)) => proxy.url().to_owned(),
            (None, None) => self.place.url(),
        };
        let flags: Vec<&str> = slot.flags.iter().map(String::as_str).collect();
        let process = block_in_place(|| Process::serve_at(&url, &flags));
        self.logs.push(process.log().clone());
        let deadline = Instant::now() + SETTLING;
        while process.ops("/readyz").await.status != 200 {
            assert!(Instant::now() < deadline, "never ready; {}", self.context());
            sleep(Duration::from_millis(5)).await;
        }
        self.gateways[number].process = Some(process);
        self.open_door(number);
    }

    /// A gateway is gone at once, as by `kill -9`.
    pub(crate) fn kill_gateway(&mut self, number: usize) {
        self.fault(&format!("gateway {number} is killed"));
        self.close_door(number);
        self.gateways[number].process = None;
    }

    /// Nobody is sent to this gateway any more; the process is handed over.
    pub(crate) fn take_gateway(&mut self, number: usize) -> Process {
        self.close_door(number);
        self.gateways[number].process.take().expect("it runs")
    }

    /// Nobody is sent to this gateway, whatever it does.
    pub(crate) fn close_door(&self, number: usize) {
        self.doors.lock().expect("nobody panics here")[number] = None;
    }

    /// Clients are sent to this gateway again.
    pub(crate) fn open_door(&self, number: usize) {
        let door = self.gateway(number).door();
        let mut doors = self.doors.lock().expect("nobody panics here");
        let count = doors.len().max(number + 1);
        doors.resize(count, None);
        doors[number] = Some(door);
    }

    /// Waits until what is published from now on reaches the open stream of a witness at every gateway that
    /// runs; it must within 15 seconds from this call, which is the moment at which the fault has healed.
    pub(crate) async fn recovers(&self) -> Duration {
        let healed = Instant::now();
        let client = self.session().await;
        let mut told = BTreeSet::new();
        let mut waiting: Vec<usize> = (0..self.gateways.len()).collect();
        waiting.retain(|number| self.gateways[*number].process.is_some());
        while !waiting.is_empty() {
            assert!(
                healed.elapsed() < RECOVERY,
                "gateways {waiting:?} had not recovered after {RECOVERY:?}; {}",
                self.context()
            );
            // Again and again, since a witness that was reset learns the first of them by a sync.
            let key = format!("probe.{}", self.probes.fetch_add(1, Ordering::Relaxed));
            self.publish_noted(&client, &[(key.clone(), "probe".to_owned(), "probe")])
                .await;
            told.insert(key);
            let again = Instant::now() + PROBE_AGAIN;
            while let Some(number) = waiting.last() {
                let mut probed = self.gateways[*number].probed.clone();
                let seen = probed.wait_for(|keys| !keys.is_disjoint(&told));
                if timeout_at(again, seen).await.is_err() {
                    break;
                }
                waiting.pop();
            }
        }
        let taken = healed.elapsed();
        let mut recoveries = self.recoveries.lock().expect("nobody panics here");
        recoveries.push(taken);
        taken
    }

    /// Publishes by itself, with intent and answer in the journal.
    pub(crate) async fn publish_noted(&self, client: &Client, events: &[Asked]) {
        let transaction = events[0].0.clone();
        self.journal.write(&Record::Intent {
            transaction: transaction.clone(),
            keys: events.iter().map(|(key, ..)| key.clone()).collect(),
        });
        let published = publish(client, events).await;
        published.unwrap_or_else(|error| panic!("{error:?}; {}", self.context()));
        self.journal.write(&Record::Answer {
            at: now(),
            transaction,
            outcome: Outcome::Ok,
        });
    }

    /// How many lines the gateways have logged that contain this.
    pub(crate) fn logged(&self, part: &str) -> usize {
        let count = |log: &Log| {
            let lines = log.lock().expect("nobody panics here");
            lines.iter().filter(|line| line.contains(part)).count()
        };
        self.logs.iter().map(count).sum()
    }

    /// What is needed to see a failure again.
    pub(crate) fn context(&self) -> String {
        let (name, seed, faults) = (self.name, self.seed, self.journal.fault_log());
        format!("{name}, TIDINGS_TEST_SEED={seed}\n{faults}")
    }
}
