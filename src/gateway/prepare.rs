//! Before the gateway opens its door: the database is there, and its schema is what it must be.

use super::StartError;
use crate::auth::Authority;
use crate::config::MigrateMode;
use crate::postgres::backoff::Backoff;
use crate::postgres::migrate::{self, MigrateError};
use crate::postgres::{ConnectError, Database, tickets};

/// Waits for the database and sees to its schema.
pub(super) async fn prepare(
    database: &Database,
    mode: MigrateMode,
    authority: &Authority,
) -> Result<(), StartError> {
    let mut backoff = Backoff::new();
    loop {
        match prepare_once(database, mode, authority).await {
            Ok(()) => return Ok(()),
            Err(Unprepared::Schema(error)) => return Err(StartError::Schema(error)),
            Err(Unprepared::Away(error)) => {
                backoff.log("start", &error);
                backoff.wait().await;
            }
        }
    }
}

enum Unprepared {
    Away(ConnectError),
    Schema(MigrateError),
}

/// A database that goes away in the middle is waited for like one that is not there yet.
fn schema(error: MigrateError) -> Unprepared {
    match error {
        MigrateError::Postgres(error) | MigrateError::Failed { source: error, .. }
            if is_away(&error) =>
        {
            Unprepared::Away(error.into())
        }
        error => Unprepared::Schema(error),
    }
}

/// Whether the server is gone or going: its connection, or what it says of itself (classes 08 and 57P).
fn is_away(error: &tokio_postgres::Error) -> bool {
    let code = error.code().map_or("", |code| code.code());
    error.is_closed() || code.starts_with("08") || code.starts_with("57P")
}

async fn prepare_once(
    database: &Database,
    mode: MigrateMode,
    authority: &Authority,
) -> Result<(), Unprepared> {
    let mut session = database
        .session("maintenance")
        .await
        .map_err(Unprepared::Away)?;
    match mode {
        MigrateMode::Auto => {
            let applied = migrate::migrate(session.client_mut()).await;
            let applied = applied.map_err(schema)?;
            if !applied.is_empty() {
                tracing::info!(migrations = ?applied, "schema brought up to date");
            }
        }
        MigrateMode::Check => migrate::check(&session).await.map_err(schema)?,
        MigrateMode::Off => {}
    }
    let key = tickets::key(&session).await.map_err(Unprepared::Away)?;
    match key {
        Some(key) => authority.accept_tickets(&key),
        None => tracing::warn!("this database user may not read the key of tickets; none are sold"),
    }
    Ok(())
}
