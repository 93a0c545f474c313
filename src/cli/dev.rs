//! `tidings dev`: a gateway with a Postgres of its own, a token, and a page to watch it in.

use std::io::{ErrorKind::AddrInUse, Write};
use std::sync::Arc;

use anyhow::anyhow;
use clap::Parser;

use super::Failure;
use super::serve::Stop;
use crate::config::{Config, ServeArgs};
use crate::dev::{DevArgs, Development};
use crate::gateway::{Gateway, StartError};

/// The settings of a gateway; those that are not given here come from the environment, as ever.
#[derive(Parser)]
struct Settings {
    #[command(flatten)]
    serve: ServeArgs,
}

/// Runs until asked to stop. The streams are ended at once, since their cursors bring them back,
/// and the private Postgres last.
pub(super) async fn run(args: DevArgs) -> Result<(), Failure> {
    let mut stop = Stop::new()?;
    let mut development = tokio::select! {
        // What was begun ends with this process, by the watchdog of the private Postgres.
        () = stop.asked() => return Ok(()),
        prepared = Development::prepare(&args) => prepared?,
    };
    let served = serve(&mut development, &mut stop).await;
    development.stop().await?;
    served
}

async fn serve(development: &mut Development, stop: &mut Stop) -> Result<(), Failure> {
    let mut gateway = tokio::select! {
        () = stop.asked() => return Ok(()),
        started = start(development) => started?,
    };
    tokio::select! {
        () = stop.asked() => {
            gateway.stop().await;
            return Ok(());
        }
        () = gateway.ready() => {}
    }
    // Whoever listens to the gateway may have stopped listening to what it prints.
    let _ = writeln!(std::io::stdout(), "{}", development.banner());
    let ended = tokio::select! {
        () = stop.asked() => Ok(()),
        () = gateway.failed() => Err(anyhow!("the gateway has failed; the log says where").into()),
    };
    gateway.stop().await;
    ended
}

/// Starts the gateway, at another address when somebody was quicker to take the one that was chosen.
async fn start(development: &mut Development) -> Result<Gateway, Failure> {
    loop {
        let config = config(development.arguments())?;
        let page = development.page();
        let pages = Arc::new(move |method: &_, path: &_| page.respond(method, path));
        match Gateway::start(config, Some(pages)).await {
            Err(StartError::Listen { address, source })
                if source.kind() == AddrInUse && development.choose_again(address)? => {}
            started => return Ok(started?),
        }
    }
}

fn config(arguments: &[String]) -> Result<Config, Failure> {
    let name = std::iter::once("tidings");
    let settings = Settings::try_parse_from(name.chain(arguments.iter().map(String::as_str)));
    let settings = settings.map_err(|error| Failure::Usage(error.to_string()))?;
    let config = settings.serve.into_config();
    config.map_err(|faults| Failure::Usage(faults.to_string()))
}
