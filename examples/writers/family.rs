//! Processor time of a process and all its children, those that have ended included, as `/proc` tells it.

use std::fs;

use crate::{Result, failure};

/// Ticks of processor times in one second: what Linux tells programs, whatever its own clock does.
const TICKS: f64 = 100.0;

/// Where fields stand behind the name of the program.
const PARENT: usize = 1;
const OWN_TIMES: usize = 11;
const ENDED_TIMES: usize = 13;

/// A process that waits for its children, such as a postmaster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Family {
    parent: u32,
}

impl Family {
    pub(crate) fn of(parent: u32) -> Self {
        Self { parent }
    }

    /// Processor time since they began, in seconds. A child that ends hands its own to its parent, so that nothing
    /// is lost.
    pub(crate) fn cpu_seconds(self) -> Result<f64> {
        let mut ticks = 0;
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
            if pid == self.parent {
                ticks += pair(&fields, OWN_TIMES) + pair(&fields, ENDED_TIMES);
            } else if fields[PARENT] == i64::from(self.parent) {
                ticks += pair(&fields, OWN_TIMES);
            }
        }
        Ok(ticks as f64 / TICKS)
    }
}

/// The numbers behind the name of the program, which may hold spaces and brackets; the state is a letter.
fn fields(stat: &str) -> Option<Vec<i64>> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields = fields.split_whitespace().take(ENDED_TIMES + 2);
    let fields: Vec<i64> = fields.map(|field| field.parse().unwrap_or(0)).collect();
    (fields.len() == ENDED_TIMES + 2).then_some(fields)
}

/// Time in the program and in the kernel.
fn pair(fields: &[i64], first: usize) -> i64 {
    fields[first] + fields[first + 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_children_are_told_while_they_live_and_afterwards() {
        let family = Family::of(std::process::id());
        let before = family.cpu_seconds().expect("it is told");
        let spin = "n=0; while [ $n -lt 300000 ]; do n=$((n + 1)); done; echo done; read -r line";
        let mut child = std::process::Command::new("sh")
            .args(["-c", spin])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut line = [0; 4];
        let mut output = child.stdout.take().expect("it is piped");
        std::io::Read::read_exact(&mut output, &mut line).expect("a word");
        let alive = family.cpu_seconds().expect("it is told");
        assert!(alive >= before + 0.02, "{before} {alive}");
        drop(child.stdin.take());
        child.wait().expect("it ends");
        assert!(family.cpu_seconds().expect("it is told") >= alive);
    }

    #[test]
    fn fields_stand_behind_the_last_bracket() {
        let stat = "7 (a) b (c)) S 3 7 7 0 -1 0 1 2 3 4 50 60 70 80 20 0";
        let fields = fields(stat).expect("fields");
        assert_eq!(fields[PARENT], 3);
        assert_eq!(pair(&fields, OWN_TIMES), 110);
        assert_eq!(pair(&fields, ENDED_TIMES), 150);
        assert_eq!(super::fields("7 (a) S 3"), None);
    }
}
