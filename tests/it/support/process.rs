//! A gateway in a process of its own, as an operator runs it: its memory can be read, and signals
//! reach it. `TIDINGS_TEST_BINARY` names another binary to run, for example one built for release.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use serde_json::Value;

use super::gateway::{Door, SECRET};
use super::postgres::Database;

/// The process; dropping it ends it at once.
pub(crate) struct Process {
    child: Child,
    door: Door,
    log: Log,
}

/// What a gateway has logged, line by line; it outlives the process.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

impl Deref for Process {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Process {
    /// Runs `tidings serve` with these flags and waits until it serves.
    pub(crate) fn serve(database: &Database, flags: &[&str]) -> Process {
        Process::serve_at(&database.url(), flags)
    }

    /// The same with the database at an address. It listens on free ports unless flags say where.
    pub(crate) fn serve_at(url: &str, flags: &[&str]) -> Process {
        Process::serve_by(Path::new(&binary()), url, flags)
    }

    /// The same by a binary of any release.
    pub(crate) fn serve_by(binary: &Path, url: &str, flags: &[&str]) -> Process {
        Process::run(Command::new(binary), url, flags)
    }

    /// The same in a control group, given by the file that lists its processes: a shell goes there and
    /// becomes the gateway, which so finds itself there from its first step on.
    pub(crate) fn serve_in(processes: &Path, database: &Database, flags: &[&str]) -> Process {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        shell.arg(processes).arg(binary());
        Process::run(shell, &database.url(), flags)
    }

    fn run(mut command: Command, url: &str, flags: &[&str]) -> Process {
        let free = ["--listen=", "--ops-listen="]
            .into_iter()
            .filter_map(|name| {
                let said = flags.iter().any(|flag| flag.starts_with(name));
                (!said).then(|| format!("{name}127.0.0.1:0"))
            });
        let mut child = command
            .arg("serve")
            .args(free)
            .args(flags)
            .env("DATABASE_URL", url)
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env_remove("TIDINGS_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = Vec::new();
        let door = loop {
            let mut line = String::new();
            let count = log.read_line(&mut line).expect("a log is text");
            assert!(count > 0, "it ended before it served: {said:?}");
            said.push(line.trim_end().to_owned());
            if let Some(door) = read_door(&line) {
                break door;
            }
        };
        // Whoever does not read its log holds it up; what it warns of belongs to the test's output.
        let lines = Log::new(Mutex::new(said));
        let logged = lines.clone();
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if !line.contains("\"level\":\"INFO\"") {
                    eprintln!("gateway: {line}");
                }
                logged.lock().expect("no reader panics").push(line);
            }
        });
        Process {
            child,
            door,
            log: lines,
        }
    }

    /// What it has logged since it began.
    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Whether it runs, and has since it was started.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().expect("it is ours").is_none()
    }

    /// Where it is reached.
    pub(crate) fn door(&self) -> Door {
        self.door
    }

    /// The most memory that it has had resident so far, in bytes.
    pub(crate) fn peak_bytes(&self) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(path).expect("Linux tells");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kib: usize = kib.expect("in kB").trim().parse().expect("a number");
        kib * 1024
    }

    /// Sends it a signal, by the name that `kill` takes.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(mut self) -> ExitStatus {
        let ended = tokio::task::spawn_blocking(move || self.child.wait().expect("it is ours"));
        ended.await.expect("waiting does not panic")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is tested.
fn binary() -> OsString {
    let named = std::env::var_os("TIDINGS_TEST_BINARY");
    named.unwrap_or_else(|| env!("CARGO_BIN_EXE_tidings").into())
}

fn read_door(line: &str) -> Option<Door> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    if fields["message"] != "gateway started" {
        return None;
    }
    let address = |name: &str| {
        let text = fields[name].as_str().expect("an address");
        text.parse().expect("an address")
    };
    Some(Door {
        address: address("address"),
        ops_address: address("operations"),
    })
}
