//! The relay: where the log meets the hub. It alone knows both.
//!
//! [`look`] owns the gateway's position in the log: it answers the bell, reads what was committed,
//! and hands it over in one fixed order, and `awake` tells it when to stop waiting for the bell. [`attach`] lets streams join at such a position,
//! [`replay`] brings a cursor up to it, and [`feed`] is what comes of both: the bytes of one stream.
//! [`sync`] answers at once what a stream tells as it happens.

pub mod attach;
mod awake;
pub mod feed;
mod loan;
pub mod look;
pub mod pace;
pub mod replay;
pub mod signal;
pub mod status;
pub mod sync;
pub mod turn;

pub use attach::Relay;
pub use awake::Rhythm;
pub use feed::{Feed, Live, Request, Since};
pub use look::Look;
pub use signal::Signals;
pub use status::Status;
pub use turn::Turns;
