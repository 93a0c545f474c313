//! Imports point down only: `main → cli, dev → gateway → http → relay → { postgres | hub } → event,
//! cursor, topic, frame`; `auth` serves `http`. This test reads the sources and holds that graph.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Plain data, without I/O, and what everybody counts by.
const PLAIN: &[&str] = &["channel", "cursor", "event", "frame", "topic"];

/// Which modules a module may import, from the bottom up.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("topic", &[]),
    ("cursor", &[]),
    ("event", &["topic"]),
    ("frame", &["event", "topic"]),
    ("channel", &["topic"]),
    ("memory", &[]),
    ("metrics", &["frame"]),
    ("hub", &["PLAIN", "metrics"]),
    ("postgres", &["PLAIN", "metrics"]),
    ("relay", &["PLAIN", "metrics", "hub", "postgres"]),
    ("auth", &["PLAIN"]),
    (
        "http",
        &["PLAIN", "metrics", "auth", "relay", "hub", "postgres"],
    ),
    ("config", &["PLAIN", "memory", "auth"]),
    (
        "gateway",
        &[
            "PLAIN", "memory", "metrics", "auth", "http", "relay", "hub", "postgres", "config",
        ],
    ),
    (
        "dev",
        &[
            "PLAIN", "metrics", "auth", "http", "relay", "hub", "postgres", "config", "gateway",
        ],
    ),
    (
        "cli",
        &[
            "PLAIN", "metrics", "auth", "http", "relay", "hub", "postgres", "config", "gateway",
            "dev",
        ],
    ),
];

/// What the door knows of the hub, which is who is here and how much waits, and of the database,
/// which is publishing and how its absence is told: streams, replay and sync come by the relay.
const DOOR_KNOWS: &[&str] = &[
    "hub::Budget",
    "hub::Directory",
    "hub::Seat",
    "hub::Watched",
    "hub::directory::Guest",
    "postgres::Lease",
    "postgres::Unserved",
    "postgres::publish",
    "postgres::state::StateError",
];

/// Who may use what speaks to the world.
const FOREIGN: &[(&str, &[&str])] = &[
    (
        "tokio_postgres",
        &["postgres", "relay", "gateway", "dev", "cli"],
    ),
    ("deadpool_postgres", &["postgres", "relay", "gateway"]),
    ("hyper", &["http", "dev", "cli"]),
    ("hyper_util", &["http", "dev", "cli"]),
    ("http_body_util", &["http", "dev", "cli"]),
    ("clap", &["config", "dev", "cli"]),
];

/// The paths below `crate` and the foreign crates that one file names.
#[derive(Debug, Default)]
struct Names {
    paths: BTreeSet<String>,
    foreign: BTreeSet<String>,
    /// Ways out of the module other than by `crate::`.
    climbs: Vec<String>,
}

/// Reads a file whose module lies `depth` below the crate.
fn read_names(text: &str, depth: usize) -> Names {
    let mut names = Names::default();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .map(|line| format!("{line}\n"))
        .collect();
    // Inside an inline module, which is indented, `super` is the file itself.
    let climb = "super::".repeat(depth);
    for line in code.lines() {
        if line.starts_with(&format!("use {climb}"))
            || line.starts_with(&format!("pub use {climb}"))
        {
            names.climbs.push(line.to_owned());
        }
    }
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|char| !is_word(char)) {
            read_tree(&code[at + "crate::".len()..], "", &mut names.paths);
        }
    }
    for (name, _) in FOREIGN {
        let path = format!("{name}::");
        let used = code.match_indices(&path).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            before.is_none_or(|char| !is_word(char) && char != ':')
        });
        if used {
            names.foreign.insert((*name).to_owned());
        }
    }
    names
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

