//! Why a private Postgres does not run, in words that say what to do.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use super::binaries::BinariesError;

/// Why there is no running cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No usable server is installed.
    #[error(transparent)]
    Binaries(#[from] BinariesError),
    /// Another process runs a cluster in this directory.
    #[error("{} is in use by process {owner}", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// The process that holds its lock, as it wrote it down.
        owner: String,
    },
    /// The server's user cannot get to its directory.
    #[error(
        "{} cannot be entered by the user `{user}`, whom Postgres would run as, \
         since it refuses to run as root; choose a directory outside of it",
        parent.display()
    )]
    NotTraversable {
        /// The parent that is closed.
        parent: PathBuf,
        /// The user.
        user: String,
    },
    /// We are root, and there is nobody else to run the server.
    #[error("Postgres refuses to run as root, and there is no user `postgres` or `nobody`")]
    NoUser,
    /// One of the server's programs failed; its own words follow.
    #[error("{what} ({status}): {words}")]
    Program {
        /// What was tried.
        what: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        words: String,
    },
    /// Too slow.
    #[error("{what} took longer than {} s: {words}", timeout.as_secs())]
    Timeout {
        /// What was tried.
        what: &'static str,
        /// How long it was given.
        timeout: Duration,
        /// The end of the server's log.
        words: String,
    },
    /// A file or a process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Says what was tried, in front of why it failed.
pub(super) fn io_error(what: &str) -> impl Fn(io::Error) -> ClusterError {
    let what = what.to_owned();
    move |source| ClusterError::Io {
        what: what.clone(),
        source,
    }
}
