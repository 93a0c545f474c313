//! The scenarios: who runs how, what is shown, and what is judged.

use clap::ValueEnum;

use super::table::number;
use Limit::{AtLeast, AtMost};

/// Deliveries that are enough to measure a broadcast by.
const BROADCAST_DELIVERIES: usize = 1_000_000;
/// Events, however few or many streams share them.
const BROADCAST_EVENTS: std::ops::RangeInclusive<usize> = 100..=250;
/// Broadcasts of which several wait to be written at any time, so that one write takes some of them.
const IN_FLIGHT: &str = "tidings, eight in flight";
/// Broadcasts without anything else. At a steady rate they come one by one, so this run finds the rate that can
/// be kept; at one near that of several in flight, it is the publishers that come too late.
const ALONE: &str = "tidings, broadcasts alone";

/// What a scenario is called on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Name {
    /// Memory of streams on which nothing happens
    Idle,
    /// Every event to every stream
    Broadcast,
    /// Every event to one stream
    Unicast,
    /// Opening streams
    Connect,
    /// Events to one stream while others go to every stream
    Mixed,
}

/// Who is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contestant {
    Tidings,
    Nchan,
    Loop,
    Rows,
    Hyper,
}

/// One start of the generator.
pub(crate) struct Run {
    pub(crate) name: &'static str,
    pub(crate) contestant: Contestant,
    /// The scenario of the generator and its flags; those about the server come from the contestant.
    pub(crate) flags: Vec<String>,
    /// The run whose rate of broadcasting this one takes a part of.
    pub(crate) paced_by: Option<&'static str>,
}

/// What is compared, and shown together.
pub(crate) struct Scenario {
    pub(crate) title: String,
    pub(crate) runs: Vec<Run>,
    pub(crate) columns: &'static [Column],
    pub(crate) bounds: &'static [Bound],
}

/// A figure of each run.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    /// Where it stands in what the generator says.
    pub(crate) figure: &'static str,
    pub(crate) scale: f64,
    pub(crate) decimals: usize,
}

/// A figure of a run, or its ratio to that of another in the same round, and what it should be.
pub(crate) struct Bound {
    pub(crate) title: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) run: &'static str,
    pub(crate) beside: Option<&'static str>,
    pub(crate) limit: Limit,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

const RATE: &str = "/deliveries_per_second";
const CPU: &str = "/cpu_per_million";
const CONNECTS: &str = "/connects_per_second";
const CPU_CONNECT: &str = "/cpu_us_per_connect";
const STREAM_BYTES: &str = "/bytes_per_stream";

const fn column(title: &'static str, figure: &'static str, decimals: usize) -> Column {
    Column {
        title,
        figure,
        scale: 1.0,
        decimals,
    }
}

const IDLE_COLUMNS: &[Column] = &[
    column("bytes per stream", STREAM_BYTES, 0),
    Column {
        title: "resident before, MiB",
        figure: "/rss_before",
        scale: 1.0 / 1_048_576.0,
        decimals: 1,
    },
    Column {
        title: "resident with them, MiB",
        figure: "/rss_after",
        scale: 1.0 / 1_048_576.0,
        decimals: 1,
    },
];

const DELIVERY_COLUMNS: &[Column] = &[
    column("deliveries per second", RATE, 0),
    column("CPU seconds per million", CPU, 2),
    column("of the generator", "/generator_cpu_per_million", 2),
    column("median latency, ms", "/latency_ms/p50", 1),
    column("p99, ms", "/latency_ms/p99", 1),
];

const CONNECT_COLUMNS: &[Column] = &[
    column("connects per second", CONNECTS, 0),
    column("CPU µs per connect", CPU_CONNECT, 1),
];

const MIXED_COLUMNS: &[Column] = &[
    column("deliveries per second", RATE, 0),
    column("broadcast p50, ms", "/latency_ms/p50", 1),
    column("p99, ms", "/latency_ms/p99", 1),
    column("unicast p50, ms", "/unicast_latency_ms/p50", 1),
    column("p99, ms", "/unicast_latency_ms/p99", 1),
    column("INSERT to hub p99, ms", "/insert_to_hub_ms/p99", 1),
    column("hub to socket p99, ms", "/frame_wait_ms/p99", 2),
];

const fn ratio(
    title: &'static str,
    figure: &'static str,
    run: &'static str,
    beside: &'static str,
    limit: Limit,
) -> Bound {
    Bound {
        title,
        figure,
        run,
        beside: Some(beside),
        limit,
    }
}

const fn value(title: &'static str, figure: &'static str, limit: Limit) -> Bound {
    Bound {
        title,
        figure,
        run: "tidings",
        beside: None,
        limit,
    }
}

const IDLE_BOUNDS: &[Bound] = &[value(
    "bytes per stream of tidings",
    STREAM_BYTES,
    AtMost(1_500.0),
)];

