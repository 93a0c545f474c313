//! What the checker says: everything that is wrong, and how much there was to be wrong about.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// One thing that is wrong; events by their keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// A commit was answered, and its event is not there.
    Lost(String),
    /// A transaction failed, and its event is there.
    Undead(String),
    /// Of a transaction, some is there and some is not.
    Torn(String),
    /// An event came twice.
    Doubled(String),
    /// An event of its topics never came.
    Missing(String),
    /// An event came that was not committed, or that differs from its row.
    Phantom(String),
    /// An event came that its token does not cover.
    Leaked(String),
    /// An event came after one that was published when it had already been committed.
    Late(String),
    /// An event came after the token had expired.
    Expired(String),
    /// A reset whose reason is not true.
    FalseReset { reason: String, cursor: String },
    /// A stream that had to be resumed, and was neither resumed nor reset.
    Forgotten { cursor: String },
    /// A sync whose state is not that of its cursor, or whose cursor has not seen what came before.
    FalseState { cursor: String },
    /// A refusal, after which an EventSource never comes back.
    Refused(u16),
    /// A client that did not get to the end.
    Unfinished,
}

/// The outcome of a run. Its counts are printed as `scripts/held.awk` reads them.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// What is wrong, with who saw it.
    pub(crate) wrongs: BTreeSet<(String, Wrong)>,
    /// Keys of commits that only the lost history held.
    pub(crate) lost_history: BTreeSet<String>,
    counts: BTreeMap<String, u64>,
}

impl Verdict {
    pub(super) fn wrong(&mut self, who: &str, wrong: Wrong) {
        self.wrongs.insert((who.to_owned(), wrong));
    }

    pub(super) fn count(&mut self, what: &str, times: u64) {
        match self.counts.get_mut(what) {
            Some(count) => *count += times,
            None => {
                self.counts.insert(what.to_owned(), times);
            }
        }
    }

    /// What is wrong, by kind: how often, and the first few.
    pub(crate) fn complaint(&self) -> String {
        let mut kinds = BTreeMap::<String, Vec<String>>::new();
        for (who, wrong) in &self.wrongs {
            let text = format!("{wrong:?}");
            let kind = text.split(['(', ' ']).next().unwrap_or_default().to_owned();
            kinds
                .entry(kind)
                .or_default()
                .push(format!("{who}: {text}"));
        }
        let lines = kinds.iter().map(|(kind, wrongs)| {
            let first = &wrongs[..wrongs.len().min(4)];
            format!("  {} {kind}: {}\n", wrongs.len(), first.join(", "))
        });
        lines.collect()
    }

    /// How often something happened, by the name under which it is printed.
    pub(crate) fn times(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or(0)
    }

    /// Everything that was counted and begins like this, together.
    pub(crate) fn all(&self, prefix: &str) -> u64 {
        let matching = self
            .counts
            .iter()
            .filter(|(what, _)| what.starts_with(prefix));
        matching.map(|(_, times)| times).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (what, times)) in self.counts.iter().enumerate() {
            let semicolon = if number == 0 { "" } else { "; " };
            write!(f, "{semicolon}{times} {what}")?;
        }
        if !self.lost_history.is_empty() {
            write!(f, "; {} only of the lost history", self.lost_history.len())?;
        }
        Ok(())
    }
}
