//! The directory: every open stream, in concurrent maps. It counts what each user and each address
//! has open, so that one of them cannot take the place of all, and finds the answers of hyper's whose clients
//! have stopped reading, over whichever HTTP. Direct streams are watched by their shards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

/// Who takes a seat.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Guest {
    /// An authenticated user; one address may be a whole office.
    User(Arc<str>),
    /// Someone without a token, by address.
    Address(Arc<str>),
}

/// Which limit is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The gateway holds as many streams as it can.
    Gateway,
    /// The user, or the anonymous address, has as many as it may.
    Guest,
}

/// The open streams.
#[derive(Debug)]
pub struct Directory {
    guests: DashMap<Guest, usize>,
    watched: DashMap<u64, Arc<Vital>>,
    next: AtomicU64,
    taken: AtomicUsize,
    /// Nobody is taken in.
    closed: AtomicBool,
    start: Instant,
    limit: usize,
    per_user: usize,
    per_address: usize,
}

/// Whether a stream's client reads, and how to end it when it does not.
#[derive(Debug)]
struct Vital {
    /// When something was handed to be written and nothing has been asked for since, in milliseconds
    /// after the start, plus one; 0 while the writer waits for the stream.
    handed: AtomicU64,
    cut: CancellationToken,
}

/// One open stream's place; dropping it frees the place.
#[derive(Debug)]
pub struct Seat {
    directory: Arc<Directory>,
    guest: Guest,
}

/// A response whose client is watched until this is dropped.
#[derive(Debug)]
pub struct Watched {
    directory: Arc<Directory>,
    number: u64,
    vital: Arc<Vital>,
}

impl Directory {
    /// An empty directory with its limits: in all, for each user, for each anonymous address.
    pub fn new(limit: usize, per_user: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            guests: DashMap::new(),
            watched: DashMap::new(),
            next: AtomicU64::new(0),
            taken: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            start: Instant::now(),
            limit,
            per_user,
            per_address,
        })
    }

    /// Takes a seat, or tells which limit forbids it. Open streams are never cut for new ones.
    pub fn take(self: &Arc<Self>, guest: Guest) -> Result<Seat, Full> {
        if self.is_closed() {
            return Err(Full::Gateway);
        }
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Gateway);
        }
        let most = match guest {
            Guest::User(_) => self.per_user,
            Guest::Address(_) => self.per_address,
        };
        {
            let mut seats = self.guests.entry(guest.clone()).or_insert(0);
            if *seats >= most {
                drop(seats);
                self.taken.fetch_sub(1, Ordering::Relaxed);
                return Err(Full::Guest);
            }
            *seats += 1;
        }
        Ok(Seat {
            directory: self.clone(),
            guest,
        })
    }

    /// Watches a response; `cut` ends it when its client does not read.
    pub fn watch(self: &Arc<Self>, cut: CancellationToken) -> Watched {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let vital = Arc::new(Vital {
            // Its head has been handed out, and nobody has asked for more.
            handed: AtomicU64::new(self.now()),
            cut,
        });
        self.watched.insert(number, vital.clone());
        Watched {
            directory: self.clone(),
            number,
            vital,
        }
    }

    /// Cuts the responses that have taken nothing for this long although something waits, and returns
    /// how many.
    pub fn cut_stalled(&self, patience: Duration) -> usize {
        let before = self.now().saturating_sub(patience.as_millis() as u64);
        let mut cut = 0;
        for stream in &self.watched {
            let handed = stream.handed.load(Ordering::Relaxed);
            if handed != 0 && handed < before && !stream.cut.is_cancelled() {
                stream.cut.cancel();
                cut += 1;
            }
        }
        cut
    }

    /// Cuts the half of those responses that have waited the longest for their clients to take something,
    /// among those that have waited for so long, and returns how many.
    pub fn cut_longest(&self, patience: Duration) -> usize {
        let before = self.now().saturating_sub(patience.as_millis() as u64);
        let mut stalled: Vec<(u64, Arc<Vital>)> = Vec::new();
        for stream in &self.watched {
            let handed = stream.handed.load(Ordering::Relaxed);
            if handed != 0 && handed < before && !stream.cut.is_cancelled() {
                stalled.push((handed, stream.clone()));
            }
        }
        stalled.sort_unstable_by_key(|(handed, _)| *handed);
        let count = stalled.len().div_ceil(2);
        for (_, vital) in &stalled[..count] {
            vital.cut.cancel();
        }
        count
    }

    /// Takes nobody in any more, or again.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::Relaxed);
    }

    /// Whether nobody is taken in.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }
}

impl Watched {
    /// Notes that the writer has asked for more, and whether it got something.
    pub fn asked(&self, got: bool) {
        let handed = if got { self.directory.now() } else { 0 };
        self.vital.handed.store(handed, Ordering::Relaxed);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.directory.watched.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let guests = &self.directory.guests;
        if let Some(mut taken) = guests.get_mut(&self.guest) {
            *taken -= 1;
        }
        guests.remove_if(&self.guest, |_, taken| *taken == 0);
        self.directory.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(directory: &Arc<Directory>, guest: &Guest) -> Result<Seat, Full> {
        directory.take(guest.clone())
    }

    #[test]
    fn seats_are_bounded_and_come_back() {
        let directory = Directory::new(3, 2, 1);
        let user = Guest::User("42".into());
        let address = Guest::Address("127.0.0.1".into());
        let first = take(&directory, &user).expect("a seat");
        let _second = take(&directory, &user).expect("a seat");
        assert_eq!(take(&directory, &user).err(), Some(Full::Guest));
        let _third = take(&directory, &address).expect("a seat");
        assert_eq!(take(&directory, &address).err(), Some(Full::Gateway));
        drop(first);
        assert_eq!(directory.taken.load(Ordering::Relaxed), 2);
        take(&directory, &user).expect("the seat came back");
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let directory = Directory::new(10, 2, 1);
        drop(take(&directory, &Guest::User("42".into())).expect("a seat"));
        drop(directory.watch(CancellationToken::new()));
        assert!(directory.guests.is_empty() && directory.watched.is_empty());
    }

    #[test]
    fn who_takes_nothing_is_cut_and_who_waits_for_the_stream_is_not() {
        let directory = Directory::new(10, 10, 1);
        let [deaf, waiting] = [(); 2].map(|()| directory.watch(CancellationToken::new()));
        waiting.asked(true);
        waiting.asked(false);
        assert_eq!(directory.cut_stalled(Duration::from_secs(60)), 0);
        while directory.cut_stalled(Duration::ZERO) == 0 {
            std::thread::yield_now();
        }
        assert!(deaf.vital.cut.is_cancelled());
        assert!(!waiting.vital.cut.is_cancelled());
    }
}
