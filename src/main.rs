//! The process: command line, logs, runtime, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tidings::cli::{Cli, Failure};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        // Help and version are answers; anything else is a command line that cannot be used.
        let code = if error.use_stderr() { 64 } else { 0 };
        // Nobody is left to tell when even printing fails.
        let _ = error.print();
        std::process::exit(code);
    });
    start_logs();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let result = runtime
        .map_err(Failure::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("tidings: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// Logs go to standard error: JSON for machines, text for people. `TIDINGS_LOG` filters them.
fn start_logs() {
    // What the driver hears of a session that ends, our own lines say once.
    let usual = || EnvFilter::new("info,tokio_postgres=warn");
    let filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| usual());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().init();
    }
}
