//! The audience: open sockets by the topics that they asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

/// Everybody who listens. One thread has it, so nothing is locked.
#[derive(Default)]
pub(crate) struct Audience {
    by_topic: RefCell<HashMap<String, Vec<Rc<TcpStream>>>>,
}

impl Audience {
    /// Adds a socket, which does not block, to each of the topics.
    pub(crate) fn join(&self, socket: TcpStream, topics: Vec<String>) {
        let socket = Rc::new(socket);
        let mut by_topic = self.by_topic.borrow_mut();
        for topic in topics {
            by_topic.entry(topic).or_default().push(socket.clone());
        }
    }

    /// Sends the bytes to each socket of the topic, one `send` for each. Nothing is queued: whoever cannot
    /// take them whole at this moment is cut, so that nobody takes a gap for silence.
    pub(crate) fn tell(&self, topic: &str, bytes: &[u8]) {
        if let Some(sockets) = self.by_topic.borrow_mut().get_mut(topic) {
            sockets.retain(|socket| send(socket, bytes));
        }
    }
}

/// Whether the socket has taken all of it.
fn send(mut socket: &TcpStream, bytes: &[u8]) -> bool {
    match socket.write(bytes) {
        Ok(sent) if sent == bytes.len() => return true,
        Ok(_) => eprintln!("a reader is too slow: part of an event was left"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => eprintln!("a reader is too slow"),
        // It has gone, as readers do.
        Err(_) => return false,
    }
    let _ = socket.shutdown(Shutdown::Both);
    false
}
