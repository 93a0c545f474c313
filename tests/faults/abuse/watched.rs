//! A gateway whose every line is kept and judged at its end: it has not panicked, what it logged is one
//! record a line, and none of it is a secret of a client.

use std::collections::HashSet;
use std::ops::Deref;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::support::client::PATIENCE;
use crate::support::gateway::{Door, SECRET};
use crate::support::postgres::Database;

/// What an operator reads from day to day.
pub(crate) const USUAL: &str = "info";
/// What an operator turns on who looks for a fault.
pub(crate) const EVERYTHING: &str = "info,tidings=trace,hyper=debug,h2=debug";

/// The process; dropping it ends it at once.
pub(crate) struct Watched {
    child: Child,
    door: Door,
    log: JoinHandle<Vec<String>>,
}

impl Deref for Watched {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Watched {
    /// Runs `tidings serve` with these flags and this much of a log.
    pub(crate) async fn serve(database: &Database, log: &str, flags: &[&str]) -> Watched {
        Watched::start(
            Command::new(env!("CARGO_BIN_EXE_tidings")),
            database,
            log,
            flags,
        )
        .await
    }

    /// Runs it where a process may have so many descriptors.
    pub(crate) async fn serve_within(
        descriptors: usize,
        database: &Database,
        flags: &[&str],
    ) -> Watched {
        let mut shell = Command::new("sh");
        let line = format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_tidings")]);
        Watched::start(shell, database, USUAL, flags).await
    }

    async fn start(
        mut command: Command,
        database: &Database,
        log: &str,
        flags: &[&str],
    ) -> Watched {
        let mut child = command
            .args(["serve", "--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"])
            .args(flags)
            .env("DATABASE_URL", database.url())
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env("TIDINGS_LOG", log)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary runs");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = Vec::new();
        let door = loop {
            let line = next(&mut log).await;
            let line = line.unwrap_or_else(|| panic!("it ended before it served: {said:?}"));
            let door = read_door(&line);
            said.push(line);
            if let Some(door) = door {
                break door;
            }
        };
        // Whoever does not read its log holds it up.
        let log = tokio::spawn(async move {
            while let Some(line) = next(&mut log).await {
                said.push(line);
            }
            said
        });
        Watched { child, door, log }
    }

    /// The memory that it has resident now, in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: usize = kib.expect("in kB").trim().parse().expect("a number");
        kib * 1024
    }

    /// Ends it as an operator does, and judges what it has logged; returns how many records.
    pub(crate) async fn end(mut self, secrets: &[String]) -> usize {
        let id = self
            .child
            .id()
            .expect("it has not ended before")
            .to_string();
        let sent = Command::new("kill")
            .args(["-s", "TERM", &id])
            .status()
            .await;
        assert!(sent.expect("kill runs").success());
        let ended = tokio::time::timeout(3 * PATIENCE, self.child.wait()).await;
        let status = ended.expect("it ends").expect("it is ours");
        let lines = self.log.await.expect("the log is text");
        assert_eq!(status.code(), Some(0), "{:?}", lines.last());
        judge(&lines, secrets);
        lines.len()
    }
}

async fn next(log: &mut BufReader<ChildStderr>) -> Option<String> {
    let mut line = String::new();
    let count = log.read_line(&mut line).await.expect("a log is text");
    (count > 0).then(|| line.trim_end_matches('\n').to_owned())
}

fn read_door(line: &str) -> Option<Door> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    if fields["message"] != "gateway started" {
        return None;
    }
    let address = |name: &str| {
        let text = fields[name].as_str().expect("an address");
        text.parse().expect("an address")
    };
    Some(Door {
        address: address("address"),
        ops_address: address("operations"),
    })
}

/// How many characters of a secret would be of use to someone.
const PART: usize = 24;

/// Fails on a line that is no record, that tells of a panic, or that gives a secret away.
pub(crate) fn judge(lines: &[String], secrets: &[String]) {
    assert!(!lines.is_empty(), "it logged nothing");
    let parts: HashSet<&str> = secrets
        .iter()
        .map(|secret| secret.get(..PART).unwrap_or(secret))
        .collect();
    for line in lines {
        let record: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no record: {line:?}"));
        assert!(record["level"].is_string(), "{line}");
        assert!(!line.contains("panicked"), "{line}");
        for part in &parts {
            assert!(!line.contains(part), "{part} in {line}");
        }
    }
}

mod tests {
    use super::*;

    fn is_refused(lines: &[&str], secrets: &[&str]) -> bool {
        let own = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        let (lines, secrets) = (own(lines), own(secrets));
        std::panic::catch_unwind(|| judge(&lines, &secrets)).is_err()
    }

    #[test]
    fn the_judge_of_logs_finds_every_kind_of_fault() {
        let good = r#"{"level":"INFO","fields":{"message":"well"}}"#;
        assert!(!is_refused(&[good], &["secret"]));
        assert!(is_refused(&[], &[]));
        assert!(is_refused(&[good, "two", good], &[]));
        assert!(is_refused(&[good, ""], &[]));
        assert!(is_refused(&[r#"{"fields":{}}"#], &[]));
        assert!(is_refused(
            &[r#"{"level":"INFO","m":"thread panicked at"}"#],
            &[]
        ));
        assert!(is_refused(
            &[r#"{"level":"INFO","m":"a secret"}"#],
            &["secret"]
        ));
        let long = "s".repeat(100);
        let line = format!(r#"{{"level":"INFO","m":"{}"}}"#, &long[..30]);
        assert!(is_refused(&[&line], &[&long]));
    }
}
