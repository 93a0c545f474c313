//! What must survive: faults, overload and abuse, each as a scenario against real processes.
//!
//! A second test binary beside `it`, because its scenarios stop clusters, fill the machine and
//! last; `docs/reliability.md` says what each has shown. `TIDINGS_TEST_SEED` draws another run.

mod abuse;
mod busy;
mod cgroup;
mod checker;
mod crowd;
mod deaf;
mod group;
mod held;
mod journal;
mod lateness;
mod limits;
mod listening;
mod oracle;
mod place;
mod publishers;
mod raw;
mod readers;
mod rig;
mod room;
mod scenarios;
#[path = "../it/support/mod.rs"]
mod support;
mod throng;
mod wide;
