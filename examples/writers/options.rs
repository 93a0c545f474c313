//! The command line: what is measured, and for how long.

use std::path::PathBuf;

use clap::Parser;

use crate::TOPICS;

/// Commits per second of publishers that tell nobody, that notify, and that publish to a gateway.
#[derive(Debug, Parser)]
#[command(name = "writers", max_term_width = 100)]
pub(crate) struct Options {
    /// How often everything is measured
    #[arg(default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,

    /// How many commit at a time
    #[arg(default_values_t = [1, 8, 32, 64], value_parser = writers)]
    pub(crate) writers: Vec<usize>,

    /// How long each measurement takes
    #[arg(long, env = "SECONDS_EACH", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) seconds: u32,

    /// Measures latency at steady rates, too
    #[arg(long)]
    pub(crate) latency: bool,

    /// Writes the lines of JSON into this file and not behind the tables
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
}

/// Each writer has topics of its own, and a session of a server with room for a hundred.
fn writers(text: &str) -> Result<usize, String> {
    const WRITERS_MAX: usize = 80;
    const { assert!(WRITERS_MAX <= TOPICS) };
    match text.parse() {
        Ok(count) if (1..=WRITERS_MAX).contains(&count) => Ok(count),
        _ => Err(format!("there are 1 to {WRITERS_MAX}")),
    }
}
