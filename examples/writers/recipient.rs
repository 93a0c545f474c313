//! The recipient: who is told what writers commit, from nobody to the streams of a gateway.

use std::time::Duration;

use crate::audience::Audience;
use crate::gateway::{Gateway, SECRET};
use crate::kind::Kind;
use crate::latency::Latencies;
use crate::listener::Listener;
use crate::measurement::Bench;
use crate::verdict::Verdict;
use crate::{Result, failure};

/// How long an event is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whoever it is, it is there before anything is written, and goes when all has been read.
pub(crate) enum Recipient {
    Nobody,
    Listener(Listener),
    Gateway {
        gateway: Gateway,
        audience: Audience,
    },
}

impl Recipient {
    /// Starts it; a gateway has so many streams.
    pub(crate) async fn start(bench: &Bench, kind: Kind, streams: usize) -> Result<Self> {
        let url = bench.database.url();
        let Some(variables) = kind.gateway() else {
            return Ok(match kind {
                Kind::Notify => Self::Listener(Listener::start(&url).await?),
                _ => Self::Nobody,
            });
        };
        let gateway = Gateway::start(&bench.binary, &url, &[], variables).await?;
        let audience = Audience::open(gateway.address(), SECRET, streams).await?;
        Ok(Self::Gateway { gateway, audience })
    }

    /// The gateway, if it is one.
    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        match self {
            Self::Nobody | Self::Listener(_) => None,
            Self::Gateway { gateway, .. } => Some(gateway),
        }
    }

    /// Waits until it has been told of so many commits.
    pub(crate) async fn wait_for(&mut self, commits: u64) -> Result<()> {
        match self {
            Self::Nobody => Ok(()),
            Self::Listener(listener) => listener.wait_for(commits).await,
            Self::Gateway { audience, .. } => {
                audience.wait_for(usize::try_from(commits)?, PATIENCE).await
            }
        }
    }

    /// Holds what was committed behind an id, so many events, against what has arrived of it, and ends. Returns how
    /// long streams waited.
    pub(crate) async fn finish(
        self,
        bench: &Bench,
        behind: i64,
        commits: u64,
    ) -> Result<Latencies> {
        let Self::Gateway {
            gateway,
            mut audience,
        } = self
        else {
            return Ok(Latencies::of(std::iter::empty()));
        };
        let measured = audience.arrived().len();
        let latencies = audience.arrived().iter().map(|arrival| {
            let waited = arrival.received_us.checked_sub(arrival.payload.at_us);
            waited.ok_or("the clock went backwards")
        });
        let latencies = latencies.collect::<std::result::Result<Vec<u64>, _>>()?;
        // A look of its own, after which nothing of what was before comes again or late.
        bench.database.close_topics().await?;
        let committed = bench.database.committed(behind).await?;
        audience.wait_for(committed.len(), PATIENCE).await?;
        Verdict::of(&committed, audience.arrived(), audience.count()).check()?;
        if measured as u64 != commits {
            let what = format!("{measured} of {commits} events had arrived when they were counted");
            return Err(failure(what));
        }
        drop(audience);
        gateway.stop().await?;
        Ok(Latencies::of(latencies.into_iter()))
    }
}
