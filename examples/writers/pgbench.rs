//! The writers: pgbench, each of its clients on a session of its own.

use std::process::Stdio;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::database::Database;
use crate::kind::Kind;
use crate::{Result, failure};

/// Threads of pgbench, whatever the number of writers.
const THREADS: usize = 2;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) writers: usize,
    pub(crate) seconds: u32,
    /// Commits per second; without it as many as there can be.
    pub(crate) rate: Option<f64>,
    /// What topics are drawn by: the same for all that is compared.
    pub(crate) seed: usize,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Written {
    pub(crate) commits: u64,
    /// Since all writers were connected.
    pub(crate) commits_per_second: f64,
}

/// Writes, and waits for the end of it.
pub(crate) async fn write(database: &Database, kind: Kind, load: &Load) -> Result<Written> {
    let mut pgbench = database.program("pgbench");
    pgbench
        .args(["--no-vacuum", "--protocol=prepared", "--file=-"])
        .arg("--host=127.0.0.1")
        .arg(format!("--port={}", database.port()))
        .arg("--username=postgres")
        .arg(format!("--client={}", load.writers))
        .arg(format!("--jobs={}", THREADS.min(load.writers)))
        .arg(format!("--time={}", load.seconds))
        .arg(format!("--random-seed={}", load.seed))
        .arg(format!("--define=writers={}", load.writers))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(rate) = load.rate {
        pgbench.arg(format!("--rate={rate}"));
    }
    pgbench.arg("postgres");
    let mut pgbench = Command::from(pgbench).kill_on_drop(true).spawn()?;
    let mut script = pgbench.stdin.take().ok_or("it is piped")?;
    script.write_all(kind.script().as_bytes()).await?;
    drop(script);
    let output = pgbench.wait_with_output().await?;
    let said = String::from_utf8_lossy(&output.stdout);
    let written = understand(&said).filter(|_| output.status.success());
    written.ok_or_else(|| {
        let complaints = String::from_utf8_lossy(&output.stderr);
        failure(format!("pgbench: {}\n{said}{complaints}", output.status))
    })
}

/// `None` where commits are not told, or where some have failed.
fn understand(said: &str) -> Option<Written> {
    let value = |name: &str| {
        let mut values = said.lines().filter_map(|line| line.strip_prefix(name));
        values.next()?.split_whitespace().next()
    };
    let failed = value("number of failed transactions: ")?;
    (failed == "0").then_some(())?;
    let commits = value("number of transactions actually processed: ")?;
    Some(Written {
        commits: commits.parse().ok()?,
        commits_per_second: value("tps = ")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "pgbench (15.18)\nnumber of clients: 8\n\
        number of transactions actually processed: 4711\n\
        number of failed transactions: 0 (0.000%)\nlatency average = 1.7 ms\n\
        initial connection time = 12.3 ms\ntps = 2355.5 (without initial connection time)\n";

    #[test]
    fn what_pgbench_says_is_understood() {
        let written = Written {
            commits: 4_711,
            commits_per_second: 2_355.5,
        };
        assert_eq!(understand(SAID), Some(written));
        assert_eq!(understand(&SAID.replace(": 0 (", ": 2 (")), None);
        assert_eq!(understand("tps = 7"), None);
    }
}
