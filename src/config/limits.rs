//! The bounds of a gateway, and the bounds of these: where a value could not be meant.

use std::time::Duration;

use super::args::LimitArgs;
use super::capacity::{self, Shares};
use super::faults::Faults;

/// The bounds; each one's reason stands beside its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are named as their flags, which are described there"
)]
pub struct Limits {
    pub streams_per_user: usize,
    pub anonymous_per_address: usize,
    pub streams: usize,
    pub h2_streams: u32,
    pub stream_age: Option<Duration>,
    pub topics_per_stream: usize,
    pub stream_queue_bytes: usize,
    pub queue_bytes: usize,
    pub write_timeout: Duration,
    pub head_timeout: Duration,
    pub head_bytes: usize,
    pub body_bytes: usize,
    pub sync_page: usize,
    pub pool_size: usize,
    pub pool_wait: Duration,
    pub statement_timeout: Duration,
    pub replay: usize,
    pub window_bytes: usize,
    pub drain: Duration,
    pub heartbeat: Duration,
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;
const MILLION: usize = 1_000_000;

impl Limits {
    /// Connections of clients at once: one for each stream, and others for requests that come and go,
    /// as far as there are descriptors.
    pub fn connections(&self) -> usize {
        capacity::connections(self.streams, self.pool_size)
    }

    /// Reads all of them, noting the faults; with the shares of the memory that there is.
    pub(super) fn read(
        args: &LimitArgs,
        memory: Option<usize>,
        faults: &mut Faults,
    ) -> (Limits, Shares) {
        let mut shares = Shares::of(memory);
        let counts = (1, 10 * MILLION);
        // Less than the smallest frame with its cursor is no queue; more than this is no bound.
        let stream_queue_bytes = faults.size(
            "TIDINGS_STREAM_QUEUE_BYTES",
            &args.stream_queue_bytes,
            (16 * KIB, GIB),
        );
        if let Some(text) = &args.queue_bytes {
            shares.queue = faults.size("TIDINGS_QUEUE_BYTES", text, (1024 * KIB, 1024 * GIB));
        }
        if let Some(text) = &args.window_bytes {
            shares.window = faults.size("TIDINGS_WINDOW_BYTES", text, (0, 1024 * GIB));
        }
        if stream_queue_bytes > shares.queue {
            faults.add(
                "TIDINGS_STREAM_QUEUE_BYTES",
                "it is more than TIDINGS_QUEUE_BYTES, for all",
            );
        }
        let limits = Limits {
            streams_per_user: faults.count(
                "TIDINGS_STREAMS_PER_USER",
                &args.streams_per_user,
                counts,
            ),
            anonymous_per_address: faults.count(
                "TIDINGS_ANONYMOUS_PER_ADDRESS",
                &args.anonymous_per_address,
                counts,
            ),
            streams: match &args.streams {
                Some(text) => faults.count("TIDINGS_STREAMS", text, counts),
                None => capacity::streams(&shares, memory),
            },
            h2_streams: u32::try_from(faults.count(
                "TIDINGS_H2_STREAMS",
                &args.h2_streams,
                (1, MILLION),
            ))
            .expect("a million fits"),
            stream_age: match args.stream_age.trim() {
                "off" => None,
                text => Some(faults.time("TIDINGS_STREAM_AGE", text, (10 * SECOND, 365 * DAY))),
            },
            topics_per_stream: faults.count(
                "TIDINGS_TOPICS_PER_STREAM",
                &args.topics_per_stream,
                (1, 10_000),
            ),
            stream_queue_bytes,
            queue_bytes: shares.queue,
            write_timeout: faults.time(
                "TIDINGS_WRITE_TIMEOUT",
                &args.write_timeout,
                (100 * MILLISECOND, HOUR),
            ),
            head_timeout: faults.time(
                "TIDINGS_HEAD_TIMEOUT",
                &args.head_timeout,
                (100 * MILLISECOND, HOUR),
            ),
            // hyper's buffer has 8 KiB at least.
            head_bytes: faults.size(
                "TIDINGS_HEAD_BYTES",
                &args.head_bytes,
                (8 * KIB, 1024 * KIB),
            ),
            body_bytes: faults.size("TIDINGS_BODY_BYTES", &args.body_bytes, (KIB, GIB)),
            sync_page: faults.count("TIDINGS_SYNC_PAGE", &args.sync_page, (1, 100_000)),
            // Half of the pool is for sync and replay, the rest for publishing: so it has two.
            pool_size: faults.count("TIDINGS_POOL_SIZE", &args.pool_size, (2, 1000)),
            pool_wait: faults.time("TIDINGS_POOL_WAIT", &args.pool_wait, (MILLISECOND, MINUTE)),
            statement_timeout: faults.time(
                "TIDINGS_STATEMENT_TIMEOUT",
                &args.statement_timeout,
                (10 * MILLISECOND, HOUR),
            ),
            replay: faults.count("TIDINGS_REPLAY", &args.replay, (0, MILLION)),
            window_bytes: shares.window,
            drain: faults.time("TIDINGS_DRAIN", &args.drain, (Duration::ZERO, HOUR)),
            heartbeat: faults.time(
                "TIDINGS_HEARTBEAT",
                &args.heartbeat,
                (100 * MILLISECOND, HOUR),
            ),
        };
        (limits, shares)
    }
}
