//! The private Postgres keeps what it was given, comes back after any end, and leaves nothing.

use std::path::PathBuf;

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
