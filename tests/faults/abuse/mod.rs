//! Abuse: whatever a client sends, or does not send, it gets a 4xx or a closed connection, everyone
//! else is served meanwhile, and the gateway's log stays one record a line that gives nothing away.

mod bodies;
mod credentials;
mod flood;
pub(crate) mod frames;
mod garbage;
mod http1;
mod http2;
mod silence;
mod watched;
pub(crate) mod wire;
