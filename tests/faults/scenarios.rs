//! The list: each fault as a scenario that reads like its sentence.

mod absent;
mod blows;
mod bulk_crash;
mod commit_order;
mod cuts;
mod exactly_once;
mod failover;
mod foreign_rows;
mod full_disk;
mod gateways;
mod handover;
mod listen_then_look;
mod lost_commits;
mod postgres_goes_away;
mod reconnect_storm;
mod restore;
mod reused_xids;
mod rolling_restart;
mod seams;
mod sessions;
mod swizzle;
mod transactions;
mod trimming;
mod versions;
mod without_a_bell;
