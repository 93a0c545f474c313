//! The checker, tried: one thing is made wrong in a history that is right, and must be found.
//!
//! The history here is small and made by hand; `exactly_once` does the same to one that was really recorded.

use std::sync::Arc;

use fastrand::Rng;
use serde_json::json;
use tidings::cursor::{Cursor, Mark, Snapshot, Tag};

use super::{Terms, Wrong, judge};
use crate::journal::{End, Outcome, Record};
use crate::oracle::{Fact, Oracle};

/// Makes one thing wrong; `None` where this history has nothing of the kind.
pub(crate) type Mutation = fn(Vec<Record>, &Oracle, &mut Rng) -> Option<Vec<Record>>;

/// Whether this is what the checker must say of a mutation.
pub(crate) type Finding = fn(&Wrong) -> bool;

/// Each mutation, and what the checker must say of it.
pub(crate) const MUTATIONS: [(&str, Mutation, Finding); 14] = [
    ("dropped", dropped, |wrong| {
        matches!(wrong, Wrong::Missing(_))
    }),
    ("doubled", doubled, |wrong| {
        matches!(wrong, Wrong::Doubled(_))
    }),
    ("swapped", swapped, |wrong| matches!(wrong, Wrong::Late(_))),
    ("leaked", leaked, |wrong| matches!(wrong, Wrong::Leaked(_))),
    ("phantom", phantom, |wrong| {
        matches!(wrong, Wrong::Phantom(_))
    }),
    ("forged", forged, |wrong| matches!(wrong, Wrong::Phantom(_))),
    ("false reset", false_reset, |wrong| {
        matches!(wrong, Wrong::FalseReset { .. })
    }),
    ("not resumed", not_resumed, |wrong| {
        matches!(wrong, Wrong::Forgotten { .. })
    }),
    ("false state", false_state, |wrong| {
        matches!(wrong, Wrong::FalseState { .. })
    }),
    ("expired", expired, |wrong| {
        matches!(wrong, Wrong::Expired(_))
    }),
    ("refused", refused, |wrong| {
        matches!(wrong, Wrong::Refused(503))
    }),
    ("unfinished", unfinished, |wrong| {
        matches!(wrong, Wrong::Unfinished)
    }),
    ("lost", lost, |wrong| matches!(wrong, Wrong::Lost(_))),
    ("undead", undead, |wrong| matches!(wrong, Wrong::Undead(_))),
];

/// The place of a random record that is so.
fn find(records: &[Record], rng: &mut Rng, is: impl Fn(&Record) -> bool) -> Option<usize> {
    let places: Vec<usize> = (0..records.len()).filter(|&n| is(&records[n])).collect();
    rng.choice(places)
}

fn an_event(records: &[Record], rng: &mut Rng) -> Option<usize> {
    find(records, rng, |record| {
        matches!(record, Record::Event { .. })
    })
}

fn dropped(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = an_event(&records, rng)?;
    records.remove(place);
    Some(records)
}

fn doubled(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = an_event(&records, rng)?;
    let again = records[place].clone();
    let Record::Event { client, .. } = again else {
        return None;
    };
    // It comes again before the client is done.
    let end = (place..records.len()).find(|&n| {
        matches!(&records[n], Record::End { client: other, why: End::Done, .. } if *other == client)
    })?;
    records.insert(end, again);
    Some(records)
}

