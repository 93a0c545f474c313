//! One measurement: writers of a kind write for a while, and whoever is to be told is told.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::database::Database;
use crate::kind::Kind;
use crate::latency::PARTS;
use crate::pgbench::{self, Load, Written};
use crate::recipient::Recipient;
use crate::sample::Sample;
use crate::{Result, failure};

/// What all measurements share.
pub(crate) struct Bench {
    pub(crate) database: Database,
    /// The gateway's.
    pub(crate) binary: PathBuf,
}

/// Figures by their names; what was not measured is not there.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

impl Bench {
    /// Measures, with so many streams where there is a gateway.
    pub(crate) async fn measure(&self, kind: Kind, load: &Load, streams: usize) -> Result<Figures> {
        let database = &self.database;
        let mut recipient = Recipient::start(self, kind, streams).await?;
        database.checkpoint().await?;
        let newest = database.newest(kind).await?;
        let before = Sample::take(database, recipient.gateway()).await?;
        let written = self.write(kind, load).await?;
        recipient.wait_for(written.commits).await?;
        let after = Sample::take(database, recipient.gateway()).await?;

        let rows = database.rows_behind(kind, newest).await?;
        if rows != written.commits {
            let commits = written.commits;
            return Err(failure(format!("{commits} commits have left {rows} rows")));
        }
        let latencies = recipient.finish(self, newest, written.commits).await?;
        database.wait_until_alone().await?;

        let mut figures = Figures::new();
        figures.insert("commits", written.commits as f64);
        figures.insert("commits_per_second", written.commits_per_second);
        after.add_since(&before, written.commits, &mut figures);
        for (part, name) in PARTS {
            if let Some(ms) = latencies.within_ms(part) {
                figures.insert(name, ms);
            }
        }
        Ok(figures)
    }

    /// Without writers as much time passes.
    async fn write(&self, kind: Kind, load: &Load) -> Result<Written> {
        if load.writers > 0 {
            return pgbench::write(&self.database, kind, load).await;
        }
        tokio::time::sleep(Duration::from_secs(load.seconds.into())).await;
        Ok(Written {
            commits: 0,
            commits_per_second: 0.0,
        })
    }
}
