//! The reader: one thread with one poller, which opens all streams and reads them.
//!
//! It shares its processors with the server, so that a delivery costs it one read into one large buffer, a
//! glance at the clock, and the search for the payload. The poller tells of edges; a read that does not fill
//! the buffer has emptied the socket, and is not followed by another, unless the peer has closed.

use std::io::{ErrorKind, Read};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;
use tokio::sync::oneshot;

use crate::arrivals::{Arrivals, Counts};
use crate::clock::Clock;
use crate::stream::Stream;
use crate::streams::Plan;
use crate::{Failure, Result, failure};

/// What one read may bring.
const BUFFER_BYTES: usize = 256 << 10;
/// Events of one poll.
const EVENTS: usize = 1_024;
/// The token of the waker; streams have their places.
const WAKER: Token = Token(usize::MAX);

/// What a scenario asks of the reader.
pub(crate) enum Command {
    Open {
        count: usize,
        /// Whether they stay; otherwise each is closed when it is open.
        keep: bool,
        done: oneshot::Sender<Result<Opened>>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
    Begin {
        done: oneshot::Sender<()>,
    },
    Count {
        done: oneshot::Sender<Counts>,
    },
}

/// How long it took from the first connect until the last was open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) took: Duration,
}

/// The thread's state.
pub(crate) struct Reader {
    plan: Plan,
    clock: Clock,
    poll: Poll,
    commands: Receiver<Command>,
    streams: Slab<Stream>,
    opening: Option<Opening>,
    arrivals: Arrivals,
    buffer: Vec<u8>,
}

/// Streams that are being opened.
struct Opening {
    count: usize,
    begun: usize,
    opened: usize,
    keep: bool,
    since: Instant,
    done: oneshot::Sender<Result<Opened>>,
}

impl Reader {
    pub(crate) fn new(
        plan: Plan,
        clock: Clock,
        arrivals: Arrivals,
        commands: Receiver<Command>,
    ) -> Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let reader = Self {
            plan,
            clock,
            poll,
            commands,
            streams: Slab::new(),
            opening: None,
            arrivals,
            buffer: vec![0; BUFFER_BYTES],
        };
        Ok((reader, waker))
    }

    /// Reads until the handle is dropped.
    pub(crate) fn run(&mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled?,
            }
            for event in &events {
                if event.token() == WAKER {
                    if self.obey().is_none() {
                        return Ok(());
                    }
                } else {
                    self.serve(event);
                }
            }
        }
    }

    /// Does what has been asked; `None` when nobody is left to ask.
    fn obey(&mut self) -> Option<()> {
        loop {
            match self.commands.try_recv() {
                Err(TryRecvError::Empty) => return Some(()),
                Err(TryRecvError::Disconnected) => return None,
                Ok(command) => self.do_it(command),
            }
        }
    }

    /// Who has asked may have stopped waiting, and is then not told.
    fn do_it(&mut self, command: Command) {
        match command {
            Command::Open { count, keep, done } => self.open(count, keep, done),
            Command::Close { done } => {
                self.streams = Slab::new();
                let _ = done.send(());
            }
            Command::Begin { done } => {
                self.arrivals.begin();
                let _ = done.send(());
            }
            Command::Count { done } => {
                let _ = done.send(self.arrivals.counts());
            }
        }
    }

    fn open(&mut self, count: usize, keep: bool, done: oneshot::Sender<Result<Opened>>) {
        self.opening = Some(Opening {
            count,
            begun: 0,
            opened: 0,
            keep,
            since: Instant::now(),
            done,
        });
        for _ in 0..self.plan.opening.min(count) {
            self.open_next();
        }
        if count == 0 {
            self.finish_opening();
        }
    }

    fn open_next(&mut self) {
        let Some(opening) = &mut self.opening else {
            return;
        };
        if opening.begun == opening.count {
            return;
        }
        let number = opening.begun;
        opening.begun += 1;
        if let Err(error) = self.connect(number) {
            self.fail_opening(error);
        }
    }

    fn connect(&mut self, number: usize) -> Result<()> {
        let socket = self.plan.sources.connect()?;
        let place = self.streams.vacant_entry();
        let mut socket = TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut socket, Token(place.key()), interest)?;
        place.insert(Stream::new(socket, number));
        Ok(())
    }

    fn serve(&mut self, event: &Event) {
        let key = event.token().0;
        // It may have been closed since it was polled.
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        let was_open = stream.is_open();
        let served = if stream.is_connecting() {
            let number = stream.number;
            stream.request(|| self.plan.requests.head(number))
        } else if event.is_readable() || event.is_read_closed() {
            self.read(key, event.is_read_closed())
        } else {
            return;
        };
        match served {
            Ok(()) if !was_open && self.streams[key].is_open() => self.note_open(key),
            Ok(()) => {}
            Err(error) => self.end(key, error),
        }
    }

    fn read(&mut self, key: usize, is_closed: bool) -> Result<()> {
        let stream = &mut self.streams[key];
        loop {
            let count = match stream.socket.read(&mut self.buffer) {
                Ok(0) => return Err("the server has closed it".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let now_us = self.clock.now_us();
            let number = stream.number;
            let arrivals = &mut self.arrivals;
            let bytes = &self.buffer[..count];
            stream.receive(bytes, self.plan.awaited, &self.plan.finder, |payload| {
                arrivals.note(number, payload, now_us);
            })?;
            if count < self.buffer.len() && !is_closed {
                return Ok(());
            }
        }
    }

    fn note_open(&mut self, key: usize) {
        let Some(opening) = &mut self.opening else {
            return;
        };
        opening.opened += 1;
        let is_last = opening.opened == opening.count;
        if !opening.keep {
            self.streams.remove(key);
        }
        if is_last {
            self.finish_opening();
        } else {
            self.open_next();
        }
    }

    fn finish_opening(&mut self) {
        if let Some(opening) = self.opening.take() {
            let took = opening.since.elapsed();
            let _ = opening.done.send(Ok(Opened { took }));
        }
    }

    fn fail_opening(&mut self, error: Failure) {
        if let Some(opening) = self.opening.take() {
            let which = format!("stream {} of {}", opening.begun, opening.count);
            let _ = (opening.done).send(Err(failure(format!("{which}: {error}"))));
        }
    }

    /// A stream has ended: what was to come to it is lost.
    fn end(&mut self, key: usize, error: Failure) {
        let stream = self.streams.remove(key);
        if stream.is_open() {
            // One tells the reason, and the figures tell how many there were.
            if self.arrivals.note_end() == 1 {
                eprintln!("stream {} has ended: {error}", stream.number);
            }
        } else {
            let read = stream.last_words();
            self.fail_opening(failure(format!("{error} {read}")));
        }
        if self.streams.is_empty() {
            self.arrivals.give_up();
        }
    }
}