/// An event changes places with the next one of its client, which was published after it was known
/// to be committed.
fn swapped(mut records: Vec<Record>, oracle: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let answered = |key: &str| {
        let intent = records.iter().find_map(|record| match record {
            Record::Intent { transaction, keys } if keys.iter().any(|own| own == key) => {
                Some(transaction)
            }
            _ => None,
        })?;
        records.iter().find_map(|record| match record {
            Record::Answer {
                at, transaction, ..
            } if transaction == intent => Some(*at),
            _ => None,
        })
    };
    let key = |place: usize| match &records[place] {
        Record::Event { event, .. } => event["data"]["key"].as_str(),
        _ => None,
    };
    for _ in 0..200 {
        let first = an_event(&records, rng)?;
        let Record::Event { client, .. } = &records[first] else {
            return None;
        };
        let of_client = |record: &Record| match record {
            Record::Event { client: other, .. } | Record::Synced { client: other, .. } => {
                other == client
            }
            _ => false,
        };
        let next = (first + 1..records.len())
            .find(|&n| of_client(&records[n]))
            .filter(|&n| matches!(records[n], Record::Event { .. }));
        let Some(next) = next else { continue };
        let later = oracle.facts[key(next)?].published_at;
        if answered(key(first)?).is_some_and(|answered| answered < later) {
            records.swap(first, next);
            return Some(records);
        }
    }
    None
}

fn leaked(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = an_event(&records, rng)?;
    let Record::Event { client, event, .. } = records[place].clone() else {
        return None;
    };
    // The client's token does not cover it, all of a sudden.
    for record in &mut records {
        if let Record::Client {
            client: other,
            topics,
            ..
        } = record
            && *other == client
        {
            topics.retain(|topic| event["topic"] != json!(topic));
        }
    }
    Some(records)
}

fn phantom(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = an_event(&records, rng)?;
    let mut another = records[place].clone();
    if let Record::Event { event, .. } = &mut another {
        event["data"]["key"] = json!("nobody's");
    }
    records.insert(place, another);
    Some(records)
}

fn forged(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = an_event(&records, rng)?;
    if let Record::Event { event, .. } = &mut records[place] {
        event["data"]["forged"] = json!(true);
    }
    Some(records)
}

fn false_reset(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(record, Record::Ready { .. })
    })?;
    let Record::Ready { at, client, .. } = records[place] else {
        return None;
    };
    let cursor = records[..place]
        .iter()
        .rev()
        .find_map(|record| match record {
            Record::Connect {
                client: other,
                since,
                ..
            } if *other == client => Some(since.clone()),
            _ => None,
        })?;
    let reason = rng
        .choice(["trimmed", "diverged", "too-far", "malformed"])?
        .to_owned();
    let reset = Record::Reset {
        at,
        client,
        cursor,
        reason,
    };
    records.insert(place, reset);
    Some(records)
}

fn not_resumed(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(record, Record::Ready { .. })
    })?;
    if let Record::Ready { resumed, .. } = &mut records[place] {
        *resumed = false;
    }
    Some(records)
}

fn false_state(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(record, Record::Synced { .. })
    })?;
    if let Record::Synced { state, .. } = &mut records[place] {
        let (_, state) = state.as_object_mut()?.iter_mut().next()?;
        state["count"] = json!(state["count"].as_i64()? + 1);
    }
    Some(records)
}

/// An event of a stream comes a day late; what a sync brings, it brings with a token of its own.
fn expired(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    for _ in 0..200 {
        let place = find(&records, rng, |record| {
            matches!(record, Record::Ready { .. })
        })?;
        let Record::Ready { client: reader, .. } = records[place] else {
            return None;
        };
        let next = records[place + 1..].iter_mut().find(|record| {
            matches!(record, Record::Event { client, .. } | Record::End { client, .. } if *client == reader)
        });
        if let Some(Record::Event { at, .. }) = next {
            *at += 24 * 3600 * 1_000_000;
            return Some(records);
        }
    }
    None
}

fn refused(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(
        &records,
        rng,
        |record| matches!(record, Record::End { why, .. } if *why != End::Done),
    )?;
    if let Record::End { why, .. } = &mut records[place] {
        *why = End::Refused(503);
    }
    Some(records)
}

fn unfinished(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(record, Record::End { why: End::Done, .. })
    })?;
    records.remove(place);
    Some(records)
}

