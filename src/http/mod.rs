//! The door: what clients ask over HTTP and how they are answered.

pub mod address;
pub mod cors;
pub mod presented;
pub mod problem;
