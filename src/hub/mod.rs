//! The hub: everything between an encoded frame and the bytes that a stream sends.
//!
//! It knows nothing of Postgres or HTTP. The [`Window`] keeps the newest frames by topic, so that
//! most reconnects need no database; a [`Shard`] owns the streams, appends frames to their
//! queues in one fixed order, and writes them to the sockets of [`direct`] streams or wakes the writers of the
//! others; the [`Directory`] holds who is here.

pub mod attempt;
pub mod command;
pub mod direct;
pub mod directory;
pub mod inbox;
pub mod outbox;
mod queue;
pub mod queued;
pub mod shard;
mod stream;
mod topics;
pub mod wakes;
mod wheel;
pub mod window;

pub use attempt::Attempt;
pub use command::{Command, Join, Timing};
pub use directory::{Directory, Seat, Watched};
pub use inbox::ShardHandle;
pub use outbox::{Outbox, Outlet};
pub use queued::{Budget, Queued};
pub use shard::Shard;
pub use wakes::Wakes;
pub use window::{Missed, Window};
