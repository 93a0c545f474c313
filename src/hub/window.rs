//! The window: the newest events in memory by topic, so that reconnects need no database.
//!
//! It holds whole looks and evicts the oldest when its bytes are used up. It serves a cursor only
//! when that has seen everything from before the window, and when it recognises the cursor's
//! newest event, so that nobody resumes from a history that was rewritten; since whatever vouches
//! for that is the session that read the events, the window is emptied when the session is lost.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::cursor::{Cursor, Leg, Mark, Tag};
use crate::event::Event;
use crate::frame::Frame;
use crate::topic::Topic;

/// What an entry costs beside its frame: list places, tag, counts; measured generously.
const ENTRY_BYTES: usize = 200;

/// How many events are indexed at a time, which takes a millisecond or two.
const INDEX_EVENTS: usize = 4096;

/// One event in the window.
#[derive(Debug)]
pub struct Entry {
    /// Its id.
    pub id: i64,
    /// Its transaction.
    pub xid: u64,
    /// The microseconds of its `created_at` since 1970.
    pub at: i64,
    /// Its topic.
    pub topic: Topic,
    /// Its bytes.
    pub frame: Frame,
}

impl Entry {
    /// The entry of an event and its frame.
    pub fn new(event: &Event, frame: Frame) -> Arc<Self> {
        Arc::new(Self {
            id: event.id,
            xid: event.xid,
            at: event.at,
            topic: event.topic.clone(),
            frame,
        })
    }
}

/// A look, or the part of one that arrived on one page.
struct Page {
    /// Its place in the order of all pages.
    number: u64,
    /// The position that the whole look leads to.
    to: Mark,
    entries: Vec<Arc<Entry>>,
}

struct State {
    /// Everything that this has seen came before the window. `None` until the first look.
    since: Option<Mark>,
    pages: VecDeque<Page>,
    next_page: u64,
    /// The first page that is not indexed yet: that is left to those who come back, since most events leave the window
    /// without anybody asking for them.
    unindexed: u64,
    /// The events of each topic, each with the number of its page, in the order of pages.
    by_topic: HashMap<Topic, VecDeque<(u64, Arc<Entry>)>>,
    /// Tags of the events in the window, by which cursors are recognised.
    tags: HashMap<i64, Tag>,
    bytes: usize,
}

/// The newest events by topic.
pub struct Window {
    state: Mutex<State>,
    limit_bytes: usize,
}

/// What a cursor has missed, as far as the window can tell.
pub enum Missed {
    /// These events, leg by leg, in order.
    Events(Vec<(usize, Arc<Entry>)>),
    /// More than the limit.
    TooFar,
    /// The window does not reach back that far, or does not recognise the cursor.
    Unknown,
}

