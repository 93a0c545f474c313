//! Tables in Markdown: the figures of each run, and what is judged beside its bound.

use serde_json::Value;

use super::bench::Round;
use super::scenario::{Bound, Limit, Scenario};
use super::spread::Spread;
use super::table::{cell, number, write_row};

/// Both tables of a scenario.
pub(crate) fn tables(scenario: &Scenario, rounds: &[Round]) -> String {
    let mut text = format!("### {}\n\n", scenario.title);
    write_figures(&mut text, scenario, rounds);
    if !scenario.bounds.is_empty() {
        write_bounds(&mut text, scenario.bounds, rounds);
    }
    text
}

/// A row for each run, a column for each figure.
fn write_figures(text: &mut String, scenario: &Scenario, rounds: &[Round]) {
    let count = match rounds.len() {
        1 => "one round".to_owned(),
        count => format!("median of {count} rounds (quartiles)"),
    };
    let titles = scenario.columns.iter().map(|column| column.title);
    write_row(text, &count, titles.map(str::to_owned));
    write_row(
        text,
        "---",
        scenario.columns.iter().map(|_| "---:".to_owned()),
    );
    for run in &scenario.runs {
        let cells = scenario.columns.iter().map(|column| {
            let figures = figures(rounds, run.name, column.figure);
            cell(figures.flatten().collect(), column.scale, column.decimals)
        });
        write_row(text, run.name, cells);
    }
    text.push('\n');
}

/// A row for each bound.
fn write_bounds(text: &mut String, bounds: &[Bound], rounds: &[Round]) {
    let titles = ["", "median (quartiles)", "bound", "holds"];
    write_row(
        text,
        titles[0],
        titles[1..].iter().map(|&title| title.to_owned()),
    );
    write_row(text, "---", ["---:", "---:", "---"].map(str::to_owned));
    for bound in bounds {
        let judged = judged(bound, rounds);
        let holds = match Spread::of(judged.clone()) {
            Some(spread) if bound.limit.holds(spread.median) => "yes",
            Some(_) => "**no**",
            None => "unknown",
        };
        let (decimals, limit) = (bound.decimals(), bound.limit.text());
        let cells = [cell(judged, 1.0, decimals), limit, holds.to_owned()];
        write_row(text, bound.title, cells);
    }
}

/// The figure of each round, over that of the other run in the same round.
fn judged(bound: &Bound, rounds: &[Round]) -> Vec<f64> {
    let figure = figures(rounds, bound.run, bound.figure);
    let Some(beside) = bound.beside else {
        return figure.flatten().collect();
    };
    let pairs = figure.zip(figures(rounds, beside, bound.figure));
    pairs
        .filter_map(|(one, other)| Some(one? / other.filter(|other| *other > 0.0)?))
        .collect()
}

fn figures(
    rounds: &[Round],
    run: &'static str,
    figure: &'static str,
) -> impl Iterator<Item = Option<f64>> {
    let figure = move |round: &Round| round.get(run)?.pointer(figure).and_then(Value::as_f64);
    rounds.iter().map(figure)
}

impl Bound {
    fn decimals(&self) -> usize {
        if self.beside.is_some() { 2 } else { 0 }
    }
}

impl Limit {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }

    fn text(self) -> String {
        let (sign, limit) = match self {
            Self::AtMost(most) => ('≤', most),
            Self::AtLeast(least) => ('≥', least),
        };
        let decimals = if limit.fract() == 0.0 { 0 } else { 2 };
        format!("{sign} {}", number(limit, decimals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn round(one: f64, other: f64) -> Round {
        Round::from([("a", json!({"x": one})), ("b", json!({"x": other}))])
    }

    #[test]
    fn ratios_are_made_within_rounds() {
        let rounds = [round(2.0, 1.0), round(30.0, 10.0), round(5.0, 0.0)];
        let mut bound = Bound {
            title: "",
            figure: "/x",
            run: "a",
            beside: Some("b"),
            limit: Limit::AtMost(2.5),
        };
        assert_eq!(judged(&bound, &rounds), [2.0, 3.0]);
        bound.beside = None;
        assert_eq!(judged(&bound, &rounds), [2.0, 30.0, 5.0]);
        assert!(bound.limit.holds(2.5) && !bound.limit.holds(2.6));
    }
}
