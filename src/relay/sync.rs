//! Sync: the state of some topics, what a cursor has missed of them, and the cursor in which both
//! are contained, all of one snapshot.
//!
//! Each page is one transaction. Trimming empties partitions for older snapshots too, so whether
//! the cursor was served is decided after the last row, by the floor of a new one.

use std::time::Duration;

use deadpool_postgres::{Object, Transaction};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::IsolationLevel;

use super::attach::Relay;
use super::feed::Since;
use super::loan::Loan;
use crate::cursor::{Cursor, Leg, Mark, Standing, Tag};
use crate::event::Event;
use crate::frame::Reset;
use crate::hub::directory::Guest;
use crate::postgres::Unserved;
use crate::postgres::history::{self, Extent};
use crate::postgres::state::{self, StateError};
use crate::topic::Topic;

/// The most bytes of payload on one page, but for its last event; less where memory is scarce.
const PAGE_BYTES: i64 = 4 << 20;

/// What the database is granted beyond the time of its statements, so that it ends them itself and
/// the session can be kept.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// What a sync asks for, after everything that could be refused has been.
#[derive(Debug)]
pub struct Question {
    /// Its topics, each once; all of them may be read.
    pub topics: Vec<Topic>,
    /// From where on events are told.
    pub since: Since,
    /// The most events of a page.
    pub limit: usize,
    /// Whether state is told.
    pub state: bool,
    /// The claims of the caller as JSON text.
    pub claims: String,
    /// Whose turn it is at the database.
    pub guest: Guest,
}

/// One page of a sync.
#[derive(Debug)]
pub struct Answer {
    /// The position behind the page.
    pub cursor: String,
    /// Why the cursor could not be served.
    pub reset: Option<Reset>,
    /// Whether there are more events up to the position that was current.
    pub more: bool,
    /// The state of each topic as JSON text, when it was asked for and there is no more.
    pub state: Option<Vec<(Topic, String)>>,
    /// What was missed.
    pub events: Vec<Event>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// The database did not serve the request.
    Unserved(Unserved),
    /// There is no state of this topic.
    State(Topic, StateError),
    /// So many transactions are open that no cursor can name them.
    NoCursor,
}

impl<E: Into<Unserved>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Unserved(error.into())
    }
}

impl Relay {
    /// Answers a sync, waiting for the caller's turn included, within this time.
    pub(crate) async fn sync(
        &self,
        question: &Question,
        within: Duration,
    ) -> Result<Answer, Failure> {
        let deadline = Instant::now() + within;
        let act = async {
            let (turns, guest) = (&self.turns, &question.guest);
            let mut loan = Loan::take(turns, &self.pool, guest, turns.wait()).await?;
            let answer = answer(&mut loan, question, self.page(), deadline).await;
            loan.release();
            answer
        };
        match timeout_at(deadline + GRACE, act).await {
            Ok(answer) => answer,
            Err(_) => Err(Unserved::Busy.into()),
        }
    }

    /// The bytes of payload of a page.
    fn page(&self) -> i64 {
        PAGE_BYTES.min(self.bounds.page_bytes as i64)
    }
}

async fn answer(
    session: &mut Object,
    question: &Question,
    page_bytes: i64,
    deadline: Instant,
) -> Result<Answer, Failure> {
    let (mut since, mut reset) = match &question.since {
        Since::Now => (None, None),
        Since::Malformed => (None, Some(Reset::Malformed)),
        Since::Cursor(cursor) => (Some(&**cursor), None),
    };
    loop {
        let passage = pass(session, question, since, page_bytes, deadline).await?;
        let floor = history::floor(session).await?;
        let now = Cursor::At(passage.now.clone());
        let standing = match since {
            None => Standing::Served,
            Some(cursor) => cursor.standing(&floor, passage.anchor),
        };
        match standing {
            Standing::Served
                if passage.whole && now.standing(&floor, Some(passage.now.tag)) == standing =>
            {
                return passage.into_answer(reset);
            }
            // The log was trimmed while it was read, which a new snapshot will know.
            Standing::Served => continue,
            Standing::Trimmed => reset = Some(Reset::Trimmed),
            Standing::Diverged => reset = Some(Reset::Diverged),
        }
        since = None;
    }
}

