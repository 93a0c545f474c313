//! What each layer of publishing costs: processor time of the server for one event, from a bare table to
//! `tidings.publish`, and of what was tried instead.
//!
//! `scripts/bench-layers [ROUNDS]` binds this and all that it starts to one core; `cargo run --release --example
//! layers` does not, and says so. Nine rounds, unless told otherwise. In each round every variant is measured once,
//! in an order that is drawn anew: emptied, then written by one session of pgbench in 10,000 transactions that do not
//! wait for the disk. Differences are made within rounds. There is one private Postgres, and a session of it holds
//! the lock of an awake gateway, so that no bell rings, but where that is what is measured. Prints tables in
//! Markdown.

mod backends;
mod database;
#[path = "../compare/machine.rs"]
mod machine;
mod report;
#[path = "../compare/spread.rs"]
mod spread;
#[path = "../compare/table.rs"]
mod table;
mod variant;

use std::error::Error;
use std::process::ExitCode;

use clap::Parser;

use database::Database;
use report::Rounds;
use variant::Variant;

pub(crate) type Failure = Box<dyn Error + Send + Sync>;
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Processor time of Postgres for an event, one layer at a time.
#[derive(Debug, Parser)]
#[command(name = "layers", max_term_width = 100)]
struct Options {
    /// How often everything is measured
    #[arg(default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("layers: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<()> {
    if std::thread::available_parallelism()?.get() > 1 {
        eprintln!(
            "on several cores, waking them is counted and blurs the figures (scripts/bench-layers)"
        );
    }
    let database = Database::start().await?;
    for variant in variant::all() {
        let made = database.make(variant).await;
        made.map_err(|error| format!("{}: {error}", variant.name))?;
    }
    let mut rounds = Rounds::new();
    for round in 0..options.rounds {
        let mut order: Vec<&Variant> = variant::all().collect();
        fastrand::shuffle(&mut order);
        for variant in order {
            let which = format!("round {}, {}", round + 1, variant.name);
            let cost = database.measure(variant, round).await;
            let cost = cost.map_err(|error| format!("{which}: {error}"))?;
            eprintln!("{which}: {cost:.1} µs");
            rounds.note(variant, cost);
        }
    }
    println!("{}\n", machine::facts(database.programs()));
    print!("{}", rounds.tables());
    Ok(())
}

/// A failure in these words.
fn failure(text: String) -> Failure {
    text.into()
}
