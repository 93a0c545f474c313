//! A private Postgres: made from installed binaries, bound to this process, kept or thrown away.
//!
//! [`Cluster::start`] makes a cluster in a directory, or takes up one that it made there earlier,
//! in whatever state a crash of either side left it. The server runs as an unprivileged user even
//! when we are root, listens on 127.0.0.1 alone, and never outlives us: a small watchdog process
//! stops it when we are gone, also after `kill -9`. The lock on the directory is held until the
//! server has stopped, so that two owners never meet in one directory.
//!
//! ```text
//! <directory>/          ours, mode 0711: lock, password, postgres.log
//! <directory>/data/     the server's own, mode 0700
//! ```
//!
//! Everything here blocks; asynchronous callers use `spawn_blocking`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::address;
use super::binaries::Binaries;
pub use super::error::ClusterError;
use super::error::io_error;
use super::home;
use super::user::{self, User};
use super::watchdog::{self, Watchdog};

/// Crash recovery of a large development database is the slowest start there is.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a server, or what is left of its owner, may take to go.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the end or the beginning of a process is looked for.
const POLL: Duration = Duration::from_millis(10);
/// What a cluster is made for.
#[derive(Clone, Copy, Debug)]
pub struct ClusterOptions<'a> {
    /// Where it lives and is found again; `None` is a temporary directory that goes with it.
    pub directory: Option<&'a Path>,
    /// Who may connect over loopback.
    pub access: Access,
    /// Server settings, which win over the configuration file.
    pub settings: &'a [(&'a str, &'a str)],
}

/// Who may connect over loopback. It is decided when the directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever can reach 127.0.0.1, as any user: quick, for throw-away data only.
    Trust,
    /// Whoever knows a random password that is kept in the directory, readable by us alone.
    /// Loopback is shared with every other user of the machine, and a superuser of a database
    /// can run programs as the server's user, so data that is kept is not left open.
    Password,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended, everything is written down.
    Fast,
    /// Nothing is written down: the next start recovers as after a crash.
    Immediate,
    /// `kill -9` of the postmaster; its backends notice by themselves and follow.
    Kill,
}

/// A running private Postgres. Dropping it stops it at once, as a crash would.
pub struct Cluster {
    directory: PathBuf,
    binaries: Binaries,
    user: Option<User>,
    settings: Vec<(String, String)>,
    password: Option<String>,
    temporary: bool,
    port: u16,
    postmaster: Option<Child>,
    /// Watches by being there, and goes last.
    _watchdog: Watchdog,
}

impl Cluster {
    /// Makes the cluster, or takes up the one in the directory, and waits until it answers.
    pub fn start(options: ClusterOptions<'_>) -> Result<Cluster, ClusterError> {
        let user = user::unprivileged().map_err(|()| ClusterError::NoUser)?;
        let temporary = options.directory.is_none();
        let directory = home::make_home(options.directory, user.as_ref())?;
        let watchdog = Watchdog::start(&directory, temporary)?;
        watchdog::stop_orphan(&directory)?;

        let mut cluster = Cluster {
            binaries: Binaries::find(home::made_by(&directory))?,
            password: home::password(&directory, options.access, user.as_ref())?,
            settings: (options.settings.iter())
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            port: 0,
            postmaster: None,
            directory,
            user,
            temporary,
            _watchdog: watchdog,
        };
        if home::made_by(&cluster.directory).is_none() {
            cluster.initialize()?;
        }
        cluster.launch()?;
        Ok(cluster)
    }

