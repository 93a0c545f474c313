//! Readers: clients as they are out there. They read, are cut, come back elsewhere, sync, renew
//! their tokens, and note every step before they take the next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::journal::{End, Journal, Record, now};
use crate::support::client::{Answer, Block, NoStream, Visit};
use crate::support::gateway::{Door, token};

/// The type of the event that ends each topic.
pub(crate) const LAST: &str = "last";

/// How long an answer may take before a client gives up: more than a gateway takes for one, and less than
/// what fails the test.
const ANSWER: Duration = Duration::from_secs(12);

/// Nobody waits longer than this before trying again, whatever was asked: the run is short.
const WAIT_MAX_MS: u64 = 400;

/// The doors of the gateways that run, by number.
pub(crate) type Doors = Arc<Mutex<Vec<Option<Door>>>>;

/// What kind of client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// A browser that is cut at random.
    Cut,
    /// A browser that stays for as long as it is let.
    Stay,
    /// A phone that is cut at random, and syncs before it opens a stream again.
    Phone,
    /// A browser that is cut at random, and comes back at another gateway each time.
    Alternate,
}

/// One client.
pub(crate) struct Reader {
    pub(crate) number: u64,
    pub(crate) rng: Rng,
    pub(crate) doors: Doors,
    pub(crate) journal: Journal,
    pub(crate) habit: Habit,
    /// The gateway to which it comes while that runs; any, otherwise.
    pub(crate) at: Option<usize>,
    /// The gateway to which it came last.
    pub(crate) last: Option<usize>,
    pub(crate) topics: Vec<String>,
    pub(crate) cursor: String,
    /// How long nothing may come on a stream before it counts as dead.
    pub(crate) silence: Duration,
    /// How long a token lasts at least, in seconds.
    pub(crate) token_s: u64,
    /// Nobody is cut any more, so that all get to the end.
    pub(crate) calm: Arc<AtomicBool>,
    /// Where the keys that it has seen are told, if anybody wants to know.
    pub(crate) told: Option<watch::Sender<BTreeSet<String>>>,
    /// The topics that have not ended.
    pub(crate) left: BTreeSet<String>,
    /// A reset was met: state is to be had before another stream.
    pub(crate) must_sync: bool,
}

impl Reader {
    /// Reads until the end of all its topics.
    pub(crate) async fn read(mut self) {
        self.left = self.topics.iter().cloned().collect();
        self.journal.write(&Record::Client {
            client: self.number,
            topics: self.topics.clone(),
            since: self.cursor.clone(),
        });
        while !self.left.is_empty() {
            let Some((gateway, door)) = self.door() else {
                sleep(Duration::from_millis(20)).await;
                continue;
            };
            let wants_state = self.habit == Habit::Phone && self.rng.bool();
            if self.must_sync || wants_state {
                self.sync(door).await;
            } else {
                self.visit(gateway, door).await;
            }
        }
        self.end(End::Done);
    }

    /// A gateway that runs.
    fn door(&mut self) -> Option<(usize, Door)> {
        let doors = self.doors.lock().expect("nobody panics here");
        let open: Vec<(usize, Door)> = doors
            .iter()
            .enumerate()
            .filter_map(|(number, door)| Some((number, (*door)?)))
            .collect();
        drop(doors);
        let own = open.iter().find(|(number, _)| Some(*number) == self.at);
        let alternate = self.habit == Habit::Alternate;
        let other = |(number, _): &&(usize, Door)| alternate && Some(*number) != self.last;
        let taken = own.or_else(|| open.iter().find(other)).copied();
        let taken = taken.or_else(|| self.rng.choice(open))?;
        self.last = Some(taken.0);
        Some(taken)
    }

    /// A request of this client, with a fresh token; and when that expires.
    fn request(&mut self, door: Door, path: &str) -> (Visit, i64) {
        let seconds = self.token_s + self.rng.u64(0..=self.token_s);
        let expires = now() / 1_000_000 + seconds as i64;
        let claims = json!({"topics": self.topics, "exp": expires});
        let bearer = token(&format!("reader-{}", self.number), claims);
        let mut query: Vec<String> = self.topics.iter().map(|t| format!("topic={t}")).collect();
        // It asks for more than it may have, now and then.
        if self.rng.f64() < 0.2 {
            query.push("topic=secret".to_owned());
        }
        let visit = Visit::new(door.address, "GET", &format!("{path}?{}", query.join("&")));
        (visit.bearer(&bearer), expires * 1_000_000)
    }

    fn end(&self, why: End) {
        self.journal.write(&Record::End {
            at: now(),
            client: self.number,
            why,
            cursor: self.cursor.clone(),
        });
    }

    async fn wait(&mut self, asked_ms: u64) {
        let most = asked_ms.clamp(20, WAIT_MAX_MS);
        sleep(Duration::from_millis(self.rng.u64(most / 2..=most))).await;
    }