fn lost(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(record, Record::Intent { .. })
    })?;
    let Record::Intent {
        transaction: this,
        keys,
    } = &mut records[place]
    else {
        return None;
    };
    keys.push("gone".to_owned());
    let this = this.clone();
    for record in &mut records {
        if let Record::Answer {
            transaction,
            outcome,
            ..
        } = record
            && *transaction == this
        {
            *outcome = Outcome::Ok;
        }
    }
    Some(records)
}

fn undead(mut records: Vec<Record>, _: &Oracle, rng: &mut Rng) -> Option<Vec<Record>> {
    let place = find(&records, rng, |record| {
        matches!(
            record,
            Record::Answer {
                outcome: Outcome::Ok,
                ..
            }
        )
    })?;
    if let Record::Answer { outcome, .. } = &mut records[place] {
        *outcome = Outcome::Failed;
    }
    Some(records)
}

const TERMS: Terms = Terms {
    lost_history: false,
    replay_limit: 1_000,
};

/// The cursor of whoever has seen the events up to this one.
fn mark(newest: i64) -> Mark {
    Mark {
        snapshot: Arc::new(Snapshot::new(100 + newest as u64 + 1, Vec::new()).expect("a snapshot")),
        newest,
        tag: Tag(newest as u32),
    }
}

fn cursor(newest: i64) -> String {
    Cursor::At(mark(newest)).to_string()
}

/// Ten events, each published after the one before was committed, and a client that reads four, is
/// cut, resumes, syncs, and reads the rest.
fn history() -> (Vec<Record>, Oracle) {
    let mut oracle = Oracle::default();
    let mut records = vec![Record::Client {
        client: 1,
        topics: vec!["t0".to_owned(), "t1".to_owned()],
        since: cursor(0),
    }];
    let mut seen = Vec::new();
    for id in 1..=10 {
        let (key, topic) = (format!("k{id}"), format!("t{}", id % 2));
        let fact = Fact {
            id,
            xid: 100 + id as u64,
            topic: topic.clone(),
            kind: "written".to_owned(),
            data: json!({"key": key}),
            published_at: id * 10,
            tag: Some(Tag(id as u32).to_string()),
        };
        seen.push(Record::Event {
            at: id * 10 + 7,
            client: 1,
            cursor: cursor(id),
            event: json!({"id": id.to_string(), "topic": topic, "type": "written", "data": fact.data}),
        });
        oracle.facts.insert(key.clone(), fact);
        records.push(Record::Intent {
            transaction: key.clone(),
            keys: vec![key.clone()],
        });
        records.push(Record::Answer {
            at: id * 10 + 5,
            transaction: key,
            outcome: Outcome::Ok,
        });
    }
    let open = |since: i64, replayed: u64| {
        let connect = Record::Connect {
            at: since * 10 + 8,
            client: 1,
            gateway: 0,
            since: cursor(since),
            expires: 3_600_000_000,
        };
        let ready = Record::Ready {
            at: since * 10 + 9,
            client: 1,
            resumed: true,
            replayed,
        };
        (connect, ready)
    };
    let end = |why: End, at: i64| Record::End {
        at: at * 10 + 8,
        client: 1,
        why,
        cursor: cursor(at),
    };
    let rest = seen.split_off(4);
    let (connect, ready) = open(0, 0);
    records.extend([connect, ready]);
    records.extend(seen);
    records.push(end(End::Cut, 4));
    records.push(Record::Synced {
        at: 49,
        client: 1,
        cursor: cursor(4),
        state: json!({"t0": {"count": 2, "sum": 6}, "t1": {"count": 2, "sum": 4}}),
    });
    let (connect, ready) = open(4, 0);
    records.extend([connect, ready]);
    records.extend(rest);
    records.push(end(End::Done, 10));
    (records, oracle)
}

