//! Documentation: what it names exists, what exists it names, and what it shows can be read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tidings::frame::{Bye, Reset};

use crate::support::gateway::{Gateway, token};
use crate::support::postgres::database;

const OPERATIONS: &str = "docs/operations.md";
const PROTOCOL: &str = "docs/protocol.md";

/// Variables that are no settings of `tidings serve`.
const OTHER_VARIABLES: [&str; 10] = [
    "TIDINGS_LOG",
    "TIDINGS_TEST_CLIENT_S",
    "TIDINGS_TEST_DAYS",
    "TIDINGS_TEST_INPUTS",
    "TIDINGS_TEST_PREVIOUS",
    "TIDINGS_TEST_PROGRAMS",
    "TIDINGS_TEST_SEED",
    "TIDINGS_TEST_STOPPED_S",
    "TIDINGS_TEST_STREAMS",
    "TIDINGS_TEST_WAKES",
];
/// Names that look like metrics and are roles, a schema, or triggers.
const OTHER_NAMES: [&str; 5] = [
    "tidings_publisher",
    "tidings_gateway",
    "tidings_watcher",
    "tidings_watch",
    "tidings_watch_",
];

/// Every reason of a reset, and of a bye.
pub(crate) const RESETS: [Reset; 4] = [
    Reset::Trimmed,
    Reset::Diverged,
    Reset::TooFar,
    Reset::Malformed,
];
pub(crate) const BYES: [Bye; 7] = [
    Bye::Drain,
    Bye::Expired,
    Bye::Revoked,
    Bye::Slow,
    Bye::Overload,
    Bye::Unavailable,
    Bye::Diverged,
];

#[test]
fn the_tables_of_settings_are_what_the_help_says() {
    let page = section(&read(OPERATIONS), "Configuration");
    let rows = page.lines().filter_map(cells);
    let told: BTreeMap<String, Option<String>> = rows
        .filter(|row| row[0].starts_with('`'))
        .map(|row| {
            let default = Some(plain(&row[1])).filter(|default| default != "–");
            (plain(&row[0]), default)
        })
        .collect();
    assert_eq!(told, settings());
}

#[test]
fn every_variable_that_is_named_exists() {
    let settings = settings();
    for page in pages() {
        for name in words(&read_path(&page), "TIDINGS_", |c| {
            c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
        }) {
            let known = settings.contains_key(&name) || OTHER_VARIABLES.contains(&&*name);
            assert!(known, "{} names {name}", page.display());
        }
    }
}

#[tokio::test]
async fn metrics_are_named_as_they_are_counted() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--streams-per-user=1"]).await;
    // A metric with labels is shown once it has been counted.
    let events = || {
        let alice = token("alice", json!({}));
        gateway.events(&["user:alice"]).bearer(&alice)
    };
    let mut stream = events().header("last-event-id", "nonsense").stream().await;
    stream.wait_for("tidings.reset").await;
    stream.wait_for("tidings.ready").await;
    events().stream().await.wait_for("tidings.bye").await;
    let mut resumed = gateway.resume(&["user:alice"], Some(stream.cursor())).await;
    resumed.ready().await;

    let text = gateway.ops("/metrics").await.body;
    let mut counted = BTreeSet::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect("a type has a name");
            let total = if kind == "counter" { "_total" } else { "" };
            counted.insert(format!("{name}{total}"));
        }
    }
    let is_letter = |c: char| c.is_ascii_lowercase() || c == '_';
    let told: BTreeSet<String> = words(&read(OPERATIONS), "tidings_", is_letter);
    for name in &counted {
        assert!(told.contains(name), "{OPERATIONS} does not tell of {name}");
    }
    for page in pages() {
        for name in words(&read_path(&page), "tidings_", is_letter) {
            let family = name.strip_suffix("_bucket").unwrap_or(&name);
            let known = counted.contains(family) || OTHER_NAMES.contains(&&*name);
            assert!(known, "{} names {name}", page.display());
        }
    }
}

#[test]
fn every_refusal_is_described() {
    // The names of problems stand in one function, one line or two for each.
    let source = read("src/http/problem.rs");
    let (_, rest) = source.split_once("pub fn name(").expect("names");
    let (names, _) = rest.split_once("\n    }\n").expect("the function ends");
    let quoted = names.split('"').skip(1).step_by(2);
    let problems: BTreeSet<String> = quoted.map(str::to_owned).collect();
    assert!(problems.contains("unauthorized"), "{problems:?}");
    assert_eq!(first_column("Problems"), problems);
}

#[test]
fn every_reset_and_bye_is_described() {
    // Whoever adds one is told by the compiler that it belongs into the lists above, and into the page.
    for reset in RESETS {
        match reset {
            Reset::Trimmed | Reset::Diverged | Reset::TooFar | Reset::Malformed => {}
        }
    }
    for bye in BYES {
        match bye {
            Bye::Drain | Bye::Expired | Bye::Revoked | Bye::Slow => {}
            Bye::Overload | Bye::Unavailable | Bye::Diverged => {}
        }
    }
    let words = RESETS.iter().map(|reset| reset.as_str());
    let words = words.chain(BYES.iter().map(|bye| bye.as_str()));
    let expected: BTreeSet<String> = words.map(str::to_owned).collect();
    assert_eq!(first_column("Reset and bye"), expected);
}

