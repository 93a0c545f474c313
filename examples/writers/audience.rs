//! The audience: streams of a gateway, among which the topics are divided, and what has come to them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::arrivals::{Arrival, Arrivals};
use crate::clock::Clock;
use crate::payload::Finder;
use crate::request::Requests;
use crate::sources::Sources;
use crate::stream::Await;
use crate::streams::{Plan, Streams};
use crate::{Result, failure};

/// Streams that are being opened at a time.
const OPENING: usize = 100;

/// How often it is looked whether all has arrived.
const POLL: Duration = Duration::from_millis(5);

/// Open streams; dropping it closes them.
pub(crate) struct Audience {
    streams: Streams,
    count: usize,
    arrived: Vec<Arrival>,
}

impl Audience {
    /// Opens so many streams of a server; `secret` is what it knows tokens by.
    pub(crate) async fn open(
        server: SocketAddr,
        secret: &'static str,
        count: usize,
    ) -> Result<Self> {
        let plan = Plan {
            sources: Sources::new(server, 1),
            opening: OPENING,
            awaited: Await::Ready,
            requests: Requests {
                host: server.to_string(),
                streams: count,
                secret,
            },
            finder: Finder::new(),
        };
        let streams = Streams::start(plan, Clock, Arrivals::default())?;
        streams.open(count).await?;
        streams.begin().await?;
        Ok(Self {
            streams,
            count,
            arrived: Vec::new(),
        })
    }

    /// How many streams there are.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// What has arrived, in the order in which it came.
    pub(crate) fn arrived(&self) -> &[Arrival] {
        &self.arrived
    }

    /// Waits until so many events have arrived since the beginning, but not longer than this: what is missing then is
    /// told by the verdict.
    pub(crate) async fn wait_for(&mut self, events: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let counts = self.streams.counts().await?;
            self.arrived.extend(counts.arrived);
            if counts.ended > 0 {
                return Err(failure(format!("{} streams were ended", counts.ended)));
            }
            if self.arrived.len() >= events || Instant::now() > deadline {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
