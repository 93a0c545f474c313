//! The listener: one session that is notified of each row, and does nothing but hear it.

use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, NoTls};

use crate::{Result, failure};

/// How long a notification may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The session goes when this is dropped.
pub(crate) struct Listener {
    session: Client,
    heard: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Listener {
    pub(crate) async fn start(url: &str) -> Result<Self> {
        let (session, mut connection) = tokio_postgres::connect(url, NoTls).await?;
        let (hear, heard) = watch::channel(0);
        let task = tokio::spawn(async move {
            let mut messages = stream::poll_fn(|context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(_) = message {
                    hear.send_modify(|heard| *heard += 1);
                }
            }
        });
        let listener = Self {
            session,
            heard,
            task,
        };
        listener.session.batch_execute("listen writers").await?;
        Ok(listener)
    }

    /// Waits until it has heard of so many rows, and of no more.
    pub(crate) async fn wait_for(&mut self, rows: u64) -> Result<()> {
        let heard = timeout(PATIENCE, self.heard.wait_for(|heard| *heard >= rows));
        let all = matches!(heard.await, Ok(Ok(_)));
        let heard = *self.heard.borrow();
        if all && heard == rows {
            return Ok(());
        }
        Err(failure(format!("{rows} rows notified {heard} times")))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
