//! What every statement that reads the log answers with: a head that travels once, and events.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio_postgres::Row;

use super::connect::ConnectError;
use crate::cursor::{Floor, Mark, Snapshot, Tag};
use crate::event::Event;
use crate::topic::Topic;

/// What a statement tells beside its events.
#[derive(Debug)]
pub struct Head {
    /// The statement's own snapshot.
    pub snapshot: Snapshot,
    /// The newest event that it was asked for or sees, and its tag if it is there.
    pub newest: (i64, Option<Tag>),
    /// The tag of the event that anchors the position the statement started from, if it is there.
    pub anchor: Option<Tag>,
    /// What has been trimmed.
    pub floor: Floor,
}

impl Head {
    /// The position that the statement's snapshot sees whole.
    pub fn mark(&self) -> Mark {
        let (newest, tag) = match self.newest {
            (newest, Some(tag)) => (newest, tag),
            // An empty log: its newest event is the newest that was trimmed.
            (_, None) => (self.floor.id, self.floor.tag),
        };
        Mark {
            snapshot: self.snapshot.clone().into(),
            newest,
            tag,
        }
    }
}

/// Some events in the order of their ids, and whether there are more of the same kind.
#[derive(Debug)]
pub struct Page {
    /// What came once.
    pub head: Head,
    /// The events.
    pub events: Vec<Event>,
    /// Whether the page ended at its limit.
    pub more: bool,
}

impl Page {
    /// Reads the rows of a statement, the head first.
    pub(crate) fn read(rows: &[Row]) -> Result<Self, ConnectError> {
        let Some((head, rows)) = rows.split_first() else {
            return Err(ConnectError::Lost(
                "tidings.floor has no row; the schema is damaged",
            ));
        };
        let found: i64 = head.try_get("found")?;
        let events = read_events(rows)?;
        Ok(Self {
            more: found > events.len() as i64,
            head: read_head(head)?,
            events,
        })
    }
}

/// Reads the columns of a head.
pub(crate) fn read_head(row: &Row) -> Result<Head, ConnectError> {
    let newest: Option<i64> = row.try_get("newest_id")?;
    Ok(Head {
        snapshot: read_snapshot(row)?,
        newest: (newest.unwrap_or(0), tag(row.try_get("newest_tag")?)?),
        anchor: tag(row.try_get("anchor_tag")?)?,
        floor: read_floor(row)?,
    })
}

/// Reads the statement's own snapshot.
pub(crate) fn read_snapshot(row: &Row) -> Result<Snapshot, ConnectError> {
    snapshot(row.try_get("snapshot")?)
}

/// Reads the rows behind the head.
pub(crate) fn read_events(rows: &[Row]) -> Result<Vec<Event>, ConnectError> {
    rows.iter().map(event).collect()
}

/// Reads the columns of the floor.
pub(crate) fn read_floor(row: &Row) -> Result<Floor, ConnectError> {
    Ok(Floor {
        snapshot: snapshot(row.try_get("floor_snapshot")?)?,
        xid: row.try_get::<_, i64>("floor_xid")? as u64,
        id: row.try_get("floor_id")?,
        tag: tag(row.try_get("floor_tag")?)?.ok_or(MALFORMED)?,
    })
}

const MALFORMED: ConnectError = ConnectError::Lost("the database answered with a malformed row");

fn snapshot(text: &str) -> Result<Snapshot, ConnectError> {
    Snapshot::from_postgres(text).ok_or(MALFORMED)
}

fn tag(text: Option<&str>) -> Result<Option<Tag>, ConnectError> {
    text.map(|text| text.parse().map_err(|()| MALFORMED))
        .transpose()
}

/// A time in microseconds since 1970.
pub(crate) fn micros(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_micros() as i64,
        Err(before) => -(before.duration().as_micros() as i64),
    }
}

fn event(row: &Row) -> Result<Event, ConnectError> {
    Ok(Event {
        id: row.try_get("id")?,
        xid: row.try_get::<_, i64>("xid")? as u64,
        at: micros(row.try_get("created_at")?),
        topic: Topic::parse(row.try_get("topic")?).map_err(|_| MALFORMED)?,
        kind: row.try_get::<_, &str>("type")?.into(),
        data: row.try_get::<_, &str>("data")?.into(),
    })
}

/// The transactions in progress, as the statements take them.
pub(crate) fn in_progress(snapshot: &Snapshot) -> Vec<String> {
    snapshot.in_progress().iter().map(u64::to_string).collect()
}