    /// Where a database of this cluster is found, as the superuser `postgres`.
    pub fn url(&self, database: &str) -> String {
        let password = self
            .password
            .as_ref()
            .map(|password| format!(":{password}"))
            .unwrap_or_default();
        format!(
            "postgres://postgres{password}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// The port on 127.0.0.1. It stays the same when the server is stopped and started again.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's own directory, for tests that copy or look into it.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where the server writes what it has to say.
    pub fn log(&self) -> PathBuf {
        self.directory.join("postgres.log")
    }

    /// The postmaster's process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.postmaster.as_ref().map(Child::id)
    }

    /// One of the server's programs, for example `psql` or `pg_basebackup`, as the server's user
    /// and undisturbed by our environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.binaries.program(program));
        // Its own group, or Ctrl-C at the terminal would end the server before us.
        command
            .process_group(0)
            .current_dir("/")
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
        {
            command.env_remove(name);
        }
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    /// How a person calls one of the client programs: by its name where that is enough.
    pub fn client(&self, program: &str) -> PathBuf {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if std::env::split_paths(&path).any(|place| place.join(program).is_file()) {
            return program.into();
        }
        self.binaries.program(program)
    }

    /// Stops the server; it can be [started again](Cluster::start_again). Stopping a stopped one
    /// is nothing.
    pub fn stop(&mut self, mode: StopMode) -> Result<(), ClusterError> {
        let Some(mut postmaster) = self.postmaster.take() else {
            return Ok(());
        };
        let signal = match mode {
            StopMode::Fast => Signal::INT,
            StopMode::Immediate => Signal::QUIT,
            StopMode::Kill => Signal::KILL,
        };
        // It may just have ended by itself, which is as good.
        let _ = kill_process(Pid::from_child(&postmaster), signal);
        let deadline = Instant::now() + STOP_TIMEOUT;
        while postmaster
            .try_wait()
            .map_err(io_error("waiting for postgres"))?
            .is_none()
        {
            if Instant::now() > deadline {
                end(&mut postmaster);
                return Err(self.timeout("stopping Postgres", STOP_TIMEOUT, 0));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Starts the server again in the same place and on the same port, after a
    /// [`stop`](Cluster::stop) or after it went down by itself.
    pub fn start_again(&mut self) -> Result<(), ClusterError> {
        self.stop(StopMode::Immediate)?;
        self.launch()
    }

    /// `initdb` beside the final place, so that an interrupted one leaves nothing that looks done.
    fn initialize(&self) -> Result<(), ClusterError> {
        let unfinished = self.directory.join("data.new");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(io_error("removing an unfinished data directory"))?;
        }
        home::make_directory(&unfinished, 0o700)?;
        home::give(&unfinished, self.user.as_ref())
            .map_err(io_error("giving away the data directory"))?;
        let mut initdb = self.command("initdb");
        initdb.args([
            "--username=postgres",
            "--encoding=UTF8",
            "--locale=C",
            "--auth-local=reject",
        ]);
        match self.password {
            Some(_) => initdb
                .arg("--auth-host=scram-sha-256")
                .arg("--pwfile")
                .arg(self.directory.join("password")),
            None => initdb.arg("--auth-host=trust"),
        };
        if self.temporary {
            initdb.arg("--no-sync");
        }
        let output = initdb
            .arg("--pgdata")
            .arg(&unfinished)
            .output()
            .map_err(io_error("running initdb"))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(ClusterError::Program {
                what: "initdb failed",
                status: output.status,
                words,
            });
        }
        fs::rename(&unfinished, self.data())
            .map_err(io_error("putting the data directory in place"))
    }

    /// Starts the postmaster and waits until it is ready. Two failures mend themselves: a port
    /// that somebody took between our look and the server's, and, after a `kill -9` of an earlier
    /// postmaster, backends that have not noticed yet.
    fn launch(&mut self) -> Result<(), ClusterError> {
        let fixed_port = self.port != 0;
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if !fixed_port {
                let kept = (!self.temporary).then_some(&*self.directory);
                self.port = address::free_port(kept).map_err(io_error("finding a free port"))?;
            }
            let Err(error) = self.try_launch() else {
                return Ok(());
            };
            let words = error.to_string();
            let passing = words.contains("could not bind")
                || words.contains("is still in use")
                || words.contains("\"postmaster.pid\" already exists");
            if !passing || Instant::now() > deadline {
                return Err(error);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn try_launch(&mut self) -> Result<(), ClusterError> {
        let log = (OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(self.log()))
        .map_err(io_error("opening postgres.log"))?;
        let begin = log.metadata().map_err(io_error("postgres.log"))?.len();
        let mut postgres = self.command("postgres");
        postgres
            .arg("-D")
            .arg(self.data())
            .stdout(Stdio::null())
            .stderr(log);
        let port = self.port.to_string();
        // No Unix socket: its path has a small limit, and everybody here speaks TCP.
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
        ];
        let settings = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in settings.chain(own) {
            postgres.arg("-c").arg(format!("{name}={value}"));
        }
        let mut postmaster = postgres.spawn().map_err(io_error("starting postgres"))?;
        if let Err(error) = self.wait_ready(&mut postmaster, begin) {
            end(&mut postmaster);
            return Err(error);
        }
        self.postmaster = Some(postmaster);
        Ok(())
    }

    /// `postmaster.pid` names its owner in the first line and `ready` in the eighth, which is
    /// what `pg_ctl` waits for too.
    fn wait_ready(&self, postmaster: &mut Child, begin: u64) -> Result<(), ClusterError> {
        let deadline = Instant::now() + START_TIMEOUT;
        let id = postmaster.id().to_string();
        while Instant::now() < deadline {
            if let Some(status) = postmaster
                .try_wait()
                .map_err(io_error("waiting for postgres"))?
            {
                let words = tail(&self.log(), begin);
                return Err(ClusterError::Program {
                    what: "Postgres did not start",
                    status,
                    words,
                });
            }
            let file = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
            let mut lines = file.lines();
            if lines.next() == Some(&id)
                && lines.nth(6).is_some_and(|state| state.trim() == "ready")
            {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        Err(self.timeout("starting Postgres", START_TIMEOUT, begin))
    }

    fn timeout(&self, what: &'static str, timeout: Duration, begin: u64) -> ClusterError {
        ClusterError::Timeout {
            what,
            timeout,
            words: tail(&self.log(), begin),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.stop(StopMode::Immediate);
    }
}

/// The end of what was written to a log since `begin`.
fn tail(log: &Path, begin: u64) -> String {
    const MOST: u64 = 4096;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(begin.max(length.saturating_sub(MOST))))?;
        let mut words = Vec::new();
        file.take(MOST).read_to_end(&mut words)?;
        Ok(words)
    };
    String::from_utf8_lossy(&read().unwrap_or_default())
        .trim()
        .to_owned()
}

/// Ends a child without its consent and takes note of its end.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}
