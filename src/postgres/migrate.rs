//! Migrations: the numbered files of `sql/`, applied once each and remembered with their checksums.
//!
//! Promises: any number of processes may migrate at once, and each file is applied exactly once, in
//! order, whole or not at all. A database that is newer than this binary, or whose migrations
//! are not the ones in here, is refused before anything is changed, and so is a log that holds rows of
//! another cluster. Every error says what to do.

use std::time::Duration;

use aws_lc_rs::digest;
use tokio::time::{Instant, sleep};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// Applies every migration that is missing and returns the names of those it applied.
///
/// Waits for another process that is migrating, and refuses a log with rows of another cluster.
pub async fn migrate(client: &mut Client) -> Result<Vec<&'static str>, MigrateError> {
    let applied = apply(client).await?;
    refuse_foreign_rows(client).await?;
    Ok(applied)
}

/// Says whether the database is exactly as this binary needs it; changes nothing.
pub async fn check(client: &Client) -> Result<(), MigrateError> {
    refuse_server(client).await?;
    let missing = compare(&recorded(client).await?)?;
    if !missing.is_empty() {
        return Err(MigrateError::Behind {
            missing: names(missing),
        });
    }
    refuse_foreign_rows(client).await
}

/// Migrates, then empties the log and sets a new floor, so that a database which was restored from
/// a dump or filled by logical replication can be used: every older cursor is reset.
pub async fn adopt(client: &mut Client) -> Result<(), MigrateError> {
    apply(client).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let adopted = async {
            let transaction = client.transaction().await?;
            // Emptying needs the log to itself. Asking for short moments only means that the
            // publishers who queue behind the request never wait for long.
            transaction
                .batch_execute("set local lock_timeout = '50ms'; select tidings.adopt()")
                .await?;
            transaction.commit().await
        };
        match adopted.await {
            Err(error) if lock_was_missed(&error) && Instant::now() < deadline => pause().await,
            Err(error) if lock_was_missed(&error) => return Err(MigrateError::InUse),
            result => return result.map_err(MigrateError::Postgres),
        }
    }
}

/// Why a database was not migrated, or cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server lacks what tidings rests on.
    #[error("this is PostgreSQL {version}: tidings needs PostgreSQL 15 or newer")]
    TooOld {
        /// The server's version, as it calls itself.
        version: String,
    },
    /// Snapshots that are read on a standby lack running transactions.
    #[error("this server is a standby: point DATABASE_URL at the primary")]
    Standby,
    /// A newer tidings has been here.
    #[error(
        "this database has migration {name}, which this tidings does not know: run the newer tidings"
    )]
    Newer {
        /// The newest migration that the database has.
        name: String,
    },
    /// What was applied is not what this binary would have applied.
    #[error(
        "migration {name} in this database is not the one in this tidings: run the release that \
         migrated it, or restore the row of {name} in tidings.migration"
    )]
    Altered {
        /// The first migration that differs.
        name: String,
    },
    /// There is something left to apply.
    #[error("this database lacks {}: run `tidings migrate`", missing.join(", "))]
    Behind {
        /// The migrations to apply, in order.
        missing: Vec<&'static str>,
    },
    /// Rows bear transaction numbers of another cluster.
    #[error(
        "the log holds rows that were not published here (a restored dump, logical replication, rows inserted \
         by hand), so nobody can tell who has seen them: run `tidings migrate --adopt`, which empties the \
         log and makes every client fetch its state anew"
    )]
    Foreign,
    /// Somebody else holds the migration lock.
    #[error(
        "another process has been migrating this database for a minute: let it finish, or end it, and try again"
    )]
    Busy,
    /// The log could not be emptied.
    #[error(
        "the log is in use: end the transactions that have published and are still open, and try again"
    )]
    InUse,
    /// A migration failed, and was rolled back.
    #[error("migration {name} failed and was rolled back; those before it stand")]
    Failed {
        /// The migration.
        name: &'static str,
        /// What Postgres said.
        source: Error,
    },
    /// A statement about the migrations failed.
    #[error(
        "the database could not be asked for its migrations: does the role own the schema tidings, or is it granted tidings_gateway?"
    )]
    Postgres(#[from] Error),
}

