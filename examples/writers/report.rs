//! The report: tables in Markdown for people, and a line of JSON for each row.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::rounds::Row;
use crate::spread::Spread;
use crate::table::{cell, write_row};

/// The title of a column, the figure that it shows, and its decimals.
type Column = (&'static str, &'static str, usize);

const COMMITS: &[Column] = &[
    ("commits per second", "commits_per_second", 0),
    ("to plain", "to_plain", 2),
    ("to notify", "to_notify", 2),
    (
        "CPU seconds of Postgres per 1,000",
        "postgres_cpu_per_1000",
        3,
    ),
    ("of the gateway", "gateway_cpu_per_1000", 3),
    ("looks per second", "looks_per_second", 0),
    ("bells heard per second", "bells_per_second", 0),
    ("awake", "awake_share", 2),
];

const LATENCY: &[Column] = &[
    ("p50, ms", "latency_ms_p50", 2),
    ("p90, ms", "latency_ms_p90", 2),
    ("p99, ms", "latency_ms_p99", 2),
    ("p99.9, ms", "latency_ms_p99_9", 2),
    ("max, ms", "latency_ms_max", 1),
];

const PACED: &[Column] = &[
    (
        "commits per second asked for",
        "commits_per_second_asked",
        0,
    ),
    ("commits per second", "commits_per_second", 0),
    ("p50, ms", "latency_ms_p50", 2),
    ("p90, ms", "latency_ms_p90", 2),
    ("p99, ms", "latency_ms_p99", 2),
    ("p99.9, ms", "latency_ms_p99_9", 2),
    ("max, ms", "latency_ms_max", 1),
    ("the gateway's share of a core", "gateway_cpu_share", 3),
    ("looks per second", "looks_per_second", 0),
    ("awake", "awake_share", 2),
];

/// Prints everything; the lines of JSON go into a file, if there is one.
pub(crate) fn print(greatest: &[Row], paced: &[Row], json: Option<&Path>) -> Result<()> {
    print!("{}", tables(greatest, paced));
    let rows = greatest.iter().chain(paced);
    let mut lines = String::new();
    for row in rows {
        lines += &serde_json::to_string(&Line::of(row))?;
        lines.push('\n');
    }
    match json {
        Some(path) => std::fs::write(path, lines)?,
        None => print!("{lines}"),
    }
    Ok(())
}

fn tables(greatest: &[Row], paced: &[Row]) -> String {
    let mut text = String::new();
    for group in greatest.chunk_by(|one, other| one.writers == other.writers) {
        let plural = if group[0].writers == 1 { "" } else { "s" };
        text += &format!("### {} writer{plural}\n\n", group[0].writers);
        let named = |row: &Row| row.kind.name();
        write_table(&mut text, COMMITS, group.iter(), named);
        let told = group.iter().filter(|row| row.kind.gateway().is_some());
        text += "From INSERT to a stream:\n\n";
        write_table(&mut text, LATENCY, told, named);
    }
    if !paced.is_empty() {
        text += "### At a steady rate\n\n";
        write_table(&mut text, PACED, paced.iter(), |row| row.title);
    }
    text
}

fn write_table<'a>(
    text: &mut String,
    columns: &[Column],
    rows: impl Iterator<Item = &'a Row>,
    name: impl Fn(&Row) -> &'static str,
) {
    let mut rows = rows.peekable();
    let count = rows.peek().map_or(0, |row| row.rounds.len());
    let count = match count {
        1 => "one round".to_owned(),
        count => format!("median of {count} rounds (quartiles)"),
    };
    let titles = columns.iter().map(|(title, ..)| (*title).to_owned());
    write_row(text, &count, titles);
    write_row(text, "---", columns.iter().map(|_| "---:".to_owned()));
    for row in rows {
        let cells = columns
            .iter()
            .map(|(_, figure, decimals)| cell(row.figures(figure), 1.0, *decimals));
        write_row(text, name(row), cells);
    }
    text.push('\n');
}

/// A row for programs: every figure with its quartiles.
#[derive(Serialize)]
struct Line<'a> {
    run: &'a str,
    kind: &'a str,
    writers: usize,
    rounds: usize,
    figures: BTreeMap<&'a str, Quartiles>,
}

#[derive(Serialize)]
struct Quartiles {
    low: f64,
    median: f64,
    high: f64,
}

impl<'a> Line<'a> {
    fn of(row: &'a Row) -> Self {
        let names = row.rounds.iter().flat_map(|round| round.keys());
        let figures = names.filter_map(|name| {
            let Spread { low, median, high } = Spread::of(row.figures(name))?;
            let [low, median, high] = [low, median, high].map(rounded);
            Some((*name, Quartiles { low, median, high }))
        });
        Self {
            run: row.title,
            kind: row.kind.name(),
            writers: row.writers,
            rounds: row.rounds.len(),
            figures: figures.collect(),
        }
    }
}

/// No more digits than were measured.
fn rounded(figure: f64) -> f64 {
    (figure * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use crate::measurement::Figures;

    #[test]
    fn what_was_not_measured_is_not_told() {
        let row = Row {
            title: "maximum",
            kind: Kind::Plain,
            writers: 1,
            rounds: vec![Figures::from([("commits_per_second", 1_234.4)])],
        };
        let text = tables(std::slice::from_ref(&row), &[]);
        let commits = "| plain | 1,234 | – | – | – | – | – | – | – |\n";
        assert!(text.contains(commits), "{text}");
        let line = serde_json::to_string(&Line::of(&row)).expect("text and numbers");
        assert_eq!(
            line,
            r#"{"run":"maximum","kind":"plain","writers":1,"rounds":1,"figures":{"commits_per_second":{"low":1234.4,"median":1234.4,"high":1234.4}}}"#
        );
    }
}
