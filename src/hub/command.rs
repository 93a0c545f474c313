//! What a shard is told, and how soon it is to see it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::attempt::Attempt;
use super::direct::Leaving;
use super::inbox::Urgency;
use super::outbox::Outbox;
use super::queued::Queued;
use crate::frame::{Bye, Position};
use crate::topic::Topic;

/// When the shard speaks or ends of its own accord, and how much may wait.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The mean time between two beats of a stream; each is jittered by a fifth.
    pub heartbeat: Duration,
    /// The age at which streams are asked to reconnect, so that they spread after scaling out.
    pub stream_age: Option<Duration>,
    /// How long a socket may take nothing while something waits for it.
    pub write_timeout: Duration,
    /// The bytes of all waiting frames beyond which the streams furthest behind are ended.
    pub queue_bytes: usize,
}

/// A stream that wants to be fed from here on.
pub struct Join {
    /// Where its frames go.
    pub outbox: Outbox,
    /// Its topics, each once.
    pub topics: Vec<Topic>,
    /// When its token expires.
    pub expires: Option<Instant>,
    /// Who it is, for the log line of a stream that is too slow.
    pub label: Arc<str>,
}

/// What a shard is told, in order.
pub enum Command {
    /// A stream joins after everything that was sent before.
    Join(Join),
    /// A stream has left hyper: from now on the shard writes it.
    Direct(Leaving),
    /// The next frames of a look, each with the topic whose streams get it.
    Frames(Arc<[(Topic, Arc<Queued>)]>, Attempt),
    /// A message that is not part of the log: only live streams get it.
    Signal(Topic, Arc<Queued>),
    /// A look is through; this is the position of everyone who has read all that was sent.
    Through(Option<Position>),
    /// The streams furthest behind end until no more than so many bytes wait, and half of those direct streams are
    /// cut that have taken nothing for so long.
    Shed(usize, Duration),
    /// Every stream ends now.
    EndAll(Bye),
    /// Every stream ends within this time, spread evenly, and so does whoever joins later.
    Drain(Duration),
    /// The sockets of direct streams close, and so does that of whoever still leaves hyper.
    Close,
}

impl Command {
    /// Streams come by the thousand, and what is urgent for one of them says so by itself.
    pub(crate) fn urgency(&self) -> Urgency {
        match self {
            Self::Join(_) | Self::Through(_) => Urgency::Sometime,
            Self::Direct(_) => Urgency::Soon,
            Self::Frames(..)
            | Self::Signal(..)
            | Self::Shed(..)
            | Self::EndAll(_)
            | Self::Drain(_)
            | Self::Close => Urgency::Now,
        }
    }
}
