//! A Postgres of nothing but its counters: which transaction and event ids it hands out, which
//! snapshots it takes, what a crash takes back and what trimming takes away.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tidings::cursor::{Cursor, Floor, Leg, Mark, Snapshot, Standing, Tag};

/// How long a day of the log is, in ticks of the model's clock.
const DAY: u64 = 50;

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) xid: u64,
    pub(super) topic: usize,
    /// By the model's clock; also its `created_at`.
    pub(super) inserted: u64,
    pub(super) committed: u64,
}

impl Row {
    pub(super) fn tag(&self) -> Tag {
        Tag::of(self.id, self.xid, self.inserted as i64)
    }
}

#[derive(Default)]
pub(super) struct Transaction {
    pub(super) xid: Option<u64>,
    pub(super) rows: Vec<Row>,
}

/// What Postgres does, as far as it matters here.
pub(super) struct Postgres {
    pub(super) clock: u64,
    pub(super) next_xid: u64,
    pub(super) next_id: i64,
    pub(super) latest_completed: u64,
    /// What survives a crash at least.
    pub(super) flushed: (u64, i64),
    pub(super) open: BTreeMap<usize, Transaction>,
    /// The log as it can be read, and all that was ever committed.
    pub(super) log: BTreeMap<i64, Row>,
    pub(super) all: BTreeMap<i64, Row>,
    pub(super) floor: Floor,
}

impl Postgres {
    pub(super) fn new() -> Self {
        Self {
            clock: 1,
            next_xid: 10,
            next_id: 1,
            latest_completed: 9,
            flushed: (9, 0),
            open: BTreeMap::new(),
            log: BTreeMap::new(),
            all: BTreeMap::new(),
            floor: Floor {
                snapshot: Snapshot::new(10, vec![]).expect("plain"),
                xid: 0,
                id: 0,
                tag: Tag(0),
            },
        }
    }

    /// As `pg_current_snapshot()`: `xmax` follows what has completed, savepoints are not listed.
    pub(super) fn snapshot(&self) -> Snapshot {
        let xmax = self.latest_completed + 1;
        let open: BTreeSet<u64> = self.open.values().filter_map(|tx| tx.xid).collect();
        Snapshot::new(xmax, open.range(..xmax).copied().collect()).expect("ascends")
    }

    pub(super) fn mark(&self) -> Mark {
        let newest = self.log.values().next_back();
        Mark {
            snapshot: Arc::new(self.snapshot()),
            newest: newest.map_or(self.floor.id, |row| row.id),
            tag: newest.map_or(self.floor.tag, Row::tag),
        }
    }

    pub(super) fn completed(&mut self, xid: u64) {
        self.latest_completed = self.latest_completed.max(xid);
    }

    pub(super) fn new_xid(&mut self) -> u64 {
        self.next_xid += 1;
        self.next_xid - 1
    }

    pub(super) fn new_id(&mut self) -> i64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub(super) fn own_xid(&mut self, writer: usize) -> u64 {
        if let Some(xid) = self.open.entry(writer).or_default().xid {
            return xid;
        }
        let xid = self.new_xid();
        self.open.entry(writer).or_default().xid = Some(xid);
        xid
    }

    pub(super) fn insert(&mut self, writer: usize, topic: usize) {
        let row = Row {
            xid: self.own_xid(writer),
            id: self.new_id(),
            topic,
            inserted: self.clock,
            committed: 0,
        };
        let transaction = self.open.get_mut(&writer).expect("it has an id");
        transaction.rows.push(row);
    }

    /// A savepoint that wrote and was rolled back: an id of each kind is gone.
    pub(super) fn rolled_back_savepoint(&mut self, writer: usize) {
        self.own_xid(writer);
        let xid = self.new_xid();
        self.new_id();
        self.completed(xid);
    }

    pub(super) fn commit(&mut self, writer: usize, draw: usize) {
        let Some(Transaction {
            xid: Some(xid),
            rows,
        }) = self.open.remove(&writer)
        else {
            return;
        };
        // The commit flushes its own traces, and as much of the others' as was written before.
        let newest = rows.last().map_or(0, |row| row.id);
        let least = (self.flushed.0.max(xid), self.flushed.1.max(newest));
        let spare = (self.next_xid - 1 - least.0, self.next_id - 1 - least.1);
        self.flushed = (
            least.0 + draw as u64 % (spare.0 + 1),
            least.1 + draw as i64 % (spare.1 + 1),
        );
        self.completed(xid);
        for mut row in rows {
            row.committed = self.clock;
            self.all.insert(row.id, row.clone());
            self.log.insert(row.id, row);
        }
    }

    pub(super) fn roll_back(&mut self, writer: usize) {
        if let Some(Transaction { xid: Some(xid), .. }) = self.open.remove(&writer) {
            self.completed(xid);
        }
    }

    /// Whatever no flushed commit vouches for is handed out again.
    pub(super) fn crash(&mut self) {
        self.open.clear();
        self.next_xid = self.flushed.0 + 1;
        self.next_id = self.flushed.1 + 1;
        self.latest_completed = self.flushed.0;
    }

    /// Truncates the oldest day, unless somebody has written there or it holds the newest event.
    pub(super) fn trim(&mut self) {
        let day = |row: &Row| row.inserted / DAY;
        let Some(oldest) = self.log.values().map(day).min() else {
            return;
        };
        let mut open = self.open.values().flat_map(|tx| &tx.rows);
        let newest = self.log.values().next_back().expect("not empty");
        if open.any(|row| day(row) == oldest) || day(newest) == oldest {
            return;
        }
        let snapshot = self.snapshot();
        let (trimmed, kept): (BTreeMap<i64, Row>, _) = std::mem::take(&mut self.log)
            .into_iter()
            .partition(|(_, row)| day(row) == oldest);
        self.log = kept;
        let highest = trimmed.values().next_back().expect("the day was not empty");
        if highest.id > self.floor.id {
            self.floor.id = highest.id;
            self.floor.tag = highest.tag();
        }
        let xid = trimmed.values().map(|row| row.xid).max();
        self.floor.xid = self.floor.xid.max(xid.expect("the day was not empty"));
        self.floor.snapshot = snapshot;
        let own = self.new_xid();
        self.completed(own);
    }

    /// What `replay.sql` finds next: the leg and the id of the first event beyond `after`.
    pub(super) fn missed(
        &self,
        legs: &[Leg],
        topics: &[usize],
        leg: usize,
        after: i64,
    ) -> Option<(usize, i64)> {
        let on_leg = |(n, leg): (usize, &Leg), after: i64| {
            let mut rows = self.log.range(after + 1..).map(|(_, row)| row);
            let row = rows.find(|row| topics.contains(&row.topic) && leg.takes(row.xid, row.id))?;
            Some((n, row.id))
        };
        on_leg((leg, &legs[leg]), after).or_else(|| {
            let mut later = legs.iter().enumerate().skip(leg + 1);
            later.find_map(|(n, leg)| on_leg((n, leg), leg.after))
        })
    }

    pub(super) fn standing(&self, cursor: &Cursor) -> Standing {
        let anchor = self.log.get(&cursor.anchor().newest).map(Row::tag);
        cursor.standing(&self.floor, anchor)
    }
}
