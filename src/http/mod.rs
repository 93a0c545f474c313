//! The door: HTTP/1.1 and HTTP/2 on one port, what may be asked, and how refusals look.

pub mod accept;
pub mod address;
pub mod body;
pub mod cors;
pub mod events;
mod io;
pub mod ops;
mod places;
pub mod presented;
pub mod problem;
pub mod publish;
mod query;
mod read_body;
pub mod route;
pub mod sync;
mod takeover;
pub mod tickets;
