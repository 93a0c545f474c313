//! A client's socket as hyper reads and writes it: with the bytes that were read to find out which
//! HTTP it speaks put back in front, and a deadline for writes that make no progress.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::takeover::{Departure, Exit};

/// How every HTTP/2 connection begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for what is read at first: most heads fit, and then one read is enough.
const FIRST_BYTES: usize = 1024;

/// Which HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// HTTP/1.0 or 1.1.
    One,
    /// HTTP/2 without TLS, by prior knowledge.
    Two,
}

/// The socket, or whatever stands for one.
pub(super) struct Io<T = TcpStream, D = Departure> {
    stream: T,
    /// What was read before hyper came; handed out first.
    begun: Bytes,
    write_timeout: Duration,
    /// Runs while a write waits for the peer; boxed, because most sockets never have one.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Learns that all that hyper had to write has been written.
    exit: Option<Exit<D>>,
}

impl<T: AsyncRead + AsyncWrite + Unpin, D> Io<T, D> {
    /// Reads until the version is known, which is once unless a client sends it in pieces.
    pub(crate) async fn detect(
        mut stream: T,
        write_timeout: Duration,
    ) -> io::Result<(Self, Version)> {
        let mut begun = BytesMut::with_capacity(FIRST_BYTES);
        let version = loop {
            if stream.read_buf(&mut begun).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let known = begun.len().min(PREFACE.len());
            if begun[..known] != PREFACE[..known] {
                break Version::One;
            }
            if known == PREFACE.len() {
                break Version::Two;
            }
        };
        let io = Self {
            stream,
            begun: begun.freeze(),
            write_timeout,
            stalled: None,
            exit: None,
        };
        Ok((io, version))
    }

    /// Tells the exit from now on when all has been written.
    pub(super) fn set_exit(&mut self, exit: Exit<D>) {
        self.exit = Some(exit);
    }

    /// The socket alone, when all has been written.
    pub(super) fn into_socket(self) -> T {
        self.stream
    }

    /// Bounds how long a pending write may stay pending.
    fn progress<R>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<R>>,
    ) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let deadline = Instant::now() + self.write_timeout;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if stalled.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin, D> AsyncRead for Io<T, D> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.begun.is_empty() {
            let count = self.begun.len().min(buffer.remaining());
            buffer.put_slice(&self.begun[..count]);
            self.begun.advance(count);
            if self.begun.is_empty() {
                self.begun = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, D> AsyncWrite for Io<T, D> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if let (Poll::Ready(Ok(())), Some(exit)) = (&flushed, &self.exit) {
            exit.flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
