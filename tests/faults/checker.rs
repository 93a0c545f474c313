//! The checker: whether what a journal tells is right, with the database as oracle.
//!
//! No client's claim is evidence for another's, and no publisher's either: an event was committed
//! iff the oracle has it. What was answered, seen, reset or synced is held against that. The checker is
//! itself tried in `mutations` with histories that are wrong in every way it knows.

mod client;
mod known;
pub(crate) mod mutations;
mod verdict;

use std::collections::{BTreeSet, HashMap};

use tidings::cursor::Cursor;

use self::client::ClientJudge;
pub(crate) use self::verdict::{Verdict, Wrong};
use crate::journal::{Moment, Outcome, Record};
use crate::oracle::{Fact, Oracle};

/// What a run may show beyond the rule that nothing is ever lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// Commits may be gone: the database was restored or failed over without its tail.
    pub(crate) lost_history: bool,
    /// How many events a stream replays before it says that it is too far.
    pub(crate) replay_limit: usize,
}

/// What publishers know of one event.
#[derive(Clone, Copy, Debug)]
struct Published {
    outcome: Outcome,
    answered_at: Option<Moment>,
}

/// What everybody's history is held against.
struct Court<'a> {
    oracle: &'a Oracle,
    terms: Terms,
    /// What was committed, with its key. Its place here is its number.
    facts: Vec<(&'a String, &'a Fact)>,
    /// The numbers by key, and by topic: a crowd of clients asks each for its own.
    numbers: HashMap<&'a str, usize>,
    of_topic: HashMap<&'a str, Vec<usize>>,
    published: HashMap<&'a str, Published>,
    /// Every id that was trimmed, and since when.
    trimmed: Vec<(Moment, i64)>,
}

