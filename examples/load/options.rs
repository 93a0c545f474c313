//! The command line: what is measured, against which server, and how much of it.

use std::str::FromStr;

use clap::{Parser, ValueEnum};
use hyper::Uri;

use crate::report::{Figure, Figures};
use crate::stream::Await;
use crate::{Result, failure};

/// What a load generator does to a server of streams, and what it measures.
#[derive(Clone, Debug, Parser)]
#[command(name = "load", max_term_width = 100)]
pub(crate) struct Options {
    #[arg(value_enum)]
    pub(crate) scenario: Scenario,

    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) url: String,

    /// Builds and starts a gateway with a private Postgres, and measures that: sets url, publish, pid and secret
    #[arg(long, conflicts_with_all = ["url", "publish", "pid", "secret"])]
    pub(crate) start_gateway: bool,

    /// What streams ask for; {own} and {all} are replaced by the stream's own and the shared topic
    /// [default: /v1/events with the topics of the scenario]
    #[arg(long)]
    pub(crate) path: Option<String>,

    /// How many streams
    #[arg(long, default_value_t = 10_000, value_parser = at_least_one)]
    pub(crate) streams: usize,

    /// How many loopback addresses the streams come from, 127.0.0.1 and up [default: one for 5,000 streams]
    #[arg(long)]
    pub(crate) addresses: Option<usize>,

    /// How many streams are being opened at a time
    #[arg(long, default_value_t = 100, value_parser = at_least_one)]
    pub(crate) opening: usize,

    /// The secret of tokens (HS256); every stream then has a user of its own
    #[arg(long)]
    pub(crate) secret: Option<String>,

    /// When a stream counts as open
    #[arg(long = "await", value_enum, default_value_t = Await::Ready)]
    pub(crate) awaited: Await,

    /// How events are published: sql:postgres://…, http:URL (POST /v1/events), post:URL (the payload alone; {topic} is
    /// replaced), line:HOST:PORT (PUBLISH topic payload)
    #[arg(long)]
    pub(crate) publish: Option<Target>,

    /// A process of the server, whose processor time and memory are told; may be repeated
    #[arg(long)]
    pub(crate) pid: Vec<u32>,

    /// Events that are counted [default: 1000, unless --seconds]
    #[arg(long, conflicts_with = "seconds")]
    pub(crate) events: Option<u64>,

    /// How long events are published that are counted
    #[arg(long)]
    pub(crate) seconds: Option<f64>,

    /// Events before those that are counted
    #[arg(long, default_value_t = 100)]
    pub(crate) warm_up: u64,

    /// The length of an event's padding
    #[arg(long, default_value_t = 120, value_parser = at_least_one)]
    pub(crate) payload_bytes: usize,

    /// Publishers, each on a connection of its own; without a rate each publishes its next when its last has
    /// arrived [default: 1, with a rate 4]
    #[arg(long, value_parser = at_least_one)]
    pub(crate) in_flight: Option<usize>,

    /// Events of one transaction
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: u64,

    /// Events per second, however quick the server is; latency counts from when each was to be published
    #[arg(long)]
    pub(crate) rate: Option<f64>,

    /// Unicast events per second beside the broadcasts of `mixed`
    #[arg(long)]
    pub(crate) unicast_rate: Option<f64>,

    /// How many seconds an event is waited for before it counts as lost
    #[arg(long, default_value_t = 10.0)]
    pub(crate) patience: f64,

    /// Streams that are opened and closed before anything is measured [default: 1000 for idle, else 0]
    #[arg(long)]
    pub(crate) warm_up_connects: Option<usize>,

    /// Streams that come and go before `idle` measures; memory is told after each tenth
    #[arg(long, default_value_t = 0)]
    pub(crate) churn: usize,

    /// Print only the line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scenario {
    /// All streams on one topic; each event goes to all
    Broadcast,
    /// A topic for each stream; each event goes to one
    Unicast,
    /// Broadcasts at a rate while unicasts flow at another
    Mixed,
    /// What open streams cost in memory
    Idle,
    /// What opening streams costs
    Connect,
}

impl Scenario {
    fn name(self) -> &'static str {
        match self {
            Self::Broadcast => "broadcast",
            Self::Unicast => "unicast",
            Self::Mixed => "mixed",
            Self::Idle => "idle",
            Self::Connect => "connect",
        }
    }
}

/// Where events are published.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Sql(String),
    Http(Uri),
    Post(String),
    Line(String),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let known = "it is sql:postgres://…, http:URL, post:URL or line:HOST:PORT";
        let (how, to) = text.split_once(':').ok_or(known)?;
        match how {
            "sql" => Ok(Self::Sql(to.to_owned())),
            "http" => (to.parse().map(Self::Http)).map_err(|error| format!("{to}: {error}")),
            "post" => Ok(Self::Post(to.to_owned())),
            "line" => Ok(Self::Line(to.to_owned())),
            _ => Err(known.to_owned()),
        }
    }
}

impl Options {
    /// Refuses what cannot be measured.
    pub(crate) fn check(&self) -> Result<()> {
        let is_rate = |rate: Option<f64>| rate.is_none_or(|rate| rate.is_finite() && rate > 0.0);
        let is_mixed = self.scenario == Scenario::Mixed;
        let fault = if !is_rate(self.rate) || !is_rate(self.unicast_rate) {
            "a rate is more than nothing"
        } else if is_mixed && (self.rate.is_none() || self.unicast_rate.is_none()) {
            "mixed needs --rate for its broadcasts and --unicast-rate"
        } else if !is_mixed && self.unicast_rate.is_some() {
            "--unicast-rate belongs to mixed; unicast has --rate"
        } else if self.tells() && self.publish.is_none() && !self.start_gateway {
            "events need --publish, or --start-gateway"
        } else if self.batch == 0 {
            "a batch has an event at least"
        } else if self.lanes() > self.streams {
            "there are more publishers than streams"
        } else if self.scenario == Scenario::Unicast
            && self.batch > (self.streams / self.lanes()) as u64
        {
            "the events of a batch go to different streams, of which each publisher has its share: too few"
        } else if !self.patience.is_finite() || self.patience < 0.0 {
            "patience is a time"
        } else if self
            .addresses
            .is_some_and(|count| !(1..=254).contains(&count))
        {
            "there are 1 to 254 addresses"
        } else {
            return Ok(());
        };
        Err(failure(fault.to_owned()))
    }

    /// Whether the scenario publishes events.
    fn tells(&self) -> bool {
        !matches!(self.scenario, Scenario::Idle | Scenario::Connect)
    }

    /// What every report begins with.
    pub(crate) fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        figures.add("scenario", Figure::Text(self.scenario.name()));
        figures.add("streams", Figure::Count(self.streams as u64));
        figures
    }

    /// Publishers of each kind of event.
    pub(crate) fn lanes(&self) -> usize {
        let usual = if self.rate.is_some() { 4 } else { 1 };
        self.in_flight.unwrap_or(usual)
    }

    /// What streams ask for.
    pub(crate) fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(match self.scenario {
            Scenario::Broadcast | Scenario::Idle | Scenario::Connect => "/v1/events?topic={all}",
            Scenario::Unicast => "/v1/events?topic={own}",
            Scenario::Mixed => "/v1/events?topic={own}&topic={all}",
        })
    }

    /// Streams that come and go before anything is measured.
    pub(crate) fn warm_up_connects(&self) -> usize {
        let usual = if self.scenario == Scenario::Idle {
            1_000
        } else {
            0
        };
        self.warm_up_connects.unwrap_or(usual)
    }
}

fn at_least_one(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err("it is a number, 1 at least".to_owned()),
    }
}
