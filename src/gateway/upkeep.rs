//! What a running gateway does beside serving: it cuts streams whose clients do not read, and keeps
//! the partitions of the log.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::hub::Directory;
use crate::metrics::Metrics;
use crate::postgres::backoff::Backoff;
use crate::postgres::{ConnectError, Database, partitions};

/// How many write time-outs a client may take for one block. A socket that takes nothing at all ends after one;
/// this ends those that take a byte now and then, and streams of HTTP/2 whose connection goes on.
const STALLED_AFTER: u32 = 3;

/// How often stalled streams are looked for.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// How often partitions are made and trimmed.
const MAINTAIN_EVERY: Duration = Duration::from_secs(600);

/// How long a pass may take: a session that is swallowed must not end all trimming.
const PASS_TIMEOUT: Duration = Duration::from_secs(300);

/// Cuts streams whose clients do not read, until cancelled.
pub(super) async fn reap(
    directory: Arc<Directory>,
    write_timeout: Duration,
    metrics: Arc<Metrics>,
    cancel: CancellationToken,
) {
    while cancel
        .run_until_cancelled(tokio::time::sleep(REAP_EVERY))
        .await
        .is_some()
    {
        let cut = directory.cut_stalled(write_timeout * STALLED_AFTER);
        if cut > 0 {
            metrics.streams_cut.inc_by(cut as u64);
            tracing::warn!(streams = cut, "streams cut: their clients took nothing");
        }
    }
}

/// Makes partitions ahead and trims old ones, until cancelled.
pub(super) async fn maintain(database: Database, retention: Duration, cancel: CancellationToken) {
    let mut backoff = Backoff::new();
    loop {
        let pass = async {
            let session = database.session("maintenance").await?;
            Ok::<_, ConnectError>(partitions::maintain(&session, retention).await?)
        };
        let done = tokio::select! {
            () = cancel.cancelled() => return,
            done = tokio::time::timeout(PASS_TIMEOUT, pass) => done.unwrap_or(Err(ConnectError::Lost(
                "the session does not answer",
            ))),
        };
        let wait = async {
            match done {
                Ok(_) => {
                    backoff.mended("maintenance");
                    // Gateways that started together do not stay in step.
                    let jitter = 0.8 + 0.4 * fastrand::f64();
                    tokio::time::sleep(MAINTAIN_EVERY.mul_f64(jitter)).await;
                }
                Err(error) => {
                    backoff.log("maintenance", &error);
                    backoff.wait().await;
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return,
            () = wait => {}
        }
    }
}
