//! What it costs writers that somebody is told: commits per second of rows that tell nobody, of rows with the usual
//! trigger that notifies, and of events that a gateway delivers, once by its bell and once as it comes.
//!
//! `scripts/bench-writers [ROUNDS [WRITERS…]]` builds everything that this starts and asks for latency, too. In each
//! round every kind is measured once with each number of writers, in an order that is drawn anew; the kinds with the
//! same number come one after the other, and ratios are made between them. There is one Postgres, which flushes every
//! commit, and one gateway at most: a kind that has one starts and stops it around its measurement. Every event must
//! reach its stream, once and in order, or this ends with 1. Prints tables in Markdown, and a line of JSON for each row.
//!
//! The reader is the load generator's, with what an event is and what becomes of it replaced: `payload`, `arrivals`,
//! `request` and `clock` are this program's own.

mod arrivals;
mod audience;
#[path = "../load/chunks.rs"]
mod chunks;
mod clock;
mod database;
#[path = "../load/descriptors.rs"]
mod descriptors;
mod family;
#[path = "../figures/gateway.rs"]
mod gateway;
mod kind;
mod latency;
mod listener;
#[path = "../compare/machine.rs"]
mod machine;
mod measurement;
mod options;
mod payload;
mod pgbench;
#[allow(
    dead_code,
    reason = "streams are neither passed through nor timed here"
)]
#[path = "../load/reader.rs"]
mod reader;
mod recipient;
mod report;
mod request;
mod rounds;
mod sample;
#[cfg(test)]
mod self_test;
#[path = "../load/sources.rs"]
mod sources;
#[path = "../compare/spread.rs"]
mod spread;
#[path = "../load/stream.rs"]
mod stream;
#[allow(
    dead_code,
    reason = "streams are neither passed through nor closed here"
)]
#[path = "../load/streams.rs"]
mod streams;
#[path = "../compare/table.rs"]
mod table;
#[allow(dead_code, reason = "what the gateway writes has no spaces")]
#[path = "../load/text.rs"]
mod text;
#[path = "../load/token.rs"]
mod token;
#[allow(
    dead_code,
    reason = "neither memory nor this process is looked at here"
)]
#[path = "../load/usage.rs"]
mod usage;
mod verdict;

use std::process::ExitCode;

use clap::Parser;

use database::Database;
use gateway::{Failure, Result, build};
use measurement::Bench;
use options::Options;

/// How many topics there are. The scripts of writers say so, too.
const TOPICS: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    descriptors::raise_limit();
    let binary = build()?;
    let bench = Bench {
        database: Database::start(&binary).await?,
        binary,
    };
    let rows = rounds::greatest(&bench, &options).await?;
    let paced = if options.latency {
        rounds::paced(&bench, &options, &rows).await?
    } else {
        Vec::new()
    };
    println!("{}\n", machine::facts(bench.database.programs()));
    report::print(&rows, &paced, options.json.as_deref())
}

/// A failure in these words.
fn failure(text: String) -> Failure {
    text.into()
}