impl Window {
    /// An empty window that serves nobody yet.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            state: Mutex::new(State {
                since: None,
                pages: VecDeque::new(),
                next_page: 0,
                unindexed: 0,
                by_topic: HashMap::new(),
                tags: HashMap::new(),
                bytes: 0,
            }),
            limit_bytes,
        }
    }

    /// Forgets everything; from now on the window holds what comes after `since`.
    pub fn restart(&self, since: Mark) {
        let mut state = self.lock();
        state.pages.clear();
        state.by_topic.clear();
        state.tags.clear();
        state.bytes = 0;
        state.since = Some(since);
    }

    /// Adds the events of one page of the look that leads to `to`.
    pub fn push(&self, entries: Vec<Arc<Entry>>, to: &Mark) {
        let mut state = self.lock();
        if entries.is_empty() {
            return;
        }
        let number = state.next_page;
        state.next_page += 1;
        let costs = entries.iter().map(|entry| entry.frame.cost() + ENTRY_BYTES);
        state.bytes += costs.sum::<usize>();
        state.pages.push_back(Page {
            number,
            to: to.clone(),
            entries,
        });
        while state.bytes > self.limit_bytes {
            state.evict();
        }
    }

    /// Forgets all events, for the sake of their memory; what comes after them is kept again.
    pub fn forget(&self) {
        let mut state = self.lock();
        while !state.pages.is_empty() {
            state.evict();
        }
        state.pages.shrink_to_fit();
        state.by_topic.shrink_to_fit();
        state.tags.shrink_to_fit();
    }

    /// Indexes some of what has come since somebody last came back; returns whether there is more of it. Whoever asks
    /// for what was missed does this first, with pauses, or those who hand events over would wait for all of it.
    pub fn index_some(&self) -> bool {
        self.lock().index_some()
    }

    /// What `cursor` has missed of `topics` up to `target`, at most `limit` events of it.
    pub fn missed(
        &self,
        cursor: &Cursor,
        target: &Cursor,
        legs: &[Leg],
        topics: &[Topic],
        limit: usize,
    ) -> Missed {
        let mut state = self.lock();
        while state.index_some() {}
        if !state.serves(cursor) {
            return Missed::Unknown;
        }
        // Who comes back has seen most of the window: only pages that the cursor has not seen whole
        // are looked through.
        let seen = state.pages.partition_point(|page| cursor.covers(&page.to));
        let unseen = state.pages.get(seen).map_or(u64::MAX, |page| page.number);
        let mut events = Vec::new();
        for list in topics.iter().filter_map(|topic| state.by_topic.get(topic)) {
            let start = list.partition_point(|(page, _)| *page < unseen);
            for (_, entry) in list.range(start..) {
                if cursor.sees(entry.xid, entry.id) || !target.sees(entry.xid, entry.id) {
                    continue;
                }
                let leg = legs.iter().position(|leg| leg.takes(entry.xid, entry.id));
                events.push((leg.expect("legs lead from cursor to target"), entry.clone()));
                if events.len() > limit {
                    return Missed::TooFar;
                }
            }
        }
        events.sort_unstable_by_key(|(leg, entry)| (*leg, entry.id));
        Missed::Events(events)
    }

    /// The bytes that the window accounts for.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("no code panics while it holds the window")
    }
}

impl State {
    /// Indexes some pages; returns whether others are left.
    fn index_some(&mut self) -> bool {
        let first = self
            .pages
            .partition_point(|page| page.number < self.unindexed);
        let mut entries = 0;
        for page in self.pages.range(first..) {
            if entries > INDEX_EVENTS {
                return true;
            }
            for entry in &page.entries {
                let tag = Tag::of(entry.id, entry.xid, entry.at);
                self.tags.insert(entry.id, tag);
                let list = self.by_topic.entry(entry.topic.clone()).or_default();
                list.push_back((page.number, entry.clone()));
            }
            entries += page.entries.len();
            self.unindexed = page.number + 1;
        }
        false
    }

    /// Whether the cursor has seen all that came before the window, and the window recognises it.
    fn serves(&self, cursor: &Cursor) -> bool {
        let Some(since) = &self.since else {
            return false;
        };
        let anchor = cursor.anchor();
        let recognised = if anchor.newest == since.newest {
            anchor.tag == since.tag
        } else {
            self.tags.get(&anchor.newest) == Some(&anchor.tag)
        };
        recognised && cursor.covers(since)
    }

