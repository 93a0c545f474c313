//! The streams, as scenarios see them: a handle on the thread that reads them all.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper::Uri;
use mio::Waker;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::arrivals::{Arrivals, Counts};
use crate::clock::Clock;
use crate::flight::{Flight, Flights};
use crate::options::{Await, Options};
use crate::payload::Finder;
use crate::reader::{Command, Opened, Reader};
use crate::request::Requests;
use crate::sources::Sources;
use crate::{Result, failure};

/// Streams from one address, well below the number of its ports.
const PER_ADDRESS: usize = 5_000;
/// Addresses of 127.0.0.0/24.
const ADDRESSES_MAX: usize = 254;

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
    flights: Sender<Flight>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Starts the thread; no stream is open yet.
    pub(crate) fn start(options: &Options, clock: Clock) -> Result<Self> {
        let (commands, commanded) = channel();
        let (flights, announced) = channel();
        let lanes = options.lanes();
        let flying = Flights::new(announced, 2 * lanes);
        let arrivals = Arrivals::new(clock, flying, lanes, options.streams);
        let (mut reader, waker) = Reader::new(plan(options)?, clock, arrivals, commanded)?;
        let thread = std::thread::Builder::new().name("reader".into());
        let thread = thread.spawn(move || {
            if let Err(error) = reader.run() {
                eprintln!("the reader has ended: {error}");
            }
        })?;
        Ok(Self {
            commands: Some(commands),
            waker: Arc::new(waker),
            flights,
            thread: Some(thread),
        })
    }

    /// Where flights are announced.
    pub(crate) fn flights(&self) -> Sender<Flight> {
        self.flights.clone()
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

fn plan(options: &Options) -> Result<Plan> {
    let uri: Uri = options.url.parse()?;
    let host = uri.authority().ok_or("the URL names no host")?.to_string();
    let port = uri.port_u16().unwrap_or(80);
    let name = uri.host().ok_or("the URL names no host")?;
    let mut servers = (name, port).to_socket_addrs()?;
    let server = servers.next().ok_or("the host has no address")?;
    let all = options.streams + options.churn + options.warm_up_connects();
    let enough = all.div_ceil(PER_ADDRESS).min(ADDRESSES_MAX);
    let is_here = server.is_ipv4() && server.ip().is_loopback();
    let addresses = if is_here {
        options.addresses.unwrap_or(enough)
    } else {
        0
    };
    Ok(Plan {
        sources: Sources::new(server, addresses),
        opening: options.opening,
        awaited: options.awaited,
        requests: Requests {
            host,
            path: options.path().to_owned(),
            secret: options.secret.clone(),
        },
        finder: Finder::new(options.payload_bytes),
    })
}
