//! Descriptors: every stream is one, and the soft limit is often 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes as many as this process may have.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where that is not allowed, opening tells how far it came.
    let _ = setrlimit(Resource::Nofile, raised);
}