#[test]
fn a_history_that_is_right_is_not_complained_of() {
    let (records, oracle) = history();
    let verdict = judge(&records, &oracle, TERMS);
    assert!(verdict.wrongs.is_empty(), "{:?}", verdict.wrongs);
    assert_eq!(verdict.times("deliveries"), 10);
    assert_eq!(verdict.times("resumes"), 2);
}

#[test]
fn every_kind_of_fault_is_found() {
    for seed in 0..50 {
        for (name, mutate, finds) in MUTATIONS {
            let (records, oracle) = history();
            let mutated = mutate(records, &oracle, &mut Rng::with_seed(seed));
            let records = mutated.expect("all of it is there");
            let verdict = judge(&records, &oracle, TERMS);
            let found = verdict.wrongs.iter().any(|(_, wrong)| finds(wrong));
            assert!(found, "{name}, seed {seed}: {:?}", verdict.wrongs);
        }
    }
}

#[test]
fn a_transaction_of_which_a_part_is_there_is_found() {
    let (mut records, oracle) = history();
    records.push(Record::Intent {
        transaction: "torn".to_owned(),
        keys: vec!["k3".to_owned(), "gone".to_owned()],
    });
    let verdict = judge(&records, &oracle, TERMS);
    let found = |(_, wrong): &(_, Wrong)| *wrong == Wrong::Torn("torn".to_owned());
    assert!(verdict.wrongs.iter().any(found), "{:?}", verdict.wrongs);
}

#[test]
fn transactions_that_overlapped_have_no_order() {
    let (mut records, oracle) = history();
    for record in &mut records {
        if let Record::Answer {
            at, transaction, ..
        } = record
            && transaction == "k2"
        {
            *at = 35;
        }
    }
    let is = |id: &str| {
        let id = json!(id);
        move |record: &Record| matches!(record, Record::Event { event, .. } if event["id"] == id)
    };
    let second = records.iter().position(is("2")).expect("there");
    let third = records.iter().position(is("3")).expect("there");
    records.swap(second, third);
    let verdict = judge(&records, &oracle, TERMS);
    assert!(verdict.wrongs.is_empty(), "{:?}", verdict.wrongs);
}

#[test]
fn what_a_lost_history_held_is_listed_apart() {
    let (records, mut oracle) = history();
    oracle.facts.remove("k9");
    let lost_history = true;
    let verdict = judge(
        &records,
        &oracle,
        Terms {
            lost_history,
            ..TERMS
        },
    );
    assert!(verdict.wrongs.is_empty(), "{:?}", verdict.wrongs);
    assert_eq!(verdict.lost_history.iter().collect::<Vec<_>>(), ["k9"]);
    let verdict = judge(&records, &oracle, TERMS);
    assert!(!verdict.wrongs.is_empty());
}

#[test]
fn within_a_leg_only_what_lies_below_the_floor_and_was_trimmed_there_is_told() {
    // A client that has read from 3 as far as 6, with all trimmed up to one id and the floor at another.
    let is_false = |gone: i64, floor: i64| {
        let (mut records, mut oracle) = history();
        for fact in oracle.facts.values_mut().filter(|fact| fact.id <= gone) {
            fact.tag = None;
        }
        let cursor = Cursor::Between {
            from: mark(3),
            to: mark(10),
            sent: 6,
        };
        records.push(Record::Trimmed {
            at: 200,
            through: floor,
        });
        records.push(Record::Reset {
            at: 210,
            client: 1,
            cursor: cursor.to_string(),
            reason: "trimmed".to_owned(),
        });
        let verdict = judge(&records, &oracle, TERMS);
        let false_reset = |(_, wrong): &(_, Wrong)| matches!(wrong, Wrong::FalseReset { .. });
        verdict.wrongs.iter().any(false_reset)
    };
    assert!(is_false(5, 6), "it has read as far as the floor");
    assert!(is_false(3, 8), "nothing of the leg is gone");
    assert!(!is_false(5, 8), "the floor cannot tell");
    assert!(!is_false(7, 8), "7 is gone and was not read");
}
