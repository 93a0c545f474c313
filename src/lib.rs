//! tidings: a real-time notification gateway beside one Postgres.
//!
//! The modules stand in the order in which an event travels; follow them down.

#![forbid(unsafe_code)]

pub mod auth;
pub mod channel;
pub mod config;
pub mod http;
pub mod postgres;
pub mod topic;
