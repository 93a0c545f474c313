//! What `tidings dev` prepares is found again at the next start, and is for its owner alone.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use tidings::dev::{DevArgs, Development};
use tokio_postgres::{Client, NoTls};

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let name = format!("tidings-development-{name}-{}", std::process::id());
        Directory(std::env::temp_dir().join(name))
    }

    async fn prepare(&self) -> Development {
        let (listen, ops_listen) = (None, None);
        let args = DevArgs {
            data: Some(self.0.clone()),
            listen,
            ops_listen,
        };
        Development::prepare(&args).await.unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn argument<'a>(development: &'a Development, flag: &str) -> &'a str {
    let mut arguments = development.arguments().iter();
    arguments
        .find(|argument| *argument == flag)
        .expect("the flag is given");
    arguments.next().expect("it has a value")
}

async fn connect(development: &Development) -> Client {
    let url = argument(development, "--database-url");
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn a_second_start_finds_the_data_the_address_and_the_secret() {
    let directory = Directory::new("again");
    let first = directory.prepare().await;
    connect(&first)
        .await
        .batch_execute("CREATE TABLE kept AS SELECT 1")
        .await
        .unwrap();
    let url = argument(&first, "--database-url").to_owned();
    let secret = argument(&first, "--jwt-secret").to_owned();
    assert!(secret.len() >= 64, "{secret:?} can be guessed");
    first.stop().await.unwrap();
    assert!(
        tokio_postgres::connect(&url, NoTls).await.is_err(),
        "it still runs"
    );

    let second = directory.prepare().await;
    assert_eq!(argument(&second, "--database-url"), url);
    assert_eq!(argument(&second, "--jwt-secret"), secret);
    connect(&second)
        .await
        .query_one("SELECT FROM kept", &[])
        .await
        .unwrap();
}

#[tokio::test]
async fn only_its_owner_reads_the_secret_and_the_password() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("owner");
    let _development = directory.prepare().await;
    for name in ["secret", "password", "postgres.log", "lock"] {
        let mode = Path::metadata(&directory.0.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{name} has mode {mode:o}");
    }
}

#[tokio::test]
async fn the_banner_carries_the_key_of_the_page_and_the_commands_that_the_page_shows() {
    let directory = Directory::new("banner");
    let development = directory.prepare().await;
    let (_, rest) = development
        .banner()
        .split_once("/#")
        .expect("the page's address has a key");
    let key = rest.lines().next().unwrap();
    let (kind, session) = development
        .page()
        .answer(&format!("/dev/session/{key}"))
        .unwrap();
    assert_eq!(kind, "application/json");
    let session: serde_json::Value = serde_json::from_slice(&session).unwrap();
    let commands = session["commands"].as_array().unwrap();
    assert_eq!(commands.len(), 3);
    for command in commands {
        assert!(
            development
                .banner()
                .contains(command["text"].as_str().unwrap()),
            "{command}"
        );
    }
    assert!(
        development
            .banner()
            .contains(session["token"].as_str().unwrap())
    );
}

#[tokio::test]
async fn an_address_that_was_chosen_is_chosen_anew_and_one_that_was_named_is_not() {
    let directory = Directory::new("taken");
    let mut chosen = directory.prepare().await;
    let taken: SocketAddr = argument(&chosen, "--listen").parse().unwrap();
    let listener = TcpListener::bind(taken);
    assert!(chosen.choose_again(taken).unwrap());
    let other = argument(&chosen, "--listen");
    assert_ne!(other, taken.to_string());
    assert!(chosen.banner().contains(other), "{}", chosen.banner());
    chosen.stop().await.unwrap();
    drop(listener);

    let args = DevArgs {
        data: Some(directory.0.clone()),
        listen: Some(taken),
        ops_listen: None,
    };
    let mut named = Development::prepare(&args).await.unwrap();
    assert!(!named.choose_again(taken).unwrap());
    named.stop().await.unwrap();
}
