//! A gateway in a process of its own, as an operator runs it: its memory can be read, and signals
//! reach it.

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::{fs, thread};

use serde_json::Value;

use super::gateway::{Door, SECRET};
use super::postgres::Database;

/// The process; dropping it ends it at once.
pub(crate) struct Process {
    child: Child,
    door: Door,
}

impl Deref for Process {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Process {
    /// Runs `tidings serve` with these flags and waits until it serves.
    pub(crate) fn serve(database: &Database, flags: &[&str]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .arg("serve")
            .args(["--listen=127.0.0.1:0", "--ops-listen=127.0.0.1:0"])
            .args(flags)
            .env("DATABASE_URL", database.url())
            .env("TIDINGS_JWT_SECRET", SECRET)
            .env("TIDINGS_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut log = BufReader::new(child.stderr.take().expect("it is piped"));
        let mut said = String::new();
        let door = loop {
            let mut line = String::new();
            let count = log.read_line(&mut line).expect("a log is text");
            assert!(count > 0, "it ended before it served: {said}");
            if let Some(door) = read_door(&line) {
                break door;
            }
            said += &line;
        };
        // Whoever does not read its log holds it up; what it warns of belongs to the test's output.
        thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                if !line.contains("\"level\":\"INFO\"") {
                    eprintln!("gateway: {line}");
                }
            }
        });
        Process { child, door }
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