/// Reads one path, or every path of a group, at the beginning of `text`; returns how much it took.
fn read_tree(text: &str, prefix: &str, paths: &mut BTreeSet<String>) -> usize {
    if !text.starts_with('{') {
        let word = text.find(|char| !is_word(char)).unwrap_or(text.len());
        let path = format!("{prefix}{}", &text[..word]);
        if text[word..].starts_with("::") && !text[word..].starts_with("::<") {
            return word + 2 + read_tree(&text[word + 2..], &format!("{path}::"), paths);
        }
        paths.insert(
            path.trim_end_matches(':')
                .trim_end_matches("::self")
                .to_owned(),
        );
        return word;
    }
    let mut at = 1;
    loop {
        at += text[at..]
            .find(|char: char| !char.is_whitespace() && char != ',')
            .expect("a group ends");
        if text[at..].starts_with('}') {
            return at + 1;
        }
        at += read_tree(&text[at..], prefix, paths).max(1);
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// What is wrong with a file of this module.
fn faults(module: &str, names: &Names) -> Vec<String> {
    let Some((_, allowed)) = MAY_IMPORT.iter().find(|(name, _)| *name == module) else {
        return vec![format!("the module {module} has no place in the graph")];
    };
    let mut faults: Vec<String> = names
        .climbs
        .iter()
        .map(|climb| format!("leaves its module by `{climb}`"))
        .collect();
    for path in &names.paths {
        let target = path.split("::").next().expect("a path begins");
        let plain = PLAIN.contains(&target) && allowed.contains(&"PLAIN");
        if target != module && !plain && !allowed.contains(&target) {
            faults.push(format!("imports {path}"));
        }
        let inner = matches!(target, "hub" | "postgres");
        let known = DOOR_KNOWS
            .iter()
            .any(|known| path == known || path.starts_with(&format!("{known}::")));
        if module == "http" && inner && !known {
            faults.push(format!("imports {path}, which is the relay's business"));
        }
    }
    for foreign in &names.foreign {
        let users = FOREIGN
            .iter()
            .find(|(name, _)| name == foreign)
            .expect("it was looked for");
        if !users.1.contains(&module) {
            faults.push(format!("uses {foreign}"));
        }
    }
    faults
}

#[test]
fn imports_point_down_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut all = BTreeMap::new();
    let mut paths = 0;
    for file in &files {
        let place = file.strip_prefix(&root).expect("it is below");
        let mut parts: Vec<&str> = place
            .iter()
            .map(|part| part.to_str().expect("a name"))
            .collect();
        let last = parts.pop().expect("a file").trim_end_matches(".rs");
        if last != "mod" {
            parts.push(last);
        }
        if matches!(parts[..], ["main" | "lib"]) {
            continue;
        }
        let text = fs::read_to_string(file).expect("a source");
        let names = read_names(&text, parts.len());
        paths += names.paths.len();
        let faults = faults(parts[0], &names);
        if !faults.is_empty() {
            all.insert(place.to_owned(), faults);
        }
    }
    assert!(
        files.len() > 60 && paths > 150,
        "{} files, {paths} paths",
        files.len()
    );
    assert!(all.is_empty(), "{all:#?}");
}

#[test]
fn the_reader_of_imports_finds_every_form_of_them() {
    let text = "
        // use crate::gateway::Nothing;
        use crate::hub::{self, shard::{Command, Join}, Window};
        use crate::postgres::Tail;
        fn f() -> crate::config::Config { tokio_postgres::connect::<X>(my_crate::x) }
        use hyper_util::rt;
use super::super::gateway;
";
    let names = read_names(text, 2);
    let paths: Vec<&str> = names.paths.iter().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "config::Config",
            "hub",
            "hub::Window",
            "hub::shard::Command",
            "hub::shard::Join",
            "postgres::Tail"
        ]
    );
    let foreign: Vec<&str> = names.foreign.iter().map(String::as_str).collect();
    assert_eq!(foreign, ["hyper_util", "tokio_postgres"]);
    assert_eq!(names.climbs.len(), 1);
    assert_eq!(faults("hub", &names).len(), 5);
    assert_eq!(faults("relay", &names).len(), 3);
}
