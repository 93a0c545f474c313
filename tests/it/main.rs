//! The promises of tidings, each tried at its socket or in its SQL against a real Postgres.
//!
//! One test binary, one module per promise. What the tests stand on is in [`support`]: a cluster
//! per run, a fresh database per test.

mod awake;
mod bells;
mod bulk;
mod cli;
mod clients;
mod cursors;
mod dev_command;
mod development;
mod direct;
mod docs;
mod doctor;
mod drain;
mod glances;
mod layers;
mod limits;
mod long_transactions;
mod migrate;
mod model;
mod names;
mod openapi;
mod own_client;
mod partitions;
mod plans;
mod positions;
mod private_postgres;
mod proxies;
mod publish;
mod refusals;
mod sql;
mod storm;
mod streams;
mod support;
mod sync;
mod takeover;
mod tickets;
mod watch;