/// What one snapshot has told.
struct Passage {
    /// The tag of the event in the log that has the id of the cursor's newest.
    anchor: Option<Tag>,
    /// Whether the cursor seemed to be served, and everything was read.
    whole: bool,
    /// Where the log was in this snapshot.
    now: Mark,
    /// Where the passage has come to.
    position: Cursor,
    more: bool,
    state: Option<Vec<(Topic, String)>>,
    events: Vec<Event>,
}

impl Passage {
    fn into_answer(self, reset: Option<Reset>) -> Result<Answer, Failure> {
        Ok(Answer {
            cursor: self.position.to_text().ok_or(Failure::NoCursor)?,
            reset,
            more: self.more,
            state: self.state,
            events: self.events,
        })
    }
}

async fn pass(
    session: &mut Object,
    question: &Question,
    since: Option<&Cursor>,
    page_bytes: i64,
    deadline: Instant,
) -> Result<Passage, Failure> {
    let transaction = session
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    let passage = read(&transaction, question, since, page_bytes, deadline).await;
    // Never committed, so that what a function has set or notified ends with the transaction.
    transaction.rollback().await?;
    passage
}

async fn read(
    transaction: &Transaction<'_>,
    question: &Question,
    since: Option<&Cursor>,
    page_bytes: i64,
    deadline: Instant,
) -> Result<Passage, Failure> {
    state::limit(transaction, deadline - Instant::now()).await?;
    let now = history::position(transaction).await?.mark();
    let mut passage = Passage {
        anchor: None,
        whole: true,
        position: Cursor::At(now.clone()),
        now,
        more: false,
        state: None,
        events: Vec::new(),
    };
    if let Some(since) = since {
        read_missed(transaction, question, since, page_bytes, &mut passage).await?;
    }
    if question.state && passage.whole && !passage.more {
        let left = deadline - Instant::now();
        state::prepare(transaction, &question.claims, left).await?;
        passage.state = Some(read_state(transaction, question).await?);
    }
    Ok(passage)
}

/// Reads what `since` has missed up to the position of the passage, or as far as a page goes.
async fn read_missed(
    transaction: &Transaction<'_>,
    question: &Question,
    since: &Cursor,
    page_bytes: i64,
    passage: &mut Passage,
) -> Result<(), Failure> {
    let target = passage.position.clone();
    let mut rows = question.limit as i64;
    let mut bytes = page_bytes;
    for leg in since.legs(&target) {
        let mut after = leg.after;
        loop {
            let extent = Extent {
                // Without room nothing is fetched, but it is told whether there is more.
                rows: if bytes > 0 { rows } else { 0 },
                bytes,
            };
            let ends = (since, &target);
            let page =
                history::page(transaction, &question.topics, &leg, after, extent, ends).await?;
            if passage.events.is_empty() {
                passage.anchor = page.head.anchor;
                passage.whole =
                    since.standing(&page.head.floor, page.head.anchor) == Standing::Served;
                if !passage.whole {
                    return Ok(());
                }
            }
            rows -= page.events.len() as i64;
            for event in &page.events {
                bytes -= event.data.len() as i64;
                after = event.id;
            }
            passage.events.extend(page.events);
            if !page.more {
                break;
            }
            let reached = reached(&leg, after);
            if reached.to_text().is_some() {
                passage.position = reached;
                passage.more = true;
                return Ok(());
            }
            // No cursor can name this place: the page goes on to one that can be named, the end of the
            // leg, unless that lies too far.
            if bytes <= 0 {
                return Err(Failure::NoCursor);
            }
            rows = question.limit as i64;
        }
    }
    Ok(())
}

/// The position once events of the leg up to `sent` have gone out.
fn reached(leg: &Leg, sent: i64) -> Cursor {
    match sent {
        // Nothing has: the leg begins where the one before it ended.
        0 => Cursor::At(leg.from.clone()),
        sent => leg.at(sent),
    }
}

async fn read_state(
    transaction: &Transaction<'_>,
    question: &Question,
) -> Result<Vec<(Topic, String)>, Failure> {
    let mut states = Vec::new();
    for topic in &question.topics {
        match state::of(transaction, topic, &question.claims).await {
            Ok(Some(state)) => states.push((topic.clone(), state)),
            // Nobody tells it.
            Ok(None) => {}
            Err(StateError::Unserved(error)) => return Err(error.into()),
            Err(error) => return Err(Failure::State(topic.clone(), error)),
        }
    }
    Ok(states)
}
