//! The load generator: one sub-run, in figures.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Result;
use super::bench::Bench;
use super::server::Server;

/// How long a sub-run may take: ten times what the longest one does on two slow cores.
const PATIENCE: Duration = Duration::from_secs(600);
const POLL: Duration = Duration::from_millis(50);

/// Padding of events by which the gateway's are about 200 bytes on the wire. Others send as many: whoever
/// puts less around an event is given more padding.
pub(crate) const PADDING: usize = 24;
/// What Postgres adds to the JSON of an event, for those who do not have it from there.
pub(crate) const SPACES: usize = 5;

/// More source addresses than streams need, so that the ports of one run may rest during the next.
const ADDRESSES: &str = "--addresses=10";

/// Loads the server with the scenario that the flags begin with. Whatever the generator finds wrong, such as
/// an event that is lost, is an error.
pub(crate) fn load(bench: &Bench, flags: &[String], server: &Server) -> Result<Value> {
    let mut command = Command::new(bench.example("load"));
    command.args(flags).args(&server.flags);
    command.args([ADDRESSES, "--json"]);
    let mut generator = (command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn())
        .map_err(|error| format!("the load generator does not start: {error}"))?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = generator.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            generator.kill()?;
            generator.wait()?;
            return Err("the load generator does not end".into());
        }
        thread::sleep(POLL);
    };
    // What it says fits into the pipe.
    let mut said = String::new();
    let mut out = generator.stdout.take().ok_or("no output to read from")?;
    out.read_to_string(&mut said)?;
    if !status.success() {
        return Err(format!("the load generator failed, {status}\n{said}").into());
    }
    let line = said
        .lines()
        .last()
        .ok_or("the load generator said nothing")?;
    let mut figures: Value = serde_json::from_str(line)?;
    add_own_share(&mut figures);
    Ok(figures)
}

/// What the generator itself took, for as many deliveries as the server's figure is about.
fn add_own_share(figures: &mut Value) {
    let of = |name: &str| figures[name].as_f64();
    if let (Some(seconds), Some(deliveries)) = (of("generator_cpu_seconds"), of("deliveries"))
        && deliveries > 0.0
    {
        figures["generator_cpu_per_million"] = json!(seconds / deliveries * 1e6);
    }
}
