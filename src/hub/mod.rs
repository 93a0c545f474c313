//! The hub: everything between an encoded frame and the bytes that a stream sends.
//!
//! It knows nothing of Postgres or HTTP. The [`Window`] keeps the newest frames by topic, so that
//! most reconnects need no database; a [`Shard`] owns the streams, appends frames to their
//! [`outbox`]es in one fixed order and wakes their writers; the [`Directory`] holds who is here.

pub mod attempt;
pub mod directory;
pub mod outbox;
pub mod shard;
mod topics;
mod wheel;
pub mod window;

pub use attempt::{Attempt, Tried};
pub use directory::{Directory, Full, Seat, Watched};
pub use outbox::{Budget, Outbox, Outlet};
pub use shard::{Command, Join, Shard, ShardHandle, Timing};
pub use window::{Missed, Window};