#[test]
fn links_lead_somewhere() {
    let mut count = 0;
    for page in pages() {
        for link in links(&read_path(&page)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            count += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().expect("a page is in a directory").join(path),
            };
            let here = page.display();
            assert!(target.exists(), "{here}: {link} leads nowhere");
            if !anchor.is_empty() {
                let anchors = anchors(&read_path(&target));
                assert!(
                    anchors.contains(anchor),
                    "{here}: {link} has no such heading"
                );
            }
        }
    }
    assert!(count > 20, "only {count} links were found");
}

#[test]
fn examples_are_json() {
    let mut count = 0;
    for page in pages() {
        for (language, text) in fences(&read_path(&page)) {
            let examples: Vec<&str> = match language.as_str() {
                "json" => vec![&text],
                // A stream's events, and bodies in captures of whole answers.
                "text" => {
                    let lines = text.lines();
                    lines
                        .filter_map(|line| match line.strip_prefix("data: ") {
                            None => Some(line).filter(|line| line.starts_with('{')),
                            data => data,
                        })
                        .collect()
                }
                _ => continue,
            };
            for example in examples {
                count += 1;
                let parsed = serde_json::from_str::<Value>(example);
                parsed.unwrap_or_else(|error| panic!("{}: {error}: {example}", page.display()));
            }
        }
    }
    assert!(count > 10, "only {count} examples were found");
}

/// The settings of `tidings serve` with their defaults, as its help tells them.
fn settings() -> BTreeMap<String, Option<String>> {
    let output = Command::new(env!("CARGO_BIN_EXE_tidings"))
        .args(["serve", "--help"])
        // Otherwise the help would tell what is set where the tests run.
        .env_clear()
        .output()
        .expect("the binary runs");
    let help = String::from_utf8(output.stdout).expect("help is text");
    let after = |line: &str, what: &str| {
        let (_, rest) = line.split_once(what)?;
        Some(rest.split_once(']')?.0.to_owned())
    };
    let settings: BTreeMap<_, _> = help
        .lines()
        .filter_map(|line| {
            let name = after(line, "[env: ")?;
            let default = after(line, "[default: ");
            let default = default.map(|default| default.trim_matches('"').to_owned());
            Some((name.trim_end_matches('=').to_owned(), default))
        })
        .collect();
    assert!(settings.len() > 30, "{help}");
    settings
}

/// The first cells of the tables in a section of the protocol, as far as they are code of one word.
fn first_column(heading: &str) -> BTreeSet<String> {
    let section = section(&read(PROTOCOL), heading);
    let rows = section.lines().filter_map(cells);
    rows.filter(|row| row[0].starts_with('`') && !row[0].contains("urn:"))
        .map(|row| plain(&row[0]))
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> String {
    read_path(&root().join(path))
}

fn read_path(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every page of the documentation.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    for directory in [root().to_owned(), root().join("docs")] {
        let entries = fs::read_dir(directory).expect("a directory can be read");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        pages.extend(paths.filter(|path| path.extension().is_some_and(|ext| ext == "md")));
    }
    assert!(pages.len() >= 6, "{pages:?}");
    pages
}

/// The text under a heading, up to the next of the same level.
pub(crate) fn section(page: &str, heading: &str) -> String {
    let (_, rest) = page
        .split_once(&format!("\n## {heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let end = rest.find("\n## ").unwrap_or(rest.len());
    rest[..end].to_owned()
}

/// The cells of a row of a table.
pub(crate) fn cells(line: &str) -> Option<Vec<String>> {
    let row = line.strip_prefix("| ")?.replace("\\|", "/");
    let cells: Vec<String> = row.split('|').map(|cell| cell.trim().to_owned()).collect();
    (cells.len() > 2).then_some(cells)
}

pub(crate) fn plain(cell: &str) -> String {
    cell.trim_matches('`').to_owned()
}

/// The words that begin with a prefix and go on in this alphabet.
fn words(text: &str, prefix: &str, alphabet: impl Fn(char) -> bool) -> BTreeSet<String> {
    let starts = text.match_indices(prefix).map(|(at, _)| at);
    let whole = starts.filter(|at| !text[..*at].ends_with(&alphabet));
    whole
        .map(|at| text[at..].chars().take_while(|c| alphabet(*c)).collect())
        .collect()
}

/// The fenced blocks of a page, each with its language.
pub(crate) fn fences(page: &str) -> Vec<(String, String)> {
    let parts: Vec<&str> = page.split("\n```").collect();
    assert_eq!(parts.len() % 2, 1, "a fence is not closed");
    let blocks = parts.iter().skip(1).step_by(2);
    blocks
        .map(|block| {
            let (language, text) = block.split_once('\n').expect("a block has lines");
            (language.to_owned(), text.to_owned())
        })
        .collect()
}

/// A page without its fenced blocks.
fn prose(page: &str) -> String {
    let parts = page.split("\n```").step_by(2);
    parts.collect::<Vec<_>>().join("\n")
}

/// The targets of a page's links.
fn links(page: &str) -> Vec<String> {
    let prose = prose(page);
    let after = prose.split("](").skip(1);
    after
        .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
        .collect()
}

/// The anchors of a page's headings, by the rules of the places where such pages are shown.
fn anchors(page: &str) -> BTreeSet<String> {
    let prose = prose(page);
    let headings = prose.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}