    /// Forgets the oldest look, with all its pages: half a look serves nobody.
    fn evict(&mut self) {
        let Some(oldest) = self.pages.front().map(|page| page.to.clone()) else {
            return;
        };
        while self.pages.front().is_some_and(|page| page.to == oldest) {
            let page = self.pages.pop_front().expect("it was just seen");
            for entry in page.entries {
                self.bytes -= entry.frame.cost() + ENTRY_BYTES;
                if page.number >= self.unindexed {
                    continue;
                }
                self.tags.remove(&entry.id);
                let list = self
                    .by_topic
                    .get_mut(&entry.topic)
                    .expect("an entry stands in the list of its topic");
                // Lists keep the order of looks, and so the oldest look's entries come first.
                list.pop_front();
                if list.is_empty() {
                    self.by_topic.remove(&entry.topic);
                }
            }
        }
        self.since = Some(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Snapshot;

    /// A log in which transaction `n` wrote event `n`, seen up to `last`.
    fn mark(last: i64) -> Mark {
        let snapshot = Snapshot::new(last as u64 + 1, vec![]).expect("plain");
        Mark {
            snapshot: Arc::new(snapshot),
            newest: last,
            tag: Tag::of(last, last as u64, 0),
        }
    }

    fn push(window: &Window, ids: std::ops::RangeInclusive<i64>, to: i64) {
        let entries = ids.map(|id| {
            let event = Event {
                id,
                xid: id as u64,
                at: 0,
                topic: Topic::parse(&format!("t{}", id % 2)).expect("a topic"),
                kind: "k".into(),
                data: "null".into(),
            };
            Entry::new(&event, Frame::event(&event, None))
        });
        window.push(entries.collect(), &mark(to));
    }

    fn missed(window: &Window, from: i64, to: i64, limit: usize) -> Result<Vec<i64>, &'static str> {
        let (cursor, target) = (Cursor::At(mark(from)), Cursor::At(mark(to)));
        let legs = cursor.legs(&target);
        let topic = Topic::parse("t0").expect("a topic");
        match window.missed(&cursor, &target, &legs, &[topic], limit) {
            Missed::Events(events) => Ok(events.iter().map(|(_, entry)| entry.id).collect()),
            Missed::TooFar => Err("too far"),
            Missed::Unknown => Err("unknown"),
        }
    }

    #[test]
    fn a_known_cursor_gets_what_it_missed_of_its_topics() {
        let window = Window::new(1 << 20);
        assert_eq!(missed(&window, 10, 10, 9), Err("unknown"));
        window.restart(mark(10));
        push(&window, 11..=14, 14);
        push(&window, 15..=16, 16);
        assert_eq!(missed(&window, 10, 16, 9), Ok(vec![12, 14, 16]));
        assert_eq!(missed(&window, 12, 14, 9), Ok(vec![14]));
        assert_eq!(missed(&window, 10, 16, 2), Err("too far"));
        assert_eq!(missed(&window, 9, 16, 9), Err("unknown"));
    }

    #[test]
    fn a_changed_anchor_is_not_recognised() {
        let window = Window::new(1 << 20);
        window.restart(mark(10));
        push(&window, 11..=14, 14);
        let mut other = mark(12);
        other.tag = Tag(other.tag.0 ^ 1);
        let (cursor, target) = (Cursor::At(other), Cursor::At(mark(14)));
        let legs = cursor.legs(&target);
        let missed = window.missed(&cursor, &target, &legs, &[], 9);
        assert!(matches!(missed, Missed::Unknown));
    }

    #[test]
    fn whole_looks_are_evicted_and_nothing_of_them_stays() {
        let window = Window::new(10 * (ENTRY_BYTES + 120));
        window.restart(mark(0));
        push(&window, 1..=4, 6);
        push(&window, 5..=6, 6);
        push(&window, 7..=8, 8);
        assert_eq!(missed(&window, 0, 8, 9), Ok(vec![2, 4, 6, 8]));
        push(&window, 9..=16, 16);
        assert_eq!(missed(&window, 4, 16, 9), Err("unknown"));
        assert_eq!(missed(&window, 8, 16, 9), Ok(vec![10, 12, 14, 16]));
        push(&window, 17..=60, 60);
        assert_eq!(
            window.bytes(),
            0,
            "a look larger than the window serves nobody"
        );
        assert!(window.lock().tags.is_empty() && window.lock().by_topic.is_empty());
        assert_eq!(missed(&window, 60, 60, 9), Ok(vec![]));
    }
}
