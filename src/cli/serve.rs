//! `tidings serve`: run the gateway until told to stop.

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;
use crate::config::ServeArgs;
use crate::gateway::{Gateway, StartError};

/// The settings of a gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    settings: ServeArgs,
}

/// Serves. The first SIGTERM or SIGINT drains, the second ends at once.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let config = args.settings.into_config();
    let config = config.map_err(|faults| Failure::Usage(faults.to_string()))?;
    let mut stop = Stop::new()?;
    let started = tokio::select! {
        () = stop.asked() => return Ok(()),
        started = Gateway::start(config, None) => started,
    };
    let mut gateway = started.map_err(|error| match error {
        StartError::Tokens(_) | StartError::Database(_) => Failure::Usage(error.to_string()),
        error => Failure::Error(error.into()),
    })?;
    tokio::select! {
        () = stop.asked() => {}
        () = gateway.failed() => {
            gateway.stop().await;
            return Err(anyhow!("the gateway has failed; the log says where").into());
        }
    }
    tracing::info!("draining; a second signal ends at once");
    tokio::select! {
        () = stop.asked() => tracing::warn!("ended without draining"),
        () = gateway.drain() => tracing::info!("drained"),
    }
    Ok(())
}

/// The signals that ask a process to end.
pub(crate) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Resolves at the next of them.
    pub(crate) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
