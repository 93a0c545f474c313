//! Publishers: they write as applications do, in transactions of every shape, note what they intend
//! before they commit, and what they were told afterwards. They outlive their database.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Statement, ToStatement};

use crate::journal::{Journal, Outcome, Record, now};
use crate::place::Place;

/// Publishes events and notes the facts behind them. A fact's time is read before its event is inserted, so
/// that nothing which was committed by then can be taken for later.
pub(crate) const PUBLISH: &str = "
    with published as materialized (
        select key, topic, kind, jsonb_build_object('key', key) as data, clock_timestamp() as at,
               tidings.publish(topic, kind, jsonb_build_object('key', key)) as id
        from unnest($1::text[], $2::text[], $3::text[]) as asked (key, topic, kind)
    )
    insert into app.fact (key, id, topic, type, at, data) select key, id, topic, kind, at, data from published";

/// Events as they are to be published: key, topic, type.
pub(crate) type Asked = (String, String, &'static str);

/// Publishes in the transaction that is open, if one is.
pub(crate) async fn publish(client: &Client, events: &[Asked]) -> Result<(), Error> {
    publish_by(client, PUBLISH, events).await
}

/// The same by a statement that may have been prepared, where there is much to publish.
pub(crate) async fn publish_by(
    client: &Client,
    statement: &(impl ToStatement + ?Sized),
    events: &[Asked],
) -> Result<(), Error> {
    let keys: Vec<&str> = events.iter().map(|(key, ..)| key.as_str()).collect();
    let topics: Vec<&str> = events.iter().map(|(_, topic, _)| topic.as_str()).collect();
    let kinds: Vec<&str> = events.iter().map(|(.., kind)| *kind).collect();
    client.execute(statement, &[&keys, &topics, &kinds]).await?;
    Ok(())
}

/// One who publishes until it is told to stop.
pub(crate) struct Publisher {
    pub(crate) number: u64,
    pub(crate) rng: Rng,
    pub(crate) place: Place,
    pub(crate) journal: Journal,
    pub(crate) topics: u64,
    /// The longest pause between two transactions.
    pub(crate) pause: Duration,
    /// How long its longest transactions stay open.
    pub(crate) long: Duration,
    pub(crate) stop: Arc<AtomicBool>,
}

/// How a transaction is to end.
enum Way {
    Commit,
    Rollback,
    Prepare { commit: bool },
}

impl Way {
    fn shape(&self) -> &'static str {
        match self {
            Way::Commit => "commit",
            Way::Rollback => "rollback",
            Way::Prepare { commit: true } => "two-phase commit",
            Way::Prepare { commit: false } => "two-phase rollback",
        }
    }
}

impl Publisher {
    pub(crate) async fn write(mut self) {
        let mut session = None;
        let mut serial = 0;
        while !self.stop.load(Ordering::Relaxed) {
            let Some((client, publish)) = &session else {
                session = self.connect().await;
                sleep(Duration::from_millis(self.rng.u64(5..50))).await;
                continue;
            };
            serial += 1;
            if self.transaction(client, publish, serial).await.is_err() {
                session = None;
            }
            let pause = self.rng.u64(0..=self.pause.as_micros() as u64);
            sleep(Duration::from_micros(pause)).await;
        }
    }

    /// A session, and the statement by which it publishes.
    async fn connect(&self) -> Option<(Client, Statement)> {
        let client = self.place.try_connect().await.ok()?;
        let publish = client.prepare(PUBLISH).await.ok()?;
        Some((client, publish))
    }

    async fn transaction(
        &mut self,
        client: &Client,
        publish: &Statement,
        serial: u64,
    ) -> Result<(), Error> {
        let name = format!("w{}.{serial}", self.number);
        let parts: Vec<Vec<Asked>> = (0..self.rng.u64(1..=3))
            .map(|part| self.events(&format!("{name}.{part}")))
            .collect();
        let dropped = (self.rng.f64() < 0.2).then(|| self.events(&format!("{name}.dropped")));
        let keys = |parts: &[Vec<Asked>]| {
            let events = parts.iter().flatten();
            events.map(|(key, ..)| key.clone()).collect::<Vec<_>>()
        };
        let intent = |transaction: &str, keys| Record::Intent {
            transaction: transaction.to_owned(),
            keys,
        };
        self.journal.write(&intent(&name, keys(&parts)));
        if let Some(dropped) = &dropped {
            let name = format!("{name}.dropped");
            self.journal
                .write(&intent(&name, keys(std::slice::from_ref(dropped))));
            self.answer(&name, Outcome::Failed);
        }
        let way = match self.rng.f64() {
            ..0.05 => Way::Prepare {
                commit: self.rng.bool(),
            },
            ..0.20 => Way::Rollback,
            _ => Way::Commit,
        };
        let nested = self.rng.f64() < 0.2;
        let written = self
            .fill(client, publish, &parts, dropped.as_deref(), nested, &way)
            .await;
        if let Err(error) = written {
            self.answer(&name, Outcome::Failed);
            // Whatever it was, the session begins its next transaction afresh.
            let _ = client.batch_execute("rollback").await;
            return if error.is_closed() {
                Err(error)
            } else {
                Ok(())
            };
        }
        let (outcome, result) = finish(client, &name, &way).await;
        self.answer(&name, outcome);
        if result.is_ok() {
            self.shape(&name, way.shape());
            if dropped.is_some() {
                self.shape(&name, "savepoint rolled back");
            }
            if nested {
                self.shape(&name, "savepoint within a savepoint kept");
            }
        }
        result
    }

