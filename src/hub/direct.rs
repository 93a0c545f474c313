//! A direct stream: a socket that has left hyper, and the queue that is written to it.
//!
//! Whatever waits leaves in one vectored write. A socket that takes nothing costs a pointer for each frame
//! that waits. What its client still sends is read and thrown away, up to a bound.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::attempt::Attempt;
use super::outbox::Outlet;
use super::queue::{Phase, Queue, Taken};
use super::queued::Queued;

/// The most that leaves in one write, in blocks: beyond some dozens a larger write is not cheaper for each.
const SLICES: usize = 64;

/// And in bytes: so that whoever reads quickly does not have all the time of a shard.
const WRITE_BYTES: usize = 128 << 10;

/// What a client must take, in bytes, to have taken something.
const PROGRESS_BYTES: usize = 4 << 10;

/// What a client may send after its request, in bytes.
const INPUT_BYTES: u32 = 64 << 10;

/// What a stream takes of others, such as its seat; dropped when it has ended.
pub type Keep = Box<dyn Send>;

/// A stream on its way from hyper to its shard.
pub struct Leaving {
    pub(crate) outlet: Outlet,
    pub(crate) socket: std::net::TcpStream,
    pub(crate) keep: Keep,
}

impl Leaving {
    /// Of a stream that is live: the response head and all that came before its live frames have been written.
    pub fn new(outlet: Outlet, socket: std::net::TcpStream, keep: Keep) -> Self {
        Self {
            outlet,
            socket,
            keep,
        }
    }
}

/// Which list of streams that can be written to it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ready {
    No,
    Wide,
    Narrow,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrote {
    /// All that waited.
    All,
    /// As much as goes into one write; the socket takes more.
    Part,
    /// The socket takes no more.
    Blocked,
    /// The good-bye, and the end of the body.
    End,
    /// The client has gone.
    Gone,
}

/// The stream.
pub(crate) struct Direct {
    socket: TcpStream,
    pub(crate) queue: Queue,
    pub(crate) ready: Ready,
    /// The socket takes nothing, and says when it does.
    blocked: bool,
    /// What the client has sent since its request, in bytes.
    input: u32,
    /// Since when it has taken nothing, if something is to be written.
    stalled: Option<Instant>,
    _keep: Keep,
}

