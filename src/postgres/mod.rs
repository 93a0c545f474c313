//! What tidings says to Postgres and hears from it: one file for each act of that conversation.

pub mod migrate;
pub mod partitions;
