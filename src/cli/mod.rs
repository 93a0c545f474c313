//! The command line: one file for each command.

mod dev;
mod migrate;
mod serve;

use clap::{Parser, Subcommand};

/// The exit code for a configuration or command line that cannot be used (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

/// Real-time notifications beside one Postgres.
#[derive(Debug, Parser)]
#[command(name = "tidings", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway.
    Serve(Box<serve::Args>),
    /// Run a gateway with a private Postgres, a token and a page to watch it in.
    Dev(crate::dev::DevArgs),
    /// Bring the schema `tidings` of the database up to date.
    Migrate(migrate::Args),
}

/// How a command ends when it does not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The command line or configuration is not usable: the text says what to do.
    Usage(String),
    /// It was tried and did not work.
    Error(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Failure {
    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::Error(_) => 1,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Usage(text) => f.write_str(text),
            Self::Error(error) => write!(f, "{error:#}"),
        }
    }
}

impl Cli {
    /// Runs the command to its end.
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Dev(args) => dev::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
        }
    }
}
