//! A TCP proxy between a gateway and Postgres, which can hold everything up or cut it off.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::postgres::Database;

#[derive(Clone, Copy, Default)]
struct Way {
    /// Nothing passes, in either direction.
    held: bool,
    /// Connections of an earlier number are closed.
    cuts: u64,
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
        let (way, watched) = watch::channel(Way::default());
        let accept = accept(listener, server.to_owned(), watched);
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

async fn accept(listener: TcpListener, server: String, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let (server, way) = (server.clone(), way.clone());
        connections.spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let _ = client.set_nodelay(true);
            let _ = server.set_nodelay(true);
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            let cuts = way.borrow().cuts;
            let mut cut = way.clone();
            tokio::select! {
                () = pump(from_client, to_server, way.clone()) => {}
                () = pump(from_server, to_client, way) => {}
                _ = cut.wait_for(|way| way.cuts > cuts) => {}
            }
        });
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if way.wait_for(|way| !way.held).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
