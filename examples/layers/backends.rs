//! Backends: processor time of those that have ended, as `/proc` tells it of their postmaster.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use crate::{Result, failure};

/// Microseconds of a tick of processor time: what Linux tells programs, whatever its own clock does.
const TICK_US: u64 = 10_000;

/// Where fields stand behind the name of the program.
const PARENT: usize = 1;
const ENDED_TIMES: usize = 13;

/// How long a backend may take to go, and how often it is looked whether it has.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(5);

/// What a postmaster had at a moment.
pub(crate) struct Backends {
    postmaster: u32,
    alive: BTreeSet<u32>,
    ended_us: u64,
}

impl Backends {
    pub(crate) fn of(postmaster: u32) -> Result<Self> {
        let mut backends = Self {
            postmaster,
            alive: BTreeSet::new(),
            ended_us: 0,
        };
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // Others come and go while we look.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
                continue;
            };
            let fields = fields(&stat).ok_or_else(|| failure(format!("what is {stat:?}?")))?;
            if pid == postmaster {
                backends.ended_us = (fields[ENDED_TIMES] + fields[ENDED_TIMES + 1]) * TICK_US;
            } else if fields[PARENT] == u64::from(postmaster) {
                backends.alive.insert(pid);
            }
        }
        Ok(backends)
    }

    /// Waits until all that have come since are gone, and returns their processor time in microseconds. Only the end
    /// of a process hands its time to its parent.
    pub(crate) async fn wait_for_later_ones(self) -> Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = Self::of(self.postmaster)?;
            if now.alive == self.alive {
                return Ok(now.ended_us - self.ended_us);
            }
            if Instant::now() > deadline {
                return Err(failure("backends neither stay nor go".to_owned()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// The numbers behind the name of the program, which may hold spaces and brackets; what is no number is 0.
fn fields(stat: &str) -> Option<Vec<u64>> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields = fields.split_whitespace().take(ENDED_TIMES + 2);
    let fields: Vec<u64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() == ENDED_TIMES + 2).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_behind_the_last_bracket() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 0 1 2 3 4 50 60 70 80 20 0";
        let fields = fields(stat).expect("fields");
        assert_eq!(fields[PARENT], 3);
        assert_eq!(fields[ENDED_TIMES..], [70, 80]);
        assert_eq!(super::fields("7 (a) S 3"), None);
    }

    #[tokio::test]
    async fn times_of_children_are_told_when_they_have_ended() {
        let before = Backends::of(std::process::id()).expect("it is told");
        let spin = "n=0; while [ $n -lt 300000 ]; do n=$((n + 1)); done";
        let mut child = std::process::Command::new("sh");
        let mut child = child.args(["-c", spin]).spawn().expect("a shell");
        child.wait().expect("it ends");
        let spent = before.wait_for_later_ones().await.expect("it is told");
        assert!(spent >= 20_000, "{spent}");
    }
}
