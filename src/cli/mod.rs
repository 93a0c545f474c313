//! The command line: one file for each command.

mod cursor;
mod dev;
mod doctor;
mod fetch;
mod healthcheck;
mod migrate;
mod publish;
mod serve;
mod session;
mod tail;
mod token;

use std::ffi::OsString;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::without_empty;

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
    /// Sign a token that the gateway accepts.
    Token(Box<token::Args>),
    /// Publish an event.
    Publish(publish::Args),
    /// Show the events of topics as they are committed.
    Tail(tail::Args),
    /// Explain a cursor, and how it stands to the log.
    Cursor(cursor::Args),
    /// Say what in this database or proxy will hurt, and how to mend it.
    Doctor(Box<doctor::Args>),
    /// Say whether the gateway on this machine is ready.
    Healthcheck(healthcheck::Args),
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
    /// Reads a command line, and the environment beside it.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let matches = without_empty(Self::command()).try_get_matches_from(line)?;
        Self::from_arg_matches(&matches)
    }

    /// Runs the command to its end.
    pub async fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Serve(args) => serve::run(*args).await,
            Command::Dev(args) => dev::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Token(args) => token::run(&args),
            Command::Publish(args) => publish::run(args).await,
            Command::Tail(args) => tail::run(args).await,
            Command::Cursor(args) => cursor::run(args).await,
            Command::Doctor(args) => doctor::run(*args).await,
            Command::Healthcheck(args) => healthcheck::run(args).await,
        }
    }
}
