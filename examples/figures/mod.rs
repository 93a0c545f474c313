//! What figures have in common: a gateway with its database, and streams of it.

pub(crate) mod rig;
mod stream;

pub(crate) use rig::{Result, Rig};
pub(crate) use stream::Stream;
