//! A TCP proxy between a gateway and Postgres, which can cut, hold up, swallow, slow down, and lead
//! elsewhere.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::postgres::Database;

#[derive(Clone)]
struct Way {
    /// Nothing passes, in either direction.
    held: bool,
    /// Connections of an earlier number are closed.
    cuts: u64,
    /// Each order to swallow, with the name of those whom it concerns, if not everybody: connections that
    /// were there before it stay open, and whatever is sent on them is gone.
    swallows: Vec<Option<String>>,
    /// How long each piece of at most 16 KiB is on its way.
    delay: Duration,
    /// Where new connections lead.
    server: String,
}

/// The proxy; dropping it ends it with its connections.
pub(crate) struct Proxy {
    url: String,
    way: watch::Sender<Way>,
    task: AbortHandle,
}

impl Proxy {
    /// A proxy in front of the server of this database.
    pub(crate) async fn start(database: &Database) -> Proxy {
        let url = database.url();
        let (user, rest) = url.rsplit_once('@').expect("a user");
        let (server, name) = rest.split_once('/').expect("a database");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (way, watched) = watch::channel(Way {
            held: false,
            cuts: 0,
            swallows: Vec::new(),
            delay: Duration::ZERO,
            server: server.to_owned(),
        });
        let accept = accept(listener, watched);
        Proxy {
            url: format!("{user}@{address}/{name}"),
            way,
            task: tokio::spawn(accept).abort_handle(),
        }
    }

    /// The database through the proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets nothing pass until it is released; nothing is lost.
    pub(crate) fn hold(&self) {
        self.way.send_modify(|way| way.held = true);
    }

    /// Lets pass what was held up.
    pub(crate) fn release(&self) {
        self.way.send_modify(|way| way.held = false);
    }

    /// All connections there are become half-open: they look alive, and nothing comes through any more, in
    /// neither direction. New ones are not concerned.
    pub(crate) fn swallow(&self) {
        self.way.send_modify(|way| way.swallows.push(None));
    }

    /// The same for the connections whose `application_name` is this, and no others.
    pub(crate) fn swallow_only(&self, name: &str) {
        self.way
            .send_modify(|way| way.swallows.push(Some(name.to_owned())));
    }

    /// Every piece takes so long from now on.
    pub(crate) fn slow_down(&self, delay: Duration) {
        self.way.send_modify(|way| way.delay = delay);
    }

    /// New connections lead to another server from now on, named as `host:port`.
    pub(crate) fn lead_to(&self, server: &str) {
        self.way
            .send_modify(|way| server.clone_into(&mut way.server));
    }

    /// Closes all connections there are.
    pub(crate) fn cut(&self) {
        self.way.send_modify(|way| way.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, as orders see it.
#[derive(Clone)]
struct Connection {
    /// How many swallows had been ordered before it was opened.
    swallows: usize,
    /// The name by which its client introduced itself, once it has.
    name: Arc<OnceLock<String>>,
}

impl Connection {
    /// Listens for the name in what the client sends: it stands in the message that begins a session.
    fn hear(&self, sent: &[u8]) {
        const KEY: &[u8] = b"application_name\0";
        if self.name.get().is_some() {
            return;
        }
        let place = sent.windows(KEY.len()).position(|window| window == KEY);
        if let Some(place) = place {
            let name = sent[place + KEY.len()..].split(|byte| *byte == 0).next();
            let name = String::from_utf8_lossy(name.unwrap_or_default());
            let _ = self.name.set(name.into_owned());
        }
    }

    fn is_swallowed(&self, way: &Way) -> bool {
        let mut orders = way.swallows[self.swallows..].iter();
        orders.any(|name| name.is_none() || name.as_ref() == self.name.get())
    }
}

async fn accept(listener: TcpListener, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let way = way.clone();
        connections.spawn(async move {
            let Way {
                cuts,
                swallows,
                server,
                ..
            } = way.borrow().clone();
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let connection = Connection {
                swallows: swallows.len(),
                name: Arc::default(),
            };
            let unnamed = connection.clone();
            let hear = move |sent: &[u8]| unnamed.hear(sent);
            let mut cut = way.clone();
            tokio::select! {
                () = pump(from_client, to_server, way.clone(), &connection, hear) => {}
                () = pump(from_server, to_client, way, &connection, |_| ()) => {}
                _ = cut.wait_for(|way| way.cuts > cuts) => {}
            }
        });
    }
}

/// Passes on what comes, as long as no swallow of this connection has been ordered.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut way: watch::Receiver<Way>,
    connection: &Connection,
    hear: impl Fn(&[u8]),
) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await;
        let passing = way.wait_for(|way| !way.held).await;
        let passing = passing.map(|way| (connection.is_swallowed(&way), way.delay));
        let Ok((swallowed, delay)) = passing else {
            return;
        };
        if swallowed {
            // Not even the end comes through; only a cut of the proxy's own ends it.
            return std::future::pending().await;
        }
        let Ok(count @ 1..) = count else {
            return;
        };
        hear(&buffer[..count]);
        tokio::time::sleep(delay).await;
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
