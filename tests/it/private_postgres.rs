//! The private Postgres keeps what it was given, comes back after any end, and leaves nothing.

use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use tidings::dev::cluster::{Access, Cluster, ClusterError, ClusterOptions, StopMode};
use tokio_postgres::{Client, NoTls};

use crate::support::postgres::{database, own_cluster};

async fn connect(cluster: &Cluster) -> Client {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

async fn count(cluster: &Cluster) -> i64 {
    connect(cluster)
        .await
        .query_one("SELECT count(*) FROM kept", &[])
        .await
        .unwrap()
        .get(0)
}

/// A directory that every user may reach, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let name = format!("tidings-{name}-{}", std::process::id());
        Directory(std::env::temp_dir().join(name))
    }

    fn start(&self) -> Result<Cluster, ClusterError> {
        let access = Access::Password;
        Cluster::start(ClusterOptions {
            directory: Some(&self.0),
            access,
            settings: &[],
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn databases_of_two_tests_know_nothing_of_each_other() {
    let (one, other) = (database(), database());
    one.connect()
        .await
        .batch_execute("CREATE TABLE kept ()")
        .await
        .unwrap();
    let seen = other
        .connect()
        .await
        .query_one("SELECT to_regclass('kept')::text", &[])
        .await;
    assert_eq!(seen.unwrap().get::<_, Option<String>>(0), None);
}

#[tokio::test]
async fn a_database_goes_with_its_handle() {
    let (gone, other) = (database(), database());
    let name = gone.name().to_owned();
    drop(gone);
    let left = "SELECT FROM pg_database WHERE datname = $1";
    assert!(
        other
            .connect()
            .await
            .query_opt(left, &[&name])
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn every_way_to_stop_keeps_the_data_and_the_address() {
    let mut own = own_cluster(&[]);
    let url = own.cluster.url("postgres");
    connect(&own.cluster)
        .await
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    for mode in [StopMode::Fast, StopMode::Immediate, StopMode::Kill] {
        own.cluster.stop(mode).unwrap();
        assert!(
            tokio_postgres::connect(&url, NoTls).await.is_err(),
            "{mode:?} did not stop it"
        );
        own.cluster.start_again().unwrap();
        assert_eq!(own.cluster.url("postgres"), url);
        assert_eq!(count(&own.cluster).await, 1, "after {mode:?}");
    }
}

#[tokio::test]
async fn a_directory_is_found_again_with_its_password_and_its_data() {
    let directory = Directory::new("found-again");
    let first = directory.start().unwrap();
    connect(&first)
        .await
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    let open = first.url("postgres");
    drop(first);

    let second = directory.start().unwrap();
    assert_eq!(count(&second).await, 1);
    let password = |url: &str| url.split(['/', '@']).nth(2).map(str::to_owned);
    assert_eq!(password(&open), password(&second.url("postgres")));
    let wrong = format!(
        "postgres://postgres:wrong@127.0.0.1:{}/postgres",
        second.port()
    );
    assert!(
        tokio_postgres::connect(&wrong, NoTls).await.is_err(),
        "any password will do"
    );
}

#[test]
fn a_directory_has_one_owner() {
    let directory = Directory::new("one-owner");
    let _first = directory.start().unwrap();
    match directory.start().map(drop) {
        Err(ClusterError::InUse { owner, .. }) => {
            assert_eq!(owner, std::process::id().to_string());
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_temporary_directory_goes_with_its_cluster() {
    let own = own_cluster(&[]);
    let data = own.cluster.data();
    assert!(data.exists());
    drop(own);
    assert!(!data.parent().unwrap().exists());
}

#[test]
fn settings_that_postgres_refuses_are_reported_in_its_own_words() {
    let settings = [("work_mem", "a lot")];
    let options = ClusterOptions {
        directory: None,
        access: Access::Trust,
        settings: &settings,
    };
    let error = Cluster::start(options).map(drop).unwrap_err().to_string();
    assert!(error.contains("work_mem"), "{error}");
}

/// In the process that will be killed, names the directory to hold.
const HOLD: &str = "TIDINGS_TEST_HOLD";

#[tokio::test]
async fn a_killed_owner_leaves_no_server_and_loses_nothing() {
    if let Some(directory) = env::var_os(HOLD) {
        hold(Path::new(&directory));
    }
    let directory = Directory::new("killed");
    let first = directory.start().unwrap();
    connect(&first)
        .await
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    drop(first);
    for also in ["nobody else", "the postmaster", "the watchdog"] {
        let (mut owner, postmaster, port) = start_owner(&directory.0);
        match also {
            "the postmaster" => kill(postmaster),
            "the watchdog" => kill(watchdog(&directory.0)),
            _ => {}
        }
        owner.kill().unwrap();
        owner.wait().unwrap();
        if also != "the watchdog" {
            let deadline = Instant::now() + Duration::from_secs(30);
            while TcpStream::connect(("127.0.0.1", port)).is_ok() {
                assert!(Instant::now() < deadline, "the server outlives its owner");
                thread::sleep(Duration::from_millis(10));
            }
        }
        let next = directory
            .start()
            .unwrap_or_else(|error| panic!("killed {also}: {error}"));
        assert_eq!(count(&next).await, 1, "killed {also}");
    }
}

/// Holds a cluster until this process is killed.
fn hold(directory: &Path) -> ! {
    let access = Access::Password;
    let options = ClusterOptions {
        directory: Some(directory),
        access,
        settings: &[],
    };
    let cluster = Cluster::start(options).unwrap();
    println!("\nholding {} {}", cluster.pid().unwrap(), cluster.port());
    loop {
        thread::park();
    }
}

/// This very test in a process of its own, once its server runs: with the postmaster and port.
fn start_owner(directory: &Path) -> (Child, u32, u16) {
    let test = "private_postgres::a_killed_owner_leaves_no_server_and_loses_nothing";
    let mut owner = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(HOLD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let line = lines
        .map(Result::unwrap)
        .find(|line| line.starts_with("holding"));
    let line = line.expect("the owner says that it runs");
    let mut words = line.split(' ').skip(1);
    let postmaster = words.next().unwrap().parse().unwrap();
    (owner, postmaster, words.next().unwrap().parse().unwrap())
}

fn watchdog(directory: &Path) -> u32 {
    let directory = directory.canonicalize().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut ids = processes.filter_map(|process| {
        let command_line = fs::read(process.path().join("cmdline")).ok()?;
        let command_line = String::from_utf8_lossy(&command_line);
        let ours = command_line.contains("tidings-watchdog\0")
            && command_line.contains(directory.to_str().unwrap());
        process.file_name().to_str()?.parse().ok().filter(|_| ours)
    });
    ids.next().expect("a watchdog runs")
}

fn kill(process: u32) {
    let killed = Command::new("kill")
        .args(["-KILL", &process.to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}
