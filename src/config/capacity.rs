//! What fits into the memory and the descriptors of this machine, when the operator has not said, and how
//! many connections.
//!
//! Every stream is a descriptor and costs memory; queues, window, and what is on its way between the
//! database and clients cost memory whatever the number of streams. Each has a share of what there
//! is, up to what it needs on a large machine, so that a small container gets a small gateway and not one that is
//! killed. On systems that do not tell, the other bound decides.

/// What one idle stream costs with its connection: buffers of hyper and of the kernel, its task and
/// its place in the hub. On the safe side of what was measured; raise `TIDINGS_STREAMS` after
/// measuring with your own clients.
const STREAM_BYTES: usize = 32 << 10;
/// What the process needs before the first stream: code's own data, sessions, the look at hand.
const BASE_BYTES: usize = 64 << 20;
/// Listeners, the database, the operations listener, and clients that are still being refused.
const OTHER_DESCRIPTORS: usize = 256;
/// Of these, what clients cannot take: the operations listener's, the sessions that listen, look and
/// maintain, the files of the process. The pool's come on top.
const OWN_DESCRIPTORS: usize = 128;
/// Connections beside streams: requests that come and go.
const OTHER_CONNECTIONS: usize = 1024;
/// Where nothing is known of the machine.
const FALLBACK: usize = 10_000;

const MIB: usize = 1 << 20;

/// Bytes that parts of the gateway may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// Frames that wait for streams; `TIDINGS_QUEUE_BYTES`.
    pub queue: usize,
    /// The newest events; `TIDINGS_WINDOW_BYTES`.
    pub window: usize,
    /// A page of a look or a sync, in payload: it is held as rows, as events and as frames at once.
    pub page: usize,
    /// How many may be read from the database at once, each a page as rows, as events and as text.
    pub turns: usize,
    /// Pages of replays until their readers have them.
    pub replays: usize,
    /// Answers of syncs until their clients have them.
    pub answers: usize,
}

/// How many connections clients may have beside as many sessions of the pool: with one more descriptor
/// taken by them, the gateway could not reach its database again.
pub(super) fn connections(streams: usize, pool: usize) -> usize {
    leave(descriptors(), streams, pool)
}

fn leave(descriptors: Option<usize>, streams: usize, pool: usize) -> usize {
    let wanted = streams.saturating_add(OTHER_CONNECTIONS);
    let left = descriptors.map(|n| n.saturating_sub(OWN_DESCRIPTORS).saturating_sub(pool));
    left.map_or(wanted, |left| wanted.min(left)).max(16)
}

impl Shares {
    /// The shares of so much memory.
    pub(super) fn of(memory: Option<usize>) -> Self {
        let memory = memory.unwrap_or(usize::MAX);
        Self {
            queue: (memory / 8).min(256 * MIB),
            window: (memory / 16).min(64 * MIB),
            page: (memory / 128).min(8 * MIB),
            turns: if memory < 2048 * MIB {
                (memory / (64 * MIB)).max(1)
            } else {
                usize::MAX
            },
            replays: (memory / 16).min(64 * MIB),
            answers: (memory / 8).min(128 * MIB),
        }
    }

    /// All that these may hold, with what the process has before the first stream.
    fn fixed(&self, memory: usize) -> usize {
        base(memory)
            .saturating_add(self.queue)
            .saturating_add(self.window)
    }

    /// What all may take with so many streams.
    pub fn with_streams(&self, streams: usize, memory: usize) -> usize {
        let streams = streams.saturating_mul(STREAM_BYTES);
        self.fixed(memory).saturating_add(streams)
    }
}

/// The number of streams that fits beside the shares.
pub(super) fn streams(shares: &Shares, memory: Option<usize>) -> usize {
    fit(descriptors(), memory, shares)
}

fn fit(descriptors: Option<usize>, memory: Option<usize>, shares: &Shares) -> usize {
    let by_descriptors = descriptors.map(|n| n.saturating_sub(OTHER_DESCRIPTORS));
    // A quarter stays free: for answers and replays, for bursts, and for whatever else runs here.
    let by_memory = memory.map(|n| (n / 4 * 3).saturating_sub(shares.fixed(n)) / STREAM_BYTES);
    let fits = match (by_descriptors, by_memory) {
        (Some(one), Some(other)) => one.min(other),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => FALLBACK,
    };
    // A machine too small for its budgets still serves somebody, so that the log can be read.
    fits.max(16)
}

/// What the process needs before the first stream: less where pages are smaller.
fn base(memory: usize) -> usize {
    BASE_BYTES.min(memory / 4)
}

fn descriptors() -> Option<usize> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.and_then(|n| usize::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: usize = 1 << 30;

    #[test]
    fn the_scarcer_of_the_two_decides() {
        let none = Shares::of(Some(0));
        assert_eq!(fit(Some(1024), Some(4 * GIB), &none), 768);
        assert_eq!(
            fit(Some(1 << 20), Some(4 * GIB), &none),
            (3 * GIB - BASE_BYTES) / STREAM_BYTES
        );
        let all = Shares::of(None);
        assert_eq!(
            fit(Some(1 << 20), Some(GIB), &all),
            (384 << 20) / STREAM_BYTES
        );
        assert_eq!(fit(None, None, &none), FALLBACK);
        assert_eq!(fit(Some(10), Some(GIB), &none), 16);
        assert_eq!(fit(None, Some(1), &all), 16);
    }

    #[test]
    fn clients_do_not_take_the_last_descriptors() {
        assert_eq!(leave(Some(1 << 20), 10_000, 8), 11_024);
        assert_eq!(leave(Some(1024), 768, 8), 888);
        assert_eq!(leave(None, 768, 8), 1792);
        assert_eq!(leave(Some(10), 16, 8), 16);
    }

    #[test]
    fn what_is_not_set_fits_however_small_the_machine_is() {
        for mib in [32, 64, 96, 128, 256, 512, 1024, 4096, 1 << 20] {
            let memory = mib * MIB;
            let shares = Shares::of(Some(memory));
            let streams = fit(None, Some(memory), &shares);
            assert!(streams > 16, "{mib} MiB");
            let taken = shares.with_streams(streams, memory);
            assert!(taken <= memory / 4 * 3, "{mib} MiB: {taken}");
        }
        // From 2 GiB on they are what they need to be.
        assert_eq!(Shares::of(Some(2 * GIB)), Shares::of(None));
        assert_ne!(Shares::of(Some(GIB)), Shares::of(None));
    }
}