/// Oldest first. A file that has been released is never changed: what follows goes into a new one.
const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        name: "0001_log",
        sql: include_str!("../../sql/0001_log.sql"),
    },
    Migration {
        version: 2,
        name: "0002_publish",
        sql: include_str!("../../sql/0002_publish.sql"),
    },
    Migration {
        version: 3,
        name: "0003_cursor",
        sql: include_str!("../../sql/0003_cursor.sql"),
    },
    Migration {
        version: 4,
        name: "0004_watch",
        sql: include_str!("../../sql/0004_watch.sql"),
    },
    Migration {
        version: 5,
        name: "0005_state",
        sql: include_str!("../../sql/0005_state.sql"),
    },
    Migration {
        version: 6,
        name: "0006_partitions",
        sql: include_str!("../../sql/0006_partitions.sql"),
    },
    Migration {
        version: 7,
        name: "0007_roles",
        sql: include_str!("../../sql/0007_roles.sql"),
    },
];

/// The advisory lock of whoever migrates.
const MIGRATING: i64 = 8_386_654_097_862_812_521;

/// How long a lock that others hold is asked for.
const PATIENCE: Duration = Duration::from_secs(60);

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// A row of `tidings.migration`.
struct Recorded {
    version: i32,
    name: String,
    checksum: String,
}

async fn apply(client: &mut Client) -> Result<Vec<&'static str>, MigrateError> {
    refuse_server(client).await?;
    // Refused before the first change, and without a lock.
    if compare(&recorded(client).await?)?.is_empty() {
        return Ok(Vec::new());
    }
    lock(client).await?;
    let result = apply_locked(client).await;
    // The lock ends with the session at the latest; an error here must not hide the other.
    let unlocked = client
        .execute("select pg_advisory_unlock($1)", &[&MIGRATING])
        .await;
    let applied = result?;
    unlocked?;
    Ok(applied)
}

/// Takes the migration lock. It is asked for and never waited for: a session that waits
/// inside a statement holds a snapshot, which deadlocks with CREATE INDEX CONCURRENTLY of the one that has it.
async fn lock(client: &Client) -> Result<(), MigrateError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let row = client
            .query_one("select pg_try_advisory_lock($1)", &[&MIGRATING])
            .await?;
        if row.get(0) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(MigrateError::Busy);
        }
        pause().await;
    }
}

async fn apply_locked(client: &mut Client) -> Result<Vec<&'static str>, MigrateError> {
    client.batch_execute(BOOKKEEPING).await?;
    // Read again: whoever had the lock before has probably done it all.
    let missing = compare(&recorded(client).await?)?;
    for migration in missing {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match apply_one(client, migration).await {
                Err(error) if lock_was_missed(&error) && Instant::now() < deadline => pause().await,
                Err(source) => {
                    let name = migration.name;
                    return Err(MigrateError::Failed { name, source });
                }
                Ok(()) => break,
            }
        }
    }
    Ok(names(missing))
}

/// Where migrations are remembered; it cannot be a migration itself.
const BOOKKEEPING: &str = "
    create schema if not exists tidings;
    create table if not exists tidings.migration (
        version    integer     not null,
        name       text        not null,
        checksum   text        not null,
        applied_at timestamptz not null default clock_timestamp(),
        constraint migration_pkey primary key (version)
    )";

async fn apply_one(client: &mut Client, migration: &Migration) -> Result<(), Error> {
    let transaction = client.transaction().await?;
    // A migration that waits for a lock makes others wait behind it, so it soon gives up and tries again.
    transaction
        .batch_execute("set local lock_timeout = '1s'; set local client_min_messages = notice")
        .await?;
    transaction.batch_execute(migration.sql).await?;
    transaction
        .execute(
            "insert into tidings.migration (version, name, checksum) values ($1, $2, $3)",
            &[
                &migration.version,
                &migration.name,
                &checksum(migration.sql),
            ],
        )
        .await?;
    transaction.commit().await
}

async fn refuse_server(client: &Client) -> Result<(), MigrateError> {
    let row = client
        .query_one(
            "select current_setting('server_version_num')::integer, current_setting('server_version'), pg_is_in_recovery()",
            &[],
        )
        .await?;
    if row.get::<_, i32>(0) < 150_000 {
        return Err(MigrateError::TooOld {
            version: row.get(1),
        });
    }
    if row.get(2) {
        return Err(MigrateError::Standby);
    }
    Ok(())
}

