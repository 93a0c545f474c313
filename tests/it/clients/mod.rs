//! Clients: those that people already have, each with its snippet of `docs/clients.md` as it stands there,
//! against a real gateway.
//!
//! [`journey`] is what all of them go through. Every client runs in a process of its own ([`driver`]), behind
//! proxies that cut ([`cut`]); what it needs is installed once, below cargo's target directory
//! ([`installed`]).

mod bare;
mod browser;
mod chromium;
mod curl;
mod cut;
mod driver;
mod installed;
mod journey;
mod node;
mod page;
mod published;
mod python;
mod rendered;
mod renewal;
mod rust;
mod stage;

use crate::support::front::{Scratch, snippet_of};

/// The snippet of this name in `docs/clients.md`.
fn snippet(name: &str) -> String {
    snippet_of(include_str!("../../../docs/clients.md"), name)
}

/// A directory with a driver and the snippet that it runs, under the names by which they know each other.
fn workshop(driver: (&str, &str), snippet: (&str, &str)) -> Scratch {
    let scratch = Scratch::new();
    for (name, text) in [driver, snippet] {
        scratch.write(name, text);
    }
    scratch
}
