//! The promises of tidings, each tried at its socket or in its SQL against a real Postgres.
//!
//! One test binary, one module per promise. What the tests stand on is in [`support`]: a cluster
//! per run, a fresh database per test.

mod cli;
mod dev_command;
mod development;
mod doctor;
mod migrate;
mod partitions;
mod private_postgres;
mod sql;
mod streams;
mod support;
mod watch;
