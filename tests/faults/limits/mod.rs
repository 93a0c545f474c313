//! The limits, each at its bound and one beyond, at the socket: those that `tests/it` does not show.
//! `docs/reliability.md` says for each limit which test it is.

mod queues;
mod requests;
mod stalled;
mod times;
