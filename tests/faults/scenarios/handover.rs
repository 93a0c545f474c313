//! Awake and asleep in turn, a thousand times, and the one look that happens anyway switched off: whoever found
//! the bell silent and commits later is found by the gateway that went to sleep meanwhile.
//!
//! Whether to ring is decided at the INSERT, whether there is something to be found at the COMMIT, and writers
//! pause in between. Everything has a cluster of its own, because what others have open there would keep
//! a gateway looking that should have stopped.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use crate::lateness::{Moments, Spread};
use crate::listening::Listening;
use crate::rig::SETTINGS;
use crate::room;
use crate::support::backend::run;
use crate::support::client::{PATIENCE, Stream};
use crate::support::gateway::Gateway;
use crate::support::postgres::{Database, own_cluster};
use crate::support::setting;

const WRITERS: usize = 12;

/// How long the gateway is awake at once: shorter than most pauses of writers.
const AWAKE_FOR: Duration = Duration::from_millis(25);

/// How long it takes at most to be awake so often.
const LOAD: Duration = Duration::from_secs(140);

/// How late all but a thousandth of events may be at most, and any. On a busy machine, where those that were
/// rung for come late as well, twice as late as these; the same holds for all but a hundredth, which noise reaches last.
const LATE: Duration = Duration::from_millis(50);
const LATEST: Duration = Duration::from_millis(500);

/// One event's way to its commit.
struct Written {
    id: i64,
    pause: Duration,
    repeatable: bool,
}

struct Writer {
    client: Client,
    repeatable: bool,
    rng: Rng,
    commits: Moments,
    stop: Arc<AtomicBool>,
    place: usize,
    begun: Instant,
}

impl Writer {
    /// Writes until told to stop.
    async fn write(mut self) -> Vec<Written> {
        let mut written = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(self.rng.u64(0..60))).await;
            if self.place < self.at_work() {
                written.push(self.transaction().await);
            }
        }
        written
    }

    /// Every second another number of writers is at work: where few are, nobody else's bell calls the gateway
    /// to what it has missed.
    fn at_work(&self) -> usize {
        [12, 3, 5, 2][self.begun.elapsed().as_secs() as usize % 4]
    }

    async fn transaction(&mut self) -> Written {
        let level = match self.repeatable {
            true => "repeatable read",
            false => "read committed",
        };
        run(
            &self.client,
            &format!("begin isolation level {level}; select count(*) from tidings.floor"),
        )
        .await;
        // Some have had their snapshot, or even their transaction id, for long when they publish.
        match self.rng.u8(..6) {
            0 => sleep(Duration::from_millis(self.rng.u64(50..600))).await,
            1 => {
                run(&self.client, "select pg_current_xact_id()").await;
                sleep(Duration::from_millis(self.rng.u64(5..300))).await;
            }
            _ => {}
        }
        let publish = "select id, pg_notify('control', id::text)
                       from (select tidings.publish('t', 'said') as id offset 0) published";
        let row = self.client.query_one(publish, &[]).await;
        let id = row.expect("publishes").get(0);
        let pause = Duration::from_millis(match self.rng.u8(..20) {
            0 => self.rng.u64(300..1_500),
            1..5 => 0,
            _ => self.rng.u64(0..300),
        });
        sleep(pause).await;
        self.commits.note(id);
        run(&self.client, "commit").await;
        Written {
            id,
            pause,
            repeatable: self.repeatable,
        }
    }
}

/// When a session that listens heard of each of so many events, and those for which the writer rang. What one
/// commit notifies of comes in one piece, the bell first.
async fn hear(mut listening: Listening, count: usize) -> (Moments, BTreeSet<i64>) {
    let (moments, mut rung) = (Moments::default(), BTreeSet::new());
    let mut ringer = None;
    while moments.count() < count {
        let heard = timeout(PATIENCE, listening.next()).await;
        let (at, message) = heard.expect("it hears of all");
        let before = ringer.take();
        if message.channel() == "tidings" {
            ringer = Some(message.process_id());
            continue;
        }
        let id = message.payload().parse().expect("an id");
        moments.note_at(id, at);
        if before == Some(message.process_id()) {
            rung.insert(id);
        }
    }
    (moments, rung)
}

/// A gateway without the look that happens anyway, and what came at a stream of it.
struct Watched {
    name: &'static str,
    gateway: Gateway,
    arrivals: Moments,
    over: Arc<AtomicBool>,
    reading: JoinSet<()>,
}

