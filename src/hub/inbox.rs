//! The inbox of a shard: what it is told arrives here in order, and wakes it when it sleeps in its poller, if it is
//! urgent enough for that.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, fence};

use mio::{Poll, Token, Waker};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::command::Command;
use super::direct::Leaving;

/// Commands that may wait: joins of a reconnect storm arrive in bursts.
const COMMANDS: usize = 1024;

/// The way to tell a shard, which ends within a tick after the last has been dropped.
#[derive(Clone)]
pub struct ShardHandle {
    commands: mpsc::Sender<Command>,
    sleep: Arc<Sleep>,
}

/// The shard has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

struct Sleep {
    waker: Waker,
    /// How deep the shard sleeps: an [`Urgency`] below this number wakes it.
    depth: AtomicU8,
}

/// How soon a shard is to see a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Urgency {
    /// At once.
    Now = 0,
    /// Within a nap.
    Soon = 1,
    /// With whatever comes next, or at the next tick.
    Sometime = 2,
}

/// The depth of a sleep from which nothing wakes, because there is none.
const AWAKE: u8 = 0;
/// The depth from which only what is urgent wakes.
const NAP: u8 = Urgency::Now as u8 + 1;
/// The depth from which all wakes that is not for sometime.
const DEEP: u8 = Urgency::Soon as u8 + 1;

/// The shard's end.
pub(crate) struct Inbox {
    commands: mpsc::Receiver<Command>,
    sleep: Arc<Sleep>,
}

/// What [`Inbox::next`] finds.
pub(crate) enum Next {
    Command(Command),
    Nothing,
    /// Every handle is gone.
    Over,
}

/// Makes both ends; the poller is woken under this token.
pub(crate) fn inbox(poll: &Poll, token: Token) -> std::io::Result<(ShardHandle, Inbox)> {
    let (sender, commands) = mpsc::channel(COMMANDS);
    let sleep = Arc::new(Sleep {
        waker: Waker::new(poll.registry(), token)?,
        depth: AtomicU8::new(AWAKE),
    });
    let handle = ShardHandle {
        commands: sender,
        sleep: sleep.clone(),
    };
    Ok((handle, Inbox { commands, sleep }))
}

impl ShardHandle {
    /// Tells the shard something, once there is room in its inbox.
    pub async fn send(&self, command: Command) -> Result<(), Gone> {
        let mut urgency = command.urgency();
        self.commands.send(command).await.map_err(|_| Gone)?;
        // An inbox that fills would hold up whoever tells the next shard something urgent.
        if self.commands.capacity() < COMMANDS / 2 {
            urgency = Urgency::Now;
        }
        self.wake(urgency);
        Ok(())
    }

    /// Hands over a stream that has left hyper; the shard is woken at once if something waits there.
    pub async fn hand_over(&self, leaving: Leaving) -> Result<(), Gone> {
        let outbox = leaving.outlet.outbox();
        self.send(Command::Direct(leaving)).await?;
        // What comes from now on wakes the shard, which then finds the stream first.
        if outbox.is_waiting() {
            self.wake(Urgency::Now);
        }
        Ok(())
    }

    fn wake(&self, urgency: Urgency) {
        // Either the shard sees what was sent, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        let depth = self.sleep.depth.load(Ordering::SeqCst);
        if depth > urgency as u8 && self.sleep.depth.swap(AWAKE, Ordering::SeqCst) != AWAKE {
            let woken = self.sleep.waker.wake();
            woken.expect("a counter takes one more");
        }
    }
}

impl Inbox {
    pub(crate) fn next(&mut self) -> Next {
        match self.commands.try_recv() {
            Ok(command) => Next::Command(command),
            Err(TryRecvError::Empty) => Next::Nothing,
            Err(TryRecvError::Disconnected) => Next::Over,
        }
    }

    /// Says that the shard is about to sleep, or only to nap; returns whether it may.
    pub(crate) fn doze(&self, nap: bool) -> bool {
        let depth = if nap { NAP } else { DEEP };
        self.sleep.depth.store(depth, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.commands.is_empty()
    }

    /// Says that it is awake.
    pub(crate) fn rouse(&self) {
        self.sleep.depth.store(AWAKE, Ordering::SeqCst);
    }
}
