//! Fuzz targets: what tidings reads from strangers, and what it writes for them, held against rules
//! that are written here a second time.
//!
//! Each target is a function from bytes to whether they came through, which is to say were read as
//! what the target is about and not refused at once; it panics when a rule is broken. The binaries in
//! `fuzz_targets/` hand it inputs: libFuzzer does where cargo-fuzz builds them, proptest elsewhere.

#![forbid(unsafe_code)]

// The targets.
pub mod cursor;
pub mod frame;
pub mod head;
pub mod query;
pub mod token;

// What they rest on.
mod allocated;
mod door;
mod event_source;
mod issuer;

// Who hands them inputs, and what is counted.
#[cfg(not(fuzzing))]
pub mod sampling;
pub mod tally;