const BROADCAST_BOUNDS: &[Bound] = &[
    ratio("CPU, tidings / loop", CPU, "tidings", "loop", AtMost(1.15)),
    ratio(
        "rate, tidings / loop",
        RATE,
        "tidings",
        "loop",
        AtLeast(0.8),
    ),
    ratio(
        "CPU, tidings / Nchan",
        CPU,
        "tidings",
        "Nchan",
        AtMost(0.75),
    ),
    ratio(
        "rate, tidings / Nchan",
        RATE,
        "tidings",
        "Nchan",
        AtLeast(1.3),
    ),
    ratio(
        "rate, eight in flight / one at a time",
        RATE,
        IN_FLIGHT,
        "tidings",
        AtLeast(5.0),
    ),
];

const UNICAST_BOUNDS: &[Bound] = &[ratio(
    "CPU, tidings / rows",
    CPU,
    "tidings",
    "rows",
    AtMost(1.3),
)];

const CONNECT_BOUNDS: &[Bound] = &[
    value("CPU µs per connect of tidings", CPU_CONNECT, AtMost(60.0)),
    ratio(
        "rate, tidings / hyper",
        CONNECTS,
        "tidings",
        "hyper",
        AtLeast(0.6),
    ),
];

impl Scenario {
    /// The scenarios of these names, or all.
    pub(crate) fn chosen(names: &[Name], streams: usize) -> Vec<Self> {
        let names = match names {
            [] => Name::value_variants(),
            names => names,
        };
        names
            .iter()
            .flat_map(|name| match name {
                // Memory grows in steps, so that one number of streams could be a lucky one.
                Name::Idle => vec![Self::idle(streams), Self::idle(streams * 9 / 5)],
                Name::Broadcast => vec![Self::broadcast(streams)],
                Name::Unicast => vec![Self::unicast(streams)],
                Name::Connect => vec![Self::connect(streams)],
                Name::Mixed => vec![Self::mixed(streams)],
            })
            .collect()
    }

    fn idle(streams: usize) -> Self {
        let run = |name, contestant| Run::new(name, contestant, "idle", streams, &[]);
        Self {
            title: format!("{} idle streams", number(streams as f64, 0)),
            runs: vec![
                run("tidings", Contestant::Tidings),
                run("Nchan", Contestant::Nchan),
            ],
            columns: IDLE_COLUMNS,
            bounds: IDLE_BOUNDS,
        }
    }

    fn broadcast(streams: usize) -> Self {
        let run = |name, contestant| Run::broadcast(name, contestant, streams, 1);
        Self {
            title: format!("Broadcast to {} streams", number(streams as f64, 0)),
            runs: vec![
                run("tidings", Contestant::Tidings),
                run("loop", Contestant::Loop),
                run("Nchan", Contestant::Nchan),
                Run::broadcast(IN_FLIGHT, Contestant::Tidings, streams, 8),
            ],
            columns: DELIVERY_COLUMNS,
            bounds: BROADCAST_BOUNDS,
        }
    }

    fn unicast(streams: usize) -> Self {
        let flags = ["--batch=100", "--events=100000", "--warm-up=5000"];
        let run = |name, contestant| Run::new(name, contestant, "unicast", streams, &flags);
        Self {
            title: format!(
                "Events to one of {} streams each, 100 a transaction",
                number(streams as f64, 0)
            ),
            runs: vec![
                run("tidings", Contestant::Tidings),
                run("rows", Contestant::Rows),
            ],
            columns: DELIVERY_COLUMNS,
            bounds: UNICAST_BOUNDS,
        }
    }

    fn connect(streams: usize) -> Self {
        let run = |name, contestant| Run::new(name, contestant, "connect", streams, &[]);
        Self {
            title: format!(
                "{} streams opened, a token for each",
                number(streams as f64, 0)
            ),
            runs: vec![
                run("tidings", Contestant::Tidings),
                run("hyper", Contestant::Hyper),
            ],
            columns: CONNECT_COLUMNS,
            bounds: CONNECT_BOUNDS,
        }
    }

    fn mixed(streams: usize) -> Self {
        let flags = ["--unicast-rate=1000", "--seconds=10"];
        let mut mixed = Run::new(
            "tidings, both",
            Contestant::Tidings,
            "mixed",
            streams,
            &flags,
        );
        mixed.paced_by = Some(ALONE);
        Self {
            title: format!(
                "1,000 events a second to one stream each, while {} get 60 % of the broadcasts that they can",
                number(streams as f64, 0)
            ),
            runs: vec![
                Run::broadcast(ALONE, Contestant::Tidings, streams, 1),
                mixed,
            ],
            columns: MIXED_COLUMNS,
            bounds: &[],
        }
    }
}

impl Run {
    fn new(
        name: &'static str,
        contestant: Contestant,
        scenario: &str,
        streams: usize,
        flags: &[&str],
    ) -> Self {
        let mut all = vec![scenario.to_owned(), format!("--streams={streams}")];
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Self {
            name,
            contestant,
            flags: all,
            paced_by: None,
        }
    }

    fn broadcast(
        name: &'static str,
        contestant: Contestant,
        streams: usize,
        in_flight: usize,
    ) -> Self {
        let events = (BROADCAST_DELIVERIES / streams)
            .clamp(*BROADCAST_EVENTS.start(), *BROADCAST_EVENTS.end());
        let flags = [
            format!("--events={events}"),
            "--warm-up=16".to_owned(),
            format!("--in-flight={in_flight}"),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        Self::new(name, contestant, "broadcast", streams, &flags)
    }
}
