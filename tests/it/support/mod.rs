//! What the tests stand on, so that they themselves read as sentences.

// Not every part is used by the tests of every day's branch.
#![allow(dead_code)]

use std::path::PathBuf;

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod front;
pub(crate) mod gateway;
pub(crate) mod interface;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod stream;

/// A program that a test runs beside tidings: what is tried with it is skipped, with a notice, on a
/// machine without it, unless `TIDINGS_TEST_PROGRAMS=all` demands that nothing is left out.
pub(crate) fn program(names: &[&str], package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps servers where the path of ordinary users does not lead.
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let mut candidates = places.flat_map(|place| names.iter().map(move |name| place.join(name)));
    let found = candidates.find(|candidate| candidate.is_file());
    if found.is_none() {
        let missing = format!("{} is not installed: apt-get install {package}", names[0]);
        let demanded = std::env::var("TIDINGS_TEST_PROGRAMS").is_ok_and(|wish| wish == "all");
        assert!(!demanded, "{missing}");
        eprintln!("skipped: {missing}");
    }
    found
}

/// A number that a longer or another run sets in its environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
