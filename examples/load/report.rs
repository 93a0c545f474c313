//! The report: a small table for people, and one line of JSON for programs.

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Figures with their names, in the order in which they are told.
#[derive(Debug, Default)]
pub(crate) struct Figures(Vec<(&'static str, Figure)>);

/// One of them.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    Text(&'static str),
    Count(u64),
    Number(f64),
    Numbers(Vec<f64>),
    Parts(Figures),
}

/// What may not be: one of these above zero is a failure of the server.
const FAULTS: [&str; 4] = ["lost", "doubled", "reordered", "ended"];

impl Figures {
    /// Adds one, unless it was not measured.
    pub(crate) fn add(&mut self, name: &'static str, figure: impl Into<Option<Figure>>) {
        if let Some(figure) = figure.into() {
            self.0.push((name, figure));
        }
    }

    /// Adds one that is a number, unless it was not measured.
    pub(crate) fn add_number(&mut self, name: &'static str, number: impl Into<Option<f64>>) {
        self.add(name, number.into().map(Figure::Number));
    }

    /// How long deliveries took, in milliseconds, if there were any.
    pub(crate) fn add_latency(&mut self, name: &'static str, recorded_us: &Histogram<u64>) {
        if recorded_us.is_empty() {
            return;
        }
        let mut parts = Figures::default();
        for (name, share) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99_9", 0.999),
            ("max", 1.0),
        ] {
            let us = recorded_us.value_at_quantile(share).min(recorded_us.max());
            parts.add_number(name, us as f64 / 1e3);
        }
        self.add(name, Figure::Parts(parts));
    }

    /// What was counted under this name; nothing, if nothing was.
    pub(crate) fn count(&self, name: &str) -> u64 {
        let figures = self.0.iter().filter(|(other, _)| *other == name);
        let counts = figures.map(|(_, figure)| match figure {
            Figure::Count(count) => *count,
            _ => 0,
        });
        counts.sum()
    }

    /// Whether the server did all that it is there for.
    pub(crate) fn are_clean(&self) -> bool {
        FAULTS.iter().all(|fault| self.count(fault) == 0)
    }

    /// Prints the table, unless it is not wanted, and the line.
    pub(crate) fn print(&self, only_json: bool) -> serde_json::Result<()> {
        if !only_json {
            for (name, figure) in &self.0 {
                println!("{:<24}{:>14}", name.replace('_', " "), figure.text());
            }
        }
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}

impl Serialize for Figures {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, figure)| (name, figure)))
    }
}

impl Figure {
    /// For people.
    fn text(&self) -> String {
        match self {
            Self::Text(text) => (*text).to_owned(),
            Self::Count(count) => count.to_string(),
            Self::Number(number) => format!("{number:.2}"),
            Self::Numbers(numbers) => {
                let texts = numbers.iter().map(|number| format!("{number:.0}"));
                texts.collect::<Vec<_>>().join("  ")
            }
            Self::Parts(Figures(parts)) => {
                let texts = parts
                    .iter()
                    .map(|(name, figure)| format!("{name} {}", figure.text()));
                texts.collect::<Vec<_>>().join("  ")
            }
        }
    }
}

impl From<u64> for Figure {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}
