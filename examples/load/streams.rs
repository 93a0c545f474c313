//! The streams, as scenarios see them: a handle on the thread that reads them all.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::arrivals::{Arrivals, Counts};
use crate::clock::Clock;
use crate::payload::Finder;
use crate::reader::{Command, Opened, Reader};
use crate::request::Requests;
use crate::sources::Sources;
use crate::stream::Await;
use crate::{Result, failure};

/// How long opening may take: something, and more for each stream.
const OPENING_PATIENCE: Duration = Duration::from_secs(30);
const OPENING_PATIENCE_EACH: Duration = Duration::from_millis(10);

/// How streams are opened and read.
pub(crate) struct Plan {
    pub(crate) sources: Sources,
    pub(crate) opening: usize,
    pub(crate) awaited: Await,
    pub(crate) requests: Requests,
    pub(crate) finder: Finder,
}

/// All streams; dropping it closes them.
pub(crate) struct Streams {
    commands: Option<Sender<Command>>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Starts the thread; no stream is open yet.
    pub(crate) fn start(plan: Plan, clock: Clock, arrivals: Arrivals) -> Result<Self> {
        let (commands, commanded) = channel();
        let (mut reader, waker) = Reader::new(plan, clock, arrivals, commanded)?;
        let thread = std::thread::Builder::new().name("reader".into());
        let thread = thread.spawn(move || {
            if let Err(error) = reader.run() {
                eprintln!("the reader has ended: {error}");
            }
        })?;
        Ok(Self {
            commands: Some(commands),
            waker: Arc::new(waker),
            thread: Some(thread),
        })
    }

    /// Opens so many streams, numbered from 0.
    pub(crate) async fn open(&self, count: usize) -> Result<Opened> {
        self.open_kept(count, true).await
    }

    /// Opens so many streams and closes each when it is open.
    pub(crate) async fn pass(&self, count: usize) -> Result<Opened> {
        self.open_kept(count, false).await
    }

    async fn open_kept(&self, count: usize, keep: bool) -> Result<Opened> {
        let patience = OPENING_PATIENCE + OPENING_PATIENCE_EACH * u32::try_from(count)?;
        let opening = self.ask(|done| Command::Open { count, keep, done });
        let opened = timeout(patience, opening).await;
        opened.map_err(|_| failure(format!("not all streams opened within {patience:?}")))??
    }

    /// Closes all streams.
    pub(crate) async fn close(&self) -> Result<()> {
        self.ask(|done| Command::Close { done }).await
    }

    /// Counting begins.
    pub(crate) async fn begin(&self) -> Result<()> {
        self.ask(|done| Command::Begin { done }).await
    }

    /// What has been counted.
    pub(crate) async fn counts(&self) -> Result<Counts> {
        self.ask(|done| Command::Count { done }).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (done, answer) = oneshot::channel();
        let commands = self.commands.as_ref().expect("it is there until the end");
        // The answer says it, too, when the reader has gone.
        let _ = commands.send(command(done));
        self.waker.wake()?;
        Ok(answer.await?)
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
