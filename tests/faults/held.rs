//! Transactions that a scenario itself holds open, beside those of the publishers: with their intent
//! in the journal before they end, and the answer afterwards.

use tokio_postgres::Client;

use crate::journal::{Journal, Moment, Outcome, Record, now};
use crate::publishers::{Asked, publish};
use crate::rig::Rig;
use crate::support::backend::run;

/// An open transaction.
pub(crate) struct Held {
    client: Client,
    journal: Journal,
    name: String,
    keys: Vec<String>,
}

/// A transaction that is prepared, and that nobody has decided.
pub(crate) struct Orphan {
    journal: Journal,
    name: String,
}

impl Held {
    /// Begins; `name` is that of no other transaction, and begins the keys of its events.
    pub(crate) async fn begin(rig: &Rig<'_>, name: &str) -> Held {
        let client = rig.session().await;
        run(&client, "begin").await;
        Held {
            client,
            journal: rig.journal.clone(),
            name: name.to_owned(),
            keys: Vec::new(),
        }
    }

    /// Publishes an event in each of the rig's topics; returns the id of the transaction.
    pub(crate) async fn publish(&mut self, topics: u64) -> u64 {
        let already = self.keys.len();
        let events: Vec<Asked> = (0..topics)
            .map(|n| {
                let key = format!("{}.{}", self.name, already + n as usize);
                (key, format!("t{n}"), "held")
            })
            .collect();
        publish(&self.client, &events).await.expect("publishes");
        self.keys.extend(events.into_iter().map(|(key, ..)| key));
        let row = self
            .client
            .query_one("select pg_current_xact_id()::text", &[])
            .await;
        let xid: String = row.expect("an id").get(0);
        xid.parse().expect("a number")
    }

    /// Commits; returns the moment before which nobody can have seen it.
    pub(crate) async fn commit(self) -> Moment {
        self.intend();
        let before = now();
        run(&self.client, "commit").await;
        answer(&self.journal, &self.name, Outcome::Ok);
        before
    }

    /// Prepares it and leaves.
    pub(crate) async fn prepare(self) -> Orphan {
        self.intend();
        let prepare = format!("prepare transaction '{}'", self.name);
        run(&self.client, &prepare).await;
        Orphan {
            journal: self.journal,
            name: self.name,
        }
    }

    /// From here on it rings no bell: Postgres does not prepare what has notified.
    pub(crate) async fn without_bell(self) -> Held {
        run(&self.client, "set local tidings.bell = off").await;
        self
    }

    fn intend(&self) {
        self.journal.write(&Record::Intent {
            transaction: self.name.clone(),
            keys: self.keys.clone(),
        });
    }
}

impl Orphan {
    /// Somebody decides it at last; returns the moment before which nobody can have seen it.
    pub(crate) async fn decide(self, client: &Client, commit: bool) -> Moment {
        let (word, outcome) = match commit {
            true => ("commit", Outcome::Ok),
            false => ("rollback", Outcome::Failed),
        };
        let before = now();
        run(client, &format!("{word} prepared '{}'", self.name)).await;
        answer(&self.journal, &self.name, outcome);
        before
    }
}

fn answer(journal: &Journal, name: &str, outcome: Outcome) {
    journal.write(&Record::Answer {
        at: now(),
        transaction: name.to_owned(),
        outcome,
    });
}
