//! How looking goes, for those who ask: whether the gateway has read the log, and since when it cannot.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// What the operations listener asks: whether the gateway has looked, and since when it cannot.
#[derive(Debug, Default)]
pub struct Status(watch::Sender<StatusState>);

#[derive(Clone, Copy, Debug, Default)]
struct StatusState {
    looked: bool,
    lost: Option<Instant>,
}

impl Status {
    /// Whether a look has ever been completed.
    pub fn has_looked(&self) -> bool {
        self.0.borrow().looked
    }

    /// Whether the database is there.
    pub fn is_connected(&self) -> bool {
        let state = self.0.borrow();
        state.looked && state.lost.is_none()
    }

    /// Waits for the first look.
    pub async fn looked(&self) {
        let mut changes = self.0.subscribe();
        // The sender is this very status, so that it cannot be gone.
        let _ = changes.wait_for(|state| state.looked).await;
    }

    /// For how long the database has been away; zero while it is there.
    pub fn away_for(&self) -> Duration {
        let lost = self.0.borrow().lost;
        lost.map_or(Duration::ZERO, |at| at.elapsed())
    }

    pub(super) fn set_looked(&self) {
        self.0.send_if_modified(|state| {
            let news = !state.looked || state.lost.is_some();
            *state = StatusState {
                looked: true,
                lost: None,
            };
            news
        });
    }

    pub(super) fn set_lost(&self) {
        self.0.send_modify(|state| {
            state.lost.get_or_insert_with(Instant::now);
        });
    }
}
