//! A plain session that listens, beside a gateway that does: it tells what the database and the machine make late.

use std::time::Duration;

use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_postgres::{AsyncMessage, Client, NoTls, Notification};

use crate::lateness::Moments;
use crate::support::backend::run;
use crate::support::postgres::Database;

/// How often a [`Pulse`] beats.
const BEAT: Duration = Duration::from_millis(20);

/// The session, and what it has heard when.
pub(crate) struct Listening {
    _session: Client,
    heard: mpsc::UnboundedReceiver<(Instant, Notification)>,
    _driver: JoinSet<()>,
}

impl Listening {
    /// Listens to these channels.
    pub(crate) async fn start(database: &Database, channels: &[&str]) -> Listening {
        let connected = tokio_postgres::connect(&database.url(), NoTls).await;
        let (session, mut connection) = connected.expect("a session");
        let (told, heard) = mpsc::unbounded_channel();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let mut messages = futures::stream::poll_fn(|cx| connection.poll_message(cx));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(message) = message {
                    let _ = told.send((Instant::now(), message));
                }
            }
        });
        for channel in channels {
            run(&session, &format!("listen {channel}")).await;
        }
        Listening {
            _session: session,
            heard,
            _driver: driver,
        }
    }

    /// The next notification, and when it came.
    pub(crate) async fn next(&mut self) -> (Instant, Notification) {
        self.heard.recv().await.expect("it listens")
    }
}

/// Notifications that come fifty times a second whatever else happens: when each was sent, and when it was heard.
pub(crate) struct Pulse {
    pub(crate) sent: Moments,
    pub(crate) heard: Moments,
    _tasks: JoinSet<()>,
}

impl Pulse {
    pub(crate) async fn start(database: &Database) -> Pulse {
        let (sent, heard) = (Moments::default(), Moments::default());
        let mut listening = Listening::start(database, &["pulse"]).await;
        let client = database.connect().await;
        let mut tasks = JoinSet::new();
        let moments = sent.clone();
        tasks.spawn(async move {
            let mut ticks = interval(BEAT);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for beat in 0.. {
                ticks.tick().await;
                moments.note(beat);
                run(&client, &format!("notify pulse, '{beat}'")).await;
            }
        });
        let moments = heard.clone();
        tasks.spawn(async move {
            loop {
                let (at, beat) = listening.next().await;
                moments.note_at(beat.payload().parse().expect("a beat"), at);
            }
        });
        Pulse {
            sent,
            heard,
            _tasks: tasks,
        }
    }
}
