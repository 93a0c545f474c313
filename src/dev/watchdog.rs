//! Binds a private Postgres to the life of the process that started it.
//!
//! A [`Watchdog`] is a shell that reads from a pipe whose other end is ours. When we are gone,
//! however we went, the read ends: it stops the server if it still runs, removes a temporary
//! directory, and only then lets go of the directory's lock. It runs as ourselves and in a process
//! group of its own, so that Ctrl-C does not end it before its time.
//!
//! Should somebody kill the watchdog too, [`stop_orphan`] finds the server at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::error::{ClusterError, io_error};

/// How long the server of an earlier owner may take to go, by its watchdog or by us.
const PATIENCE: Duration = Duration::from_secs(40);
/// When a polite stop has taken this long, it becomes an immediate one.
const POLITE: Duration = Duration::from_secs(10);
/// How long an owner that seems to live is waited for: it may be about to go.
const GRACE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(20);

/// What the shell does: `$1` is the directory, `$2` the signal, `$3` whether it is temporary.
///
/// The process id is read at the end of the wait, since the server may have been started again
/// meanwhile, and believed only while its command line names the directory: ids are reused, and a
/// dead server that nobody has buried yet has no command line any more. No other owner's server
/// can be meant, because the shell holds the lock as its standard output.
const SCRIPT: &str = r#"
    read -r _
    pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
    alive() {
        [ -n "$pid" ] && kill -s 0 "$pid" 2>/dev/null &&
            { [ ! -d /proc/self ] || grep -qaF -e "$1/data" "/proc/$pid/cmdline"; }
    }
    if alive "$1"; then kill -s "$2" "$pid"; fi
    tries=0
    while alive "$1" && [ $tries -lt 300 ]; do
        sleep 0.1
        tries=$((tries + 1))
        if [ $tries -eq 100 ]; then kill -s QUIT "$pid"; fi
    done
    if [ "$3" = temporary ]; then rm -rf -- "$1"; fi
"#;

/// The shell, and our end of its pipe.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    /// Locks the directory and watches over it from now on.
    pub(super) fn start(directory: &Path, temporary: bool) -> Result<Watchdog, ClusterError> {
        let lock = lock(directory)?;
        Command::new("/bin/sh")
            .args(["-c", SCRIPT, "tidings-watchdog"])
            .arg(directory)
            .args(if temporary {
                ["QUIT", "temporary"]
            } else {
                ["INT", "kept"]
            })
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(lock)
            .stderr(Stdio::null())
            .spawn()
            .map(Watchdog)
            .map_err(io_error("starting the watchdog"))
    }
}

impl Drop for Watchdog {
    /// `wait` closes our end of the pipe first.
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

/// Ends a server that outlived both its owner and its watchdog. The lock is ours by now, so
/// nobody else's server can be meant.
pub(super) fn stop_orphan(directory: &Path) -> Result<(), ClusterError> {
    let data = directory.join("data");
    let Some(pid) = postmaster(&data) else {
        return Ok(());
    };
    let begin = Instant::now();
    let mut signal = Signal::INT;
    while is_postmaster(pid, &data) {
        match kill_process(pid, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => return Err(io_error("stopping the earlier postgres")(error.into())),
        }
        let deadline = Instant::now() + POLITE;
        while is_postmaster(pid, &data) && Instant::now() < deadline {
            thread::sleep(POLL);
        }
        if begin.elapsed() > PATIENCE {
            let words = format!("process {} still runs", pid.as_raw_nonzero());
            let what = "stopping the earlier postgres";
            return Err(ClusterError::Timeout {
                what,
                timeout: PATIENCE,
                words,
            });
        }
        signal = Signal::QUIT;
    }
    Ok(())
}

/// The lock on a directory. While a watchdog still cleans up behind a dead owner, it waits.
fn lock(directory: &Path) -> Result<File, ClusterError> {
    let mut options = OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600);
    options.custom_flags(OFlags::NOFOLLOW.bits() as i32);
    let mut file = options
        .open(directory.join("lock"))
        .map_err(io_error(&format!("locking {}", directory.display())))?;
    let begin = Instant::now();
    while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != Errno::WOULDBLOCK {
            return Err(io_error("locking the data directory")(error.into()));
        }
        let mut owner = String::new();
        // Read anew each time: a living owner may take over from the one that died.
        let _ =
            File::open(directory.join("lock")).and_then(|mut file| file.read_to_string(&mut owner));
        let alive = pid_of(&owner).is_some_and(|pid| !command_line(pid).is_empty());
        let patience = if alive { GRACE } else { PATIENCE };
        if begin.elapsed() > patience {
            let (directory, owner) = (directory.to_owned(), owner.trim().to_owned());
            return Err(ClusterError::InUse { directory, owner });
        }
        thread::sleep(POLL);
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(io_error("locking the data directory"))?;
    Ok(file)
}

/// The process that `postmaster.pid` names, whether or not it still lives.
fn postmaster(data: &Path) -> Option<Pid> {
    let file = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    pid_of(file.lines().next()?)
}

fn pid_of(text: &str) -> Option<Pid> {
    text.trim()
        .parse()
        .ok()
        .filter(|id| *id > 0)
        .and_then(Pid::from_raw)
}

/// Whether the process lives and is the server of this directory, and not another that was given
/// the same id later.
fn is_postmaster(pid: Pid, data: &Path) -> bool {
    String::from_utf8_lossy(&command_line(pid)).contains(&*data.to_string_lossy())
}

/// The command line of a living process: empty once it is dead, buried or not.
fn command_line(pid: Pid) -> Vec<u8> {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return Vec::new();
    }
    let id = pid.as_raw_nonzero().to_string();
    if Path::new("/proc/self").exists() {
        return fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
    }
    let ps = Command::new("ps")
        .args(["-o", "command=", "-p", &id])
        .output();
    ps.map(|output| output.stdout).unwrap_or_default()
}
