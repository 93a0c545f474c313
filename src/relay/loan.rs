//! A loan: a guest's turn and a session of the pool together, for one act at the database.
//!
//! An act that is over gives both back. One that was dropped in the middle, because its client has
//! gone, closes the session, and its turn goes on until Postgres has noticed: otherwise a guest who
//! asks and goes, again and again, would leave any number of sessions behind.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::runtime::Handle;

use super::turn::{Busy, Turn, Turns};
use crate::hub::directory::Guest;
use crate::postgres::connect::CHECK_INTERVAL;
use crate::postgres::{Lease, Unserved};

/// How long a closed session is taken to be busy: it notices at its next check.
const CLOSED_AFTER: Duration = CHECK_INTERVAL.saturating_mul(2);

/// What has been lent.
pub(crate) struct Loan {
    session: Lease,
    turn: KeptTurn,
}

impl Loan {
    /// Waits for a turn, each kind of it for so long, and for a session.
    pub(crate) async fn take(
        turns: &Arc<Turns>,
        pool: &Pool,
        guest: &Guest,
        wait: Duration,
    ) -> Result<Self, Unserved> {
        let turn = turns.take(guest, wait).await?;
        let session = Lease::take(pool).await?;
        Ok(Self {
            session,
            turn: KeptTurn(Some(turn)),
        })
    }

    /// Gives both back: nothing runs in the session any more.
    pub(crate) fn release(mut self) {
        self.session.release();
        drop(self.turn.0.take());
    }
}

impl Deref for Loan {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.session
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Object {
        &mut self.session
    }
}

/// A turn that outlives its loan when it was not given back.
struct KeptTurn(Option<Turn>);

impl Drop for KeptTurn {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if let Some(turn) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            // Nobody awaits it: there are no more of them than turns, and it only sleeps.
            runtime.spawn(async move {
                tokio::time::sleep(CLOSED_AFTER).await;
                drop(turn);
            });
        }
    }
}

impl From<Busy> for Unserved {
    fn from(Busy: Busy) -> Self {
        Self::Busy
    }
}
