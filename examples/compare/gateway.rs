//! The gateway as a contestant: its defaults, a secret, and room for the streams.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::Result;
use super::bench::Bench;
use super::generator::PADDING;
use super::metric;
use super::server::{Process, Server, free_address};

/// What tokens are signed with.
pub(crate) const SECRET: &str = "Zm9yIGZpZ3VyZXMgb25seSwgYW5kIGxvbmcgZW5vdWdo";

/// The most streams of any scenario: what fits besides into 20,000 descriptors.
const STREAMS: usize = 19_000;

/// What the gateway measures itself, and what the figure is called here: from an INSERT to the hub, and from
/// queueing a frame of few streams to handing it to its socket. Whatever else a client waits for is the
/// publisher's being late, or its own.
const HISTOGRAMS: [(&str, &str); 2] = [
    ("tidings_insert_to_hub_seconds", "insert_to_hub_ms"),
    ("tidings_frame_wait_seconds", "frame_wait_ms"),
];

pub(crate) fn start(bench: &Bench) -> Result<Server> {
    let (address, operations) = (free_address()?, free_address()?);
    let mut command = Command::new(bench.gateway());
    command
        .arg("serve")
        .arg(format!("--listen={address}"))
        .arg(format!("--ops-listen={operations}"))
        .arg(format!("--streams={STREAMS}"))
        .env("DATABASE_URL", bench.database())
        .env("TIDINGS_JWT_SECRET", SECRET)
        .env("TIDINGS_LOG", "warn");
    let mut process = Process::start(&mut command)?;
    process.wait_until(|| {
        let answer = ask(operations, "/readyz");
        answer.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    })?;
    let flags = vec![
        format!("--url=http://{address}"),
        format!("--secret={SECRET}"),
        format!("--publish=sql:{}", bench.database()),
        format!("--payload-bytes={PADDING}"),
        format!("--pid={}", process.id()),
    ];
    let mut server = Server::new(process, flags);
    server.operations = Some(operations);
    Ok(server)
}

/// Adds what the gateway has measured itself, where it has.
pub(crate) fn add_metrics(server: &Server, figures: &mut Value) -> Result<()> {
    let operations = server.operations.ok_or("a gateway has metrics")?;
    let metrics = ask(operations, "/metrics")?;
    for (histogram, figure) in HISTOGRAMS {
        if let Some(p99) = metric::quantile(&metrics, histogram, 0.99) {
            figures[figure] = json!({"p99": p99 * 1_000.0});
        }
    }
    Ok(())
}

fn ask(operations: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(operations)?;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes())?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
