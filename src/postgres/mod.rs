//! What tidings says to Postgres and hears from it: one file for each act of that conversation.

pub(crate) mod backoff;
pub mod bell;
pub mod connect;
mod glance;
pub mod history;
pub mod lease;
pub mod listener;
pub mod migrate;
pub mod page;
pub mod partitions;
pub mod publish;
pub mod state;
pub mod tail;
pub mod tickets;
mod tls;

pub use bell::Bell;
pub use connect::{ConnectError, Database, Session};
pub use lease::{Lease, Unserved};
pub use listener::{Listener, Message};
pub use page::{Head, Page};
pub use tail::Tail;
