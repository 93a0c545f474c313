//! The process: command line, logs, runtime, exit code.

use std::io::IsTerminal;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tidings::cli::{Cli, Failure};
use tracing_subscriber::EnvFilter;

/// glibc's keeps most of what is freed below whatever is still in use: what a gateway sheds would be free for
/// nobody, and the kernel kills it all the same. This one gives it back, as soon as `.cargo/config.toml` says.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| {
        // Help and version are answers; anything else is a command line that cannot be used.
        let code = if error.use_stderr() { 64 } else { 0 };
        // Nobody is left to tell when even printing fails.
        let _ = error.print();
        std::process::exit(code);
    });
    start_logs();
    raise_descriptor_limit();
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
    // What the driver and the pool hear of sessions that end, our own lines say once.
    let usual = || EnvFilter::new("info,tokio_postgres=warn,deadpool=error");
    let filter = EnvFilter::try_from_env("TIDINGS_LOG").unwrap_or_else(|_| usual());
    // It writes down the bytes of frames that clients send, which may be tokens.
    let no_frames = "h2::codec=off".parse().expect("a directive");
    let filter = filter.add_directive(no_frames);
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        logs.init();
    } else {
        logs.json().init();
    }
}

/// Every stream is a descriptor. The soft limit is often 1,024, for the sake of programs that use
/// select(2); this one does not, so that it takes what the hard limit allows. It comes before the
/// configuration is read, which asks how many streams fit.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let (from, to) = (limit.current, limit.maximum);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(?from, ?to, "descriptor limit raised"),
        // Some systems have a bound of their own below a hard limit without one.
        Err(error) => tracing::debug!(%error, ?from, ?to, "descriptor limit not raised"),
    }
}
