//! Cursor text: whatever a client sends back is refused, or is a cursor that has exactly this text.
//!
//! The input is one text, or two with a line end between them: then the second is where a replay from
//! the first leads to, and what a floor is made of. The algebra is held against its definition, for
//! transactions and ids on both sides of every bound.

use std::collections::BTreeSet;
use std::fmt::Debug;

use tidings::cursor::{Cursor, Floor, Leg, LegText, Mark, Snapshot, Standing, TEXT_MAX, Tag};

use crate::allocated::allocated;

/// What decoding may ask for, in bytes. A transaction takes two characters at least, becomes eight
/// bytes, and is held in a growing list of the first snapshot, again in the second, and once as a place.
fn bytes_max(text: &str) -> usize {
    512 + 32 * text.len().min(TEXT_MAX)
}

/// Transactions, and ids, that are tried out: enough for every bound of two cursors of common size.
const PROBES: usize = 24;

/// Reads one cursor, or two.
pub fn run(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(2, '\n');
    let cursor = lines.next().and_then(read);
    let target = lines.next().and_then(read);
    let Some(cursor) = cursor else { return false };
    let target = target.unwrap_or_else(|| cursor.clone());
    let probes = Probes::around(&cursor, &target);
    hold_marks(&cursor, &target, &probes);
    hold_legs(&cursor, &target, &probes);
    hold_standing(&cursor, &target, &probes);
    true
}

/// The cursor that a text is, if it is one.
fn read(text: &str) -> Option<Cursor> {
    let (cursor, bytes) = allocated(|| text.parse::<Cursor>());
    assert!(
        bytes <= bytes_max(text),
        "{bytes} bytes were asked for by a text of {}",
        text.len()
    );
    let cursor = cursor.ok()?;
    // One cursor, one text: so it is written as it was read.
    assert_eq!(cursor.to_text().as_deref(), Some(text));
    for mark in [cursor.first(), cursor.anchor()] {
        let snapshot = Snapshot::from_postgres(&mark.snapshot.to_string());
        assert_eq!(snapshot.as_ref(), Some(&*mark.snapshot));
    }
    Some(cursor)
}

/// Events that lie on both sides of every bound.
struct Probes(Vec<(u64, i64)>);

impl Probes {
    fn around(cursor: &Cursor, target: &Cursor) -> Probes {
        let (mut xids, mut ids) = (BTreeSet::from([u64::MAX]), BTreeSet::from([1, i64::MAX]));
        for cursor in [cursor, target] {
            for mark in [cursor.first(), cursor.anchor()] {
                let running = mark.snapshot.in_progress();
                let ends = running.iter().take(4).chain(running.iter().rev().take(4));
                for xid in ends.chain([&mark.snapshot.xmax()]) {
                    xids.extend([xid.saturating_sub(1), *xid, xid.saturating_add(1)]);
                }
                ids.extend(around(mark.newest));
            }
            if let Cursor::Between { sent, .. } = cursor {
                ids.extend(around(*sent));
            }
        }
        // Ids and transactions of events begin at 1.
        let ids: Vec<i64> = ids.into_iter().filter(|id| *id > 0).take(PROBES).collect();
        let xids = xids.into_iter().filter(|xid| *xid > 0).take(PROBES);
        let pairs = xids.flat_map(|xid| ids.iter().map(move |id| (xid, *id)));
        Probes(pairs.collect())
    }

    /// Holds a rule for every event.
    fn hold(&self, what: &dyn Debug, rule: impl Fn(u64, i64) -> bool) {
        for &(xid, id) in &self.0 {
            assert!(rule(xid, id), "event {id} of transaction {xid}: {what:?}");
        }
    }
}

fn around(id: i64) -> [i64; 3] {
    [id.saturating_sub(1), id, id.saturating_add(1)]
}

/// What Postgres means by visible.
fn visible(snapshot: &Snapshot, xid: u64) -> bool {
    xid < snapshot.xmax() && !snapshot.in_progress().contains(&xid)
}

/// The definition of seen, from its two parts.
fn seen(cursor: &Cursor, xid: u64, id: i64) -> bool {
    let of_mark = |mark: &Mark, bound| id <= bound && visible(&mark.snapshot, xid);
    match cursor {
        Cursor::At(mark) => of_mark(mark, mark.newest),
        Cursor::Between { from, to, sent } => of_mark(from, from.newest) || of_mark(to, *sent),
    }
}

/// What a cursor sees, and what its relations to a mark claim.
fn hold_marks(cursor: &Cursor, target: &Cursor, probes: &Probes) {
    let mark = target.first();
    probes.hold(cursor, |xid, id| {
        cursor.sees(xid, id) == seen(cursor, xid, id)
    });
    if cursor.covers(mark) {
        probes.hold(&(cursor, mark), |xid, id| {
            !mark.sees(xid, id) || cursor.sees(xid, id)
        });
    }
    if cursor.is_behind(mark) {
        probes.hold(&(cursor, mark), |xid, id| {
            !cursor.sees(xid, id) || mark.sees(xid, id)
        });
    }
}

/// A replay hands out everything that its target has seen and the cursor has not, once.
fn hold_legs(cursor: &Cursor, target: &Cursor, probes: &Probes) {
    let legs = cursor.legs(target);
    assert!((1..=3).contains(&legs.len()));
    for leg in &legs {
        hold_leg_text(leg);
    }
    let grows = |cursor: &Cursor| cursor.anchor().covers(cursor.first());
    let later = target.first().covers(cursor.anchor()) && target.first().covers(cursor.first());
    if grows(cursor) && grows(target) && later {
        probes.hold(&(cursor, target), |xid, id| {
            let sent = legs.iter().filter(|leg| leg.takes(xid, id)).count();
            let missed = seen(target, xid, id) && !seen(cursor, xid, id);
            sent == usize::from(missed)
        });
    }
}

/// The positions along a leg can be written and read again.
fn hold_leg_text(leg: &Leg) {
    let text = LegText::new(leg);
    for sent in [leg.after.min(leg.until), leg.until] {
        let written = text.at(sent);
        assert_eq!(written, leg.at(sent).to_text());
        // A position that does not fit is not written.
        if let Some(written) = written {
            assert!(written.len() <= TEXT_MAX);
            let read: Cursor = written.parse().expect("what is written is read");
            assert_eq!(read.to_text(), Some(written));
        }
    }
    let end = leg.end();
    if let Some(written) = end.to_text() {
        assert!(written.parse::<Cursor>().is_ok(), "{written}");
    }
}

/// A cursor is served only when it has seen all that was trimmed, in the history that it knows.
fn hold_standing(cursor: &Cursor, target: &Cursor, probes: &Probes) {
    let (mark, tag) = (target.first(), cursor.anchor().tag);
    let snapshot = Snapshot::clone(&mark.snapshot);
    for (xid, id) in [
        (0, 0),
        (snapshot.xmax() - 1, mark.newest),
        (u64::MAX, i64::MAX),
    ] {
        let floor = Floor {
            snapshot: snapshot.clone(),
            xid,
            id,
            tag: target.anchor().tag,
        };
        let other = Tag(!tag.0);
        assert_eq!(cursor.standing(&floor, Some(other)), Standing::Diverged);
        for found in [None, Some(tag)] {
            let standing = cursor.standing(&floor, found);
            if standing != Standing::Served {
                continue;
            }
            probes.hold(&(cursor, &floor), |xid, id| {
                let trimmed = id <= floor.id && xid <= floor.xid && visible(&floor.snapshot, xid);
                !trimmed || cursor.sees(xid, id)
            });
        }
    }
}
