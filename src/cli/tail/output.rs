//! Standard output that may stall or go away without holding anybody up.
//!
//! It is written by a thread of its own, since a terminal that is paused blocks whoever writes to
//! it, and Ctrl-C must be heard all the same. That a reader has gone is noticed also while there is
//! nothing to write, so that `tidings tail … | head -1` ends at once.

use std::io::{self, Write};
use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

type Piece = (Vec<u8>, oneshot::Sender<io::Result<()>>);

/// The way to standard output.
pub(super) struct Output {
    pieces: mpsc::Sender<Piece>,
}

impl Output {
    /// Starts the thread, which ends with this handle, or with the process if it is stalled then.
    pub(super) fn start() -> io::Result<Self> {
        // One is being written while the next is waited for; more than one never waits.
        let (pieces, mut incoming) = mpsc::channel::<Piece>(1);
        let thread = std::thread::Builder::new().name("output".into());
        thread.spawn(move || {
            let mut output = io::stdout().lock();
            while let Some((bytes, done)) = incoming.blocking_recv() {
                let written = output.write_all(&bytes).and_then(|()| output.flush());
                // Whoever does not wait any more has been told to stop.
                let _ = done.send(written);
            }
        })?;
        Ok(Self { pieces })
    }

    /// Returns when it is being written, with the way to learn when all of it is; an error of that says that
    /// the output has gone.
    pub(super) async fn write(&self, bytes: Vec<u8>) -> oneshot::Receiver<io::Result<()>> {
        let (done, written) = oneshot::channel();
        // If nobody takes it any more, its end says so.
        let _ = self.pieces.send((bytes, done)).await;
        written
    }

    /// Resolves when nobody is left to read; never for files and other outputs that cannot tell.
    pub(super) async fn closed(&self) {
        let watched = io::stdout().as_fd().try_clone_to_owned();
        // Unchecked, because that leaves the mode of the descriptor, which others share, alone.
        let watched = watched.and_then(pipe::Sender::from_owned_fd_unchecked);
        if let Ok(pipe) = watched
            && pipe.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