async fn refuse_foreign_rows(client: &Client) -> Result<(), MigrateError> {
    let row = client
        .query_one("select tidings.foreign_rows()", &[])
        .await?;
    if row.get(0) {
        return Err(MigrateError::Foreign);
    }
    Ok(())
}

/// What the database says was applied, oldest first; nothing if it has never heard of tidings.
async fn recorded(client: &Client) -> Result<Vec<Recorded>, Error> {
    let known = client
        .query_one("select to_regclass('tidings.migration') is not null", &[])
        .await?;
    if !known.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client
        .query(
            "select version, name, checksum from tidings.migration order by version",
            &[],
        )
        .await?;
    let recorded = rows.iter().map(|row| Recorded {
        version: row.get(0),
        name: row.get(1),
        checksum: row.get(2),
    });
    Ok(recorded.collect())
}

/// Returns what is missing in a database with these migrations, or why it is not ours to migrate.
fn compare(recorded: &[Recorded]) -> Result<&'static [Migration], MigrateError> {
    if let Some(newest) = recorded.get(MIGRATIONS.len()..).and_then(<[_]>::last) {
        let name = newest.name.clone();
        return Err(MigrateError::Newer { name });
    }
    for (theirs, ours) in recorded.iter().zip(MIGRATIONS) {
        if theirs.version > MIGRATIONS.len() as i32 {
            let name = theirs.name.clone();
            return Err(MigrateError::Newer { name });
        }
        if (theirs.version, theirs.name.as_str()) != (ours.version, ours.name)
            || theirs.checksum != checksum(ours.sql)
        {
            let name = ours.name.to_owned();
            return Err(MigrateError::Altered { name });
        }
    }
    Ok(&MIGRATIONS[recorded.len()..])
}

fn names(migrations: &[Migration]) -> Vec<&'static str> {
    migrations.iter().map(|migration| migration.name).collect()
}

fn checksum(sql: &str) -> String {
    let digest = digest::digest(&digest::SHA256, sql.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn lock_was_missed(error: &Error) -> bool {
    matches!(error.code(), Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED)
}

/// Waits between two tries, never as long as somebody else who started at the same time.
async fn pause() {
    sleep(Duration::from_millis(fastrand::u64(50..150))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a database has after all of `MIGRATIONS`.
    fn complete() -> Vec<Recorded> {
        let recorded = MIGRATIONS.iter().map(|migration| Recorded {
            version: migration.version,
            name: migration.name.to_owned(),
            checksum: checksum(migration.sql),
        });
        recorded.collect()
    }

    #[test]
    fn versions_count_from_one_and_names_begin_with_them() {
        for (n, migration) in (1..).zip(MIGRATIONS) {
            assert_eq!(migration.version, n);
            assert!(migration.name.starts_with(&format!("{n:04}_")));
        }
    }

    #[test]
    fn a_complete_database_lacks_nothing_and_a_new_one_everything() {
        assert!(compare(&complete()).expect("unaltered").is_empty());
        assert_eq!(compare(&[]).expect("unaltered").len(), MIGRATIONS.len());
        let half = &complete()[..3];
        assert_eq!(compare(half).expect("unaltered")[0].version, 4);
    }

    #[test]
    fn a_newer_database_is_refused() {
        let mut recorded = complete();
        recorded.push(Recorded {
            version: 9000,
            name: "9000_future".into(),
            checksum: String::new(),
        });
        let refusal = compare(&recorded).err().map(|error| error.to_string());
        assert!(refusal.is_some_and(|text| text.contains("9000_future")));
        // Also when one of ours is gone, so that the numbers of rows are the same.
        recorded.remove(0);
        assert!(compare(&recorded).is_err());
    }

    #[test]
    fn an_altered_or_missing_migration_is_refused() {
        for spoil in [
            (|row| row.checksum.push('0')) as fn(&mut Recorded),
            |row| row.name.push('x'),
            |row| row.version = 3,
        ] {
            let mut recorded = complete();
            spoil(&mut recorded[1]);
            assert!(
                matches!(compare(&recorded), Err(MigrateError::Altered { name }) if name == "0002_publish")
            );
        }
        let mut recorded = complete();
        recorded.remove(2);
        assert!(matches!(
            compare(&recorded),
            Err(MigrateError::Altered { .. })
        ));
    }
}
