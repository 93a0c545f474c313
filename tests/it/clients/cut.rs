//! A proxy between clients and a gateway that cuts a connection within a block of a stream, at any byte of
//! it, and keeps whoever comes back waiting until the test lets them in. While the gateway is gone it
//! answers as the proxies of `docs/operations.md` do.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::support::client::PATIENCE;

/// Where in a block the connection is cut. None of them depends on the order of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing of the block arrives.
    Before,
    /// In the middle of the text after `data:`.
    WithinData,
    /// Between two bytes of one character of that text.
    WithinCharacter,
    /// In the middle of the text after `id:`.
    WithinId,
    /// After the end of the first of its lines.
    BetweenLines,
    /// Before the line feed of its last line.
    WithinLastLine,
    /// All but the empty line arrives.
    BeforeEmptyLine,
    /// The whole block arrives, and nothing after it.
    After,
}

impl Place {
    pub(crate) const ALL: [Place; 8] = [
        Place::Before,
        Place::WithinData,
        Place::WithinCharacter,
        Place::WithinId,
        Place::BetweenLines,
        Place::WithinLastLine,
        Place::BeforeEmptyLine,
        Place::After,
    ];

    /// How many bytes of this block arrive.
    fn offset(self, block: &[u8]) -> usize {
        let middle = |field: &[u8]| {
            let start = find(block, field).expect("every event has both");
            let length = find(&block[start..], b"\n").expect("a line ends");
            start + (field.len() + length) / 2
        };
        match self {
            Place::Before => 0,
            Place::WithinData => middle(b"data: "),
            Place::WithinCharacter => {
                let middle = middle(b"data: ");
                let rest = block[middle..].iter();
                let within = rest.clone().position(|byte| byte & 0xc0 == 0x80);
                middle + within.expect("the text has characters of several bytes")
            }
            Place::WithinId => middle(b"id: "),
            Place::BetweenLines => {
                // The first line may be the size of a chunk, which ends with a carriage return besides.
                let ends = |pair: &[u8]| pair[1] == b'\n' && pair[0] != b'\r';
                block.windows(2).position(ends).expect("a line ends") + 2
            }
            Place::WithinLastLine => block.len() - 2,
            Place::BeforeEmptyLine => block.len() - 1,
            Place::After => block.len(),
        }
    }
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// As if all had been said: the proxy asks by HTTP/1.0, as some do, so that the end of the connection is
    /// the end of the answer.
    Closed,
    /// In the midst of a chunk of the answer.
    Broken,
}

/// One cut to come.
#[derive(Clone)]
pub(crate) struct Cut {
    /// What the block contains.
    pub(crate) mark: &'static str,
    pub(crate) place: Place,
    pub(crate) manner: Manner,
}

#[derive(Clone)]
struct State {
    /// What is still to be done, by whichever connection meets the block first.
    cut: Option<Cut>,
    /// New connections wait.
    held: bool,
    /// How often somebody was told that the gateway is gone.
    excuses: u32,
}

/// The proxy; dropping it ends it with its connections.
pub(crate) struct Cutter {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: AbortHandle,
}

impl Cutter {
    /// A proxy before the gateway at this address, which cuts once.
    pub(crate) async fn start(gateway: SocketAddr, cut: Cut) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let manner = cut.manner;
        let state = State {
            cut: Some(cut),
            held: false,
            excuses: 0,
        };
        let (state, _) = watch::channel(state);
        let accept = accept(listener, gateway, manner, state.clone());
        Cutter {
            address,
            state,
            task: tokio::spawn(accept).abort_handle(),
        }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has cut; from then on nobody is let in.
    pub(crate) async fn has_cut(&self) {
        self.wait_for("a cut", |state| state.cut.is_none()).await;
    }

    /// Lets in who has come back, and everybody after that.
    pub(crate) fn release(&self) {
        self.state.send_modify(|state| state.held = false);
    }

    /// Waits until somebody has come while the gateway was gone.
    pub(crate) async fn has_excused(&self) {
        self.wait_for("a visit in vain", |state| state.excuses > 0)
            .await;
    }

    async fn wait_for(&self, what: &str, come: impl FnMut(&State) -> bool) {
        let mut watched = self.state.subscribe();
        let waited = tokio::time::timeout(PATIENCE, watched.wait_for(come)).await;
        waited
            .unwrap_or_else(|_| panic!("waited in vain for {what}"))
            .expect("the proxy runs");
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    gateway: SocketAddr,
    manner: Manner,
    state: watch::Sender<State>,
) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(serve(client, gateway, manner, state.clone()));
    }
}

/// Serves one connection; `None` says that it has ended before its time.
async fn serve(
    mut client: TcpStream,
    gateway: SocketAddr,
    manner: Manner,
    state: watch::Sender<State>,
) -> Option<()> {
    let _ = client.set_nodelay(true);
    let mut head = read_head(&mut client).await?;
    let mut watched = state.subscribe();
    watched.wait_for(|state| !state.held).await.ok()?;
    let Ok(mut server) = TcpStream::connect(gateway).await else {
        client.write_all(excuse(&head).as_bytes()).await.ok()?;
        state.send_modify(|state| state.excuses += u32::from(head.starts_with("GET ")));
        return None;
    };
    if manner == Manner::Closed {
        head = head.replacen(" HTTP/1.1", " HTTP/1.0", 1);
    }
    // One request a connection, so that the end of every answer is seen.
    head = head.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    server.write_all(head.as_bytes()).await.ok()?;
    let (mut from_client, to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    tokio::select! {
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        () = down(from_server, to_client, &state) => {}
    }
    Some(())
}

async fn read_head(client: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while find(&head, b"\r\n\r\n").is_none() {
        if client.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(String::from_utf8(head).expect("a head is text"))
}

/// Passes on what the gateway says, up to the cut, if there is one.
async fn down(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    state: &watch::Sender<State>,
) {
    let mut waiting = Vec::new();
    while let Ok(1..) = from.read_buf(&mut waiting).await {
        let cut = state.borrow().cut.clone();
        let Some(cut) = cut else {
            if to.write_all(&waiting).await.is_err() {
                return;
            }
            waiting.clear();
            continue;
        };
        while let Some(end) = end_of_piece(&waiting) {
            let piece: Vec<u8> = waiting.drain(..end).collect();
            if find(&piece, cut.mark.as_bytes()).is_none() {
                let _ = to.write_all(&piece).await;
                continue;
            }
            let _ = to.write_all(&piece[..cut.place.offset(&piece)]).await;
            state.send_modify(|state| {
                state.cut = None;
                state.held = true;
            });
            return;
        }
    }
    let _ = to.write_all(&waiting).await;
}

/// Where the first head or block ends, if it is whole.
fn end_of_piece(bytes: &[u8]) -> Option<usize> {
    let head = find(bytes, b"\r\n\r\n").map(|at| at + 4);
    let block = find(bytes, b"\n\n").map(|at| at + 2);
    head.into_iter().chain(block).min()
}

/// What proxies say to this request for a gateway that is gone: to an `EventSource`, a 200 with a good-bye
/// that names no cursor; to a preflight, nothing that helps.
fn excuse(head: &str) -> String {
    if !head.starts_with("GET ") {
        return "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            .to_owned();
    }
    let origin = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("origin").then_some(value)
    });
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\
         access-control-allow-origin: {}\r\naccess-control-allow-credentials: true\r\n\r\n\
         retry: 1000\nevent: tidings.bye\ndata: {{\"reason\":\"unavailable\"}}\n\n",
        origin.unwrap_or("null")
    )
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