    /// One stream, up to its end.
    async fn visit(&mut self, gateway: usize, door: Door) {
        let (visit, expires) = self.request(door, "/v1/events");
        self.journal.write(&Record::Connect {
            at: now(),
            client: self.number,
            gateway,
            since: self.cursor.clone(),
            expires,
        });
        let visit = visit.header("last-event-id", &self.cursor);
        let mut stream = match timeout(ANSWER, visit.try_stream()).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(NoStream::Refused(answer))) => {
                self.end(End::Refused(answer.status));
                return self.wait(WAIT_MAX_MS).await;
            }
            Ok(Err(NoStream::Unreachable(_))) | Err(_) => {
                self.end(End::Unreachable);
                return self.wait(100).await;
            }
        };
        let (stays, mut blocks) = self.patience();
        let until = Instant::now() + stays;
        let mut asked_ms = 100;
        let why = loop {
            if self.left.is_empty() || blocks == 0 {
                break End::Cut;
            }
            blocks -= 1;
            let silent = Instant::now() + self.silence;
            match timeout_at(until.min(silent), stream.next()).await {
                Ok(Some(block)) => {
                    asked_ms = block.retry.unwrap_or(asked_ms);
                    if let Some(why) = self.take(&block) {
                        break why;
                    }
                }
                Ok(None) => break End::Broken,
                Err(_) if until <= silent => break End::Cut,
                Err(_) => break End::Silent,
            }
        };
        let at_once = why == End::Cut;
        drop(stream);
        self.end(why);
        if !at_once {
            self.wait(asked_ms).await;
        }
    }

    /// How long it stays this time, and for how many blocks.
    fn patience(&mut self) -> (Duration, u64) {
        if self.habit == Habit::Stay || self.calm.load(Ordering::Relaxed) {
            return (Duration::from_secs(3600), u64::MAX);
        }
        let blocks = if self.rng.bool() { 8 } else { 200 };
        let stays = Duration::from_millis(self.rng.u64(0..1_500));
        (stays, self.rng.u64(1..=blocks))
    }

    /// One block; an answer is the reason to end the stream.
    fn take(&mut self, block: &Block) -> Option<End> {
        let (at, client) = (now(), self.number);
        if block.event_id().is_some() {
            self.cursor
                .clone_from(block.id.as_ref().expect("an event has a cursor"));
            self.event(block.json());
            return None;
        }
        let data = block.json();
        if block.is("tidings.reset") {
            let reason = data["reason"].as_str().expect("a reason").to_owned();
            self.reset(&reason);
            return Some(End::Cut);
        }
        if let Some(cursor) = &block.id {
            self.cursor.clone_from(cursor);
        }
        if block.is("tidings.ready") {
            self.journal.write(&Record::Ready {
                at,
                client,
                resumed: data["resumed"] == true,
                replayed: data["replayed"].as_u64().expect("a count"),
            });
        } else if block.is("tidings.bye") {
            return Some(End::Bye(
                data["reason"].as_str().expect("a reason").to_owned(),
            ));
        } else {
            assert!(block.is("tidings.beat"), "client {client}: {block:?}");
        }
        None
    }

    fn event(&mut self, event: Value) {
        if event["type"] == LAST {
            self.left.remove(event["topic"].as_str().expect("a topic"));
        }
        if let (Some(told), Some(key)) = (&self.told, event["data"]["key"].as_str()) {
            told.send_modify(|keys| _ = keys.insert(key.to_owned()));
        }
        self.journal.write(&Record::Event {
            at: now(),
            client: self.number,
            cursor: self.cursor.clone(),
            event,
        });
    }

    fn reset(&mut self, reason: &str) {
        self.must_sync = true;
        self.journal.write(&Record::Reset {
            at: now(),
            client: self.number,
            cursor: self.cursor.clone(),
            reason: reason.to_owned(),
        });
    }

    /// Syncs up to now, page after page; whatever fails is asked again, from where it was.
    async fn sync(&mut self, door: Door) {
        let (visit, _) = self.request(door, "/v1/sync");
        let limit = self.rng.u64(50..=400);
        let visit = visit.and_query(&format!("since={}&limit={limit}", self.cursor));
        let answer = match timeout(ANSWER, visit.try_send()).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => return self.wait(100).await,
        };
        match answer.status {
            200 => self.page(&answer),
            503 => {
                assert!(answer.header("retry-after").is_some(), "{answer:?}");
                self.wait(WAIT_MAX_MS).await;
            }
            status => {
                self.end(End::Refused(status));
                self.wait(WAIT_MAX_MS).await;
            }
        }
    }

    fn page(&mut self, answer: &Answer) {
        // Cut within its body: as if it had never come.
        let Ok(mut page) = serde_json::from_str::<Value>(&answer.body) else {
            return;
        };
        if let Some(reason) = page["reset"].as_str() {
            self.reset(reason);
        }
        self.cursor = page["cursor"].as_str().expect("a cursor").to_owned();
        for event in page["events"].as_array_mut().expect("events") {
            self.event(event.take());
        }
        if page["more"] == true {
            self.must_sync = true;
            return;
        }
        self.must_sync = false;
        let state = page["state"].take();
        self.left.retain(|topic| state[topic]["ended"] != true);
        self.journal.write(&Record::Synced {
            at: now(),
            client: self.number,
            cursor: self.cursor.clone(),
            state,
        });
    }
}
