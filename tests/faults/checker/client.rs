//! The judge of one client: what it has seen across all its streams, syncs and gateways, record
//! after record, against what was for it.

use std::collections::HashSet;

use serde_json::Value;
use tidings::cursor::Cursor;

use super::known::Known;
use super::{Court, Verdict, Wrong};
use crate::journal::{End, Moment, Record};

/// How much longer than its token a stream may last: what was on its way, on a busy machine.
const LEEWAY: Moment = 5_000_000;

pub(super) struct ClientJudge<'a> {
    court: &'a Court<'a>,
    name: String,
    topics: &'a [String],
    /// All that it knows.
    seen: Known,
    /// The keys of what it saw that was not committed.
    strange: HashSet<&'a str>,
    /// The latest moment at which anything that it knows was published.
    published: Moment,
    /// When its token expires.
    expires: Moment,
    /// It met a reset, and will take what it knows from the next sync.
    reset: bool,
    /// It has a stream that brought this cursor, and has not heard whether it is resumed.
    asked: Option<&'a str>,
    /// Its stream replayed something, and nothing live has come yet.
    replayed: bool,
    done: bool,
}

impl<'a> ClientJudge<'a> {
    pub(super) fn new(
        court: &'a Court<'a>,
        client: u64,
        topics: &'a [String],
        since: &'a str,
    ) -> Self {
        let mut judge = Self {
            court,
            name: format!("client {client}"),
            topics,
            seen: Known::default(),
            strange: HashSet::new(),
            published: Moment::MIN,
            expires: Moment::MAX,
            reset: false,
            asked: None,
            replayed: false,
            done: false,
        };
        let start = since.parse().expect("a client begins with a cursor");
        judge.know(&start);
        judge
    }

    /// It knows what this cursor has seen, and nothing else.
    fn know(&mut self, cursor: &Cursor) {
        self.seen = Known::default();
        self.strange.clear();
        self.published = Moment::MIN;
        for topic in self.topics {
            for &number in self.court.of_topic(topic) {
                let (_, fact) = self.court.facts[number];
                if cursor.sees(fact.xid, fact.id) {
                    self.seen.insert(number);
                    self.published = self.published.max(fact.published_at);
                }
            }
        }
    }

    pub(super) fn hear(&mut self, record: &'a Record, verdict: &mut Verdict) {
        match record {
            Record::Connect { since, expires, .. } => {
                verdict.count("streams opened", 1);
                self.expires = *expires;
                self.asked = Some(since);
                self.replayed = false;
                if since.matches('~').count() > 2 {
                    verdict.count("cursors within a look or page", 1);
                }
            }
            Record::Ready {
                resumed, replayed, ..
            } => self.ready(*resumed, *replayed, verdict),
            Record::Event { at, event, .. } => self.event(*at, event, verdict),
            Record::Reset {
                at, cursor, reason, ..
            } => {
                verdict.count(&format!("resets, {reason}"), 1);
                self.asked = None;
                self.reset = matches!(reason.as_str(), "trimmed" | "diverged");
                if !self.court.is_true(reason, cursor, self.topics, *at) {
                    let (reason, cursor) = (reason.clone(), cursor.clone());
                    verdict.wrong(&self.name, Wrong::FalseReset { reason, cursor });
                }
            }
            Record::Synced { cursor, state, .. } => self.synced(cursor, state, verdict),
            Record::End { why, .. } => {
                self.asked = None;
                // Whatever comes by sync comes with another token.
                self.expires = Moment::MAX;
                let why = match why {
                    End::Done => {
                        self.done = true;
                        return;
                    }
                    End::Refused(status) => {
                        verdict.wrong(&self.name, Wrong::Refused(*status));
                        "refused".to_owned()
                    }
                    End::Bye(reason) => format!("bye {reason}"),
                    other => format!("{other:?}").to_lowercase(),
                };
                verdict.count(&format!("ends, {why}"), 1);
            }
            _ => {}
        }
    }

    fn ready(&mut self, resumed: bool, replayed: u64, verdict: &mut Verdict) {
        let asked = self.asked.take();
        if resumed {
            verdict.count("resumes", 1);
            verdict.count("replays", u64::from(replayed > 0));
            verdict.count("events replayed", replayed);
            self.replayed = replayed > 0;
        } else if let Some(cursor) = asked {
            let cursor = cursor.to_owned();
            verdict.wrong(&self.name, Wrong::Forgotten { cursor });
        }
    }

