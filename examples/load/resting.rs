//! Idle and connect: what streams cost to have and to open, when nobody says anything.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Result;
use crate::audience;
use crate::clock::Clock;
use crate::options::Options;
use crate::report::{Figure, Figures};
use crate::streams::Streams;
use crate::usage::Usage;

/// Memory is quiet when it has moved by no more than this within so many looks; and however it moves, it is
/// not waited for any longer than this.
const QUIET_BYTES: f64 = 256.0 * 1024.0;
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_MAX: usize = 160;

/// Parts of the churn after which memory is told.
const CHURN_PARTS: usize = 10;

/// What open streams cost in memory.
pub(crate) async fn idle(options: &Options, usage: &Usage) -> Result<Figures> {
    let (streams, _flights) = audience::start(options, Clock::start())?;
    warm_up(options, &streams).await?;
    let mut rss_by_tenth = Vec::new();
    for part in 0..CHURN_PARTS {
        let count = |parts| options.churn * parts / CHURN_PARTS;
        let count = count(part + 1) - count(part);
        if count > 0 {
            streams.pass(count).await?;
            rss_by_tenth.extend(quiet(usage).await?);
        }
    }
    let before = quiet(usage).await?;
    let opened = streams.open(options.streams).await?;
    let after = quiet(usage).await?;
    let each = |(after, before): (f64, f64)| (after - before) / options.streams as f64;
    let mut figures = options.figures();
    figures.add("ended", Figure::Count(streams.counts().await?.ended));
    figures.add_number("seconds", opened.took.as_secs_f64());
    if !rss_by_tenth.is_empty() {
        figures.add("rss_by_tenth", Figure::Numbers(rss_by_tenth));
    }
    figures.add_number("rss_before", before);
    figures.add_number("rss_after", after);
    figures.add_number("bytes_per_stream", after.zip(before).map(each));
    Ok(figures)
}

/// What opening streams costs.
pub(crate) async fn connect(options: &Options, usage: &Usage) -> Result<Figures> {
    let (streams, _flights) = audience::start(options, Clock::start())?;
    if options.warm_up_connects() > 0 {
        warm_up(options, &streams).await?;
        quiet(usage).await?;
    }
    let (cpu, own_cpu) = (usage.cpu_seconds()?, Usage::own().cpu_seconds()?);
    let opened = streams.open(options.streams).await?;
    let spent = |now: Option<f64>, before: Option<f64>| Some(now? - before?);
    let cpu = spent(usage.cpu_seconds()?, cpu);
    let own_cpu = spent(Usage::own().cpu_seconds()?, own_cpu);
    let (count, seconds) = (options.streams as f64, opened.took.as_secs_f64());
    let mut figures = options.figures();
    figures.add("ended", Figure::Count(streams.counts().await?.ended));
    figures.add_number("seconds", seconds);
    figures.add_number("connects_per_second", count / seconds);
    figures.add_number("cpu_seconds", cpu);
    figures.add_number("cpu_us_per_connect", cpu.map(|cpu| cpu / count * 1e6));
    figures.add_number("generator_cpu_seconds", own_cpu);
    Ok(figures)
}

/// Opens some streams and closes them, for whatever the server makes once.
async fn warm_up(options: &Options, streams: &Streams) -> Result<()> {
    let count = options.warm_up_connects();
    streams.open(count).await?;
    streams.close().await
}

/// Waits until the server's memory is quiet, and returns how much it is.
async fn quiet(usage: &Usage) -> Result<Option<f64>> {
    let mut last = VecDeque::new();
    for _ in 0..LOOKS_MAX {
        let Some(resident) = usage.resident_bytes()? else {
            return Ok(None);
        };
        last.push_back(resident);
        if last.len() > LOOKS {
            last.pop_front();
            let most = last.iter().copied().fold(f64::MIN, f64::max);
            let least = last.iter().copied().fold(f64::MAX, f64::min);
            if most - least <= QUIET_BYTES {
                return Ok(Some(resident));
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    eprintln!("the server's memory does not come to rest");
    Ok(last.back().copied())
}
