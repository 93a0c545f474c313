//! A stream, read by a task of its own: for figures of a few that are looked at closely.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::gateway::{PATIENCE, Result, SECRET};

/// An open stream, of which only as much is understood as a figure needs.
pub(crate) struct Stream {
    socket: TcpStream,
    read: Vec<u8>,
}

impl Stream {
    /// Opens a stream of one topic for this user, from this address, and waits until it is live.
    pub(crate) async fn open(
        gateway: SocketAddr,
        from: SocketAddr,
        user: &str,
        topic: &str,
    ) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(from)?;
        Self::over(socket, gateway, user, topic).await
    }

    /// The same over this socket.
    pub(crate) async fn over(
        socket: TcpSocket,
        gateway: SocketAddr,
        user: &str,
        topic: &str,
    ) -> Result<Self> {
        let mut socket = socket.connect(gateway).await?;
        let token = token(user)?;
        let head = format!(
            "GET /v1/events?topic={topic} HTTP/1.1\r\nhost: {gateway}\r\nauthorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await?;
        let mut stream = Self {
            socket,
            read: Vec::new(),
        };
        stream.wait_for("tidings.ready").await?;
        // `ready` ends with an empty line, and what comes after it is waited for anew.
        stream.wait_for("\n\n").await?;
        Ok(stream)
    }

    /// Reads until this text has come.
    pub(crate) async fn wait_for(&mut self, text: &str) -> Result<()> {
        self.text_until(text).await.map(drop)
    }

    /// Reads until this text has come, and returns what came before it.
    pub(crate) async fn text_until(&mut self, text: &str) -> Result<String> {
        tokio::time::timeout(PATIENCE, self.read_until(text.as_bytes())).await?
    }

    async fn read_until(&mut self, text: &[u8]) -> Result<String> {
        loop {
            let found = self
                .read
                .windows(text.len())
                .position(|window| window == text);
            if let Some(at) = found {
                let before = String::from_utf8_lossy(&self.read[..at]).into_owned();
                self.read.drain(..at + text.len());
                return Ok(before);
            }
            if self.socket.read_buf(&mut self.read).await? == 0 {
                let read = String::from_utf8_lossy(&self.read);
                return Err(format!("the stream ended: {read}").into());
            }
        }
    }
}

/// A token of an hour for a user who may read everything.
fn token(user: &str) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let claims = json!({"sub": user, "exp": now.as_secs() + 3600, "topics": ["*"]});
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(
        &jsonwebtoken::Header::default(),
        &claims,
        &key,
    )?)
}
