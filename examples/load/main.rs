//! A load generator for the gateway, and for other servers of event streams beside it.
//!
//! ```text
//! cargo run --release --example load -- broadcast --start-gateway
//! cargo run --release --example load -- unicast --batch=100 --url=http://127.0.0.1:8080 --secret=… \
//!     --publish=sql:postgres://… --pid=…
//! ```
//!
//! It opens streams, publishes, and tells what arrived: how quickly, at which cost, and whether anything was
//! lost, doubled or out of order, which makes the exit code 1. The last line of its output is JSON. Two runs at a
//! time on one server would take each other's events for their own.
//!
//! Publishers run on the main thread, all streams are read on another. An event says when it was to be published,
//! so that a publisher that is late does not hide how long readers waited.

mod arrivals;
mod audience;
mod chunks;
mod clock;
mod descriptors;
mod flight;
#[path = "../figures/gateway.rs"]
mod gateway;
mod lane;
mod options;
mod pace;
mod payload;
mod publisher;
mod reader;
mod report;
mod request;
mod resting;
#[path = "../figures/rig.rs"]
mod rig;
#[cfg(test)]
mod self_test;
mod sources;
mod stream;
mod streams;
mod tally;
mod telling;
mod text;
mod token;
mod usage;

use std::process::ExitCode;

use clap::Parser;

use gateway::{Failure, Result};
use options::{Options, Scenario, Target};
use report::Figures;
use rig::Rig;
use usage::Usage;

/// Streams beside those that are counted: warm-ups that the gateway has not yet seen go.
const STREAMS_BESIDE: usize = 200;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options = Options::parse();
    match run(options).await {
        Ok(figures) if figures.are_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut options: Options) -> Result<Figures> {
    options.check()?;
    descriptors::raise_limit();
    // It ends with this function.
    let _rig = if options.start_gateway {
        Some(start_gateway(&mut options).await?)
    } else {
        None
    };
    let figures = measure(&options).await?;
    figures.print(options.json)?;
    Ok(figures)
}

async fn measure(options: &Options) -> Result<Figures> {
    let usage = Usage::of(&options.pid);
    match options.scenario {
        Scenario::Broadcast | Scenario::Unicast | Scenario::Mixed => {
            telling::measure(options, &usage).await
        }
        Scenario::Idle => resting::idle(options, &usage).await,
        Scenario::Connect => resting::connect(options, &usage).await,
    }
}

/// Starts a gateway and its database, and turns the options to them.
async fn start_gateway(options: &mut Options) -> Result<Rig> {
    let streams = options.streams.max(options.warm_up_connects()) + STREAMS_BESIDE;
    let rig = Rig::start(&[format!("--streams={streams}")]).await?;
    options.url = format!("http://{}", rig.address());
    options.publish = Some(Target::Sql(rig.database_url()));
    options.secret = Some(gateway::SECRET.to_owned());
    options.pid = vec![rig.pid()];
    Ok(rig)
}

/// A failure in these words.
fn failure(text: String) -> Failure {
    text.into()
}
