//! Partitions: the days of the log that are made ahead, emptied when they are old, and dropped.
//!
//! One pass does whatever is due. Promises: one gateway at a time; no publisher waits behind it for longer than
//! the 50 ms that each of its lock requests may take; what cannot be locked now is left for the next pass.

use std::time::Duration;

use tokio::time::sleep;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row};

/// What one pass has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Another gateway was at it, so that nothing was done here.
    pub elsewhere: bool,
    /// Partitions made for today and the days ahead.
    pub created: u64,
    /// Keys forgotten.
    pub forgotten: u64,
    /// Partitions emptied, because they ended longer ago than the retention.
    pub trimmed: u64,
    /// Empty partitions dropped.
    pub dropped: u64,
    /// Acts that others' locks did not permit.
    pub left: u64,
}

/// Does one pass over the days of the log: makes those ahead, trims what is older than `retention`, drops
/// what is empty. Safe to call from any number of gateways at any time, outside of a transaction.
pub async fn maintain(client: &Client, retention: Duration) -> Result<Maintenance, Error> {
    let row = client
        .query_one("select pg_try_advisory_lock($1)", &[&MAINTAINING])
        .await?;
    if !row.get::<_, bool>(0) {
        return Ok(Maintenance {
            elsewhere: true,
            ..Maintenance::default()
        });
    }
    let result = pass(client, retention).await;
    // The lock ends with the session at the latest; an error here must not hide the other.
    let unlocked = client
        .execute("select pg_advisory_unlock($1)", &[&MAINTAINING])
        .await;
    let done = result?;
    unlocked?;
    Ok(done)
}

/// The advisory lock of the gateway that maintains.
const MAINTAINING: i64 = 8_386_654_097_862_812_520;

/// Days made ahead: a gateway may be away for as long before events go to the default partition.
const DAYS_AHEAD: i32 = 3;

/// Keys forgotten in one transaction, which takes some tens of milliseconds.
const KEYS_AT_ONCE: i32 = 5_000;

/// How often a lock is asked for before it is left for the next pass.
const TRIES: u32 = 8;

async fn pass(client: &Client, retention: Duration) -> Result<Maintenance, Error> {
    let mut done = Maintenance::default();
    let keep = retention.as_secs_f64();

    for ahead in 0..=DAYS_AHEAD {
        match attempt(client, ADD_PARTITION, &[&ahead]).await? {
            Some(row) => done.created += u64::from(row.get::<_, bool>(0)),
            None => done.left += 1,
        }
    }
    loop {
        let row = client.query_one(TRIM_KEYS, &[&keep, &KEYS_AT_ONCE]).await?;
        let forgotten = count(&row);
        done.forgotten += forgotten;
        if forgotten == 0 {
            break;
        }
    }
    match attempt(client, TRIM, &[&keep]).await? {
        Some(row) => done.trimmed = count(&row),
        None => done.left += 1,
    }
    loop {
        match attempt(client, DROP_EMPTY, &[]).await? {
            Some(row) if row.get(0) => done.dropped += 1,
            Some(_) => break,
            None => {
                done.left += 1;
                break;
            }
        }
    }
    Ok(done)
}

const ADD_PARTITION: &str = "select tidings.add_partition(date_trunc('day', clock_timestamp() at time zone 'UTC')::date + $1::integer)";
const TRIM_KEYS: &str = "select tidings.trim_keys(make_interval(secs => $1), $2)";
const TRIM: &str = "select tidings.trim(make_interval(secs => $1))";
const DROP_EMPTY: &str = "select tidings.drop_empty()";

/// Runs one act in a transaction of its own; none if its locks were not to be had. The waits between tries are
/// jittered, since a fixed pace could meet a regular holder of the lock every time.
async fn attempt(
    client: &Client,
    act: &str,
    arguments: &[&(dyn ToSql + Sync)],
) -> Result<Option<Row>, Error> {
    for left in (0..TRIES).rev() {
        match client.query_one(act, arguments).await {
            Ok(row) => return Ok(Some(row)),
            Err(error) if !lock_was_missed(&error) => return Err(error),
            Err(_) if left > 0 => sleep(Duration::from_millis(fastrand::u64(20..120))).await,
            Err(_) => {}
        }
    }
    Ok(None)
}

fn lock_was_missed(error: &Error) -> bool {
    matches!(error.code(), Some(code) if *code == SqlState::LOCK_NOT_AVAILABLE || *code == SqlState::T_R_DEADLOCK_DETECTED)
}

fn count(row: &Row) -> u64 {
    u64::try_from(row.get::<_, i64>(0)).expect("the functions of partitions count from zero")
}