    fn event(&mut self, at: Moment, event: &'a Value, verdict: &mut Verdict) {
        verdict.count("deliveries", 1);
        if self.asked.is_none() && self.replayed {
            verdict.count("seams from replay to live", 1);
            self.replayed = false;
        }
        let key = event["data"]["key"].as_str().unwrap_or("an event without");
        let wrong = |wrong: fn(String) -> Wrong| wrong(key.to_owned());
        let mut wrongs = Vec::new();
        let number = self.court.numbers.get(key).copied();
        let is_new = match number {
            Some(number) => self.seen.insert(number),
            None => self.strange.insert(key),
        };
        if !is_new {
            wrongs.push(wrong(Wrong::Doubled));
        }
        if !self.topics.iter().any(|topic| *topic == event["topic"]) {
            wrongs.push(wrong(Wrong::Leaked));
        }
        if at > self.expires.saturating_add(LEEWAY) {
            wrongs.push(wrong(Wrong::Expired));
        }
        match number.map(|number| self.court.facts[number].1) {
            Some(fact) => {
                let same = event["id"] == *fact.id.to_string()
                    && event["topic"] == *fact.topic
                    && event["type"] == *fact.kind
                    && event["data"] == fact.data;
                if !same {
                    wrongs.push(wrong(Wrong::Phantom));
                }
                let published = self.court.published.get(key);
                let answered = published.and_then(|published| published.answered_at);
                if answered.is_some_and(|answered| answered < self.published) {
                    wrongs.push(wrong(Wrong::Late));
                }
                self.published = self.published.max(fact.published_at);
            }
            None if self.court.was_lost(key) => {
                verdict.count("deliveries of the lost history", 1);
                verdict.lost_history.insert(key.to_owned());
            }
            None => wrongs.push(wrong(Wrong::Phantom)),
        }
        for wrong in wrongs {
            verdict.wrong(&self.name, wrong);
        }
    }

    fn synced(&mut self, cursor: &str, state: &Value, verdict: &mut Verdict) {
        verdict.count("syncs", 1);
        let false_state = || Wrong::FalseState {
            cursor: cursor.to_owned(),
        };
        let Ok(position) = cursor.parse::<Cursor>() else {
            return verdict.wrong(&self.name, false_state());
        };
        let after_reset = std::mem::take(&mut self.reset);
        // What the history has lost since cannot be counted, and its transactions and ids are used again.
        if self.court.terms.lost_history {
            if after_reset {
                self.know(&position);
            }
            return;
        }
        let (before, strange) = (
            std::mem::take(&mut self.seen),
            std::mem::take(&mut self.strange),
        );
        self.know(&position);
        let counted = self.topics.iter().all(|topic| {
            let numbers = self.court.of_topic(topic).iter();
            let known = numbers.filter(|number| self.seen.contains(**number));
            let ids: Vec<i64> = known.map(|number| self.court.facts[*number].1.id).collect();
            let state = &state[topic];
            state["count"] == ids.len() && state["sum"] == ids.iter().sum::<i64>()
        });
        let forgets = !strange.is_empty() || before.without(&self.seen).next().is_some();
        if !counted || (!after_reset && forgets) {
            verdict.wrong(&self.name, false_state());
        }
        if !after_reset {
            for number in self.seen.without(&before) {
                let (key, _) = self.court.facts[number];
                verdict.wrong(&self.name, Wrong::Missing(key.clone()));
            }
        }
    }

    /// Nothing more comes.
    pub(super) fn close(self, verdict: &mut Verdict) {
        verdict.count("clients", 1);
        if !self.done {
            verdict.wrong(&self.name, Wrong::Unfinished);
        }
        for &number in self
            .topics
            .iter()
            .flat_map(|topic| self.court.of_topic(topic))
        {
            if !self.seen.contains(number) {
                let (key, _) = self.court.facts[number];
                verdict.wrong(&self.name, Wrong::Missing(key.clone()));
            }
        }
    }
}
