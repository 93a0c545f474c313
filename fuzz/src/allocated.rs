//! How much memory an act asked for, counted by the allocator of these binaries.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What an act returned, and the bytes that were asked for meanwhile, freed ones included. Other
/// threads count as well, so the act is to be alone.
pub(crate) fn allocated<T>(act: impl FnOnce() -> T) -> (T, usize) {
    let region = Region::new(ALLOCATOR);
    let result = act();
    (result, region.change().bytes_allocated)
}
