//! History: what a cursor has missed, read from the log page by page.
//!
//! Every page also tells whether the log is still the one in which the cursor, and the position
//! that the replay leads to, were made. A page is read whole before any of it is handed on.

use deadpool_postgres::GenericClient;
use tokio_postgres::types::ToSql;

use super::connect::ConnectError;
use super::page::{Head, Page, in_progress, read_floor, read_head};
use crate::cursor::{Cursor, Floor, Leg};
use crate::topic::Topic;

/// Where the log is now, in the snapshot of the client's transaction.
pub async fn position(client: &impl GenericClient) -> Result<Head, ConnectError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/position.sql"))
        .await?;
    read_head(&client.query_one(&statement, &[]).await?)
}

/// What has been trimmed until now. Truncated rows are gone for older snapshots too, so whoever
/// reads pages in one snapshot asks again in a new one, after the last.
pub async fn floor(client: &impl GenericClient) -> Result<Floor, ConnectError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/floor.sql"))
        .await?;
    read_floor(&client.query_one(&statement, &[]).await?)
}

/// How much a page may hold. It ends behind the event that reaches `bytes`.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Events.
    pub rows: i64,
    /// Bytes of their payload.
    pub bytes: i64,
}

/// A page of `leg` beyond the id `after`, for a replay from `cursor` to `target`. In its head,
/// `anchor` belongs to the cursor and `newest` to the target.
pub async fn page(
    client: &impl GenericClient,
    topics: &[Topic],
    leg: &Leg,
    after: i64,
    extent: Extent,
    (cursor, target): (&Cursor, &Cursor),
) -> Result<Page, ConnectError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/replay.sql"))
        .await?;
    let topics: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    let parameters: [&(dyn ToSql + Sync); 11] = [
        &topics,
        &leg.from.snapshot.xmax().to_string(),
        &in_progress(&leg.from.snapshot),
        &leg.from.newest,
        &leg.to.snapshot.to_string(),
        &after,
        &leg.until,
        &extent.rows,
        &extent.bytes,
        &cursor.anchor().newest,
        &target.anchor().newest,
    ];
    let rows = client.query(&statement, &parameters).await?;
    Page::read(&rows)
}

/// How many events `cursor` has missed on these legs, counted up to `most` + 1.
pub async fn missed(
    client: &impl GenericClient,
    topics: &[Topic],
    legs: &[Leg],
    most: i64,
) -> Result<i64, ConnectError> {
    let statement = client
        .prepare_cached(include_str!("../../sql/queries/missed.sql"))
        .await?;
    let topics: Vec<&str> = topics.iter().map(Topic::as_str).collect();
    let mut missed = 0;
    for leg in legs {
        let left = most + 1 - missed;
        let parameters: [&(dyn ToSql + Sync); 8] = [
            &topics,
            &leg.from.snapshot.xmax().to_string(),
            &in_progress(&leg.from.snapshot),
            &leg.from.newest,
            &leg.to.snapshot.to_string(),
            &leg.after,
            &leg.until,
            &left,
        ];
        missed += client
            .query_one(&statement, &parameters)
            .await?
            .try_get::<_, i64>(0)?;
        if missed > most {
            break;
        }
    }
    Ok(missed)
}
