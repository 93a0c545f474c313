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
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{AsyncMessage, Client, NoTls, Notification};

use crate::lateness::{Moments, Spread};
use crate::rig::SETTINGS;
use crate::room;
use crate::support::backend::run;
use crate::support::client::Stream;
use crate::support::gateway::Gateway;
use crate::support::postgres::{Database, own_cluster};
use crate::support::setting;

const WAKES: f64 = 1_000.0;
const WRITERS: usize = 12;

/// How long the gateway is awake at once: shorter than most pauses of writers.
const AWAKE_FOR: Duration = Duration::from_millis(25);

/// How long it takes at most to be awake so often.
const LOAD: Duration = Duration::from_secs(140);

/// How late a thousandth of events may be, and any.
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

/// A plain session that listens, and what it has heard when.
struct Listening {
    _session: Client,
    heard: mpsc::UnboundedReceiver<(Instant, Notification)>,
    _driver: JoinSet<()>,
}

impl Listening {
    async fn start(database: &Database) -> Listening {
        let connected = tokio_postgres::connect(&database.url(), NoTls).await;
        let (session, mut connection) = connected.expect("a session");
        let (told, heard) = mpsc::unbounded_channel();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let mut messages = futures::stream::poll_fn(|cx| connection.poll_message(cx));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(message) = message {
                    let _ = told.send((Instant::now(), message));
                }
            }
        });
        run(&session, "listen control; listen tidings").await;
        Listening {
            _session: session,
            heard,
            _driver: driver,
        }
    }

    /// When it heard of each event so far, and those for which its writer rang. What one commit notifies of comes in
    /// one piece, the bell first.
    fn end(mut self) -> (Moments, BTreeSet<i64>) {
        let (moments, mut rung) = (Moments::default(), BTreeSet::new());
        let mut ringer = None;
        while let Ok((at, message)) = self.heard.try_recv() {
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
}

/// Notes what comes until nothing has for longer than anything may take.
async fn read(mut stream: Stream, arrivals: Moments, stop: Arc<AtomicBool>) {
    loop {
        let over = stop.load(Ordering::Relaxed);
        match timeout(4 * LATEST, stream.ids(1)).await {
            Ok(ids) => arrivals.note(ids[0]),
            Err(_) if over => return,
            Err(_) => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_found_the_bell_silent_and_commits_later_is_heard_at_once() {
    let _room = room::half_heavy().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let mut rng = Rng::with_seed(seed);
    let server = block_in_place(|| own_cluster(&SETTINGS));
    let database = block_in_place(|| server.database());
    let gateway = Gateway::start_changed(&database.url(), &[], |config| {
        config.look_every = Duration::from_secs(3_600);
        config.awake = Some(1);
        config.awake_for = Some(AWAKE_FOR);
    })
    .await;
    let listening = Listening::start(&database).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (commits, arrivals) = (Moments::default(), Moments::default());
    let mut reading = JoinSet::new();
    let stream = gateway.subscribe(&["t"]).await;
    let silence = Arc::new(AtomicBool::new(false));
    reading.spawn(read(stream, arrivals.clone(), silence.clone()));

    let begun = Instant::now();
    let mut writing = JoinSet::new();
    for place in 0..WRITERS {
        let client = database.connect().await;
        let writer = Writer {
            client,
            repeatable: place % 2 == 1,
            rng: rng.fork(),
            commits: commits.clone(),
            stop: stop.clone(),
            place,
            begun,
        };
        writing.spawn(writer.write());
    }
    while gateway.metric("tidings_wakes_total").await < WAKES && begun.elapsed() < LOAD {
        sleep(Duration::from_millis(250)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let written: Vec<Written> = writing.join_all().await.into_iter().flatten().collect();
    let lasted = begun.elapsed();
    silence.store(true, Ordering::Relaxed);
    reading.join_all().await;

    let (heard, rung) = listening.end();
    // Who decided not to ring while the gateway was awake, and committed after it had gone to sleep.
    let crossed = |event: &&Written| !rung.contains(&event.id) && event.pause > 2 * AWAKE_FOR;
    let crossings: Vec<&Written> = written.iter().filter(crossed).collect();
    let repeatable = crossings.iter().filter(|event| event.repeatable).count();
    let wakes = gateway.metric("tidings_wakes_total").await;
    println!(
        "held: handover, seed {seed}: {} events in {lasted:.1?}; {wakes} wakes; {} rung for; {} silent and committed after \
         the gateway slept, {repeatable} of them REPEATABLE READ",
        written.len(),
        rung.len(),
        crossings.len()
    );
    let late = arrivals.after(&commits);
    let control = heard.after(&commits);
    let excess = late
        .iter()
        .map(|(id, late)| late.saturating_sub(control[id]));
    let (excess, late) = (Spread::of(excess), Spread::of(late.values().copied()));
    println!("late: {late}");
    println!(
        "a session that listens: {}",
        Spread::of(control.values().copied())
    );
    println!("later than that: {excess}");
    assert_eq!(arrivals.ids(), commits.ids(), "each event, and each once");
    assert!(wakes >= WAKES, "{wakes} in {lasted:?}");
    assert!(
        crossings.len() > 300 && repeatable > 100,
        "{}",
        crossings.len()
    );
    assert!(late.per_mille(999) <= LATE, "{late}");
    assert!(late.most() <= LATEST, "{late}");
}
