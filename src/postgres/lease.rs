//! A lease: one session of the pool, for as long as one act takes.
//!
//! A client that goes away takes the act that served it along, which may be in the middle of a query
//! or a transaction. Such a session must not serve the next one: it would answer late, and in a
//! snapshot of the past. So a session goes back to the pool only when it is released; one that is
//! dropped is closed, and Postgres, which looks after a silent client now and then, ends its query.

use std::ops::{Deref, DerefMut};

use deadpool_postgres::{Object, Pool, PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

use super::connect::{ConnectError, tell};

/// A session of the pool that is one's own until it is released.
pub struct Lease(Option<Object>);

impl Lease {
    /// Waits for a session, as long as the pool is told to wait.
    pub async fn take(pool: &Pool) -> Result<Self, Unserved> {
        Ok(Self(Some(pool.get().await?)))
    }

    /// Gives the session back. Nothing runs in it any more, whatever the last answer was.
    pub fn release(mut self) {
        drop(self.0.take());
    }
}

const HELD: &str = "only release and drop take the session";

impl Deref for Lease {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.0.as_ref().expect(HELD)
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Object {
        self.0.as_mut().expect(HELD)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            drop(Object::take(session));
        }
    }
}

/// Why the database did not serve a request that was right.
#[derive(Debug)]
pub enum Unserved {
    /// All sessions are taken, or the time of a statement was up.
    Busy,
    /// It is not there, or not well; the text is for the operator.
    Away(String),
    /// It is there and refuses what we ask, which is a fault of ours or of the schema.
    Refused(String),
}

impl Unserved {
    /// Tells the operator what could not be done. That the database is away is said once, by the sessions
    /// that look and listen, and not again by everybody who asks meanwhile.
    pub fn log(&self, act: &'static str) {
        match self {
            Self::Busy => tracing::debug!(act, "no session of the pool was free in time"),
            Self::Away(error) => tracing::debug!(act, error, "the database is away"),
            Self::Refused(error) => tracing::warn!(act, error, "the database refuses"),
        }
    }
}

impl From<PoolError> for Unserved {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::Busy,
            PoolError::Backend(error) => Self::Away(tell(&error)),
            error => Self::Away(error.to_string()),
        }
    }
}

impl From<tokio_postgres::Error> for Unserved {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(&SqlState::QUERY_CANCELED) => Self::Busy,
            Some(code) if !is_absence(code) => Self::Refused(tell(&error)),
            _ => Self::Away(tell(&error)),
        }
    }
}

/// Whether this says that the server or the session is not well just now, whatever was asked: connections,
/// the state of a transaction (a standby, too), conflicts, resources, locks, operators, the system, and tables
/// that were dropped between planning and reading.
fn is_absence(code: &SqlState) -> bool {
    let class = &code.code()[..2];
    matches!(class, "08" | "25" | "40" | "53" | "55" | "57" | "58" | "XX")
}

impl From<ConnectError> for Unserved {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Postgres(error) => error.into(),
            error => Self::Away(error.to_string()),
        }
    }
}
