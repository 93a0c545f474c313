//! Publishing by a line: `PUBLISH topic payload` on a control connection, nothing said in return.

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::audience::Audience;
use super::{Result, block};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

/// Does what control connections say, for ever.
pub(crate) async fn obey(listener: TcpListener, audience: &Audience) -> Result<()> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => connections.push(hear(accepted?.0, audience)),
            Some(ended) = connections.next() => ended?,
        }
    }
}

/// One connection, to its end.
async fn hear(socket: TcpStream, audience: &Audience) -> Result<()> {
    let mut socket = BufReader::new(socket);
    let (mut line, mut chunk) = (String::new(), Vec::new());
    while socket.read_line(&mut line).await? > 0 {
        let words = line.trim_end().strip_prefix("PUBLISH ");
        let (topic, payload) = (words.and_then(|words| words.split_once(' ')))
            .ok_or("a line of the control connection is PUBLISH topic payload")?;
        block::write_chunk(payload, &mut chunk);
        audience.tell(topic, &chunk);
        line.clear();
    }
    Ok(())
}