impl Direct {
    pub(crate) fn new(queue: Queue, socket: std::net::TcpStream, keep: Keep) -> Self {
        Self {
            socket: TcpStream::from_std(socket),
            queue,
            ready: Ready::No,
            blocked: false,
            input: 0,
            stalled: None,
            _keep: keep,
        }
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        registry.register(
            &mut self.socket,
            token,
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Appends frames as [`Queue::append`] does; the attempt is held until they have been tried.
    pub(crate) fn append(&mut self, frames: &[Arc<Queued>], attempt: &Attempt) -> Taken {
        let taken = self.queue.append(frames);
        // One that it has not tried yet stands for the later ones too.
        if taken == Taken::All && self.queue.attempt.is_none() {
            self.queue.attempt = attempt.hold(self.stalled);
        }
        taken
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.queue.phase() == Phase::Ending
    }

    /// For how long it has taken nothing although something waits.
    pub(crate) fn stalled_for(&self, now: Instant) -> Option<Duration> {
        let since = self.stalled?;
        Some(now.saturating_duration_since(since))
    }

    /// The socket takes something again; returns whether that was waited for.
    pub(crate) fn unblock(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    /// Writes what waits, once; says what came of it, and how many bytes.
    pub(crate) fn write(&mut self, now: Instant) -> (Wrote, usize) {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let (count, bytes) = self.queue.lay_out(&mut slices, WRITE_BYTES);
        let written = match count {
            0 => Ok(0),
            1 => (&self.socket).write(&slices[0]),
            _ => (&self.socket).write_vectored(&slices[..count]),
        };
        let mut count = 0;
        let wrote = match written {
            Ok(written) => {
                count = written;
                self.queue.written(written);
                // A socket that takes a part of what it is given is full.
                self.blocked = written < bytes;
                // Who takes a few bytes now and then takes nothing.
                if written >= PROGRESS_BYTES || !self.blocked {
                    self.stalled = None;
                }
                if self.blocked {
                    self.stalled.get_or_insert(now);
                }
                match self.blocked {
                    true => Wrote::Blocked,
                    false if self.queue.is_over() => Wrote::End,
                    false if self.queue.is_empty() => Wrote::All,
                    false => Wrote::Part,
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.blocked = true;
                self.stalled.get_or_insert(now);
                Wrote::Blocked
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Wrote::Part,
            Err(_) => Wrote::Gone,
        };
        // Not before all that the socket takes has been written: else the next slice would come before this one
        // has gone.
        if wrote != Wrote::Part {
            self.queue.attempt = None;
        }
        (wrote, count)
    }

    /// Throws away what the client has sent; returns whether it may go on.
    pub(crate) fn discard(&mut self, scratch: &mut [u8]) -> bool {
        loop {
            match self.socket.read(scratch) {
                Ok(0) => return false,
                Ok(count) => self.input = self.input.saturating_add(count as u32),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return self.input <= INPUT_BYTES;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
            if self.input > INPUT_BYTES {
                return false;
            }
        }
    }

    /// Closes after the end of the body: what the client has sent is read first, or the kernel would take back
    /// what it has not delivered yet.
    pub(crate) fn close(mut self, scratch: &mut [u8]) {
        if self.discard(scratch) {
            // A client that has gone needs no end.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::frame::Frame;
    use crate::hub::queued::Budget;

    /// Both ends of a connection: the client's, and the one that a stream is written to. If they are to be filled,
    /// the buffers between them are small.
    pub(crate) fn connection(small: bool) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let client = client.expect("a socket");
        if small {
            client.set_recv_buffer_size(4096).expect("a small buffer");
        }
        client.connect(&address.into()).expect("connects");
        let (socket, _) = listener.accept().expect("a connection");
        if small {
            let socket = socket2::SockRef::from(&socket);
            socket.set_send_buffer_size(4096).expect("a small buffer");
        }
        socket.set_nodelay(true).expect("an option");
        socket.set_nonblocking(true).expect("an option");
        (client.into(), socket)
    }

    /// A stream that is live, and its client.
    fn direct() -> (Direct, TcpStream) {
        let (client, socket) = connection(true);
        let mut queue = Queue::new(usize::MAX, false);
        queue.go_live(None);
        (Direct::new(queue, socket, Box::new(())), client)
    }

    /// Waits for what the other end of a connection brings about.
    fn until(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "it never was");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_client_may_send_so_much_after_its_request_and_no_more() {
        let (mut direct, mut client) = direct();
        let mut scratch = [0; 4096];
        let bytes = vec![b'x'; INPUT_BYTES as usize];
        let sender = std::thread::spawn(move || {
            client.write_all(&bytes).expect("it is read");
            client
        });
        until(|| {
            assert!(direct.discard(&mut scratch));
            direct.input == INPUT_BYTES
        });
        assert!(direct.discard(&mut scratch));
        let mut client = sender.join().expect("no panic");
        client.write_all(b"x").expect("nobody has closed");
        until(|| !direct.discard(&mut scratch));
    }

    #[test]
    fn who_takes_something_has_its_time_again() {
        let (mut direct, mut client) = direct();
        let budget = Arc::new(Budget::default());
        let (attempt, _) = Attempt::new();
        let json = format!("{:?}", "x".repeat(100_000));
        for number in 1..=50 {
            let frame = Frame::numbered(&number.to_string(), &json);
            let queued = Queued::new(frame, Instant::now(), &budget);
            direct.append(&[queued], &attempt);
        }
        let begun = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(direct.stalled_for(begun), None);
        assert_eq!(direct.write(begun).0, Wrote::Blocked);
        assert!(direct.is_blocked());
        // The system may take a little more, until its buffers are full.
        until(|| {
            let before = (direct.queue.oldest(), direct.stalled);
            direct.write(begun + second).0 == Wrote::Blocked
                && before == (direct.queue.oldest(), direct.stalled)
        });
        let since = direct.stalled.expect("it takes nothing");
        assert!(since <= begun + second);
        assert_eq!(direct.write(begun + 2 * second).0, Wrote::Blocked);
        assert_eq!(direct.stalled, Some(since));
        assert_eq!(direct.stalled_for(since + 3 * second), Some(3 * second));
        let mut bytes = [0; 4096];
        until(|| {
            let read = client.read(&mut bytes).expect("something comes");
            assert!(read > 0);
            direct.write(begun + 4 * second);
            direct.stalled == Some(begun + 4 * second)
        });
        drop(direct);
        assert_eq!(budget.used(), 0);
    }
}
