//! A sample: what the servers have used and counted up to a moment.

use std::time::Instant;

use crate::Result;
use crate::database::Database;
use crate::gateway::Gateway;
use crate::measurement::Figures;
use crate::usage::Usage;

/// What a gateway counts, and what its growth in a second is called here; seconds become a share of the time.
const COUNTERS: [(&str, &str); 4] = [
    ("tidings_looks_total", "looks_per_second"),
    ("tidings_bells_total", "bells_per_second"),
    ("tidings_bells_rung_total", "bells_rung_per_second"),
    ("tidings_awake_seconds_total", "awake_share"),
];

/// All of it grows.
pub(crate) struct Sample {
    taken: Instant,
    postgres_seconds: f64,
    gateway: Option<GatewaySample>,
}

struct GatewaySample {
    seconds: f64,
    /// `None` of what this gateway does not count.
    counters: [Option<f64>; COUNTERS.len()],
}

impl Sample {
    pub(crate) async fn take(database: &Database, gateway: Option<&Gateway>) -> Result<Self> {
        let gateway = match gateway {
            Some(gateway) => Some(GatewaySample::take(gateway).await?),
            None => None,
        };
        Ok(Self {
            taken: Instant::now(),
            postgres_seconds: database.cpu_seconds()?,
            gateway,
        })
    }

    /// Adds what has come since an earlier one, in which so much was committed.
    pub(crate) fn add_since(&self, before: &Self, commits: u64, figures: &mut Figures) {
        let seconds = (self.taken - before.taken).as_secs_f64();
        let thousands = commits as f64 / 1e3;
        let mut add_cpu = |used: f64, share, per_1000| {
            figures.insert(share, used / seconds);
            if commits > 0 {
                figures.insert(per_1000, used / thousands);
            }
        };
        add_cpu(
            self.postgres_seconds - before.postgres_seconds,
            "postgres_cpu_share",
            "postgres_cpu_per_1000",
        );
        let (Some(now), Some(before)) = (&self.gateway, &before.gateway) else {
            return;
        };
        add_cpu(
            now.seconds - before.seconds,
            "gateway_cpu_share",
            "gateway_cpu_per_1000",
        );
        let counters = now.counters.iter().zip(&before.counters);
        for ((_, figure), counted) in COUNTERS.iter().zip(counters) {
            if let (Some(now), Some(before)) = counted {
                figures.insert(figure, (now - before) / seconds);
            }
        }
    }
}

impl GatewaySample {
    async fn take(gateway: &Gateway) -> Result<Self> {
        let mut counters = [None; COUNTERS.len()];
        for (counter, (name, _)) in counters.iter_mut().zip(COUNTERS) {
            *counter = gateway.metric(name).await?;
        }
        let usage = Usage::of(&[gateway.pid()]);
        Ok(Self {
            seconds: usage.cpu_seconds()?.ok_or("it is one process")?,
            counters,
        })
    }
}
