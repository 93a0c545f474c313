//! What figures have in common: a gateway with its database, and streams of it.

pub(crate) mod gateway;
mod rig;
mod stream;

pub(crate) use gateway::Result;
pub(crate) use rig::Rig;
pub(crate) use stream::Stream;
