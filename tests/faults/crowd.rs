//! A crowd: thousands of clients in this process, each an EventSource of a user of its own, with next
//! to no buffer; a steady load for them; and one who asks all the while whether the gateway is well.
//!
//! Everybody follows their own topic, that of their group, and one that all have. What they do and see
//! goes into the journal, and is judged as every other run.

mod client;
mod load;
mod probes;
mod wire;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client as Session;

use self::client::Client;
pub(crate) use self::load::Load;
pub(crate) use self::probes::{Probes, until_ready};
use crate::checker::{Terms, Verdict, judge};
use crate::journal::{Journal, Moment, Outcome, Record, now};
use crate::oracle::Oracle;
use crate::publishers::publish;
use crate::readers::LAST;
use crate::support::backend::cursor;
use crate::support::gateway::token;

/// The topic that everybody has, for the event that ends the run.
const ALL: &str = "all";

/// How many share a group.
const GROUP: u64 = 100;

/// How many open their first stream at a time. A storm knows no such manners.
const OPENING: usize = 200;

/// How long everybody may take to come to the first stream, and to the end.
const SETTLING: Duration = Duration::from_secs(120);

/// What of the crowd is seen while it runs.
#[derive(Debug)]
pub(crate) struct Board {
    /// Streams that are live.
    live: AtomicUsize,
    /// Since the last cut: the first try to come back, and the latest stream that became live.
    first_retry: AtomicI64,
    last_ready: AtomicI64,
}

impl Board {
    fn connects(&self, at: Moment) {
        self.first_retry.fetch_min(at, Ordering::Relaxed);
    }

    fn ready(&self, at: Moment) {
        self.last_ready.fetch_max(at, Ordering::Relaxed);
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    fn over(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Clients at work.
pub(crate) struct Crowd {
    pub(crate) journal: Journal,
    pub(crate) size: usize,
    board: Arc<Board>,
    cuts: watch::Sender<u64>,
    clients: JoinSet<()>,
}

impl Crowd {
    /// Opens a stream for everybody, spread over these doors, and waits until all are live.
    pub(crate) async fn open(
        journal: &Journal,
        session: &Session,
        doors: &[SocketAddr],
        size: usize,
    ) -> Crowd {
        raise_descriptor_limit();
        let since = cursor(session).await;
        let (cuts, cut) = watch::channel(0);
        let mut crowd = Crowd {
            journal: journal.clone(),
            size,
            board: Arc::new(Board {
                live: AtomicUsize::new(0),
                first_retry: AtomicI64::new(Moment::MAX),
                last_ready: AtomicI64::new(Moment::MIN),
            }),
            cuts,
            clients: JoinSet::new(),
        };
        let opening = Arc::new(Semaphore::new(OPENING));
        for number in 0..size as u64 {
            let group = group(number, size as u64);
            let claims = json!({"topics": [group, ALL]});
            let client = Client {
                number,
                // A port belongs to an address, and one address has some 28,000.
                from: Ipv4Addr::new(127, 0, 1, 1 + (number % 16) as u8),
                door: doors[number as usize % doors.len()],
                topics: vec![user(number), group, ALL.to_owned()],
                token: token(&number.to_string(), claims),
                cursor: since.clone(),
                journal: journal.clone(),
                board: crowd.board.clone(),
                cut: cut.clone(),
            };
            crowd.clients.spawn(client.read(opening.clone()));
        }
        crowd.all_live().await;
        crowd
    }

    /// How many streams are live.
    pub(crate) fn live(&self) -> usize {
        self.board.live.load(Ordering::Relaxed)
    }

    /// Waits until everybody has a live stream.
    pub(crate) async fn all_live(&self) {
        let deadline = Instant::now() + SETTLING;
        while self.live() < self.size {
            let (live, size) = (self.live(), self.size);
            assert!(Instant::now() < deadline, "{live} of {size} are live");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Cuts everybody at once, waits until all are live again, and returns how long that took from the
    /// first who came back.
    pub(crate) async fn cut(&self) -> Duration {
        let board = &self.board;
        board.first_retry.store(Moment::MAX, Ordering::Relaxed);
        board.last_ready.store(Moment::MIN, Ordering::Relaxed);
        self.cuts.send_modify(|cuts| *cuts += 1);
        let deadline = Instant::now() + SETTLING;
        while self.live() > 0 && board.first_retry.load(Ordering::Relaxed) == Moment::MAX {
            assert!(Instant::now() < deadline, "nobody came back");
            sleep(Duration::from_millis(5)).await;
        }
        self.all_live().await;
        let first = board.first_retry.load(Ordering::Relaxed);
        let taken = board.last_ready.load(Ordering::Relaxed) - first;
        Duration::from_micros(
            taken
                .try_into()
                .expect("they come back before they are ready"),
        )
    }

    /// Lets everybody read to the end, now that nothing else is published, and judges. Fails on
    /// anything wrong, and on any reset.
    pub(crate) async fn settle(mut self, session: &Session) -> (Verdict, Vec<Record>, Oracle) {
        let last = [("last".to_owned(), ALL.to_owned(), LAST)];
        self.journal.write(&Record::Intent {
            transaction: "last".to_owned(),
            keys: vec!["last".to_owned()],
        });
        publish(session, &last).await.expect("publishes");
        self.journal.write(&Record::Answer {
            at: now(),
            transaction: "last".to_owned(),
            outcome: Outcome::Ok,
        });
        let ends = async {
            while let Some(ended) = self.clients.join_next().await {
                ended.expect("a client does not fail");
            }
        };
        // Who does not come to the end is found by the judge.
        let _ = timeout(SETTLING, ends).await;
        self.clients.shutdown().await;
        let oracle = Oracle::ask(session).await;
        let records = self.journal.read();
        let terms = Terms {
            lost_history: false,
            replay_limit: 1_000,
        };
        let verdict = judge(&records, &oracle, terms);
        let some: Vec<_> = verdict.wrongs.iter().take(10).collect();
        assert!(
            some.is_empty(),
            "{} wrongs: {some:?}; {verdict}",
            verdict.wrongs.len()
        );
        assert_eq!(verdict.all("resets"), 0, "{verdict}");
        for what in ["transactions committed", "deliveries", "replays"] {
            assert!(verdict.times(what) > 0, "no {what}: {verdict}");
        }
        self.journal.was_right();
        (verdict, records, oracle)
    }
}

fn user(number: u64) -> String {
    format!("user:{number}")
}

/// The group of a client, or, for any number, one of the groups.
fn group(number: u64, size: u64) -> String {
    format!("group:{}", number % size.div_ceil(GROUP))
}

/// Every client is a descriptor here, and so is each of its streams in programs that are started here.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).expect("the soft limit can be raised");
}
