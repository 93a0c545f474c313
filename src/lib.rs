//! tidings: a real-time notification gateway beside one Postgres.
//!
//! The modules stand in the order in which an event travels; follow them down.

#![forbid(unsafe_code)]

pub mod cursor;
pub mod event;
pub mod frame;
pub mod hub;
pub mod metrics;
pub mod postgres;
pub mod topic;
