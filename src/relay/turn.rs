//! Turns at the pool: one sync or database replay per user at a time, and together at most half
//! of the sessions, so that one user cannot starve the rest and publishing always finds one.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pages of replays in memory at once: 64 MiB of them, at 256 KiB each.
const PAGES: usize = 256;

/// Hands out turns.
#[derive(Debug)]
pub struct Turns {
    users: DashMap<Arc<str>, Arc<Semaphore>>,
    all: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    wait: Duration,
}

/// Somebody's turn; dropping it ends the turn.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    user: Option<(Arc<str>, OwnedSemaphorePermit)>,
    _one_of_all: OwnedSemaphorePermit,
}

/// No turn was to be had in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl Turns {
    /// Turns for half of a pool of this size; each kind of waiting ends after `wait`.
    pub fn new(pool_size: usize, wait: Duration) -> Arc<Self> {
        Arc::new(Self {
            users: DashMap::new(),
            all: Arc::new(Semaphore::new((pool_size / 2).max(1))),
            pages: Arc::new(Semaphore::new(PAGES)),
            wait,
        })
    }

    /// Waits for a place in which to hold a page until its reader has it.
    pub(crate) async fn page(&self, wait: Duration) -> Result<OwnedSemaphorePermit, Busy> {
        granted(tokio::time::timeout(wait, self.pages.clone().acquire_owned()).await)
    }

    /// Waits for a turn; `user` is `None` for those without a token.
    pub async fn take(self: &Arc<Self>, user: Option<&Arc<str>>) -> Result<Turn, Busy> {
        let user = match user {
            None => None,
            Some(user) => {
                let own = self
                    .users
                    .entry(user.clone())
                    .or_insert_with(|| Arc::new(Semaphore::new(1)))
                    .clone();
                let permit = tokio::time::timeout(self.wait, own.acquire_owned()).await;
                Some((user.clone(), granted(permit)?))
            }
        };
        let one_of_all = tokio::time::timeout(self.wait, self.all.clone().acquire_owned()).await;
        Ok(Turn {
            turns: self.clone(),
            user,
            _one_of_all: granted(one_of_all)?,
        })
    }
}

fn granted<E, F>(
    permit: Result<Result<OwnedSemaphorePermit, E>, F>,
) -> Result<OwnedSemaphorePermit, Busy> {
    permit.map_err(|_| Busy)?.map_err(|_| Busy)
}

impl Drop for Turn {
    fn drop(&mut self) {
        let Some((user, permit)) = self.user.take() else {
            return;
        };
        drop(permit);
        // The map holds one reference; any other belongs to someone who waits or is served.
        self.turns
            .users
            .remove_if(&user, |_, own| Arc::strong_count(own) == 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_user_has_one_turn_and_all_have_half_the_pool() {
        let turns = Turns::new(4, Duration::from_secs(1));
        let (alice, bob, carol) = ("alice".into(), "bob".into(), "carol".into());
        let first = turns.take(Some(&alice)).await.expect("a turn");
        assert_eq!(turns.take(Some(&alice)).await.err(), Some(Busy));
        let _second = turns.take(Some(&bob)).await.expect("a turn");
        assert_eq!(turns.take(Some(&carol)).await.err(), Some(Busy));
        drop(first);
        drop(turns.take(Some(&alice)).await.expect("a turn again"));
        assert!(!turns.users.contains_key(&alice), "nothing is kept");
    }
}
