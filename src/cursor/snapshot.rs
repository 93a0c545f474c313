//! A Postgres snapshot as plain data: which transactions had finished when it was taken.
//!
//! It promises to agree with `pg_visible_in_snapshot` on every transaction id. The `xmin` of
//! Postgres is not kept: whatever lies below the first transaction in progress is visible anyway.

use std::fmt;

/// Which transactions had finished at one moment.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Transactions from here on had not finished.
    xmax: u64,
    /// Transactions below `xmax` that were still in progress; ascending, distinct.
    in_progress: Box<[u64]>,
}

impl Snapshot {
    /// A snapshot from its parts, or `None` unless `in_progress` ascends strictly and stays below `xmax`.
    /// No transaction has an id whose low 32 bits are 0: Postgres reads no snapshot that names one.
    pub fn new(xmax: u64, in_progress: Vec<u64>) -> Option<Self> {
        if [xmax]
            .iter()
            .chain(&in_progress)
            .any(|xid| *xid as u32 == 0)
        {
            return None;
        }
        let ascends = in_progress.windows(2).all(|pair| pair[0] < pair[1]);
        let below = in_progress.last().is_none_or(|&last| last < xmax);
        (ascends && below).then(|| Self {
            xmax,
            in_progress: in_progress.into(),
        })
    }

    /// Reads Postgres' own text form, `xmin:xmax:xip,xip,…`.
    pub fn from_postgres(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let _xmin: u64 = parts.next()?.parse().ok()?;
        let xmax = parts.next()?.parse().ok()?;
        let in_progress = parts
            .next()?
            .split(',')
            .filter(|xid| !xid.is_empty())
            .map(|xid| xid.parse().ok())
            .collect::<Option<Vec<u64>>>()?;
        if parts.next().is_some() {
            return None;
        }
        Self::new(xmax, in_progress)
    }

    /// The first transaction id that counts as not yet started.
    pub fn xmax(&self) -> u64 {
        self.xmax
    }

    /// The transactions that were in progress, ascending.
    pub fn in_progress(&self) -> &[u64] {
        &self.in_progress
    }

    /// The first transaction that had not finished: all below had.
    pub fn first_unfinished(&self) -> u64 {
        *self.in_progress.first().unwrap_or(&self.xmax)
    }

    /// Whether `xid` had finished, which for the xid of a row that exists means: committed.
    pub fn sees(&self, xid: u64) -> bool {
        xid < self.xmax && self.in_progress.binary_search(&xid).is_err()
    }

    /// Whether this snapshot sees every transaction that `other` sees.
    pub fn contains(&self, other: &Snapshot) -> bool {
        self.contains_up_to(other, u64::MAX)
    }

    /// Whether this snapshot sees every transaction up to `last`, inclusive, that `other` sees.
    pub fn contains_up_to(&self, other: &Snapshot, last: u64) -> bool {
        let misses_one = self
            .in_progress
            .iter()
            .any(|&xid| xid <= last && other.sees(xid));
        if misses_one {
            return false;
        }
        // Of the range that this snapshot does not see at all, the other may see nothing either:
        // each id in it must be one of the other's transactions in progress.
        let end = other.xmax.min(last.saturating_add(1));
        if self.xmax >= end {
            return true;
        }
        let from = other.in_progress.partition_point(|&xid| xid < self.xmax);
        let to = other.in_progress.partition_point(|&xid| xid < end);
        (to - from) as u64 == end - self.xmax
    }

    /// Whether this snapshot can have been taken after `earlier` in one history without a crash:
    /// what had finished stays finished.
    pub(crate) fn follows(&self, earlier: &Snapshot) -> bool {
        self.xmax >= earlier.xmax
            && self
                .in_progress
                .iter()
                .all(|&xid| xid >= earlier.xmax || earlier.in_progress.binary_search(&xid).is_ok())
    }
}

/// Postgres' own text form, as `pg_snapshot` reads it.
impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let xmin = self.in_progress.first().unwrap_or(&self.xmax);
        write!(f, "{xmin}:{}:", self.xmax)?;
        for (n, xid) in self.in_progress.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{xid}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({self})")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Snapshots around a small range of ids, so that they overlap often.
    pub(crate) fn any_snapshot() -> impl Strategy<Value = Snapshot> {
        (3u64..60, proptest::collection::btree_set(1u64..60, 0..8)).prop_map(|(xmax, xids)| {
            let in_progress = xids.into_iter().filter(|&xid| xid < xmax).collect();
            Snapshot::new(xmax, in_progress).expect("a set ascends")
        })
    }

    proptest! {
        #[test]
        fn contains_up_to_is_what_sees_says_of_every_id(
            a in any_snapshot(), b in any_snapshot(), last in 0u64..70,
        ) {
            let by_hand = (0..=last).all(|xid| !b.sees(xid) || a.sees(xid));
            prop_assert_eq!(a.contains_up_to(&b, last), by_hand);
            let whole = (0..100).all(|xid| !b.sees(xid) || a.sees(xid));
            prop_assert_eq!(a.contains(&b), whole);
        }

        #[test]
        fn postgres_text_round_trips(a in any_snapshot()) {
            prop_assert_eq!(Snapshot::from_postgres(&a.to_string()), Some(a));
        }
    }

    #[test]
    fn malformed_text_is_none() {
        for text in [
            "", "1", "1:2", "1:2:3:4", "1:2:x", "1:2:2", "1:9:5,4", "-1:2:", "1:9:5,5",
        ] {
            assert_eq!(Snapshot::from_postgres(text), None, "{text}");
        }
    }
}
