//! The end of a run: the load stops, everybody reads to the end, and the checker judges.

use std::sync::atomic::Ordering;

use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Client;

use super::{LOST_HISTORY, Rig, SETTLING};
use crate::checker::{Verdict, judge};
use crate::journal::Record;
use crate::oracle::Oracle;
use crate::publishers::Asked;
use crate::readers::LAST;
use crate::support::backend::run;

/// What every run must have had.
const HAPPENED: [&str; 7] = [
    "faults",
    "transactions committed",
    "transactions failed",
    "deliveries",
    "resumes",
    "replays",
    "seams from replay to live",
];

/// What was judged.
pub(crate) struct Settled {
    pub(crate) verdict: Verdict,
    pub(crate) records: Vec<Record>,
    pub(crate) oracle: Oracle,
}

impl Rig<'_> {
    /// Ends the load, lets everybody read to the end, and judges. Fails on anything wrong, and on a run in
    /// which nothing happened.
    pub(crate) async fn settle(self) -> Verdict {
        self.settle_whole().await.verdict
    }

    /// The same, with what was judged.
    pub(crate) async fn settle_whole(mut self) -> Settled {
        let settled = self.try_settle().await;
        settled.unwrap_or_else(|fault| panic!("{fault}; {}", self.context()))
    }

    /// The same, or what is wrong.
    pub(crate) async fn try_settle(&mut self) -> Result<Settled, String> {
        self.calm.store(true, Ordering::Relaxed);
        self.stop_publishing().await?;
        let client = self.session().await;
        decide_prepared(&client).await;
        let topics = (0..self.plan.topics).map(|n| format!("t{n}"));
        let last: Vec<Asked> = topics
            .chain(["probe".to_owned()])
            .map(|topic| (format!("last.{topic}"), topic, LAST))
            .collect();
        self.publish_noted(&client, &last).await;
        // Whoever does not get to the end by then is told by the checker.
        let deadline = Instant::now() + SETTLING;
        while let Ok(Some(ended)) = timeout_at(deadline, self.readers.join_next()).await {
            ended.map_err(|error| format!("a reader failed: {error}"))?;
        }
        self.readers.abort_all();

        let oracle = Oracle::ask(&client).await;
        let records = self.journal.read();
        let verdict = judge(&records, &oracle, self.plan.terms);
        if !verdict.wrongs.is_empty() {
            return Err(format!("wrong:\n{}{verdict}", verdict.complaint()));
        }
        for what in HAPPENED {
            if verdict.times(what) == 0 {
                return Err(format!("nothing happened: no {what} in {verdict}"));
            }
        }
        self.health.judge(self.plan.may_be_unready)?;
        self.judge_logs()?;
        self.print(&verdict);
        self.journal.was_right();
        Ok(Settled {
            verdict,
            records,
            oracle,
        })
    }

    /// Everybody stops publishing; readers go on as before.
    pub(crate) async fn stop_publishing(&mut self) -> Result<(), &'static str> {
        self.stop.store(true, Ordering::Relaxed);
        let publishers = std::mem::take(&mut self.publishers);
        let ended = timeout(SETTLING, publishers.join_all()).await;
        ended.map(|_| ()).map_err(|_| "publishers did not end")
    }

    /// Every line of every gateway is one record, and none tells of a fault of ours. That the database has
    /// lost what a gateway had read is none, where that may be.
    fn judge_logs(&self) -> Result<(), String> {
        for log in &self.logs {
            for line in log.lock().expect("nobody panics here").iter() {
                let record: serde_json::Value = serde_json::from_str(line)
                    .map_err(|_| format!("not one record a line: {line}"))?;
                // That commits are gone is what a gateway must tell of, once they are.
                let told = self.plan.terms.lost_history && line.contains(LOST_HISTORY);
                if record["level"] == "ERROR" && !told {
                    return Err(line.clone());
                }
            }
        }
        Ok(())
    }

    /// One line, as `scripts/held.awk` reads it.
    fn print(&self, verdict: &Verdict) {
        let recoveries = self.recoveries.lock().expect("nobody panics here");
        let slowest = recoveries.iter().max().copied().unwrap_or_default();
        println!(
            "held: {}, seed {}: {verdict}; {} recoveries; {} ms to the slowest recovery",
            self.name,
            self.seed,
            recoveries.len(),
            slowest.as_millis(),
        );
    }
}

/// Whatever was prepared and never decided, since its publisher lost its session, is rolled back.
async fn decide_prepared(client: &Client) {
    let open = "select gid from pg_prepared_xacts where database = current_database()";
    for row in client.query(open, &[]).await.expect("prepared ones") {
        let name: &str = row.get(0);
        run(client, &format!("rollback prepared '{name}'")).await;
    }
}
