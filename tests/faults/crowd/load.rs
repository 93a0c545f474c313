//! The load of a crowd: so many events a second, of which one in 25 is for a group of a hundred and the
//! others are for single users, in transactions of four.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::{group, user};
use crate::journal::{Journal, Outcome, Record, now};
use crate::publishers::{Asked, PUBLISH, publish_by};
use crate::support::postgres::Database;

const PUBLISHERS: u64 = 4;

/// Events of a transaction.
const EVENTS: u64 = 4;

/// One event in so many is for a group.
const GROUPS_EVERY: u64 = 25;

/// Publishers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    published: Arc<AtomicU64>,
    publishers: JoinSet<()>,
}

impl Load {
    /// Publishes so many events a second to a crowd of this size.
    pub(crate) async fn start(
        database: &Database,
        journal: &Journal,
        rng: &mut Rng,
        size: usize,
        events_per_s: u64,
    ) -> Load {
        let mut load = Load {
            stop: Arc::default(),
            published: Arc::default(),
            publishers: JoinSet::new(),
        };
        let pause = Duration::from_secs(1) * (PUBLISHERS * EVENTS) as u32 / events_per_s as u32;
        for number in 0..PUBLISHERS {
            let session = database.connect().await;
            // Each transaction is one, and not another one to parse it.
            let statement = session.prepare(PUBLISH).await.expect("it can be prepared");
            let (stop, published) = (load.stop.clone(), load.published.clone());
            let (journal, mut rng) = (journal.clone(), rng.fork());
            load.publishers.spawn(async move {
                let mut ticks = interval(pause);
                let mut serial = 0;
                while !stop.load(Ordering::Relaxed) {
                    ticks.tick().await;
                    serial += 1;
                    let transaction = format!("p{number}.{serial}");
                    let events: Vec<Asked> = (0..EVENTS)
                        .map(|n| {
                            let topic = match (serial * EVENTS + n) % GROUPS_EVERY {
                                0 => group(rng.u64(..), size as u64),
                                _ => user(rng.u64(..size as u64)),
                            };
                            (format!("{transaction}.{n}"), topic, "written")
                        })
                        .collect();
                    journal.write(&Record::Intent {
                        transaction: transaction.clone(),
                        keys: events.iter().map(|(key, ..)| key.clone()).collect(),
                    });
                    let published_now = publish_by(&session, &statement, &events).await;
                    published_now.expect("publishes");
                    journal.write(&Record::Answer {
                        at: now(),
                        transaction,
                        outcome: Outcome::Ok,
                    });
                    published.fetch_add(EVENTS, Ordering::Relaxed);
                }
            });
        }
        load
    }

    /// Ends it; returns how many events were committed.
    pub(crate) async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.publishers.join_next().await {
            ended.expect("a publisher does not fail");
        }
        self.published.load(Ordering::Relaxed)
    }
}
