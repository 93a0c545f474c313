//! What processes use, as `/proc` tells it: processor time and resident memory, summed.

use std::fs;

use crate::{Result, failure};

/// Ticks of processor times in one second: what Linux tells programs, whatever its own clock does.
const TICKS: f64 = 100.0;

/// Some processes, with all their threads.
pub(crate) struct Usage {
    pids: Vec<u32>,
}

impl Usage {
    pub(crate) fn of(pids: &[u32]) -> Self {
        Self {
            pids: pids.to_vec(),
        }
    }

    /// This process.
    pub(crate) fn own() -> Self {
        Self::of(&[std::process::id()])
    }

    /// Processor time since they began, in seconds; `None` of no processes.
    pub(crate) fn cpu_seconds(&self) -> Result<Option<f64>> {
        self.sum(|pid| {
            let stat = read(pid, "stat")?;
            // The name of the program may hold spaces and brackets; the fields begin behind it.
            let (_, fields) = stat.rsplit_once(") ").ok_or("it has no fields")?;
            let mut ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
            let user = ticks.next().ok_or("it has no times")??;
            let system = ticks.next().ok_or("it has no times")??;
            Ok((user + system) as f64 / TICKS)
        })
    }

    /// Resident memory in bytes; `None` of no processes. The page tables are counted where that is allowed,
    /// since the quick figure lags behind by some pages for each thread.
    pub(crate) fn resident_bytes(&self) -> Result<Option<f64>> {
        self.sum(|pid| {
            let exact = read(pid, "smaps_rollup").ok();
            let exact = exact.and_then(|text| kib(&text, "Rss:"));
            let kib = match exact {
                Some(kib) => Some(kib),
                None => kib(&read(pid, "status")?, "VmRSS:"),
            };
            Ok(kib.ok_or("the system does not tell")? * 1024.0)
        })
    }

    fn sum(&self, of: impl Fn(u32) -> Result<f64>) -> Result<Option<f64>> {
        let each: Result<Vec<f64>> = self.pids.iter().map(|pid| of(*pid)).collect();
        Ok(Some(each?.iter().sum()).filter(|_| !self.pids.is_empty()))
    }
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| failure(format!("{path}: {error}")))
}

/// The number of a line that ends in kB.
fn kib(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let used = Usage::own().resident_bytes().expect("it is told");
        assert!(used.expect("one process") > 1e6);
        let block = vec![1_u8; 64 << 20];
        let more = Usage::own().resident_bytes().expect("it is told");
        assert!(more.expect("one process") - used.expect("one process") > 6e7);
        assert_eq!(block[block.len() - 1], 1);
        assert!(Usage::own().cpu_seconds().expect("it is told") >= Some(0.0));
    }

    #[test]
    fn of_no_processes_nothing_is_told() {
        assert_eq!(Usage::of(&[]).cpu_seconds().expect("nothing fails"), None);
    }
}
