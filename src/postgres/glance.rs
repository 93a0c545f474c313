//! The glance: the look as it nearly always is, at a part of its cost.
//!
//! It promises what a look does, or nothing: whatever it does not know by its own snapshot (a first look, more than a
//! page, a mark that the log no longer bears out) is left to the look itself. What it spares is by knowing what the
//! last look of the same session has told.

use std::sync::Mutex;
use std::time::SystemTime;

use tokio_postgres::{Row, Statement};

use super::connect::{ConnectError, Session};
use super::page::{Head, Page, in_progress, micros, read_events, read_floor, read_snapshot};
use crate::cursor::{Cursor, Floor, Mark, Snapshot, Standing, Tag};

/// The statements, and what was told last.
pub(super) struct Glance {
    all: Statement,
    snapshot: Statement,
    told: Mutex<Option<Told>>,
}

/// What the session has told last.
#[derive(Clone)]
struct Told {
    snapshot: Snapshot,
    floor: Floor,
    newest: i64,
    /// When the newest event was inserted; `None` while there is none.
    at: Option<SystemTime>,
    /// Whether no event was found.
    quiet: bool,
}

impl Glance {
    /// Prepares the statements.
    pub(super) async fn prepare(session: &Session) -> Result<Self, ConnectError> {
        Ok(Self {
            all: session
                .prepare(include_str!("../../sql/queries/glance.sql"))
                .await?,
            snapshot: session
                .prepare(include_str!("../../sql/queries/snapshot.sql"))
                .await?,
            told: Mutex::new(None),
        })
    }

    /// Takes note of what a look has told, or the position.
    pub(super) fn remember(&self, head: &Head, at: Option<SystemTime>, quiet: bool) {
        *self.told.lock().expect(UNPOISONED) = Some(Told {
            snapshot: head.snapshot.clone(),
            floor: head.floor.clone(),
            newest: head.mark().newest,
            at,
            quiet,
        });
    }

    fn told(&self) -> Option<Told> {
        self.told.lock().expect(UNPOISONED).clone()
    }

    /// An empty look, if no transaction has finished since the last one, which was empty too. Whoever knows of events
    /// does not ask, nor is it asked after a look that found some: then there will soon be more.
    pub(super) async fn still(
        &self,
        session: &Session,
        from: &Mark,
    ) -> Result<Option<Page>, ConnectError> {
        let told = self.told();
        let Some(told) = told.filter(|told| told.quiet && told.snapshot == *from.snapshot) else {
            return Ok(None);
        };
        let row = session.query_one(&self.snapshot, &[]).await?;
        let snapshot = read_snapshot(&row)?;
        Ok((snapshot == told.snapshot).then(|| Page {
            head: Head {
                snapshot,
                newest: (from.newest, Some(from.tag)),
                anchor: Some(from.tag),
                floor: told.floor,
            },
            events: Vec::new(),
            more: false,
        }))
    }

    /// What has been committed since `from`, if it is a page at most and nothing is in doubt.
    pub(super) async fn all(
        &self,
        session: &Session,
        from: &Mark,
        most_rows: i64,
        most_bytes: i64,
    ) -> Result<Option<Page>, ConnectError> {
        let told = self.told();
        let Some(Told { at, .. }) = told.filter(|told| told.newest == from.newest) else {
            return Ok(None);
        };
        let rows = session
            .query(
                &self.all,
                &[
                    &from.snapshot.xmax().to_string(),
                    &in_progress(&from.snapshot),
                    &from.newest,
                    &at,
                    &most_rows,
                    &most_bytes,
                ],
            )
            .await?;
        let Some((head, rows)) = rows.split_first() else {
            return Ok(None);
        };
        if head.try_get::<_, i64>("found")? != rows.len() as i64 {
            return Ok(None);
        }
        let anchor = own_tag(head, from.newest, at)?;
        let floor = read_floor(head)?;
        if Cursor::At(from.clone()).standing(&floor, anchor) != Standing::Served {
            return Ok(None);
        }
        let events = read_events(rows)?;
        // Found are late events too, whose ids lie below the mark's newest.
        let last = events.last().filter(|last| last.id > from.newest);
        let newest = match last {
            Some(last) => (last.id, Some(Tag::of(last.id, last.xid, last.at))),
            None => (from.newest, Some(from.tag)),
        };
        let at = match (last, rows.last()) {
            (Some(_), Some(row)) => row.try_get("created_at")?,
            _ => at,
        };
        let page = Page {
            head: Head {
                snapshot: read_snapshot(head)?,
                newest,
                anchor,
                floor,
            },
            events,
            more: false,
        };
        self.remember(&page.head, at, page.events.is_empty());
        Ok(Some(page))
    }
}

const UNPOISONED: &str = "nothing panics while it is held";

/// The tag of the mark's newest event, if it is there.
fn own_tag(head: &Row, id: i64, at: Option<SystemTime>) -> Result<Option<Tag>, ConnectError> {
    let xid = head.try_get::<_, Option<i64>>("own_xid")?;
    Ok(xid
        .zip(at)
        .map(|(xid, at)| Tag::of(id, xid as u64, micros(at))))
}
