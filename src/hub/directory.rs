//! The directory: how many streams each user and each address has open, in concurrent maps, so
//! that one of them cannot take the place of all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;

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

/// Counts open streams.
#[derive(Debug)]
pub struct Directory {
    seats: DashMap<Guest, usize>,
    taken: AtomicUsize,
    limit: usize,
    per_user: usize,
    per_address: usize,
}

/// One open stream's place; dropping it frees the place.
#[derive(Debug)]
pub struct Seat {
    directory: Arc<Directory>,
    guest: Guest,
}

impl Directory {
    /// An empty directory with its limits: in all, for each user, for each anonymous address.
    pub fn new(limit: usize, per_user: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self {
            seats: DashMap::new(),
            taken: AtomicUsize::new(0),
            limit,
            per_user,
            per_address,
        })
    }

    /// Takes a seat, or tells which limit forbids it. Open streams are never cut for new ones.
    pub fn take(self: &Arc<Self>, guest: Guest) -> Result<Seat, Full> {
        if self.taken.fetch_add(1, Ordering::Relaxed) >= self.limit {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            return Err(Full::Gateway);
        }
        let most = match guest {
            Guest::User(_) => self.per_user,
            Guest::Address(_) => self.per_address,
        };
        {
            let mut seats = self.seats.entry(guest.clone()).or_insert(0);
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

    /// How many streams are open.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let seats = &self.directory.seats;
        if let Some(mut taken) = seats.get_mut(&self.guest) {
            *taken -= 1;
        }
        seats.remove_if(&self.guest, |_, taken| *taken == 0);
        self.directory.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_come_back() {
        let directory = Directory::new(3, 2, 1);
        let user = Guest::User("42".into());
        let address = Guest::Address("127.0.0.1".into());
        let first = directory.take(user.clone()).expect("a seat");
        let _second = directory.take(user.clone()).expect("a seat");
        assert_eq!(directory.take(user.clone()).err(), Some(Full::Guest));
        let _third = directory.take(address.clone()).expect("a seat");
        assert_eq!(directory.take(address).err(), Some(Full::Gateway));
        drop(first);
        assert_eq!(directory.taken(), 2);
        directory.take(user).expect("the seat came back");
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let directory = Directory::new(10, 2, 1);
        drop(directory.take(Guest::User("42".into())).expect("a seat"));
        assert!(directory.seats.is_empty());
    }
}
