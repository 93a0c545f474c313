//! The journal of a run: what publishers and clients did and saw, a line each, in files that are only
//! ever appended to. The checker reads these files and nothing else of the run, so that a failed
//! run can be judged again by hand.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Microseconds since 1970.
pub(crate) type Moment = i64;

/// Now, by the clock that the databases of the tests have too.
pub(crate) fn now() -> Moment {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_micros() as Moment
}

/// How a publisher's transaction ended, as far as the publisher can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Outcome {
    /// COMMIT was answered.
    Ok,
    /// COMMIT was never sent, or refused.
    Failed,
    /// COMMIT was sent and never answered.
    Unknown,
}

/// One line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// A transaction is about to be committed, or to be rolled back.
    Intent {
        transaction: String,
        keys: Vec<String>,
    },
    /// It has ended.
    Answer {
        at: Moment,
        transaction: String,
        outcome: Outcome,
    },
    /// It has ended as it was meant to, and something of this shape happened in it.
    Shape { transaction: String, shape: String },
    /// A client exists: from `since` on, everything of `topics` is for it. Its token covers no other.
    Client {
        client: u64,
        topics: Vec<String>,
        since: String,
    },
    /// It opens a stream with the cursor that it holds, and a token until then.
    Connect {
        at: Moment,
        client: u64,
        gateway: usize,
        since: String,
        expires: Moment,
    },
    /// Its stream is live.
    Ready {
        at: Moment,
        client: u64,
        resumed: bool,
        replayed: u64,
    },
    /// An event, with the cursor after it; by a stream or by sync.
    Event {
        at: Moment,
        client: u64,
        cursor: String,
        event: Value,
    },
    /// Its cursor cannot be resumed.
    Reset {
        at: Moment,
        client: u64,
        cursor: String,
        reason: String,
    },
    /// It has synced: the last page, with what its topics' state says of the facts behind them.
    Synced {
        at: Moment,
        client: u64,
        cursor: String,
        state: Value,
    },
    /// Its stream has ended, or was never opened.
    End {
        at: Moment,
        client: u64,
        why: End,
        /// The cursor that it holds.
        cursor: String,
    },
    /// All up to this id has been trimmed.
    Trimmed { at: Moment, through: i64 },
    /// Something was done to the system.
    Fault { at: Moment, fault: String },
}

/// Why a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum End {
    /// The client went away.
    Cut,
    /// The gateway said so.
    Bye(String),
    /// The connection broke.
    Broken,
    /// Nothing came for longer than beats are apart.
    Silent,
    /// Nobody answered.
    Unreachable,
    /// An answer that is no stream, after which an EventSource never comes back.
    Refused(u16),
    /// It has read all that there is.
    Done,
}

/// Where the records of one run go.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    directory: Arc<Directory>,
    publishers: Arc<Mutex<BufWriter<File>>>,
    clients: Arc<Mutex<BufWriter<File>>>,
    faults: Arc<Mutex<BufWriter<File>>>,
}

/// Stays unless the run was found right.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    was_right: AtomicBool,
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What fails after the verdict fails in the test's own thread, which is the last to let go then.
        if self.was_right.load(Ordering::Relaxed) && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
        } else {
            let path = self.path.display();
            eprintln!("the journal of this run is kept in {path}");
        }
    }
}

impl Journal {
    /// A journal in a directory of its own.
    pub(crate) fn create(name: &str) -> Journal {
        let process = std::process::id();
        let place = format!("tidings-{name}-{process}-{:08x}", fastrand::u32(..));
        let directory = std::env::temp_dir().join(place);
        fs::create_dir(&directory).expect("a directory for the journal");
        let file = |name: &str| {
            let file = File::create_new(directory.join(name)).expect("a new file");
            Arc::new(Mutex::new(BufWriter::new(file)))
        };
        Journal {
            publishers: file("publishers.jsonl"),
            clients: file("clients.jsonl"),
            faults: file("faults.jsonl"),
            directory: Arc::new(Directory {
                path: directory,
                was_right: AtomicBool::new(false),
            }),
        }
    }

    /// The run was right, and nobody need read this again.
    pub(crate) fn was_right(&self) {
        self.directory.was_right.store(true, Ordering::Relaxed);
    }

    /// Appends a record.
    pub(crate) fn write(&self, record: &Record) {
        let file = match record {
            Record::Intent { .. } | Record::Answer { .. } | Record::Shape { .. } => {
                &self.publishers
            }
            Record::Trimmed { .. } | Record::Fault { .. } => &self.faults,
            _ => &self.clients,
        };
        let line = serde_json::to_string(record).expect("a record is JSON");
        let mut file = file.lock().expect("no writer panics");
        writeln!(file, "{line}").expect("the journal can be written");
    }

    /// Every record so far, in the order of each file. Others may be writing: each file is read up to where it
    /// ended, with a whole line, when nobody was.
    pub(crate) fn read(&self) -> Vec<Record> {
        let files = [
            ("publishers.jsonl", &self.publishers),
            ("clients.jsonl", &self.clients),
            ("faults.jsonl", &self.faults),
        ];
        let records = files.into_iter().flat_map(|(name, file)| {
            let length = {
                let mut file = file.lock().expect("no writer panics");
                file.flush().expect("the journal can be written");
                file.get_ref()
                    .metadata()
                    .expect("the journal is there")
                    .len()
            };
            read(&self.directory.path.join(name), length)
        });
        records.collect()
    }

    /// What was done to the system, with the seconds since the first of it.
    pub(crate) fn fault_log(&self) -> String {
        let faults: Vec<(Moment, String)> = self
            .read()
            .into_iter()
            .filter_map(|record| match record {
                Record::Fault { at, fault } => Some((at, fault)),
                _ => None,
            })
            .collect();
        let begin = faults.first().map_or(0, |(at, _)| *at);
        let lines = faults
            .iter()
            .map(|(at, fault)| format!("  {:>7.3} s  {fault}\n", (at - begin) as f64 / 1e6));
        lines.collect()
    }
}

fn read(path: &Path, length: u64) -> Vec<Record> {
    let file = File::open(path).expect("the journal is there");
    let file = BufReader::new(file.take(length));
    file.lines()
        .map(|line| {
            let line = line.expect("the journal is text");
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
        })
        .collect()
}
