//! The listener: a session that hears notifications, for ever.
//!
//! It promises that nothing is missed for want of hearing: whenever it has begun to listen, it
//! rings the bell, so that the look after it catches up; a query on the same session every ten
//! seconds finds a connection that has died half-open.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio_postgres::{AsyncMessage, Client, Notification};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::bell::{Bell, CHANNEL};
use super::connect::{ConnectError, Database, refuse_standby};
use crate::metrics::Metrics;

/// How often the session is asked whether it lives, and how long the answer may take: together
/// below the 15 s within which a half-open session is to be found.
const HEARTBEAT: Duration = Duration::from_secs(10);
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(4);

/// A message with content: a signal, or one of an application's own channels.
#[derive(Debug)]
pub struct Message {
    /// The channel it came on.
    pub channel: String,
    /// Its payload.
    pub payload: String,
}

/// Hears the bell, signals, and the channels of the application.
pub struct Listener {
    database: Database,
    channels: BTreeSet<String>,
    bell: Arc<Bell>,
    messages: mpsc::Sender<Message>,
    metrics: Arc<Metrics>,
}

impl Listener {
    /// A listener for the doorbell and these channels besides. Messages that find the queue full
    /// are dropped: signals are ephemeral, and nobody waits for them.
    pub fn new(
        database: Database,
        channels: BTreeSet<String>,
        bell: Arc<Bell>,
        messages: mpsc::Sender<Message>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            database,
            channels,
            bell,
            messages,
            metrics,
        }
    }

    /// Listens until cancelled, through every loss of the session.
    pub async fn run(self, cancel: CancellationToken) {
        let mut backoff = Backoff::new();
        loop {
            let lost = tokio::select! {
                () = cancel.cancelled() => return,
                lost = self.listen(&mut backoff) => lost,
            };
            self.metrics.listener_up.set(0);
            backoff.log("listener", &lost);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = backoff.wait() => {}
            }
        }
    }

    /// One session, from opening to loss.
    async fn listen(&self, backoff: &mut Backoff) -> ConnectError {
        let (client, mut connection) = match self.database.connect("listener").await {
            Ok(pair) => pair,
            Err(error) => return error,
        };
        let mut incoming = futures::stream::poll_fn(|cx| connection.poll_message(cx));
        let hear = async {
            loop {
                match incoming.next().await {
                    Some(Ok(AsyncMessage::Notification(heard))) => self.hear(&heard),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return error.into(),
                    None => return closed(),
                }
            }
        };
        tokio::select! {
            lost = hear => lost,
            lost = self.talk(&client, backoff) => lost,
        }
    }

    async fn talk(&self, client: &Client, backoff: &mut Backoff) -> ConnectError {
        let begin = async {
            refuse_standby(client).await?;
            let mut listen = format!("listen {CHANNEL}");
            for channel in &self.channels {
                listen += &format!("; listen {}", quote(channel));
            }
            client.batch_execute(&listen).await?;
            Ok::<_, ConnectError>(())
        };
        match tokio::time::timeout(HEARTBEAT_TIMEOUT, begin).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_) => return silent(),
        }
        // Only now that listening is committed does a look see all that no bell told of.
        self.metrics.listener_up.set(1);
        backoff.mended("listener");
        self.bell.ring();
        loop {
            tokio::time::sleep(HEARTBEAT).await;
            match tokio::time::timeout(HEARTBEAT_TIMEOUT, client.simple_query("select 1")).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return silent(),
            }
        }
    }

    fn hear(&self, heard: &Notification) {
        if heard.channel() == CHANNEL && heard.payload().is_empty() {
            if self.bell.is_own(heard.process_id()) {
                return;
            }
            self.metrics.bells.inc();
            self.bell.ring();
            return;
        }
        let message = Message {
            channel: heard.channel().to_owned(),
            payload: heard.payload().to_owned(),
        };
        if self.messages.try_send(message).is_err() {
            self.metrics.signals_refused.inc();
        }
    }
}

fn silent() -> ConnectError {
    ConnectError::Lost("the session does not answer")
}

fn closed() -> ConnectError {
    ConnectError::Lost("the server closed the session")
}

/// A channel name as SQL takes it.
fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
