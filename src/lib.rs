//! tidings: a real-time notification gateway beside one Postgres.
//!
//! The modules stand in the order in which an event travels; follow them down.

#![forbid(unsafe_code)]

// Plain data, without I/O.
pub mod channel;
pub mod cursor;
pub mod event;
pub mod frame;
pub mod topic;

// The way of an event: out of Postgres, through the hub, joined by the relay.
pub mod postgres;

pub mod hub;

pub mod relay;

// The door: who is calling, and what is asked.
pub mod auth;

pub mod http;

// The process around it.
pub mod gateway;

pub mod cli;
pub mod config;
pub mod dev;
pub mod memory;
pub mod metrics;