    /// Everything before the end.
    async fn fill(
        &mut self,
        client: &Client,
        publish: &Statement,
        parts: &[Vec<Asked>],
        mut dropped: Option<&[Asked]>,
        nested: bool,
        way: &Way,
    ) -> Result<(), Error> {
        let begin = match way {
            // A transaction that has notified cannot be prepared.
            Way::Prepare { .. } => "begin; set local tidings.bell = off",
            _ => "begin",
        };
        client.batch_execute(begin).await?;
        for part in parts {
            if let Some(dropped) = dropped.take() {
                client.batch_execute("savepoint outer_one").await?;
                client.batch_execute("savepoint inner_one").await?;
                publish_by(client, publish, dropped).await?;
                client
                    .batch_execute("release inner_one; rollback to outer_one")
                    .await?;
            }
            if nested {
                let savepoints = "savepoint outer_one; savepoint inner_one";
                client.batch_execute(savepoints).await?;
            }
            publish_by(client, publish, part).await?;
            if nested {
                let release = "release inner_one; release outer_one";
                client.batch_execute(release).await?;
            }
            if self.rng.f64() < 0.3 {
                sleep(Duration::from_micros(self.rng.u64(0..10_000))).await;
            }
        }
        // The first of them stay open for long more often, so that a short run has enough of it.
        if self.rng.f64() < if self.number < 2 { 0.1 } else { 0.01 } {
            sleep(self.long.mul_f64(self.rng.f64())).await;
        }
        Ok(())
    }

    /// A few events of random topics.
    fn events(&mut self, name: &str) -> Vec<Asked> {
        let count = if self.rng.f64() < 0.05 { 40 } else { 1 };
        (0..count)
            .map(|n| {
                let topic = format!("t{}", self.rng.u64(0..self.topics));
                (format!("{name}.{n}"), topic, "written")
            })
            .collect()
    }

    fn shape(&self, transaction: &str, shape: &str) {
        self.journal.write(&Record::Shape {
            transaction: transaction.to_owned(),
            shape: shape.to_owned(),
        });
    }

    fn answer(&self, transaction: &str, outcome: Outcome) {
        self.journal.write(&Record::Answer {
            at: now(),
            transaction: transaction.to_owned(),
            outcome,
        });
    }
}

/// Ends a transaction, and tells how it ended for all that is known, and whether the session is of
/// further use.
async fn finish(client: &Client, name: &str, way: &Way) -> (Outcome, Result<(), Error>) {
    let (last, outcome) = match way {
        Way::Commit => ("commit".to_owned(), Outcome::Ok),
        Way::Rollback => {
            // A session that is gone has rolled back as well.
            return (Outcome::Failed, client.batch_execute("rollback").await);
        }
        Way::Prepare { commit } => {
            let prepared = client
                .batch_execute(&format!("prepare transaction '{name}'"))
                .await;
            if let Err(error) = prepared {
                return (unless_refused(&error), Err(error));
            }
            match commit {
                true => (format!("commit prepared '{name}'"), Outcome::Ok),
                false => (format!("rollback prepared '{name}'"), Outcome::Failed),
            }
        }
    };
    match client.batch_execute(&last).await {
        Ok(()) => (outcome, Ok(())),
        Err(error) => {
            let outcome = match way {
                // It stays prepared until somebody decides.
                Way::Prepare { .. } => Outcome::Unknown,
                _ => unless_refused(&error),
            };
            (outcome, Err(error))
        }
    }
}

/// An answer that refuses means that it failed; anything else leaves it open, and so does the word of a
/// server that is going down.
fn unless_refused(error: &Error) -> Outcome {
    let operator = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::QUERY_CANCELED,
    ];
    match error.code() {
        Some(code) if !operator.contains(code) => Outcome::Failed,
        _ => Outcome::Unknown,
    }
}
