//! What the tests stand on, so that they themselves read as sentences.

// Not every part is used by the tests of every day's branch.
#![allow(dead_code)]

pub(crate) mod backend;
pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod gateway;
pub(crate) mod history;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
pub(crate) mod proxy;

/// A number that a longer or another run sets in its environment.
pub(crate) fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}
