//! Waiting before another try: longer each time, never in step with others, logged once.

use std::time::Duration;

/// The first wait and the longest: a restarted database is found again quickly, a lost one is
/// not hammered.
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3);

/// How many tries have failed, and what to do about it.
#[derive(Debug)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { failures: 0 }
    }

    /// Logs the first failure of a row, so that an outage is one line and not a thousand.
    pub(crate) fn log(&mut self, session: &str, error: &dyn std::fmt::Display) {
        if self.failures == 0 {
            tracing::warn!(session, %error, "database session lost; trying again");
        } else {
            tracing::debug!(session, %error, failures = self.failures, "still no session");
        }
    }

    /// Notes a success.
    pub(crate) fn mended(&mut self, session: &str) {
        if self.failures > 0 {
            tracing::info!(session, "database session restored");
        }
        self.failures = 0;
    }

    /// Waits: doubling, capped, with full jitter above a tenth.
    pub(crate) async fn wait(&mut self) {
        let cap = LONGEST.min(FIRST * 2u32.saturating_pow(self.failures.min(10)));
        self.failures += 1;
        tokio::time::sleep(cap.mul_f64(0.1 + 0.9 * fastrand::f64())).await;
    }
}
