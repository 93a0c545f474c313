//! Rounds: everything is measured once in each, in an order that is drawn anew.

use crate::Result;
use crate::kind::Kind;
use crate::measurement::{Bench, Figures};
use crate::options::Options;
use crate::pgbench::Load;
use crate::spread::Spread;

/// Streams of a gateway, where nothing else is said.
const STREAMS: usize = 100;

/// The writers whose greatest rate others go by, and the part of it that they go at.
const PACED_WRITERS: usize = 32;
const PACE: f64 = 0.8;

/// What was measured of one kind, round after round.
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    pub(crate) writers: usize,
    pub(crate) rounds: Vec<Figures>,
}

/// As many commits as there can be, by each number of writers.
pub(crate) async fn greatest(bench: &Bench, options: &Options) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &writers in &options.writers {
        rows.extend(Kind::ALL.map(|kind| Row {
            title: "maximum",
            kind,
            writers,
            rounds: Vec::new(),
        }));
    }
    for round in 0..options.rounds {
        let mut groups: Vec<&mut [Row]> = rows.chunks_mut(Kind::ALL.len()).collect();
        fastrand::shuffle(&mut groups);
        for group in groups {
            let mut order: Vec<&mut Row> = group.iter_mut().collect();
            fastrand::shuffle(&mut order);
            for row in order {
                let load = Load {
                    writers: row.writers,
                    seconds: options.seconds,
                    rate: None,
                    seed: round as usize,
                };
                row.measure(bench, &load, STREAMS).await?;
            }
            add_ratios(group);
        }
    }
    Ok(rows)
}

/// Less than that, which is when latency means something.
pub(crate) async fn paced(bench: &Bench, options: &Options, rows: &[Row]) -> Result<Vec<Row>> {
    let (writers, rate) = pace(rows).ok_or("there is nothing to go by")?;
    let runs = [
        ("80 % of the maximum", writers, Some(rate), STREAMS),
        ("1,000 a second, 1,000 streams", 8, Some(1_000.0), 1_000),
        ("5 a second", 1, Some(5.0), STREAMS),
        ("nothing", 0, None, STREAMS),
    ];
    let mut paced: Vec<_> = runs
        .into_iter()
        .map(|(title, writers, rate, streams)| {
            let row = Row {
                title,
                kind: Kind::Publish,
                writers,
                rounds: Vec::new(),
            };
            (row, rate, streams)
        })
        .collect();
    for round in 0..options.rounds {
        let mut order: Vec<_> = paced.iter_mut().collect();
        fastrand::shuffle(&mut order);
        for (row, rate, streams) in order {
            let load = Load {
                writers: row.writers,
                seconds: options.seconds,
                rate: *rate,
                seed: round as usize,
            };
            row.measure(bench, &load, *streams).await?;
        }
    }
    Ok(paced.into_iter().map(|(row, ..)| row).collect())
}

/// A number of writers, and the rate that they are to keep: of those measured, the number that is asked for, or the
/// greatest.
fn pace(rows: &[Row]) -> Option<(usize, f64)> {
    let rows = rows.iter().filter(|row| row.kind == Kind::Publish);
    let row = rows.max_by_key(|row| (row.writers == PACED_WRITERS, row.writers))?;
    let greatest = row.figures("commits_per_second");
    Some((row.writers, Spread::of(greatest)?.median * PACE))
}

impl Row {
    /// This figure of all rounds that have it.
    pub(crate) fn figures(&self, name: &str) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds
            .filter_map(|round| round.get(name))
            .copied()
            .collect()
    }

    async fn measure(&mut self, bench: &Bench, load: &Load, streams: usize) -> Result<()> {
        let (title, kind, writers) = (self.title, self.kind.name(), self.writers);
        let which = format!(
            "round {}, {title}, {kind}, {writers} writers",
            self.rounds.len() + 1
        );
        let figures = bench.measure(self.kind, load, streams).await;
        let mut figures = figures.map_err(|error| format!("{which}: {error}"))?;
        if let Some(rate) = load.rate {
            figures.insert("commits_per_second_asked", rate);
        }
        eprintln!("{which}: {figures:?}");
        self.rounds.push(figures);
        Ok(())
    }
}

/// Adds the ratios of the newest round.
fn add_ratios(group: &mut [Row]) {
    for (kind, name) in [(Kind::Plain, "to_plain"), (Kind::Notify, "to_notify")] {
        let newest = |row: &Row| row.rounds.last()?.get("commits_per_second").copied();
        let other = group.iter().find(|row| row.kind == kind);
        let Some(other) = other.and_then(newest).filter(|other| *other > 0.0) else {
            continue;
        };
        for row in &mut *group {
            if let (Some(own), Some(figures)) = (newest(row), row.rounds.last_mut()) {
                figures.insert(name, own / other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, writers: usize, rates: &[f64]) -> Row {
        let figures = |rate: &f64| Figures::from([("commits_per_second", *rate)]);
        Row {
            title: "maximum",
            kind,
            writers,
            rounds: rates.iter().map(figures).collect(),
        }
    }

    #[test]
    fn ratios_are_made_within_the_newest_round() {
        let mut group = [
            row(Kind::Notify, 8, &[1.0, 20.0]),
            row(Kind::Plain, 8, &[7.0, 40.0]),
            row(Kind::Publish, 8, &[9.0, 10.0]),
        ];
        add_ratios(&mut group);
        let ratios = group.each_ref().map(|row| row.figures("to_plain"));
        assert_eq!(ratios, [vec![0.5], vec![1.0], vec![0.25]]);
        assert_eq!(group[2].figures("to_notify"), [0.5]);
    }

    #[test]
    fn the_pace_is_set_by_thirty_two_writers_or_the_most() {
        let mut rows = vec![
            row(Kind::Publish, 1, &[10.0]),
            row(Kind::Publish, 64, &[300.0]),
            row(Kind::Plain, 80, &[900.0]),
        ];
        assert_eq!(pace(&rows), Some((64, 240.0)));
        rows.push(row(Kind::Publish, 32, &[100.0, 300.0, 200.0]));
        assert_eq!(pace(&rows), Some((32, 160.0)));
        assert_eq!(pace(&[]), None);
    }
}
