//! A feed: the bytes of one stream, from its first line to its last.
//!
//! It opens in a fixed order (retry line, then a reset or what was missed, then `ready`) and from
//! then on hands out what the shard appends to its outbox. Whoever writes it pulls; what opens it
//! runs only while it is pulled and ends when it is dropped, so that no task outlives its stream.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::attach::Relay;
use super::replay::{Refused, Replay};
use crate::cursor::Cursor;
use crate::frame::{self, Bye, Position, Reset};
use crate::hub::Join;
use crate::hub::direct::{Keep, Leaving};
use crate::hub::directory::Guest;
use crate::hub::outbox::outbox;
use crate::hub::{Outbox, Outlet, ShardHandle};
use crate::topic::Topic;

/// How long the first byte waits for the rest of the opening, which takes a look: a write and a packet are spared.
const MOMENT: Duration = Duration::from_millis(5);

/// How much of an opening is kept meanwhile.
const MOMENT_BYTES: usize = 16 << 10;

/// Where a stream wants to begin.
#[derive(Clone, Debug)]
pub enum Since {
    /// From now on.
    Now,
    /// From this cursor on.
    Cursor(Box<Cursor>),
    /// The client brought a text that is no cursor.
    Malformed,
}

impl Since {
    /// The cursor that the client brought, as it is written.
    fn text(&self) -> Option<Position> {
        match self {
            Self::Cursor(cursor) => cursor.to_text().map(Position::from),
            Self::Now | Self::Malformed => None,
        }
    }
}

/// What a stream asks for, after everything that could be refused has been.
#[derive(Debug)]
pub struct Request {
    /// Its topics, each once; all of them may be read.
    pub topics: Vec<Topic>,
    /// Topics that were asked for and may not be read.
    pub denied: Vec<String>,
    /// Where to begin.
    pub since: Since,
    /// Whether events carry an `event:` line.
    pub named: bool,
    /// When the token expires: as the stream's deadline, and as the client is told.
    pub expires: Option<(Instant, String)>,
    /// Whose turn it is at the database.
    pub guest: Guest,
    /// Who it is, for logs.
    pub label: Arc<str>,
}

/// Where an opening feed puts its blocks, one at a time.
pub(crate) struct Out {
    blocks: mpsc::Sender<Bytes>,
    /// The position that the client holds once it has read what was put out.
    held: Mutex<Option<Position>>,
}

impl Out {
    /// Hands a block out; `position` is what its reader holds then, unless that stays as it was.
    pub(crate) async fn send(
        &self,
        block: Bytes,
        position: Option<Position>,
    ) -> Result<(), Refused> {
        self.blocks.send(block).await.map_err(|_| Refused::Gone)?;
        if position.is_some() {
            *self.lock() = position;
        }
        Ok(())
    }

    fn held(&self) -> Option<Position> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Position>> {
        self.held.lock().expect("nothing panics while it is held")
    }
}

/// The opening, as far as it has come.
struct Opening {
    act: Pin<Box<dyn Future<Output = Opened> + Send>>,
    blocks: mpsc::Receiver<Bytes>,
}

/// How an opening ended.
enum Opened {
    /// The stream is live from this position on, fed by this shard.
    Live(Option<Position>, ShardHandle),
    /// It is over.
    Over,
}

/// The bytes of one stream.
pub struct Feed {
    opening: Option<Opening>,
    outlet: Option<Outlet>,
    /// What feeds it, once it is live.
    shard: Option<ShardHandle>,
    /// What it has said before anybody asked.
    said: Bytes,
}

/// A live stream whose bytes are to be written by its shard.
pub struct Live {
    outlet: Outlet,
    shard: ShardHandle,
}

impl Live {
    /// Hands the stream to its shard with its socket, on which all that came before has been written. What is kept is
    /// dropped when the stream has ended.
    pub async fn onto(self, socket: std::net::TcpStream, keep: Keep) {
        let leaving = Leaving::new(self.outlet, socket, keep);
        // The shard has gone only when the gateway ends, and then everything closes.
        let _ = self.shard.hand_over(leaving).await;
    }
}

