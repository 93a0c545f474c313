//! A real PgBouncer before a test's database, on a Unix socket of its own.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tokio_postgres::NoTls;

use super::client::PATIENCE;
use super::postgres::Database;
use super::program;

/// A pooler that runs; dropping it ends it.
pub(crate) struct PgBouncer {
    child: Child,
    directory: PathBuf,
    database: String,
}

impl PgBouncer {
    /// Starts one, where it is installed; `settings` are lines of its configuration, such as `pool_mode = transaction`.
    pub(crate) async fn start(database: &Database, settings: &[&str]) -> Option<PgBouncer> {
        let program = program(&["pgbouncer"], "pgbouncer")?;
        let name = format!("tidings-pgbouncer-{:08x}", fastrand::u32(..));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a directory for the pooler");
        // Started by root, it becomes another user, who puts socket and log here.
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).expect("ours");
        let url = database.url();
        let server: tokio_postgres::Config = url.parse().expect("a URL");
        let port = server.get_ports()[0];
        let place = directory.display();
        let configuration = format!(
            "[databases]\n* = host=127.0.0.1 port={port} user=postgres\n\
             [pgbouncer]\nunix_socket_dir = {place}\nlisten_port = 6432\nauth_type = any\n\
             logfile = {place}/log\n{}\n",
            settings.join("\n")
        );
        let file = directory.join("pgbouncer.ini");
        fs::write(&file, configuration).expect("ours");
        let child = Command::new(program)
            .args(
                rustix::process::getuid()
                    .is_root()
                    .then_some("--user=postgres"),
            )
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pgbouncer starts");
        let pooler = PgBouncer {
            child,
            directory,
            database: database.name().to_owned(),
        };
        pooler.answers().await;
        Some(pooler)
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        format!(
            "host={} port=6432 user=postgres dbname={} sslmode=disable",
            self.directory.display(),
            self.database
        )
    }

    async fn answers(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio_postgres::connect(&self.url(), NoTls).await {
                Ok(_) => return,
                Err(error) if tokio::time::Instant::now() > deadline => {
                    let log = fs::read_to_string(self.directory.join("log"));
                    panic!("pgbouncer: {error}: {}", log.unwrap_or_default());
                }
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
