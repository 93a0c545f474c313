//! Two gateways under three hundred commits a second, one of them awake: it is stopped, killed, cut off from its
//! database. The other is as quick as before within seconds, writers wait for nobody, and one is awake again.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::Client;

use crate::lateness::{Moments, Spread};
use crate::listening::Pulse;
use crate::rig::SETTINGS;
use crate::room;
use crate::support::backend::{cursor, publish};
use crate::support::client::PATIENCE;
use crate::support::gateway::Door;
use crate::support::postgres::{Database, own_cluster};
use crate::support::process::Process;
use crate::support::proxy::Proxy;
use crate::support::setting;

const FLAGS: [&str; 2] = ["--heartbeat=1s", "--replay=100000"];

const WRITERS: u32 = 6;
/// Between two commits of one of them.
const PAUSE: Duration = Duration::from_millis(20);

/// How late one in a hundred of a second's events may be, and how soon after a blow they must be so again.
const LATE: Duration = Duration::from_millis(20);
const RETURN: Duration = Duration::from_secs(3);
/// On a busy machine, where a plain session that listens hears late as well: so many times as late as this, since an
/// event goes a longer way. Who only looks once a second is late by far more.
const BUSY: u32 = 5;
/// How long is watched after a blow.
const WATCHED: Duration = Duration::from_secs(5);
/// How long a commit may take.
const BLOCKED: Duration = Duration::from_secs(1);
/// How soon one gateway is awake again.
const AWAKE_AGAIN: Duration = Duration::from_secs(5);

#[derive(Clone, Copy, Debug)]
enum Blow {
    Stop,
    Kill,
    Cut,
}

const BLOWS: [Blow; 3] = [Blow::Stop, Blow::Kill, Blow::Cut];

/// One gateway behind a proxy of its own, and a witness that follows it through all its lives.
struct Slot {
    proxy: Proxy,
    process: Option<Process>,
    door: watch::Sender<Option<Door>>,
    arrivals: Moments,
    witness: JoinSet<()>,
}

impl Slot {
    async fn start(database: &Database, start: &str) -> Slot {
        let mut slot = Slot {
            proxy: Proxy::start(database).await,
            process: None,
            door: watch::Sender::default(),
            arrivals: Moments::default(),
            witness: JoinSet::new(),
        };
        slot.serve();
        let (doors, arrivals) = (slot.door.subscribe(), slot.arrivals.clone());
        let follow = follow(doors, start.to_owned(), arrivals);
        slot.witness.spawn(follow);
        slot
    }

    fn serve(&mut self) {
        let process = block_in_place(|| Process::serve_at(self.proxy.url(), &FLAGS));
        self.door.send_replace(Some(process.door()));
        self.process = Some(process);
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("it runs")
    }

    async fn is_awake(&self) -> bool {
        self.process().metric("tidings_awake").await == 1.0
    }

    fn suffer(&mut self, blow: Blow) {
        match blow {
            Blow::Stop => self.process().signal("STOP"),
            Blow::Kill => {
                self.door.send_replace(None);
                self.process = None;
            }
            Blow::Cut => self.proxy.swallow(),
        }
    }

    fn heal(&mut self, blow: Blow) {
        match blow {
            Blow::Stop => self.process().signal("CONT"),
            Blow::Kill => self.serve(),
            // It has to find out by itself.
            Blow::Cut => {}
        }
    }
}

/// Notes what comes at a gateway, and goes on from there whenever it is there again.
async fn follow(mut doors: watch::Receiver<Option<Door>>, mut cursor: String, arrivals: Moments) {
    loop {
        let door = doors.wait_for(Option::is_some).await.map(|door| *door);
        let Ok(Some(door)) = door else { return };
        let mut stream = door.resume(&["t"], Some(&cursor)).await;
        loop {
            // A gateway that is stopped says nothing for as long as it is.
            let Ok(block) = timeout(PATIENCE / 2, stream.next()).await else {
                continue;
            };
            let Some(block) = block else { break };
            assert!(!block.is("tidings.reset"), "{block:?}");
            if let Some(id) = block.event_id() {
                arrivals.note(id);
            }
            if let Some(id) = block.id {
                cursor = id;
            }
        }
        // It has died, and its door is closed or leads to the next one by now; or the test is over.
        let moved = |next: &Option<Door>| next.is_none_or(|next| next.address != door.address);
        if doors.wait_for(moved).await.is_err() {
            return;
        }
    }
}

struct Writers {
    commits: Moments,
    took: Arc<Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Writers {
    async fn start(database: &Database) -> Writers {
        let mut writers = Writers {
            commits: Moments::default(),
            took: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        for _ in 0..WRITERS {
            let client = database.connect().await;
            let (commits, took, stop) = (
                writers.commits.clone(),
                writers.took.clone(),
                writers.stop.clone(),
            );
            writers.tasks.spawn(async move {
                let mut ticks = interval(PAUSE);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    let sent = Instant::now();
                    let id = publish(&client, "t").await;
                    commits.note_at(id, sent);
                    took.lock()
                        .expect("nobody panics here")
                        .push(sent.elapsed());
                }
            });
        }
        writers
    }

    async fn end(mut self) -> Spread {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.expect("a writer does not fail");
        }
        let took = self.took.lock().expect("nobody panics here");
        Spread::of(took.iter().copied())
    }
}