impl Watched {
    async fn start(database: &Database, name: &'static str, awake: Option<u32>) -> Watched {
        let gateway = Gateway::start_changed(&database.url(), &[], |config| {
            config.look_every = Duration::from_secs(3_600);
            config.awake = awake;
            config.awake_for = Some(AWAKE_FOR);
        })
        .await;
        let mut watched = Watched {
            name,
            arrivals: Moments::default(),
            over: Arc::default(),
            reading: JoinSet::new(),
            gateway,
        };
        let stream = watched.gateway.subscribe(&["t"]).await;
        let read = read(stream, watched.arrivals.clone(), watched.over.clone());
        watched.reading.spawn(read);
        watched
    }

    async fn wakes(&self) -> f64 {
        self.gateway.metric("tidings_wakes_total").await
    }

    /// Reads to the end; whether each event came once, and in time. Those that were rung for are the control: they go
    /// the same way whatever becomes of the lock, and so tell what the machine alone makes late.
    async fn judge(self, commits: &Moments, rung: &BTreeSet<i64>) {
        self.over.store(true, Ordering::Relaxed);
        self.reading.join_all().await;
        let late = self.arrivals.after(commits);
        let control = late.iter().filter(|(id, _)| rung.contains(id));
        let control = Spread::of(control.map(|(_, late)| *late));
        let late = Spread::of(late.into_values());
        let name = self.name;
        println!("{name}: {late} late; those rung for: {control}");
        assert_eq!(self.arrivals.ids(), commits.ids(), "{name}: each, and once");
        // Of few events, the slowest thousandth is the slowest one.
        let slowest = if commits.count() < 2_000 { 990 } else { 999 };
        for (part, bound) in [(990, LATE), (slowest, LATE), (1000, LATEST)] {
            let limit = bound.max(2 * control.per_mille(part));
            assert!(late.per_mille(part) <= limit, "{name}: {late}; {limit:?}");
        }
    }
}

/// Notes what comes until nothing has for longer than anything may take.
async fn read(mut stream: Stream, arrivals: Moments, over: Arc<AtomicBool>) {
    loop {
        let last = over.load(Ordering::Relaxed);
        match timeout(4 * LATEST, stream.ids(1)).await {
            Ok(ids) => arrivals.note(ids[0]),
            Err(_) if last => return,
            Err(_) => {}
        }
    }
}

/// Writes until the gateway has woken so often, or for as long as it may take.
async fn write(
    database: &Database,
    rng: &mut Rng,
    awake: &Watched,
    wakes: f64,
    commits: &Moments,
) -> Vec<Written> {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let mut writing = JoinSet::new();
    for place in 0..WRITERS {
        let writer = Writer {
            client: database.connect().await,
            repeatable: place % 2 == 1,
            rng: rng.fork(),
            commits: commits.clone(),
            stop: stop.clone(),
            place,
            begun,
        };
        writing.spawn(writer.write());
    }
    while awake.wakes().await < wakes && begun.elapsed() < LOAD {
        sleep(Duration::from_millis(250)).await;
    }
    stop.store(true, Ordering::Relaxed);
    writing.join_all().await.into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "milliseconds are judged: it needs the machine to itself"]
async fn who_found_the_bell_silent_and_commits_later_is_heard_at_once() {
    let _room = room::heavy().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let server = block_in_place(|| own_cluster(&SETTINGS));
    let database = block_in_place(|| server.database());
    let awake = Watched::start(&database, "awake in turn", Some(1)).await;
    // What it does not hear from the first one it does not hear at all.
    let other = Watched::start(&database, "only listens", None).await;
    let listening = Listening::start(&database, &["control", "tidings"]).await;
    let commits = Moments::default();
    let begun = Instant::now();
    let enough = setting("TIDINGS_TEST_WAKES", 1_000) as f64;
    let written = write(&database, &mut rng, &awake, enough, &commits).await;
    let (lasted, wakes) = (begun.elapsed(), awake.wakes().await);

    let (heard, rung) = hear(listening, written.len()).await;
    // Who decided not to ring while the gateway was awake, and committed after it had gone to sleep.
    let crossed = |event: &&Written| !rung.contains(&event.id) && event.pause > 2 * AWAKE_FOR;
    let crossings: Vec<&Written> = written.iter().filter(crossed).collect();
    let repeatable = crossings.iter().filter(|event| event.repeatable).count();
    println!(
        "held: awake and asleep in turn, seed {seed}: {} events; {wakes} wakes; {} rung for; {} silent and committed after \
         the gateway slept; {repeatable} of these REPEATABLE READ",
        written.len(),
        rung.len(),
        crossings.len()
    );
    let heard = Spread::of(heard.after(&commits).into_values());
    println!("a plain session that listens: {heard}");
    awake.judge(&commits, &rung).await;
    other.judge(&commits, &rung).await;
    assert!(wakes >= enough, "{wakes} in {lasted:?}");
    let many = crossings.len() as f64 > 0.3 * enough && repeatable as f64 > 0.1 * enough;
    assert!(many, "{} and {repeatable}", crossings.len());
}
