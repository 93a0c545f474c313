//! The wire form of a cursor: short, URL-safe, versioned text.
//!
//! ```text
//! 1~SNAP~NEWEST.TAG                                one mark
//! 1~SNAP~NEWEST~NEXT~SENT.REST.TAG                 between two
//!
//! SNAP   XMAX                  nothing in progress
//!        X0.D.d1.d2…           X0 the lowest transaction in progress, D = XMAX − X0,
//!                              each d the distance of the next one in progress
//! NEXT   D[_f1.f2…][_n1.n2…]   the second snapshot as difference from the first: XMAX grown by D,
//!                              places of those that have finished, those newly in progress
//!        -SNAP                 in full, when it does not follow the first
//! REST   newest id of the second mark − SENT
//! TAG    eight hex digits of the newest event
//! ```
//!
//! Every cursor has exactly one text, and what decoding allocates is bounded by the text's length.

use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;

use super::{Cursor, Leg, Mark, Snapshot, Tag};

/// The longest text of a cursor, in bytes; a position that needs more is not written.
pub const TEXT_MAX: usize = 4096;

/// The version that is written, and the only one read.
const VERSION: &str = "1";

/// The text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: expected the text of an `id:` line or of a `cursor` field, unchanged")]
pub struct CursorError;

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        if text.len() > TEXT_MAX {
            return Err(CursorError);
        }
        parse(text).ok_or(CursorError)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(mark) => {
                write!(f, "{VERSION}~")?;
                write_snapshot(f, &mark.snapshot)?;
                write!(f, "~{}.{}", mark.newest, mark.tag)
            }
            Self::Between { from, to, sent } => {
                write_way(f, from, to)?;
                write_sent(f, to, *sent)
            }
        }
    }
}

impl Cursor {
    /// The wire form, or `None` when it would exceed [`TEXT_MAX`].
    pub fn to_text(&self) -> Option<String> {
        let text = self.to_string();
        (text.len() <= TEXT_MAX).then_some(text)
    }
}

/// Writes the many cursors of one leg, which differ only in the id last sent.
#[derive(Debug)]
pub struct LegText {
    way: String,
    to: Mark,
}

impl LegText {
    /// Prepares the part that all cursors of the leg share.
    pub fn new(leg: &Leg) -> Self {
        let mut way = String::with_capacity(64);
        write_way(&mut way, &leg.from, &leg.to).expect("a string takes all");
        Self {
            way,
            to: leg.to.clone(),
        }
    }

    /// The wire form once events up to `sent` have gone out, or `None` beyond [`TEXT_MAX`].
    pub fn at(&self, sent: i64) -> Option<String> {
        let mut text = String::with_capacity(self.way.len() + 32);
        text.push_str(&self.way);
        write_sent(&mut text, &self.to, sent).expect("a string takes all");
        (text.len() <= TEXT_MAX).then_some(text)
    }
}

fn write_way(out: &mut impl Write, from: &Mark, to: &Mark) -> fmt::Result {
    write!(out, "{VERSION}~")?;
    write_snapshot(out, &from.snapshot)?;
    write!(out, "~{}~", from.newest)?;
    write_next(out, &from.snapshot, &to.snapshot)
}

fn write_sent(out: &mut impl Write, to: &Mark, sent: i64) -> fmt::Result {
    write!(out, "~{sent}.{}.{}", to.newest - sent, to.tag)
}

fn write_snapshot(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let Some((&lowest, others)) = snapshot.in_progress().split_first() else {
        return write!(out, "{}", snapshot.xmax());
    };
    write!(out, "{lowest}.{}", snapshot.xmax() - lowest)?;
    let mut before = lowest;
    for &xid in others {
        write!(out, ".{}", xid - before)?;
        before = xid;
    }
    Ok(())
}

fn write_next(out: &mut impl Write, first: &Snapshot, second: &Snapshot) -> fmt::Result {
    if !second.follows(first) {
        out.write_char('-')?;
        return write_snapshot(out, second);
    }
    write!(out, "{}", second.xmax() - first.xmax())?;
    let finished = || {
        let places = first.in_progress().iter().enumerate();
        places
            .filter(|(_, xid)| second.sees(**xid))
            .map(|(n, _)| n as u64 + 1)
    };
    let started = || {
        let new = second.in_progress().iter().copied();
        new.filter(|&xid| xid >= first.xmax())
            .map(|xid| xid - first.xmax() + 1)
    };
    if finished().next().is_some() || started().next().is_some() {
        out.write_char('_')?;
        write_distances(out, finished())?;
    }
    if started().next().is_some() {
        out.write_char('_')?;
        write_distances(out, started())?;
    }
    Ok(())
}

