//! Attaching: how a stream comes to be fed from a known position on.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::{mpsc, oneshot};

use super::status::Status;
use super::turn::Turns;
use crate::cursor::Cursor;
use crate::frame::Position;
use crate::hub::Join;
use crate::hub::ShardHandle;
use crate::hub::window::Window;
use crate::metrics::Metrics;

/// Streams that may wait to be received by the loop that looks.
const ARRIVALS: usize = 1024;

/// A stream that wants to join.
pub struct Arrival {
    pub(crate) join: Join,
    /// The cursor that it brings: its position must not lie behind what that has seen.
    pub(crate) cursor: Option<Cursor>,
    pub(crate) reply: oneshot::Sender<Attached>,
}

/// Where a stream has joined: everything after this position reaches its outbox.
pub struct Attached {
    /// The position.
    pub position: Cursor,
    /// The text of this or an earlier position, the last that had one.
    pub earlier: Option<Position>,
    /// The shard that feeds it.
    pub shard: ShardHandle,
}

/// Bounds of what a stream may ask of the relay.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// The bytes that may wait for one stream.
    pub stream_queue_bytes: usize,
    /// The most events that a stream replays.
    pub replay_events: usize,
    /// How long a statement of a replay may take.
    pub statement_timeout: Duration,
    /// How long a stream that needs the database is held while that is away.
    pub hold: Duration,
    /// The most bytes of payload on a page of a sync.
    pub page_bytes: usize,
}

/// What streams use of the relay.
#[derive(Clone)]
pub struct Relay {
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) window: Arc<Window>,
    pub(crate) pool: Pool,
    pub(crate) turns: Arc<Turns>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) status: Arc<Status>,
    pub(crate) bounds: Bounds,
}

impl Relay {
    /// The relay's front, and the queue of arrivals for the loop that looks.
    pub fn new(
        window: Arc<Window>,
        pool: Pool,
        turns: Arc<Turns>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        bounds: Bounds,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, queue) = mpsc::channel(ARRIVALS);
        let relay = Self {
            arrivals,
            window,
            pool,
            turns,
            metrics,
            status,
            bounds,
        };
        (relay, queue)
    }

    /// Joins a stream; `None` when the gateway is going away.
    pub(crate) async fn attach(&self, join: Join, cursor: Option<Cursor>) -> Option<Attached> {
        let (reply, attached) = oneshot::channel();
        let arrival = Arrival {
            join,
            cursor,
            reply,
        };
        self.arrivals.send(arrival).await.ok()?;
        attached.await.ok()
    }
}
