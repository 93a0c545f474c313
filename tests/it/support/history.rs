//! The judge: whether what a client saw is what the log holds.
//!
//! The log as a SELECT reads it at the end is the truth; what one client saw is no evidence for
//! another's. The judge itself is tried below with histories that are wrong in every way it
//! knows.

use std::collections::{BTreeSet, HashMap, HashSet};

use tokio_postgres::Client;

/// One committed event, as the judge needs it.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) topic: String,
    /// Its type and data as one text, to be compared with what was seen.
    pub(crate) content: String,
    /// When it was inserted, in microseconds since 1970.
    pub(crate) inserted_at: i64,
    /// When its publisher had the answer to COMMIT, if it is known.
    pub(crate) committed_at: Option<i64>,
}

/// Everything that was committed.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) events: HashMap<i64, Committed>,
}

/// An event as a client saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: i64,
    pub(crate) content: String,
}

impl Seen {
    /// Reads the data of a block.
    pub(crate) fn read(event: &serde_json::Value) -> Seen {
        let id = event["id"].as_str().expect("an event of the log has an id");
        Seen {
            id: id.parse().expect("an id is a number"),
            content: content(
                event["type"].as_str().expect("an event has a type"),
                &event["data"],
            ),
        }
    }
}

fn content(kind: &str, data: &serde_json::Value) -> String {
    format!("{kind} {data}")
}

/// What is wrong with what a client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wrong {
    /// An event came twice.
    Doubled(i64),
    /// An event of its topics never came.
    Missing(i64),
    /// An event came that was not committed, or differs from its row.
    Phantom(i64),
    /// An event came that belongs to none of its topics.
    Leaked(i64),
    /// An event came after one that was inserted when it had already been committed.
    Late(i64),
}

impl History {
    /// Reads the log. `commits` tells when publishers had the answer to their COMMIT, by event.
    pub(crate) async fn read(client: &Client, commits: &HashMap<i64, i64>) -> History {
        let rows = client
            .query(
                "select id, topic, type, data::text, (extract(epoch from created_at) * 1000000)::bigint
                 from tidings.event",
                &[],
            )
            .await
            .expect("the log can be read");
        let events = rows.iter().map(|row| {
            let id: i64 = row.get(0);
            let data = serde_json::from_str(row.get(3)).expect("data is JSON");
            let event = Committed {
                topic: row.get(1),
                content: content(row.get(2), &data),
                inserted_at: row.get(4),
                committed_at: commits.get(&id).copied(),
            };
            (id, event)
        });
        History {
            events: events.collect(),
        }
    }

    /// Judges what a client of these topics saw, in the order in which it came; all of the log
    /// beyond the id `after` was for it.
    pub(crate) fn judge(&self, topics: &[String], after: i64, seen: &[Seen]) -> Vec<Wrong> {
        let mut wrong = BTreeSet::new();
        let mut got = HashSet::new();
        // The latest moment at which anything that has come so far was inserted.
        let mut inserted = i64::MIN;
        for Seen { id, content } in seen {
            if !got.insert(*id) {
                wrong.insert(Wrong::Doubled(*id));
            }
            let Some(event) = self.events.get(id) else {
                wrong.insert(Wrong::Phantom(*id));
                continue;
            };
            if event.content != *content {
                wrong.insert(Wrong::Phantom(*id));
            }
            if !topics.contains(&event.topic) {
                wrong.insert(Wrong::Leaked(*id));
            }
            if event.committed_at.is_some_and(|at| at < inserted) {
                wrong.insert(Wrong::Late(*id));
            }
            inserted = inserted.max(event.inserted_at);
        }
        for (id, event) in &self.events {
            if *id > after && topics.contains(&event.topic) && !got.contains(id) {
                wrong.insert(Wrong::Missing(*id));
            }
        }
        wrong.into_iter().collect()
    }
}

mod tests {
    use super::*;

    /// Five events, each inserted and committed before the next, the last of another topic.
    fn history() -> History {
        let event = |id: i64| Committed {
            topic: if id == 5 { "b" } else { "a" }.to_owned(),
            content: format!("k {id}"),
            inserted_at: id * 10,
            committed_at: Some(id * 10 + 5),
        };
        History {
            events: (1..=5).map(|id| (id, event(id))).collect(),
        }
    }

    fn judged(ids: &[i64]) -> Vec<Wrong> {
        let seen: Vec<Seen> = ids
            .iter()
            .map(|&id| Seen {
                id,
                content: format!("k {id}"),
            })
            .collect();
        history().judge(&["a".to_owned()], 0, &seen)
    }

    #[test]
    fn the_judge_finds_every_kind_of_fault() {
        assert_eq!(judged(&[1, 2, 3, 4]), []);
        assert_eq!(judged(&[1, 2, 4]), [Wrong::Missing(3)]);
        assert_eq!(
            judged(&[1, 2, 3, 2, 4]),
            [Wrong::Doubled(2), Wrong::Late(2)]
        );
        assert_eq!(judged(&[1, 3, 2, 4]), [Wrong::Late(2)]);
        assert_eq!(judged(&[1, 2, 3, 9, 4]), [Wrong::Phantom(9)]);
        assert_eq!(judged(&[1, 2, 3, 4, 5]), [Wrong::Leaked(5)]);
        let forged = Seen {
            id: 1,
            content: "k 7".to_owned(),
        };
        let wrong = history().judge(&["a".to_owned()], 1, &[forged]);
        assert!(wrong.contains(&Wrong::Phantom(1)), "{wrong:?}");
    }

    #[test]
    fn concurrent_transactions_have_no_order() {
        let mut history = history();
        let overlapping = history.events.get_mut(&2).expect("it is there");
        overlapping.committed_at = Some(35);
        let seen = [1, 3, 2, 4].map(|id| Seen {
            id,
            content: format!("k {id}"),
        });
        assert_eq!(history.judge(&["a".to_owned()], 0, &seen), []);
    }
}