impl Feed {
    /// Opens a stream; nothing happens until it is polled.
    pub fn open(relay: Relay, request: Request) -> Self {
        let held = request.since.text();
        let (outbox, outlet) = outbox(relay.bounds.stream_queue_bytes, request.named);
        let (sender, blocks) = mpsc::channel(1);
        let act = Box::pin(async move {
            let out = Out {
                blocks: sender,
                held: Mutex::new(held),
            };
            match open(&relay, request, outbox, &out).await {
                Ok(shard) => Opened::Live(out.held(), shard),
                Err(_) => Opened::Over,
            }
        });
        Self {
            opening: Some(Opening { act, blocks }),
            outlet: Some(outlet),
            shard: None,
            said: Bytes::new(),
        }
    }

    /// Opens for a moment before the first byte leaves, so that in most cases all of the opening leaves at once.
    pub async fn begin(&mut self) {
        let mut said = BytesMut::new();
        let opening = poll_fn(|cx| {
            while self.opening.is_some() && said.len() < MOMENT_BYTES {
                match ready!(self.poll_next(cx)) {
                    Some(block) => said.extend_from_slice(&block),
                    None => break,
                }
            }
            Poll::Ready(())
        });
        // What has been said until then is not lost.
        let _ = timeout(MOMENT, opening).await;
        self.said = said.freeze();
    }

    /// The stream, if it is live: nothing more comes from here then.
    pub fn leave(&mut self) -> Option<Live> {
        if !self.said.is_empty() {
            return None;
        }
        let shard = self.shard.take()?;
        let outlet = self.outlet.take()?;
        Some(Live { outlet, shard })
    }

    /// A stream that only says that it ends: what the gateway cannot serve now is still a 200, since
    /// an EventSource never comes back from anything else.
    pub fn bye(relay: &Relay, reason: Bye, since: &Since) -> Bytes {
        relay.metrics.bye(reason);
        let mut text = frame::retry_line().to_vec();
        text.extend_from_slice(&frame::bye(reason, since.text().as_deref()));
        text.into()
    }

    /// The next bytes to write; `None` when the stream is over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if !self.said.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.said)));
        }
        let Some(outlet) = &mut self.outlet else {
            return Poll::Ready(None);
        };
        if let Some(opening) = &mut self.opening {
            // What it said is taken before it goes on, and what it says last before it is dropped.
            if let Poll::Ready(Some(block)) = opening.blocks.poll_recv(cx) {
                return Poll::Ready(Some(block));
            }
            let Poll::Ready(opened) = opening.act.as_mut().poll(cx) else {
                return opening.blocks.poll_recv(cx);
            };
            // Asked without a context: a task whose budget is used up would be told to wait, for a word
            // that nobody will say again.
            let last = opening.blocks.try_recv();
            self.opening = None;
            match opened {
                Opened::Live(position, shard) => {
                    outlet.go_live(position);
                    self.shard = Some(shard);
                }
                Opened::Over => self.outlet = None,
            }
            return match last {
                Ok(block) => Poll::Ready(Some(block)),
                Err(_) => self.poll_next(cx),
            };
        }
        outlet.poll_next(cx)
    }
}

