//! A database session for one short command.
//!
//! It prepares nothing and depends on nothing that another statement has left in the session, so
//! that it works through every pooler. Errors come back in the server's own words, with its hint.

use std::ops::Deref;
use std::time::Duration;

use anyhow::anyhow;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::Failure;
use crate::config::DatabaseArgs;
use crate::postgres::connect::tell;
use crate::postgres::{ConnectError, Database};

/// How long opening a session may take, with its greeting: nobody at a terminal waits longer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// A session whose connection is driven in the background, for as long as it is held.
pub(super) struct Plain {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Plain {
    /// Opens a session named `tidings/<name>`.
    pub(super) async fn open(database: &Database, name: &str) -> Result<Self, ConnectError> {
        let connecting = tokio::time::timeout(OPEN_TIMEOUT, database.connect(name));
        let (client, connection) = connecting
            .await
            .map_err(|_| ConnectError::Lost("the database did not answer within 10 s"))??;
        let driver = tokio::spawn(async move {
            // An error of the connection reaches whoever uses the client.
            let _ = connection.await;
        });
        Ok(Self { client, driver })
    }
}

impl Deref for Plain {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// The database that the command line names.
pub(super) fn database(args: &DatabaseArgs) -> Result<Database, Failure> {
    let url = args.url();
    let url = url.map_err(|fault| Failure::Usage(format!("DATABASE_URL: {fault}")))?;
    Database::parse(&url).map_err(failure)
}

/// How a command ends that the database has failed.
pub(super) fn failure(error: ConnectError) -> Failure {
    match error {
        ConnectError::Url(_) => Failure::Usage(error.to_string()),
        ConnectError::Postgres(error) if error.as_db_error().is_some() => refusal(&error),
        error => Failure::Error(error.into()),
    }
}

/// How a command ends whose statement was refused.
pub(super) fn refusal(error: &tokio_postgres::Error) -> Failure {
    let missing = [
        SqlState::INVALID_SCHEMA_NAME,
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
    ];
    let told = tell(error);
    // Our own functions say who speaks, and so does the program.
    let told = told.strip_prefix("tidings: ").unwrap_or(&told);
    Failure::Error(match error.code() {
        Some(code) if missing.contains(code) => {
            anyhow!("{told}\nDoes this database have the schema of tidings? Run `tidings migrate`.")
        }
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => anyhow!(
            "{told}\nWhoever publishes is granted tidings_publisher, a gateway tidings_gateway."
        ),
        _ => anyhow!("{told}"),
    })
}
