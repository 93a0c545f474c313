//! nginx with Nchan as a contestant: one worker, as one event loop is what Nchan has for one channel.

use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::Command;

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};

use super::Result;
use super::bench::Bench;
use super::generator::{PADDING, SPACES};
use super::server::{Process, Server, free_address};

/// Below the descriptors that there are, as the gateway's streams are.
const CONNECTIONS: usize = 20_000;
const BACKLOG: i32 = 4_096;
/// Bytes that the gateway puts around an event's data and Nchan does not: a longer cursor, the event's other
/// fields, the bounds of a chunk.
const LESS_AROUND: usize = 103;

pub(crate) fn start(bench: &Bench) -> Result<Server> {
    let address = free_address()?;
    let scratch = bench.scratch().display();
    let (configuration, log) = (
        format!("{scratch}/nginx.conf"),
        format!("{scratch}/nginx.log"),
    );
    std::fs::write(&configuration, configure(bench, address))?;
    let listener = listener(address)?;
    let mut command = Command::new("nginx");
    command
        .args(["-c", &configuration, "-e", &log])
        .env("NGINX", format!("{};", listener.as_raw_fd()));
    let mut process = Process::start(&mut command)?;
    drop(listener);
    let master = process.id();
    process.wait_until(|| worker(master).is_ok()).map_err(
        |error| match std::fs::read_to_string(&log) {
            Ok(words) => format!("{error}\n{words}"),
            Err(_) => error.to_string(),
        },
    )?;
    let flags = vec![
        format!("--url=http://{address}"),
        "--path=/sub/{all}".to_owned(),
        "--await=head".to_owned(),
        format!("--publish=post:http://{address}/pub/{{topic}}"),
        format!("--pid={}", worker(master)?),
        format!("--payload-bytes={}", PADDING + SPACES + LESS_AROUND),
    ];
    Ok(Server::new(process, flags))
}

/// A listening socket that nginx inherits. What it accepts inherits TCP_NODELAY, which nginx sets for
/// requests that follow one another, but not for the streams of Nchan; the gateway sets it for all.
fn listener(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    fcntl_setfd(&socket, FdFlags::empty())?;
    Ok(socket)
}

/// Messages wait long enough, and enough of them, that none is lost. Subscribers begin with the next one.
fn configure(bench: &Bench, address: SocketAddr) -> String {
    let scratch = bench.scratch().display();
    format!(
        "load_module modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile {CONNECTIONS};
pid {scratch}/nginx.pid;
events {{
    worker_connections {CONNECTIONS};
}}
http {{
    access_log off;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    server {{
        listen {address} backlog={BACKLOG};
        location ~ ^/sub/(.+)$ {{
            nchan_subscriber eventsource;
            nchan_channel_id $1;
            nchan_subscriber_first_message newest;
        }}
        location ~ ^/pub/(.+)$ {{
            nchan_publisher http;
            nchan_channel_id $1;
            nchan_message_buffer_length 1000;
            nchan_message_timeout 60s;
        }}
    }}
}}
"
    )
}

/// The process that has the streams: the one child of nginx's master.
fn worker(master: u32) -> Result<u32> {
    let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children"))?;
    let mut children = children.split_ascii_whitespace();
    let worker = children.next().ok_or("nginx has no worker")?;
    match children.next() {
        None => Ok(worker.parse()?),
        Some(_) => Err("nginx has more than one child".into()),
    }
}
