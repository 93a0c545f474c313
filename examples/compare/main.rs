//! Compares the gateway with Nchan and with bare servers, under the same load on the same machine.
//!
//! `scripts/bench-fanout [ROUNDS [SCENARIO…]]` builds everything that this starts. In each round every
//! contestant of a scenario runs once, in an order that rotates, in a fresh process, while no other is
//! there; Postgres alone stays, idle. Whatever this machine does to a round it does to all of it, so
//! ratios are made within rounds, and what is judged are their medians. Prints tables in Markdown.

mod bench;
mod floor;
mod gateway;
mod generator;
mod machine;
mod metric;
mod nchan;
mod report;
mod scenario;
mod server;
mod spread;
mod table;

use std::error::Error;
use std::process::{Command, ExitCode};

use clap::Parser;

use bench::Bench;
use machine::said;
use scenario::{Name, Scenario};

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// What to run.
#[derive(Parser)]
struct Compare {
    /// How often everything runs
    #[arg(default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Which scenarios; all, when none is named
    scenarios: Vec<Name>,
    /// Streams, where a scenario does not have its own number
    #[arg(long, env = "STREAMS", default_value_t = 10_000)]
    streams: usize,
}

fn main() -> ExitCode {
    match compare(Compare::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-fanout: {error}");
            ExitCode::FAILURE
        }
    }
}

fn compare(what: Compare) -> Result<()> {
    let scenarios = Scenario::chosen(&what.scenarios, what.streams);
    let bench = Bench::start()?;
    let mut rounds = vec![Vec::new(); scenarios.len()];
    for round in 0..what.rounds as usize {
        for (scenario, rounds) in scenarios.iter().zip(&mut rounds) {
            rounds.push(bench.round(scenario, round, what.streams)?);
        }
    }
    println!("{}\n", machine::facts(programs(&bench)));
    for (scenario, rounds) in scenarios.iter().zip(&rounds) {
        println!("{}", report::tables(scenario, rounds));
    }
    Ok(())
}

/// The versions of those that are compared.
fn programs(bench: &Bench) -> [String; 3] {
    let nchan = said(Command::new("dpkg-query").args(["-Wf${Version}", "libnginx-mod-nchan"]));
    [
        said(bench.postgres("postgres").arg("--version")),
        said(Command::new("nginx").arg("-v")),
        format!("Nchan {nchan}"),
    ]
}
