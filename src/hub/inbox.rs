//! The inbox of a shard: what it is told arrives here in order, and wakes it when it sleeps in its poller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use mio::{Poll, Token, Waker};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TryRecvError;

use super::direct::Leaving;
use super::shard::Command;

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
    asleep: AtomicBool,
}

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
        asleep: AtomicBool::new(false),
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
        let urgent = command.is_urgent();
        self.commands.send(command).await.map_err(|_| Gone)?;
        // An inbox that fills would hold up whoever tells the next shard something urgent.
        if urgent || self.commands.capacity() < COMMANDS / 2 {
            self.wake();
        }
        Ok(())
    }

    /// Hands over a stream that has left hyper; the shard is woken for it if something waits there.
    pub async fn hand_over(&self, leaving: Leaving) -> Result<(), Gone> {
        let outbox = leaving.outlet.outbox();
        self.send(Command::Direct(leaving)).await?;
        // What comes from now on wakes the shard, which then finds the stream first.
        if outbox.is_waiting() {
            self.wake();
        }
        Ok(())
    }

    fn wake(&self) {
        // Either the shard sees what was sent, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.sleep.asleep.swap(false, Ordering::SeqCst) {
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

    /// Says that the shard is about to sleep; returns whether it may, and then it is woken by what comes.
    pub(crate) fn doze(&self) -> bool {
        self.sleep.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.commands.is_empty()
    }

    /// Says that it is awake.
    pub(crate) fn rouse(&self) {
        self.sleep.asleep.store(false, Ordering::SeqCst);
    }
}
