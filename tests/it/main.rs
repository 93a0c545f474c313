//! The promises of tidings, each tried at its socket or in its SQL against a real Postgres.
//!
//! One test binary, one module per promise. What the tests stand on is in [`support`]: a cluster
//! per run, a fresh database per test.

mod cli;
mod dev_command;
mod development;
mod doctor;
mod exactly_once;
mod migrate;
mod partitions;
mod positions;
mod private_postgres;
mod publish;
mod sql;
mod streams;
mod support;
mod sync;
mod tickets;
mod watch;
