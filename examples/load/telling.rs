//! Broadcast, unicast and mixed: events are published, and it is measured how they arrive.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use tokio::sync::mpsc::unbounded_channel;

use crate::Result;
use crate::arrivals::Counts;
use crate::audience;
use crate::clock::Clock;
use crate::lane::{Course, Lane};
use crate::options::{Options, Scenario};
use crate::pace::Pace;
use crate::payload::Kind;
use crate::publisher::Publisher;
use crate::report::{Figure, Figures};
use crate::usage::Usage;

/// Events that are counted when nothing else is said.
const EVENTS: u64 = 1_000;

/// Leave to publish, which the lanes of a closed loop share.
pub(crate) struct Tickets {
    left: Cell<u64>,
    until: Option<Instant>,
}

impl Tickets {
    fn new(amount: Amount) -> Self {
        let (events, until) = match amount {
            Amount::Events(events) => (events, None),
            Amount::Time(time) => (u64::MAX, Some(Instant::now() + time)),
        };
        Self {
            left: Cell::new(events),
            until,
        }
    }

    /// Leave for a batch, or for what is left of one.
    pub(crate) fn take(&self, batch: u64) -> Option<u64> {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        let taken = batch.min(self.left.get());
        self.left.set(self.left.get() - taken);
        (taken > 0).then_some(taken)
    }

    /// Nothing more is to be published.
    pub(crate) fn withdraw(&self) {
        self.left.set(0);
    }
}

/// How much is published.
#[derive(Clone, Copy, Debug)]
enum Amount {
    Events(u64),
    Time(Duration),
}

impl Amount {
    /// As events, at a rate.
    fn events(self, rate: f64) -> u64 {
        match self {
            Self::Events(events) => events,
            Self::Time(time) => ((time.as_secs_f64() * rate).round() as u64).max(1),
        }
    }
}

/// The lanes of one kind of events.
struct Fleet {
    lanes: Vec<Lane>,
    batch: u64,
    rate: Option<f64>,
    clock: Clock,
}

impl Fleet {
    async fn connect(options: &Options, course: Course, rate: Option<f64>) -> Result<Self> {
        let target = options
            .publish
            .as_ref()
            .ok_or("there is nowhere to publish")?;
        let mut lanes = Vec::new();
        for number in 0..course.lanes {
            let publisher = Publisher::connect(target, options.secret.as_deref()).await?;
            lanes.push(Lane::new(course.clone(), number, publisher));
        }
        Ok(Self {
            lanes,
            batch: course.batch,
            rate,
            clock: course.clock,
        })
    }

    /// Publishes so much, and waits until it has arrived.
    async fn tell(&mut self, amount: Amount) -> Result<()> {
        let Some(rate) = self.rate else {
            let tickets = Tickets::new(amount);
            let lanes = self.lanes.iter_mut();
            try_join_all(lanes.map(|lane| lane.close_loop(&tickets))).await?;
            return Ok(());
        };
        let pace = Pace {
            events: amount.events(rate),
            batch: self.batch,
            rate,
        };
        let (senders, due): (Vec<_>, Vec<_>) =
            self.lanes.iter().map(|_| unbounded_channel()).unzip();
        let thread = pace.start(self.clock, senders)?;
        let lanes = self.lanes.iter_mut().zip(due);
        let told = try_join_all(lanes.map(|(lane, due)| lane.open_loop(due))).await;
        // It ends by itself as soon as the lanes have everything, or have failed.
        let _ = thread.join();
        told.map(drop)
    }

    fn published(&self) -> u64 {
        self.lanes.iter().map(Lane::published).sum()
    }
}

/// Opens the streams, publishes, and counts.
pub(crate) async fn measure(options: &Options, usage: &Usage) -> Result<Figures> {
    let clock = Clock::start();
    let (streams, flights) = audience::start(options, clock)?;
    let course = |kind| Course {
        kind,
        lanes: options.lanes(),
        streams: options.streams,
        batch: options.batch,
        at_random: options.scenario == Scenario::Mixed,
        pad_bytes: options.payload_bytes,
        patience: Duration::from_secs_f64(options.patience),
        clock,
        flights: flights.clone(),
    };
    let mut fleets = Vec::new();
    let rates = match options.scenario {
        Scenario::Unicast => [None, Some(options.rate)],
        Scenario::Mixed => [Some(options.rate), Some(options.unicast_rate)],
        Scenario::Broadcast | Scenario::Idle | Scenario::Connect => [Some(options.rate), None],
    };
    for (kind, rate) in [Kind::All, Kind::Own].into_iter().zip(rates) {
        if let Some(rate) = rate {
            fleets.push(Fleet::connect(options, course(kind), rate).await?);
        }
    }

    streams.open(options.streams).await?;
    tell(&mut fleets, Amount::Events(options.warm_up)).await?;
    streams.begin().await?;
    let before: u64 = fleets.iter().map(Fleet::published).sum();
    let (cpu, own_cpu) = (usage.cpu_seconds()?, Usage::own().cpu_seconds()?);
    let amount = match options.seconds {
        Some(seconds) => Amount::Time(Duration::from_secs_f64(seconds)),
        None => Amount::Events(options.events.unwrap_or(EVENTS)),
    };
    tell(&mut fleets, amount).await?;
    let counts = streams.counts().await?;
    let spent = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
    let cpu = spent(usage.cpu_seconds()?, cpu);
    let own_cpu = spent(Usage::own().cpu_seconds()?, own_cpu);
    let told = fleets.iter().map(Fleet::published).sum::<u64>() - before;
    Ok(figures(options, told, &counts, cpu, own_cpu))
}

fn figures(
    options: &Options,
    told: u64,
    counts: &Counts,
    cpu: Option<f64>,
    own_cpu: Option<f64>,
) -> Figures {
    let deliveries = counts.deliveries as f64;
    let mut figures = options.figures();
    figures.add("events", Figure::Count(told));
    figures.add("deliveries", Figure::Count(counts.deliveries));
    figures.add("lost", Figure::Count(counts.lost));
    figures.add("doubled", Figure::Count(counts.doubled));
    figures.add("reordered", Figure::Count(counts.reordered));
    figures.add("ended", Figure::Count(counts.ended));
    figures.add("foreign", Figure::Count(counts.foreign));
    figures.add_number("seconds", counts.seconds);
    figures.add_number("deliveries_per_second", deliveries / counts.seconds);
    figures.add_number("cpu_seconds", cpu);
    figures.add_number("cpu_per_million", cpu.map(|cpu| cpu / deliveries * 1e6));
    figures.add_number("generator_cpu_seconds", own_cpu);
    let (all, own) = ("latency_ms", "unicast_latency_ms");
    let own = if options.scenario == Scenario::Unicast {
        all
    } else {
        own
    };
    figures.add_latency(all, &counts.all);
    figures.add_latency(own, &counts.own);
    figures
}

/// All fleets at once; what the first publishes says how long the others do.
async fn tell(fleets: &mut [Fleet], amount: Amount) -> Result<()> {
    let first = fleets.first().and_then(|fleet| fleet.rate);
    let amount = match (amount, first) {
        (Amount::Events(events), Some(rate)) if fleets.len() > 1 => {
            Amount::Time(Duration::from_secs_f64(events as f64 / rate))
        }
        (amount, _) => amount,
    };
    try_join_all(fleets.iter_mut().map(|fleet| fleet.tell(amount))).await?;
    Ok(())
}