/// Opens a stream: what comes before its live frames. An error has ended it.
async fn open(
    relay: &Relay,
    request: Request,
    outbox: Outbox,
    out: &Out,
) -> Result<ShardHandle, Refused> {
    out.send(frame::retry_line(), None).await?;
    let join = Join {
        outbox,
        topics: request.topics.clone(),
        expires: request.expires.as_ref().map(|(at, _)| *at),
        label: request.label.clone(),
    };
    let cursor = match &request.since {
        Since::Cursor(cursor) => Some(&**cursor),
        Since::Now | Since::Malformed => None,
    };
    // One for all that it may have to wait for, or the waits would add up.
    let mut until = Instant::now() + relay.bounds.hold;
    let mut attached = std::pin::pin!(relay.attach(join, cursor.cloned()));
    let attached = loop {
        match timeout_at(until.into(), &mut attached).await {
            Ok(Some(attached)) => break attached,
            Ok(None) => return bye(relay, out, Bye::Drain).await,
            // A look may take long while the database is well: then it is worth waiting for.
            Err(_) if relay.status.is_connected() => until += relay.bounds.hold,
            Err(_) => return bye(relay, out, Bye::Unavailable).await,
        }
    };
    let mut refused = matches!(request.since, Since::Malformed).then_some(Reset::Malformed);
    let mut replayed = 0;
    if let Some(cursor) = cursor {
        let replay = Replay {
            relay,
            guest: &request.guest,
            topics: &request.topics,
            named: request.named,
            out,
            by: until,
        };
        match replay.run(cursor, &attached).await {
            Ok(events) => replayed = events,
            Err(Refused::Reset(reason)) => refused = Some(reason),
            Err(Refused::Bye(reason)) => return bye(relay, out, reason).await,
            Err(Refused::Gone) => return Err(Refused::Gone),
        }
    }
    if let Some(reason) = refused {
        relay.metrics.reset(reason);
        let block = frame::reset(reason, out.held().as_deref());
        out.send(block, None).await?;
    }
    let resumed = cursor.is_some() && refused.is_none();
    let json = ready_json(&request, resumed, replayed);
    // Where the position has no text, who has one keeps it, and who has none gets an earlier one,
    // which only repeats: without any, what is missed now would be lost.
    let text = attached
        .position
        .to_text()
        .map(Position::from)
        .or_else(|| out.held().is_none().then_some(attached.earlier).flatten());
    let block = frame::ready(text.as_deref(), &json);
    out.send(block, text).await?;
    Ok(attached.shard)
}

async fn bye<T>(relay: &Relay, out: &Out, reason: Bye) -> Result<T, Refused> {
    relay.metrics.bye(reason);
    let block = frame::bye(reason, out.held().as_deref());
    out.send(block, None).await?;
    Err(Refused::Bye(reason))
}

fn ready_json(request: &Request, resumed: bool, replayed: usize) -> String {
    #[derive(serde::Serialize)]
    struct Ready<'a> {
        resumed: bool,
        replayed: usize,
        topics: Vec<&'a str>,
        denied: &'a [String],
        expires_at: Option<&'a str>,
    }
    let ready = Ready {
        resumed,
        replayed,
        topics: request.topics.iter().map(Topic::as_str).collect(),
        denied: &request.denied,
        expires_at: request.expires.as_ref().map(|(_, text)| text.as_str()),
    };
    serde_json::to_string(&ready).expect("strings and numbers become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Uses up one unit of what a task may do before it must let others run.
    async fn work() {
        let unit = poll_fn(|cx| {
            let unit = std::task::ready!(tokio::task::coop::poll_proceed(cx));
            unit.made_progress();
            Poll::Ready(())
        });
        unit.await;
    }

    #[tokio::test]
    async fn the_last_word_of_an_opening_is_heard_however_tired_the_task() {
        for units in 0..300 {
            let said = tokio::spawn(async move {
                let (sender, blocks) = mpsc::channel(1);
                let act = Box::pin(async move {
                    for _ in 0..units {
                        work().await;
                    }
                    let out = Out {
                        blocks: sender,
                        held: Mutex::new(None),
                    };
                    let sent = out.send(Bytes::from_static(b"ready"), None).await;
                    assert_eq!(sent, Ok(()));
                    Opened::Over
                });
                let (_, outlet) = outbox(1 << 20, false);
                let mut feed = Feed {
                    opening: Some(Opening { act, blocks }),
                    outlet: Some(outlet),
                    shard: None,
                    said: Bytes::new(),
                };
                poll_fn(|cx| feed.poll_next(cx)).await
            });
            let said = said.await.expect("no panic");
            assert_eq!(said.as_deref(), Some(&b"ready"[..]), "after {units} units");
        }
    }
}
