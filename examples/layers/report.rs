//! The report: what each variant costs, and how much more that is than others, as tables in Markdown.

use std::collections::BTreeMap;

use crate::table::{cell, write_row};
use crate::variant::{GROUPS, Variant};

/// Microseconds for an event of each variant, round after round.
pub(crate) struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Notes the cost of a variant in the newest round.
    pub(crate) fn note(&mut self, variant: &'static Variant, cost_us: f64) {
        self.0.entry(variant.name).or_default().push(cost_us);
    }

    fn costs(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// How much more one costs than another, within each round.
    fn differences(&self, name: &str, other: &str) -> Vec<f64> {
        let pairs = self.costs(name).iter().zip(self.costs(other));
        pairs.map(|(own, other)| own - other).collect()
    }

    pub(crate) fn tables(&self) -> String {
        let mut text = String::new();
        for group in &GROUPS {
            let titles = ["CPU µs per event", "more than `plain`", "more than"];
            write_row(&mut text, group.title, titles.map(str::to_owned));
            write_row(&mut text, "---", ["---:"; 3].map(str::to_owned));
            for variant in group.variants {
                let first = format!("`{}`: {}", variant.name, variant.words);
                write_row(&mut text, &first, self.cells(variant));
            }
            text.push('\n');
        }
        text
    }

    fn cells(&self, variant: &Variant) -> [String; 3] {
        let own = cell(self.costs(variant.name).to_vec(), 1.0, 0);
        let more_than = |other| match other == variant.name {
            true => "–".to_owned(),
            false => cell(self.differences(variant.name, other), 1.0, 0),
        };
        let beside = match variant.beside {
            "plain" => "–".to_owned(),
            beside => format!("`{beside}`: {}", more_than(beside)),
        };
        [own, more_than("plain"), beside]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::variant;

    #[test]
    fn differences_are_made_within_rounds() {
        let mut rounds = Rounds::new();
        for (round, noise) in [0.0, 40.0, 3.0].into_iter().enumerate() {
            for (place, variant) in variant::all().enumerate() {
                rounds.note(variant, 10.0 + noise + place as f64);
            }
            assert_eq!(rounds.costs("plain").len(), round + 1);
        }
        assert_eq!(rounds.differences("days", "ids"), [1.0; 3]);
        let text = rounds.tables();
        assert!(
            text.contains("| 16 (14–34) | 3 (3–3) | `ids`: 1 (1–1) |\n"),
            "{text}"
        );
    }

    #[test]
    fn what_a_variant_stands_beside_exists() {
        for variant in variant::all() {
            assert!(variant::all().any(|other| other.name == variant.beside));
        }
    }
}