impl<'a> Court<'a> {
    /// The numbers of what was committed in a topic.
    fn of_topic(&self, topic: &str) -> &[usize] {
        self.of_topic.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Why an event that the oracle does not have may have been seen.
    fn was_lost(&self, key: &str) -> bool {
        let published = self.published.get(key);
        self.terms.lost_history && published.is_some_and(|event| event.outcome != Outcome::Failed)
    }

    /// Whether something that this cursor has not seen was gone by then.
    fn is_trimmed(&self, cursor: &Cursor, at: Moment) -> bool {
        let through = self.trimmed_through(at);
        let mut facts = self.oracle.facts.values();
        facts
            .any(|fact| fact.id <= through && fact.tag.is_none() && !cursor.sees(fact.xid, fact.id))
    }

    /// Whether this cursor is within a leg of which something was gone by then, and has not read as far as the
    /// floor. The floor tells transactions, and not which of their events there were: such a cursor is not served
    /// though it may have read all that is gone.
    fn is_below_floor(&self, cursor: &Cursor, at: Moment) -> bool {
        let Cursor::Between { from, sent, .. } = cursor else {
            return false;
        };
        *sent < self.trimmed_through(at) && self.is_trimmed(&Cursor::At(from.clone()), at)
    }

    /// The highest id that was trimmed by then.
    fn trimmed_through(&self, at: Moment) -> i64 {
        let earlier = self.trimmed.iter().filter(|(since, _)| *since <= at);
        earlier.map(|(_, id)| *id).max().unwrap_or(0)
    }

    /// Whether a reset tells the truth about this cursor.
    fn is_true(&self, reason: &str, cursor: &str, topics: &[String], at: Moment) -> bool {
        let Ok(cursor) = cursor.parse::<Cursor>() else {
            return reason == "malformed";
        };
        let mut facts = self.oracle.facts.values();
        match reason {
            "diverged" => {
                let anchor = cursor.anchor();
                anchor.newest != 0
                    && !facts.any(|fact| {
                        let same = |tag: &String| *tag == anchor.tag.to_string();
                        fact.id == anchor.newest && fact.tag.as_ref().is_none_or(same)
                    })
            }
            "trimmed" => self.is_trimmed(&cursor, at) || self.is_below_floor(&cursor, at),
            "too-far" => {
                let missed = facts.filter(|fact| {
                    fact.published_at <= at
                        && topics.contains(&fact.topic)
                        && !cursor.sees(fact.xid, fact.id)
                });
                missed.count() > self.terms.replay_limit
            }
            _ => false,
        }
    }
}

/// Judges a run.
pub(crate) fn judge(records: &[Record], oracle: &Oracle, terms: Terms) -> Verdict {
    let mut verdict = Verdict::default();
    let mut court = Court {
        oracle,
        terms,
        facts: oracle.facts.iter().collect(),
        numbers: HashMap::new(),
        of_topic: HashMap::new(),
        published: HashMap::new(),
        trimmed: Vec::new(),
    };
    for (number, (key, fact)) in court.facts.iter().enumerate() {
        court.numbers.insert(key, number);
        court.of_topic.entry(&fact.topic).or_default().push(number);
    }
    judge_publishers(records, &mut court, &mut verdict);
    for record in records {
        match record {
            Record::Trimmed { at, through } => court.trimmed.push((*at, *through)),
            Record::Fault { .. } => verdict.count("faults", 1),
            Record::Shape { shape, .. } => verdict.count(&format!("shapes, {shape}"), 1),
            _ => {}
        }
    }
    let mut clients = HashMap::new();
    for record in records {
        if let Record::Client {
            client,
            topics,
            since,
        } = record
        {
            let judge = ClientJudge::new(&court, *client, topics, since);
            clients.insert(*client, judge);
        }
        let client = match record {
            Record::Connect { client, .. }
            | Record::Ready { client, .. }
            | Record::Event { client, .. }
            | Record::Reset { client, .. }
            | Record::Synced { client, .. }
            | Record::End { client, .. } => client,
            _ => continue,
        };
        let client = clients.get_mut(client).expect("a client says who it is");
        client.hear(record, &mut verdict);
    }
    for client in clients.into_values() {
        client.close(&mut verdict);
    }
    verdict
}

/// Holds what publishers were told against what is there.
fn judge_publishers<'a>(records: &'a [Record], court: &mut Court<'a>, verdict: &mut Verdict) {
    let answers = records.iter().filter_map(|record| match record {
        Record::Answer {
            at,
            transaction,
            outcome,
        } => Some((transaction, (*at, *outcome))),
        _ => None,
    });
    let answers: HashMap<_, _> = answers.collect();
    for record in records {
        let Record::Intent { transaction, keys } = record else {
            continue;
        };
        let (answered_at, outcome) = match answers.get(transaction) {
            Some((at, outcome)) => (Some(*at), *outcome),
            None => (None, Outcome::Unknown),
        };
        verdict.count(
            match outcome {
                Outcome::Ok => "transactions committed",
                Outcome::Failed => "transactions failed",
                Outcome::Unknown => "transactions unknown",
            },
            1,
        );
        let there = |key: &&String| court.oracle.facts.contains_key(*key);
        let present: BTreeSet<&String> = keys.iter().filter(there).collect();
        let absent = keys.iter().filter(|key| !present.contains(key));
        match outcome {
            Outcome::Ok => {
                for key in absent {
                    if court.terms.lost_history {
                        verdict.lost_history.insert(key.clone());
                    } else {
                        verdict.wrong(transaction, Wrong::Lost(key.clone()));
                    }
                }
            }
            Outcome::Failed => {
                for key in &present {
                    verdict.wrong(transaction, Wrong::Undead((*key).clone()));
                }
            }
            Outcome::Unknown if !present.is_empty() && present.len() < keys.len() => {
                verdict.wrong(transaction, Wrong::Torn(transaction.clone()));
            }
            Outcome::Unknown => {}
        }
        for key in keys {
            let published = Published {
                outcome,
                answered_at: answered_at.filter(|_| outcome == Outcome::Ok),
            };
            court.published.insert(key, published);
        }
    }
}
