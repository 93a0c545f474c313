//! The door: reads one request from each connection, answers as the gateway would, and hands the socket to
//! the audience.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::Result;
use super::audience::Audience;

/// The longest head of a request.
const HEAD_BYTES: usize = 16 << 10;

/// The head of every answer; what follows comes in chunks.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
      cache-control: no-store, no-transform\r\nx-accel-buffering: no\r\n\
      transfer-encoding: chunked\r\n\r\n";

/// A connection that has been answered, and the topics that it asked for.
type Arrived = (std::net::TcpStream, Vec<String>);

/// Lets everybody in, for ever.
pub(crate) async fn admit(listener: TcpListener, audience: &Audience) -> Result<()> {
    let mut arriving = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                arriving.spawn_local(arrive(accepted?.0));
            }
            Some(arrived) = arriving.join_next() => match arrived? {
                Ok((socket, topics)) => audience.join(socket, topics),
                Err(error) => eprintln!("a connection ended before its stream began: {error}"),
            }
        }
    }
}

async fn arrive(mut socket: TcpStream) -> Result<Arrived> {
    socket.set_nodelay(true)?;
    let mut head = Vec::with_capacity(1 << 10);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > HEAD_BYTES {
            return Err("a head of more than 16 KiB".into());
        }
        if socket.read_buf(&mut head).await? == 0 {
            return Err("no whole request".into());
        }
    }
    let topics = topics(&head).ok_or("not a request for a stream")?;
    socket.write_all(ANSWER).await?;
    // From here on it is only sent to: no poller watches it.
    Ok((socket.into_std()?, topics))
}

/// The topics that the query of a request names.
fn topics(head: &[u8]) -> Option<Vec<String>> {
    let head = std::str::from_utf8(head).ok()?;
    let target = head.strip_prefix("GET ")?.split(' ').next()?;
    let (_, query) = target.split_once('?')?;
    let values = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("topic="));
    values.map(decode).collect()
}

/// Undoes percent-encoding.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_stand_in_the_query() {
        let head = b"GET /v1/events?topic=user%3Au1&topic=all HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(
            topics(head),
            Some(vec!["user:u1".to_owned(), "all".to_owned()])
        );
        assert_eq!(topics(b"GET /?topic=%4 HTTP/1.1\r\n\r\n"), None);
        assert_eq!(topics(b"POST /?topic=a HTTP/1.1\r\n\r\n"), None);
    }
}