/// Ascending numbers above 0, each as its distance from the one before.
fn write_distances(out: &mut impl Write, numbers: impl Iterator<Item = u64>) -> fmt::Result {
    let mut before = 0;
    for number in numbers {
        let dot = if before == 0 { "" } else { "." };
        write!(out, "{dot}{}", number - before)?;
        before = number;
    }
    Ok(())
}

fn parse(text: &str) -> Option<Cursor> {
    let mut parts = text.split('~');
    if parts.next()? != VERSION {
        return None;
    }
    let snapshot = parse_snapshot(parts.next()?)?;
    let position = parts.next()?;
    let cursor = match parts.next() {
        None => {
            let (newest, tag) = position.split_once('.')?;
            Cursor::At(Mark {
                snapshot: Arc::new(snapshot),
                newest: parse_id(newest)?,
                tag: tag.parse().ok()?,
            })
        }
        Some(next) => {
            let next = parse_next(&snapshot, next)?;
            let mut fields = parts.next()?.splitn(3, '.');
            let sent = parse_id(fields.next()?)?;
            let newest = sent.checked_add(parse_id(fields.next()?)?)?;
            let tag = fields.next()?.parse().ok()?;
            Cursor::Between {
                from: Mark {
                    snapshot: Arc::new(snapshot),
                    newest: parse_id(position)?,
                    tag: Tag::default(),
                },
                to: Mark {
                    snapshot: Arc::new(next),
                    newest,
                    tag,
                },
                sent,
            }
        }
    };
    parts.next().is_none().then_some(cursor)
}

fn parse_snapshot(text: &str) -> Option<Snapshot> {
    let mut numbers = text.split('.').map(parse_number);
    let lowest = numbers.next()??;
    let Some(width) = numbers.next() else {
        return Snapshot::new(lowest, Vec::new());
    };
    let xmax = lowest.checked_add(width?)?;
    let mut in_progress = vec![lowest];
    let mut before = lowest;
    for distance in numbers {
        before = before.checked_add(distance?)?;
        in_progress.push(before);
    }
    Snapshot::new(xmax, in_progress)
}

fn parse_next(first: &Snapshot, text: &str) -> Option<Snapshot> {
    if let Some(full) = text.strip_prefix('-') {
        // One cursor, one text: what follows the first is written as a difference.
        return parse_snapshot(full).filter(|second| !second.follows(first));
    }
    let mut fields = text.splitn(3, '_');
    let xmax = first.xmax().checked_add(parse_number(fields.next()?)?)?;
    let finished = fields.next();
    let started = fields.next();
    if finished == Some("") && started.is_none() {
        return None;
    }
    let mut in_progress = Vec::new();
    let mut places = parse_distances(finished.unwrap_or(""))?
        .into_iter()
        .peekable();
    for (n, &xid) in first.in_progress().iter().enumerate() {
        if places.next_if_eq(&(n as u64 + 1)).is_none() {
            in_progress.push(xid);
        }
    }
    if places.next().is_some() {
        return None;
    }
    if let Some(started) = started {
        let started = parse_distances(started)?;
        if started.is_empty() {
            return None;
        }
        for number in started {
            in_progress.push(first.xmax().checked_add(number - 1)?);
        }
    }
    Snapshot::new(xmax, in_progress)
}

fn parse_distances(text: &str) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    if text.is_empty() {
        return Some(numbers);
    }
    let mut before = 0u64;
    for distance in text.split('.') {
        let distance = parse_number(distance).filter(|&distance| distance > 0)?;
        before = before.checked_add(distance)?;
        numbers.push(before);
    }
    Some(numbers)
}

fn parse_id(text: &str) -> Option<i64> {
    parse_number(text)?.try_into().ok()
}

/// Decimal digits without sign or leading zero.
fn parse_number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    if !digits || !canonical {
        return None;
    }
    text.parse().ok()
}
