//! A throng: many light clients at one gateway, each with a watchdog, as browsers are. Each remembers
//! the ids that it has seen and how its streams ended, and comes back by its cursor wherever a
//! gateway takes clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use fastrand::Rng;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use crate::readers::{Doors, LAST};
use crate::rig::Rig;
use crate::support::backend::cursor;
use crate::support::client::NoStream;
use crate::support::gateway::{Door, token};

/// What all of it reads.
pub(crate) const TOPIC: &str = "throng";

/// How long nothing may come before a stream counts as dead: several beats.
const SILENCE: Duration = Duration::from_secs(10);

/// How long the head of an answer may take.
const ANSWER: Duration = Duration::from_secs(12);

/// How long all of it may take to come back, on a busy machine.
const RETURN: Duration = Duration::from_secs(90);

/// Throngs come one after the other, or a busy machine has to open them all at once.
static GATE: Mutex<()> = Mutex::const_new(());

/// What one client has lived through.
#[derive(Debug, Default)]
pub(crate) struct Tale {
    pub(crate) ids: Vec<i64>,
    /// Why each of its streams ended, at which gateway, and when.
    pub(crate) ends: Vec<(String, usize, Instant)>,
}

/// All of them.
pub(crate) struct Throng {
    clients: JoinSet<Tale>,
    size: usize,
    /// How many have a live stream, by gateway.
    live: Arc<[AtomicUsize; 2]>,
    /// How much was said to it.
    said: AtomicU64,
    pub(crate) start: String,
}

impl Throng {
    /// So many clients with live streams at the first gateway.
    pub(crate) async fn gather(rig: &Rig<'_>, size: usize) -> Throng {
        let _gate = GATE.lock().await;
        let start = cursor(&rig.session().await).await;
        let mut throng = Throng {
            clients: JoinSet::new(),
            size,
            live: Arc::default(),
            said: AtomicU64::new(0),
            start,
        };
        for number in 0..size {
            let member = Member {
                number,
                rng: Rng::with_seed(rig.seed ^ number as u64),
                doors: rig.doors.clone(),
                live: throng.live.clone(),
                cursor: throng.start.clone(),
                tale: Tale::default(),
            };
            throng.clients.spawn(member.follow());
        }
        throng.is_at(0, rig).await;
        throng
    }

    /// Waits until all of it is live at this gateway; returns how long that took.
    pub(crate) async fn is_at(&self, gateway: usize, rig: &Rig<'_>) -> Duration {
        let begun = Instant::now();
        loop {
            let live = self.live[gateway].load(Ordering::Relaxed);
            if live == self.size {
                return begun.elapsed();
            }
            assert!(
                begun.elapsed() < RETURN,
                "{live} of {} at gateway {gateway}; {}",
                self.size,
                rig.context()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes something for all of it.
    pub(crate) async fn tell(&self, rig: &Rig<'_>, client: &Client, kind: &'static str) {
        let number = self.said.fetch_add(1, Ordering::Relaxed);
        let event = (format!("throng.{number}"), TOPIC.to_owned(), kind);
        rig.publish_noted(client, &[event]).await;
    }

    /// Says the last word, and holds what everybody has seen against the log: each event once, in order.
    pub(crate) async fn end(mut self, rig: &Rig<'_>, client: &Client) -> Vec<Tale> {
        self.tell(rig, client, LAST).await;
        let clients = std::mem::take(&mut self.clients);
        let tales = timeout(RETURN, clients.join_all()).await;
        let tales = tales.unwrap_or_else(|_| panic!("not all to the end; {}", rig.context()));
        let expected = published(client).await;
        assert!(expected.len() > 3, "{expected:?}");
        for tale in &tales {
            assert_eq!(tale.ids, expected, "{:?}; {}", tale.ends, rig.context());
        }
        tales
    }
}

/// The ids of all that was said to the throng.
pub(crate) async fn published(client: &Client) -> Vec<i64> {
    let question = "select id from tidings.event where topic = $1 order by id";
    let rows = client.query(question, &[&TOPIC]).await.expect("the log");
    rows.iter().map(|row| row.get(0)).collect()
}

struct Member {
    number: usize,
    rng: Rng,
    doors: Doors,
    live: Arc<[AtomicUsize; 2]>,
    cursor: String,
    tale: Tale,
}

impl Member {
    async fn follow(mut self) -> Tale {
        loop {
            let Some((gateway, door)) = self.door() else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let Some(why) = self.visit(gateway, door).await else {
                return self.tale;
            };
            self.tale.ends.push((why, gateway, Instant::now()));
            sleep(Duration::from_millis(self.rng.u64(50..500))).await;
        }
    }

    /// The first gateway while that takes clients, and otherwise the other.
    fn door(&self) -> Option<(usize, Door)> {
        let doors = self.doors.lock().expect("nobody panics here");
        let open = |number: usize| doors.get(number).copied().flatten();
        [0, 1].into_iter().find_map(|n| Some((n, open(n)?)))
    }

    /// One stream; why it ended, or `None` after the last word.
    async fn visit(&mut self, gateway: usize, door: Door) -> Option<String> {
        let user = format!("member-{}", self.number);
        let visit = door
            .events(&[TOPIC])
            .bearer(&token(&user, json!({"topics": [TOPIC]})))
            .header("last-event-id", &self.cursor);
        let mut stream = match timeout(ANSWER, visit.try_stream()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(NoStream::Refused(answer))) => panic!("refused: {answer:?}"),
            Ok(Err(NoStream::Unreachable(_))) | Err(_) => return Some("unreachable".to_owned()),
        };
        let mut live = None;
        loop {
            let block = match timeout(SILENCE, stream.next()).await {
                Ok(Some(block)) => block,
                Ok(None) => return Some("broken".to_owned()),
                Err(_) => return Some("silent".to_owned()),
            };
            assert!(!block.is("tidings.reset"), "{block:?}");
            if let Some(cursor) = &block.id {
                self.cursor.clone_from(cursor);
            }
            if let Some(id) = block.event_id() {
                self.tale.ids.push(id);
                if block.json()["type"] == LAST {
                    return None;
                }
            } else if block.is("tidings.bye") {
                return Some(
                    block.json()["reason"]
                        .as_str()
                        .expect("a reason")
                        .to_owned(),
                );
            } else if block.is("tidings.ready") {
                assert_eq!(block.json()["resumed"], true, "{block:?}");
                live = Some(Live::at(&self.live, gateway));
            }
            let _ = &live;
        }
    }
}

/// Counts as live for as long as it is held.
struct Live(Arc<[AtomicUsize; 2]>, usize);

impl Live {
    fn at(live: &Arc<[AtomicUsize; 2]>, gateway: usize) -> Live {
        live[gateway].fetch_add(1, Ordering::Relaxed);
        Live(live.clone(), gateway)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0[self.1].fetch_sub(1, Ordering::Relaxed);
    }
}
