//! The bench: what all runs share, and how one round of a scenario goes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tidings::dev::cluster::{Access, Cluster, ClusterOptions};

use super::scenario::{Contestant, Run, Scenario};
use super::server::Server;
use super::{Result, floor, gateway, generator, nchan};

/// The part of the greatest rate that a paced run goes at.
const PACE: f64 = 0.6;

/// What each run of a round gave, by its name.
pub(crate) type Round = BTreeMap<&'static str, Value>;

/// A private Postgres with its own defaults for durability and the schema of tidings, a directory for
/// what servers write, and the programs.
pub(crate) struct Bench {
    cluster: Cluster,
    scratch: PathBuf,
    /// Where release binaries are.
    binaries: PathBuf,
}

impl Bench {
    pub(crate) fn start() -> Result<Self> {
        let this = std::env::current_exe()?;
        let binaries = this
            .ancestors()
            .nth(2)
            .ok_or("an example lies below its profile")?;
        let scratch = std::env::temp_dir().join(format!("tidings-bench-{}", std::process::id()));
        std::fs::create_dir(&scratch)?;
        let bench = Self {
            cluster: Cluster::start(ClusterOptions {
                directory: None,
                access: Access::Trust,
                settings: &[],
            })?,
            scratch,
            binaries: binaries.to_owned(),
        };
        let mut migrate = Command::new(bench.gateway());
        migrate
            .arg("migrate")
            .env("DATABASE_URL", bench.database())
            .env("TIDINGS_LOG", "warn")
            .stdout(Stdio::null());
        if !migrate.status()?.success() {
            return Err("the database could not be migrated".into());
        }
        Ok(bench)
    }

    /// The gateway's binary.
    pub(crate) fn gateway(&self) -> PathBuf {
        self.binaries.join("tidings")
    }

    /// The binary of an example.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.binaries.join("examples").join(name)
    }

    pub(crate) fn database(&self) -> String {
        self.cluster.url("postgres")
    }

    /// A program of Postgres.
    pub(crate) fn postgres(&self, program: &str) -> Command {
        self.cluster.command(program)
    }

    /// Where servers may write.
    pub(crate) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Every run of the scenario, beginning with another one in each round; what goes at the pace of
    /// another comes last.
    pub(crate) fn round(&self, scenario: &Scenario, round: usize, streams: usize) -> Result<Round> {
        let mut runs: Vec<&Run> = scenario.runs.iter().collect();
        runs.rotate_left(round % scenario.runs.len());
        runs.sort_by_key(|run| run.paced_by.is_some());
        let mut done = Round::new();
        for run in runs {
            let figures = self.run(run, &done, streams).map_err(|error| {
                let (round, title) = (round + 1, &scenario.title);
                format!("round {round}, {title}, {}: {error}", run.name)
            })?;
            eprintln!("{}, {}: {figures}", scenario.title, run.name);
            done.insert(run.name, figures);
        }
        Ok(done)
    }

    fn run(&self, run: &Run, done: &Round, streams: usize) -> Result<Value> {
        let mut flags = run.flags.clone();
        if let Some(other) = run.paced_by {
            let rate = done[other]["deliveries_per_second"].as_f64();
            let rate = rate.ok_or("the rate to go by is not known")? / streams as f64;
            flags.push(format!("--rate={:.1}", rate * PACE));
        }
        let server = self.server(run.contestant)?;
        let mut figures = generator::load(self, &flags, &server)?;
        if run.contestant == Contestant::Tidings {
            gateway::add_metrics(&server, &mut figures)?;
        }
        Ok(figures)
    }

    fn server(&self, contestant: Contestant) -> Result<Server> {
        match contestant {
            Contestant::Tidings => gateway::start(self),
            Contestant::Nchan => nchan::start(self),
            Contestant::Loop => floor::start_loop(self),
            Contestant::Rows => floor::start_rows(self),
            Contestant::Hyper => floor::start_hyper(self),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}
