//! The cursor: what a client has seen, as a Postgres snapshot.
//!
//! Sequence numbers are handed out before commit, so "id greater than the last one seen" loses the
//! row that commits late. A cursor names a snapshot instead, and *seen* is what Postgres means by
//! visible. Here are its rules without any I/O: what a cursor has seen, whether the trimmed log
//! can still serve it, and by which legs a replay leads from one position to another.

mod snapshot;
mod tag;
mod text;

use std::sync::Arc;

pub use snapshot::Snapshot;
pub use tag::Tag;
pub use text::{CursorError, LegText, TEXT_MAX};

/// A whole position: everything that a snapshot sees, up to the newest event in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The snapshot whose visible transactions have been seen.
    pub snapshot: Arc<Snapshot>,
    /// The highest id among the events that it sees; 0 while there are none. The id bounds what the
    /// snapshot claims: after a crash, ids of transactions that left no trace are used again
    /// below `xmax`, while ids of committed events only grow.
    pub newest: i64,
    /// The tag of that newest event, by which a rewritten history is noticed.
    pub tag: Tag,
}

impl Mark {
    /// Whether the event is part of this position.
    pub fn sees(&self, xid: u64, id: i64) -> bool {
        id <= self.newest && self.snapshot.sees(xid)
    }

    /// Whether everything that `other` has seen is part of this position.
    pub fn covers(&self, other: &Mark) -> bool {
        self.newest >= other.newest && self.snapshot.contains(&other.snapshot)
    }
}

/// What a client has seen: a mark, or, in the middle of a look or a page, two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// Up to date with one mark.
    At(Mark),
    /// On the way from one mark to the next: all of `from`, and of what `to` sees the ids up to
    /// `sent`. There are never more than two marks: a replay finishes `to` before it goes on.
    Between {
        /// The position before; its tag is not carried by the text and stays unknown after parsing.
        from: Mark,
        /// The position that will have been reached.
        to: Mark,
        /// The id of the last event that was sent on the way.
        sent: i64,
    },
}

impl Cursor {
    /// Whether the event has been seen.
    pub fn sees(&self, xid: u64, id: i64) -> bool {
        match self {
            Self::At(mark) => mark.sees(xid, id),
            Self::Between { from, to, sent } => {
                from.sees(xid, id) || (id <= *sent && to.snapshot.sees(xid))
            }
        }
    }

    /// The mark that has been seen whole; what it misses contains all that the cursor misses.
    pub fn first(&self) -> &Mark {
        match self {
            Self::At(mark) => mark,
            Self::Between { from, .. } => from,
        }
    }

    /// The mark whose newest event anchors the cursor in the history of the database.
    pub fn anchor(&self) -> &Mark {
        match self {
            Self::At(mark) => mark,
            Self::Between { to, .. } => to,
        }
    }

    /// Whether everything that `mark` has seen has surely been seen by this cursor.
    pub fn covers(&self, mark: &Mark) -> bool {
        self.pairs()
            .any(|(snapshot, bound)| bound >= mark.newest && snapshot.contains(&mark.snapshot))
    }

    /// Whether `mark` has surely seen everything that this cursor has seen.
    pub fn is_behind(&self, mark: &Mark) -> bool {
        self.pairs()
            .all(|(snapshot, bound)| mark.newest >= bound && mark.snapshot.contains(snapshot))
    }

    /// Whether the database can still serve this cursor: `found` is the tag of the event in the
    /// log that has the id of the cursor's newest event, if there is one.
    pub fn standing(&self, floor: &Floor, found: Option<Tag>) -> Standing {
        let Mark { newest, tag, .. } = *self.anchor();
        let known = match found {
            Some(found) => found == tag,
            None if newest == floor.id => newest == 0 || floor.tag == tag,
            // Its anchor was trimmed with newer events, or the history that held it is gone; both
            // mean that the gap cannot be told, and the floor says so below.
            None => newest < floor.id,
        };
        if !known {
            return Standing::Diverged;
        }
        let above_floor = self.pairs().any(|(snapshot, bound)| {
            bound >= floor.id && snapshot.contains_up_to(&floor.snapshot, floor.xid)
        });
        if above_floor {
            Standing::Served
        } else {
            Standing::Trimmed
        }
    }

    /// The legs by which a replay leads from this cursor to `target`: first the second mark is
    /// finished, then the way goes on from there.
    pub fn legs(&self, target: &Cursor) -> Vec<Leg> {
        let mut legs = Vec::with_capacity(3);
        let mut from = self.first().clone();
        if let Self::Between { to, sent, .. } = self {
            legs.push(Leg {
                from,
                to: to.clone(),
                after: *sent,
                until: to.newest,
            });
            from = to.clone();
        }
        legs.push(Leg::whole(from, target.first().clone()));
        if let Self::Between { from, to, sent } = target {
            legs.push(Leg {
                until: *sent,
                ..Leg::whole(from.clone(), to.clone())
            });
        }
        legs
    }

    /// The snapshots of this cursor, each with the highest id up to which it counts.
    fn pairs(&self) -> impl Iterator<Item = (&Snapshot, i64)> {
        let second = match self {
            Self::At(_) => None,
            Self::Between { to, sent, .. } => Some((&*to.snapshot, *sent)),
        };
        let first = self.first();
        std::iter::once((&*first.snapshot, first.newest)).chain(second)
    }
}

/// One leg of a replay: what `to` sees and `from` does not, in the order of ids, of the ids in
/// `after..=until` without `after` itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leg {
    /// The position that has been reached before.
    pub from: Mark,
    /// The position that this leg leads to.
    pub to: Mark,
    /// Ids up to this one were sent earlier.
    pub after: i64,
    /// The last id of this leg.
    pub until: i64,
}

impl Leg {
    /// A leg that leads all the way from one mark to another.
    pub fn whole(from: Mark, to: Mark) -> Self {
        let until = to.newest;
        Self {
            from,
            to,
            after: 0,
            until,
        }
    }

    /// Whether the event is to be sent on this leg.
    pub fn takes(&self, xid: u64, id: i64) -> bool {
        id > self.after
            && id <= self.until
            && self.to.snapshot.sees(xid)
            && !self.from.sees(xid, id)
    }

    /// The position once events up to `sent` have gone out.
    pub fn at(&self, sent: i64) -> Cursor {
        Cursor::Between {
            from: self.from.clone(),
            to: self.to.clone(),
            sent,
        }
    }

    /// The position once the leg is through.
    pub fn end(&self) -> Cursor {
        if self.until == self.to.newest {
            Cursor::At(self.to.clone())
        } else {
            self.at(self.until)
        }
    }
}

/// What trimming has taken away so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The snapshot in which the last trimming took place, without those of whom nothing was trimmed as far
    /// as that is known.
    pub snapshot: Snapshot,
    /// The highest transaction id of a trimmed event.
    pub xid: u64,
    /// The highest id of a trimmed event; 0 while nothing has been trimmed.
    pub id: i64,
    /// The tag of the event with that id.
    pub tag: Tag,
}

/// How a cursor stands to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything that it has not seen is there.
    Served,
    /// Some of what it has not seen may have been trimmed.
    Trimmed,
    /// The history that it has seen is not the database's.
    Diverged,
}

#[cfg(test)]
mod tests;
