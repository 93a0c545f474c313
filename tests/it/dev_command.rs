//! `tidings dev` as a newcomer meets it: what it prints works, its page loses nothing, and Ctrl-C
//! stops everything.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tokio_postgres::NoTls;

use crate::support::program;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `tidings dev` in a directory of its own.
struct Dev {
    process: Child,
    directory: PathBuf,
    banner: Vec<String>,
}

impl Dev {
    fn start(name: &str) -> Dev {
        let name = format!("tidings-dev-{name}-{}", std::process::id());
        let directory = env::temp_dir().join(name);
        let process = Command::new(env!("CARGO_BIN_EXE_tidings"))
            .arg("dev")
            .arg("--data")
            .arg(&directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut dev = Dev {
            process,
            directory,
            banner: Vec::new(),
        };
        for line in BufReader::new(dev.process.stdout.take().unwrap()).lines() {
            dev.banner.push(line.unwrap());
            let title = dev.banner.iter().rev().nth(1);
            if title.is_some_and(|title| title.starts_with("Publish")) {
                return dev;
            }
        }
        panic!("it ended before it was ready: {:?}", dev.banner);
    }

    /// What stands behind a word of the banner.
    fn printed(&self, word: &str) -> &str {
        let line = self.banner.iter().find_map(|line| line.strip_prefix(word));
        line.unwrap_or_else(|| panic!("{word} is not printed"))
            .trim()
    }

    /// The command below a title of the banner.
    fn command(&self, title: &str) -> &str {
        let title = self
            .banner
            .iter()
            .position(|line| line.starts_with(title))
            .unwrap();
        self.banner[title + 1].trim()
    }

    /// The stream of the topic `demo`, as the printed URL and token open it.
    fn stream(&self) -> BufReader<TcpStream> {
        let (address, path) = self.printed("Gateway")["http://".len()..]
            .split_once('/')
            .unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let token = self.printed("Token");
        write!(
            socket,
            "GET /{path}?topic=demo HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n\r\n"
        )
        .unwrap();
        BufReader::new(socket)
    }

    fn end(&mut self, signal: &str) -> Option<i32> {
        send(signal, self.process.id().to_string());
        let status = self.process.wait().unwrap();
        assert_eq!(status.signal(), None, "it did not end by itself");
        status.code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // Its Postgres goes by itself, and writes until it is gone.
        let deadline = Instant::now() + PATIENCE;
        while self.directory.join("data/postmaster.pid").exists() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn send(signal: &str, process: String) {
    let sent = Command::new("kill")
        .args(["-s", signal, "--", &process])
        .status()
        .unwrap();
    assert!(sent.success());
}

/// The first line that begins so.
fn line_of(stream: &mut impl BufRead, beginning: &str) -> String {
    let mut lines = stream.lines().map(|line| line.expect("the stream goes on"));
    lines
        .find(|line| line.starts_with(beginning))
        .expect("the stream goes on")
}

#[test]
fn what_the_printed_psql_publishes_reaches_the_printed_stream() {
    let dev = Dev::start("psql");
    let mut stream = dev.stream();
    line_of(&mut stream, "event: tidings.ready");
    let psql = dev.command("Publish from SQL");
    let published = Command::new("sh").args(["-c", psql]).output().unwrap();
    assert!(published.status.success(), "{psql}: {published:?}");
    // The first line of data belongs to `ready`.
    line_of(&mut stream, "data: ");
    let event = line_of(&mut stream, "data: ");
    assert!(
        event.contains(r#""type":"hello""#) && event.contains("psql"),
        "{event}"
    );
}

#[test]
fn ctrl_c_stops_everything_while_streams_are_open() {
    for signal in ["INT", "TERM"] {
        let mut dev = Dev::start(signal);
        let mut stream = dev.stream();
        line_of(&mut stream, "event: tidings.ready");
        assert_eq!(dev.end(signal), Some(0));
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let database = dev.printed("Database");
        let server = database.split(['@', '/']).nth(3).unwrap();
        assert!(
            TcpStream::connect(server).is_err(),
            "Postgres still answers at {server}"
        );
        assert!(
            !dev.directory.join("data/postmaster.pid").exists(),
            "it was not stopped in order"
        );
    }
}

/// What the page says about itself each time that it comes back.
#[derive(Debug, serde::Deserialize)]
struct Books {
    received: u64,
    replayed: u64,
    gaps: u64,
    duplicates: u64,
    resumes: u64,
}

#[tokio::test]
async fn the_page_loses_and_doubles_nothing_while_its_line_is_cut_again_and_again() {
    let Some(chromium) = program(
        &["chromium", "chromium-browser", "google-chrome"],
        "chromium",
    ) else {
        return;
    };
    let dev = Dev::start("page");
    let browser = Browser::start(&chromium, &format!("{}&storm", dev.printed("Open")));
    let (client, connection) = tokio_postgres::connect(dev.printed("Database"), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    // The page finds gaps by the numbers of a page, whoever that is.
    let publish =
        "SELECT tidings.publish('demo', 'test', jsonb_build_object('page', 'test', 'n', $1::int8))";
    let publish = client.prepare(publish).await.unwrap();
    let mut number = 0_i64;
    let deadline = Instant::now() + PATIENCE;
    let books = loop {
        number += 1;
        client.query_one(&publish, &[&number]).await.unwrap();
        match browser.books.recv_timeout(Duration::from_millis(10)) {
            Ok(books) if books.resumes >= 5 => break books,
            Ok(_) | Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => panic!("the browser has ended"),
        }
        assert!(Instant::now() < deadline, "the page does not come back");
    };
    assert_eq!((books.gaps, books.duplicates), (0, 0), "{books:?}");
    assert!(
        books.received > 100 && books.replayed > 10,
        "nothing was tried: {books:?}"
    );
}

/// A Chromium without a screen, and what its page writes to the console.
struct Browser {
    process: Child,
    profile: PathBuf,
    books: mpsc::Receiver<Books>,
}

impl Browser {
    fn start(chromium: &Path, url: &str) -> Browser {
        let profile = env::temp_dir().join(format!("tidings-chromium-{}", std::process::id()));
        let mut process = Command::new(chromium)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args(["--disable-component-update", "--enable-logging=stderr"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let (send, books) = mpsc::channel();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Some((_, rest)) = line.split_once("\"tidings {") else {
                    continue;
                };
                let (json, _) = rest.split_once('}').expect("the page writes JSON");
                let books = serde_json::from_str(&format!("{{{json}}}")).expect("as agreed");
                if send.send(books).is_err() {
                    return;
                }
            }
        });
        Browser {
            process,
            profile,
            books,
        }
    }
}

impl Drop for Browser {
    /// A browser is many processes: its whole group goes.
    fn drop(&mut self) {
        send("KILL", format!("-{}", self.process.id()));
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}