/// What a blow did to those at the other gateway.
struct Felt {
    /// From when on a second's events were as quick as they must be; for as long as was watched, if never.
    back: Duration,
    most: Duration,
    after: Spread,
    pulse: Spread,
}

impl Felt {
    /// Looks at what was committed from this moment on, as long as it was watched.
    fn since(blow: Instant, commits: &Moments, arrivals: &Moments, pulse: &Pulse) -> Felt {
        let spread = |sent: &Moments, heard: &Moments, from: Duration, to: Duration| {
            Spread::of(sent.between(blow + from, blow + to).waits(heard))
        };
        let second = Duration::from_secs(1);
        let mut starts = (0..).map(|n| n * Duration::from_millis(50));
        let back = starts.find(|start| {
            let end = *start + second;
            let limit = BUSY * spread(&pulse.sent, &pulse.heard, *start, end).per_mille(990);
            end > WATCHED
                || spread(commits, arrivals, *start, end).per_mille(990) <= LATE.max(limit)
        });
        Felt {
            back: back.expect("they go on").min(WATCHED),
            most: spread(commits, arrivals, Duration::ZERO, WATCHED).most(),
            after: spread(commits, arrivals, RETURN, WATCHED),
            pulse: spread(&pulse.sent, &pulse.heard, Duration::ZERO, WATCHED),
        }
    }
}

impl fmt::Display for Felt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Felt {
            back,
            most,
            after,
            pulse,
        } = self;
        write!(
            f,
            "back after {back:.2?}, at most {most:.1?} late; from {RETURN:?} on {after}; a plain session: {pulse}"
        )
    }
}

/// Waits until exactly one is awake; which one it is.
async fn awake_one(slots: &[Slot; 2]) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match (slots[0].is_awake().await, slots[1].is_awake().await) {
            (true, false) => return 0,
            (false, true) => return 1,
            both => assert!(Instant::now() < deadline, "{both:?}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until what is committed from now on comes at this gateway; how long that takes.
async fn flows(slot: &Slot, client: &Client, commits: &Moments) -> Duration {
    let begun = Instant::now();
    let id = publish(client, "t").await;
    commits.note_at(id, begun);
    while !slot.arrivals.has(id) {
        assert!(begun.elapsed() < PATIENCE, "nothing comes");
        sleep(Duration::from_millis(5)).await;
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "milliseconds are judged: it needs the machine to itself"]
async fn the_awake_of_two_gateways_is_stopped_killed_cut_off_and_the_other_goes_on() {
    let _room = room::heavy().await;
    let stopped = Duration::from_secs(setting("TIDINGS_TEST_STOPPED_S", 8));
    let server = block_in_place(|| own_cluster(&SETTINGS));
    let database = block_in_place(|| server.database());
    let client = database.connect().await;
    let start = cursor(&client).await;
    let mut slots = [
        Slot::start(&database, &start).await,
        Slot::start(&database, &start).await,
    ];
    let pulse = Pulse::start(&database).await;
    let writers = Writers::start(&database).await;
    let commits = writers.commits.clone();
    let mut slowest = Duration::ZERO;
    for blow in BLOWS.repeat(2) {
        let one = awake_one(&slots).await;
        let other = 1 - one;
        let struck = Instant::now();
        slots[one].suffer(blow);
        while !slots[other].is_awake().await {
            assert!(struck.elapsed() < AWAKE_AGAIN, "{blow:?}: nobody is awake");
            sleep(Duration::from_millis(10)).await;
        }
        let awake = struck.elapsed();
        sleep((WATCHED + LATE).saturating_sub(struck.elapsed())).await;
        let felt = Felt::since(struck, &commits, &slots[other].arrivals, &pulse);
        println!("{blow:?} of gateway {one}: the other is awake after {awake:.2?}; {felt}");
        assert!(felt.back <= RETURN, "{blow:?}: {felt}");
        slowest = slowest.max(felt.back);
        if matches!(blow, Blow::Stop) {
            sleep(stopped.saturating_sub(struck.elapsed())).await;
        }
        slots[one].heal(blow);
        let healed = flows(&slots[one], &client, &commits).await;
        println!(
            "{blow:?} of gateway {one}: what is committed comes there again after {healed:.2?}"
        );
    }
    awake_one(&slots).await;
    let took = writers.end().await;
    println!(
        "held: blows upon whoever is awake: {} events; {} blows; {} ms to the slowest return; {} ms for the slowest commit",
        commits.count(),
        2 * BLOWS.len(),
        slowest.as_millis(),
        took.most().as_millis()
    );
    println!("commits took {took}");
    let deadline = Instant::now() + PATIENCE;
    for slot in &mut slots {
        while slot.arrivals.ids() != commits.ids() {
            let came = slot.arrivals.count();
            assert!(Instant::now() < deadline, "{came} of {}", commits.count());
            sleep(Duration::from_millis(50)).await;
        }
        assert!(
            slot.witness.try_join_next().is_none(),
            "a witness has failed"
        );
    }
    assert!(took.most() < BLOCKED, "{took}");
}
