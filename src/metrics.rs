//! What the gateway counts, in OpenMetrics. No label ever names a user or a topic.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::frame::{Bye, Reset};

/// The label `reason`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// The label `source` of replays.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Source {
    source: &'static str,
}

/// The label `kind` of streams.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Every counter of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    streams: Family<Kind, Gauge>,
    /// Events read from the log.
    pub events_in: Counter,
    /// Signals heard.
    pub signals_in: Counter,
    /// Signals and channel messages that were not valid.
    pub signals_refused: Counter,
    /// Frames appended to streams.
    pub frames_out: Counter,
    /// Notifications heard.
    pub bells: Counter,
    /// Notifications of this gateway for the others, while it was awake.
    pub bells_rung: Counter,
    /// 1 while the gateway is awake.
    pub awake: Gauge,
    /// Times that it woke.
    pub wakes: Counter,
    /// How long it has been awake.
    pub awake_time: Counter<f64, AtomicU64>,
    /// Looks at the log.
    pub looks: Counter,
    /// Events of a look that found any.
    pub rows_per_look: Histogram,
    /// From hearing a bell to handing its events to the hub.
    pub bell_to_hub: Histogram,
    /// From inserting an event (`created_at`) to handing it to the hub, by two clocks.
    pub insert_to_hub: Histogram,
    /// From making a frame of few streams to writing it to the socket of one.
    pub frame_wait: Histogram,
    replays: Family<Source, Counter>,
    resets: Family<Reason, Counter>,
    byes: Family<Reason, Counter>,
    /// Streams that were cut because their clients took nothing.
    pub streams_cut: Counter,
    /// Connections without a request that were closed for newcomers.
    pub connections_spared: Counter,
    /// 1 while the session that listens is up.
    pub listener_up: Gauge,
    /// 1 while the session that looks is up.
    pub tail_up: Gauge,
    /// Positions that did not fit into a cursor's text.
    pub positions_too_long: Counter,
    /// Bytes of all frames that wait for streams.
    pub queued_bytes: Gauge,
    /// Bytes of the window.
    pub window_bytes: Gauge,
    /// Bytes of memory that are taken, of those that there are.
    pub memory_bytes: Gauge,
    /// Bytes of memory that there are.
    pub memory_bound_bytes: Gauge,
    /// Times that streams were ended because memory was nearly used up.
    pub sheds: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        // From a tenth of a millisecond to some ten seconds.
        let seconds = || Histogram::new((0..18).map(|n| 0.0001 * f64::from(1 << n)));
        let mut metrics = Self {
            registry: Registry::with_prefix("tidings"),
            streams: Family::default(),
            events_in: Counter::default(),
            signals_in: Counter::default(),
            signals_refused: Counter::default(),
            frames_out: Counter::default(),
            bells: Counter::default(),
            bells_rung: Counter::default(),
            awake: Gauge::default(),
            wakes: Counter::default(),
            awake_time: Counter::default(),
            looks: Counter::default(),
            rows_per_look: Histogram::new((0..14).map(|n| f64::from(1 << n))),
            bell_to_hub: seconds(),
            insert_to_hub: seconds(),
            frame_wait: seconds(),
            replays: Family::default(),
            resets: Family::default(),
            byes: Family::default(),
            streams_cut: Counter::default(),
            connections_spared: Counter::default(),
            listener_up: Gauge::default(),
            tail_up: Gauge::default(),
            positions_too_long: Counter::default(),
            queued_bytes: Gauge::default(),
            window_bytes: Gauge::default(),
            memory_bytes: Gauge::default(),
            memory_bound_bytes: Gauge::default(),
            sheds: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("streams", "Open streams by kind", self.streams.clone());
        r.register(
            "events_in",
            "Events read from the log",
            self.events_in.clone(),
        );
        r.register("signals_in", "Signals heard", self.signals_in.clone());
        r.register(
            "signals_refused",
            "Signals and channel messages that were not valid",
            self.signals_refused.clone(),
        );
        r.register(
            "frames_out",
            "Frames appended to streams",
            self.frames_out.clone(),
        );
        r.register("bells", "Notifications heard", self.bells.clone());
        r.register(
            "bells_rung",
            "Notifications of this gateway for the others",
            self.bells_rung.clone(),
        );
        r.register(
            "awake",
            "Whether the gateway is awake: it looks by itself, and publishers ring no bell",
            self.awake.clone(),
        );
        r.register("wakes", "Times that the gateway woke", self.wakes.clone());
        r.register_with_unit(
            "awake",
            "How long the gateway has been awake",
            Unit::Seconds,
            self.awake_time.clone(),
        );
        r.register("looks", "Looks at the log", self.looks.clone());
        r.register(
            "rows_per_look",
            "Events of a look that found any",
            self.rows_per_look.clone(),
        );
        r.register_with_unit(
            "bell_to_hub",
            "From hearing a bell to handing its events to the hub",
            Unit::Seconds,
            self.bell_to_hub.clone(),
        );
        r.register_with_unit(
            "insert_to_hub",
            "From inserting an event to handing it to the hub",
            Unit::Seconds,
            self.insert_to_hub.clone(),
        );
        r.register_with_unit(
            "frame_wait",
            "From queueing an event of few streams to writing it to the socket of one",
            Unit::Seconds,
            self.frame_wait.clone(),
        );
        r.register("replays", "Replays by source", self.replays.clone());
        r.register(
            "resets",
            "Cursors that could not be resumed",
            self.resets.clone(),
        );
        r.register("byes", "Streams that the gateway ended", self.byes.clone());
        r.register(
            "streams_cut",
            "Streams cut because their clients took nothing",
            self.streams_cut.clone(),
        );
        r.register(
            "connections_spared",
            "Connections without a request that were closed for newcomers",
            self.connections_spared.clone(),
        );
        r.register(
            "listener_up",
            "Whether the session that listens is up",
            self.listener_up.clone(),
        );
        r.register(
            "tail_up",
            "Whether the session that looks is up",
            self.tail_up.clone(),
        );
        r.register(
            "positions_too_long",
            "Positions that did not fit into a cursor",
            self.positions_too_long.clone(),
        );
        r.register_with_unit(
            "queued",
            "Frames that wait for streams, each counted once",
            Unit::Bytes,
            self.queued_bytes.clone(),
        );
        r.register_with_unit(
            "window",
            "The window of newest events",
            Unit::Bytes,
            self.window_bytes.clone(),
        );
        r.register_with_unit(
            "memory",
            "Memory that is taken, by the group that bounds it or by this process",
            Unit::Bytes,
            self.memory_bytes.clone(),
        );
        r.register_with_unit(
            "memory_bound",
            "Memory that there is",
            Unit::Bytes,
            self.memory_bound_bytes.clone(),
        );
        r.register(
            "sheds",
            "Times that streams were ended because memory was nearly used up",
            self.sheds.clone(),
        );
    }

    /// The gauge of open streams of a kind; `kind` names the sink.
    pub fn streams(&self, kind: &'static str) -> Gauge {
        self.streams.get_or_create(&Kind { kind }).clone()
    }

    /// Counts a replay; `source` is `window`, `database` or `none`.
    pub fn replay(&self, source: &'static str) {
        self.replays.get_or_create(&Source { source }).inc();
    }

    /// Counts a refused cursor.
    pub fn reset(&self, reason: Reset) {
        let reason = reason.as_str();
        self.resets.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a stream that the gateway ended.
    pub fn bye(&self, reason: Bye) {
        let reason = reason.as_str();
        self.byes.get_or_create(&Reason { reason }).inc();
    }

    /// All of it as OpenMetrics text.
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry).expect("a string takes all");
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_open_metrics() {
        let metrics = Metrics::new();
        metrics.bye(Bye::Slow);
        metrics.replay("window");
        let text = metrics.encode();
        assert!(
            text.contains("tidings_byes_total{reason=\"slow\"} 1"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
