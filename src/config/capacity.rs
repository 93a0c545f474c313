//! How many streams this machine holds, when the operator has not said.
//!
//! Two things bound it: every stream is a descriptor, and every stream costs memory. Both are read
//! from the system once, at the start; on systems that do not tell, the other bound decides.

use std::fs;

/// What one idle stream costs with its connection: buffers of hyper and of the kernel, its task and
/// its place in the hub. On the safe side of what was measured; raise `TIDINGS_STREAMS` after
/// measuring with your own clients.
const STREAM_BYTES: usize = 32 << 10;
/// What the process needs before the first stream.
const BASE_BYTES: usize = 64 << 20;
/// Listeners, the database, the operations listener, and clients that are still being refused.
const OTHER_DESCRIPTORS: usize = 256;
/// Where nothing is known of the machine.
const FALLBACK: usize = 10_000;

/// The number of streams that fits, beside `budget` bytes for window and queues.
pub(super) fn streams(budget: usize) -> usize {
    fit(descriptors(), memory(), budget)
}

fn fit(descriptors: Option<usize>, memory: Option<usize>, budget: usize) -> usize {
    let by_descriptors = descriptors.map(|n| n.saturating_sub(OTHER_DESCRIPTORS));
    // A quarter stays free: for bursts, and for whatever else runs here.
    let by_memory = memory.map(|n| {
        let left = (n / 4 * 3)
            .saturating_sub(BASE_BYTES)
            .saturating_sub(budget);
        left / STREAM_BYTES
    });
    let fits = match (by_descriptors, by_memory) {
        (Some(one), Some(other)) => one.min(other),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => FALLBACK,
    };
    // A machine too small for its budgets still serves somebody, so that the log can be read.
    fits.max(16)
}

fn descriptors() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.and_then(|n| usize::try_from(n).ok())
}

/// The memory of the machine, or of the container where that is less.
fn memory() -> Option<usize> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    let container = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .iter()
    .filter_map(|path| fs::read_to_string(path).ok())
    .filter_map(|text| text.trim().parse::<usize>().ok())
    .min();
    machine.into_iter().chain(container).min()
}

fn total(meminfo: &str) -> Option<usize> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scarcer_of_the_two_decides() {
        let gib = 1 << 30;
        assert_eq!(fit(Some(1024), Some(4 * gib), 0), 768);
        assert_eq!(
            fit(Some(1 << 20), Some(4 * gib), 0),
            (3 * gib - BASE_BYTES) / STREAM_BYTES
        );
        assert_eq!(
            fit(Some(1 << 20), Some(gib), 320 << 20),
            (384 << 20) / STREAM_BYTES
        );
        assert_eq!(fit(None, None, 0), FALLBACK);
        assert_eq!(fit(Some(10), Some(gib), 0), 16);
        assert_eq!(fit(None, Some(1), usize::MAX), 16);
    }

    #[test]
    fn meminfo_is_understood() {
        assert_eq!(
            total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 << 10)
        );
        assert_eq!(total("nothing"), None);
        assert!(streams(0) >= 16);
    }
}
