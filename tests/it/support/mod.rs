//! What the tests stand on, so that they themselves read as sentences.

// Not every part is used by the tests of every day's branch.
#![allow(dead_code)]

pub(crate) mod client;
pub(crate) mod command;
pub(crate) mod gateway;
pub(crate) mod pgbouncer;
pub(crate) mod postgres;
