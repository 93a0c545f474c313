//! Bare servers to compare the gateway with: each does one part of its work with nothing around it, so
//! that the difference is what tidings costs beside what the kernel and the database cost anyone.
//!
//! ```text
//! cargo run --release --example floor -- loop  --listen 127.0.0.1:8081 --control 127.0.0.1:8082
//! cargo run --release --example floor -- rows  --listen 127.0.0.1:8081 --database postgres://…
//! cargo run --release --example floor -- hyper --listen 127.0.0.1:8081
//! ```
//!
//! Each prints `ready` once it listens, and runs until it is killed. None asks for a token, and none keeps
//! what it has sent.

mod answering;
mod audience;
mod block;
mod control;
mod door;
mod rows;

use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;

use clap::Parser;
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::LocalSet;

use audience::Audience;

type Failure = Box<dyn Error + Send + Sync>;
type Result<T> = std::result::Result<T, Failure>;

/// As many as the gateway lets wait.
const BACKLOG: u32 = 4_096;

/// Which server to be.
#[derive(Parser)]
enum Floor {
    /// One thread; what a line of the control connection says, it sends to each socket of the topic
    Loop {
        /// Where streams are opened
        #[arg(long)]
        listen: SocketAddr,
        /// Where lines `PUBLISH topic payload` are taken
        #[arg(long)]
        control: SocketAddr,
    },
    /// One thread; what the gateway's own look finds in the database, it sends to the sockets of the topic
    Rows {
        /// Where streams are opened
        #[arg(long)]
        listen: SocketAddr,
        /// A database with the schema of tidings
        #[arg(long)]
        database: String,
    },
    /// hyper, as it comes: it answers with the beginning of a stream, and that is all
    Hyper {
        /// Where streams are opened
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> Result<()> {
    match Floor::parse() {
        Floor::Loop { listen, control } => on_one_thread(async {
            let (streams, lines) = (listen_on(listen)?, listen_on(control)?);
            say_ready()?;
            let audience = Audience::default();
            let (opening, publishing) = (
                door::admit(streams, &audience),
                control::obey(lines, &audience),
            );
            tokio::try_join!(opening, publishing).map(drop)
        }),
        Floor::Rows { listen, database } => on_one_thread(async {
            let streams = listen_on(listen)?;
            let audience = Audience::default();
            let (opening, looking) = (
                door::admit(streams, &audience),
                rows::follow(&database, &audience),
            );
            tokio::try_join!(opening, looking).map(drop)
        }),
        Floor::Hyper { listen } => tokio::runtime::Runtime::new()?.block_on(async {
            let listener = listen_on(listen)?;
            say_ready()?;
            answering::answer(listener).await
        }),
    }
}

fn on_one_thread(server: impl Future<Output = Result<()>>) -> Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build()?;
    LocalSet::new().block_on(&runtime, server)
}

fn listen_on(address: SocketAddr) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket.listen(BACKLOG)?)
}

/// Whoever started this waits for the word.
fn say_ready() -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(b"ready\n")?;
    Ok(out.flush()?)
}
