//! Following the log as the gateway does, with its own listener and its own look, and nothing else: no window,
//! no cursors, no queues.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidings::cursor::Mark;
use tidings::metrics::Metrics;
use tidings::postgres::tail::PAGE_BYTES;
use tidings::postgres::{Bell, Database, Listener, Page, Tail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::audience::Audience;
use super::{Result, block, say_ready};

/// Sends every event that is committed from now on, until the database is lost.
pub(crate) async fn follow(database: &str, audience: &Audience) -> Result<()> {
    let database = Database::parse(database)?;
    let bell = Arc::new(Bell::default());
    // Signals are nobody's business here.
    let (messages, _unheard) = mpsc::channel(1);
    let listener = Listener::new(
        database.clone(),
        BTreeSet::new(),
        bell.clone(),
        messages,
        Arc::new(Metrics::new()),
    );
    let tail = Tail::open(&database, PAGE_BYTES).await?;
    let mark = tail.position().await?.mark();
    tokio::select! {
        () = listener.run(CancellationToken::new()) => Ok(()),
        lost = look(&tail, mark, &bell, audience) => lost,
    }
}

/// One look for each ring, as many pages as it has.
async fn look(tail: &Tail, mut from: Mark, bell: &Bell, audience: &Audience) -> Result<()> {
    // The listener rings once when it hears.
    bell.rung().await;
    say_ready()?;
    let mut chunk = Vec::new();
    loop {
        let mut page = tail.look(&from, false).await?;
        let to = page.head.mark();
        tell(&page, audience, &mut chunk);
        while let Some(last) = page.events.last().filter(|_| page.more) {
            page = tail.rest(&from, &to, last.id).await?;
            tell(&page, audience, &mut chunk);
        }
        from = to;
        bell.rung().await;
    }
}

fn tell(page: &Page, audience: &Audience, chunk: &mut Vec<u8>) {
    for event in &page.events {
        block::write_chunk(&event.data, chunk);
        audience.tell(event.topic.as_str(), chunk);
    }
}
