//! The generator measured by a server whose faults are known: it must find each of them, and none besides.
//!
//! Nothing here waits for time to pass. Faults lie before the last event of their stream, so that what has
//! been done to them has been read when that has arrived; where events are lost, the server closes
//! its streams after the last, and the generator knows that nothing more will come.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use clap::Parser;

use crate::measure;
use crate::options::Options;
use crate::payload::{Finder, Payload};
use crate::report::Figures;

const PAD_BYTES: usize = 30;

/// What the server does to a delivery.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Lose,
    Double,
    /// It comes after the next of its stream.
    Hold,
}

/// How the server writes an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// As it is, without chunks.
    Plain,
    /// As one chunk.
    Chunk,
    /// As two chunks, cut at the next place for each event.
    TwoChunks,
    /// As a chunk, in two writes that are cut at the next place for each event.
    TwoWrites,
    /// As a chunk for each byte.
    Bytes,
}

/// What is done to the delivery of a payload to a stream.
type Plan = fn(usize, Payload) -> Fault;

/// A server in this process.
struct Server {
    manner: Manner,
    plan: Plan,
    /// After so many events all streams are closed.
    last: Option<usize>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    readers: Vec<Reader>,
    told: usize,
    /// Where the next event is cut.
    cut: usize,
}

struct Reader {
    socket: TcpStream,
    path: String,
    held: Option<Vec<u8>>,
}

impl Server {
    /// Starts it, and returns where streams and publishers come in. Its threads end with the process.
    fn start(manner: Manner, plan: Plan, last: Option<usize>) -> (SocketAddr, SocketAddr) {
        let server = Arc::new(Self {
            manner,
            plan,
            last,
            state: Mutex::default(),
        });
        let publishing = server.clone();
        (
            listen(move |socket| server.admit(socket)),
            listen(move |socket| publishing.obey(socket)),
        )
    }

    fn admit(&self, mut socket: TcpStream) {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte).expect("a head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        let path = head.split(' ').nth(1).expect("a path").to_owned();
        let coding = match self.manner {
            Manner::Plain => "",
            _ => "Transfer-Encoding: chunked\r\n",
        };
        let answer = format!("HTTP/1.1 200 OK\r\n{coding}\r\n");
        let ready = self.pieces(b"retry: 1\nevent: tidings.ready\ndata: {}\n\n", 20);
        let copy = socket.try_clone().expect("a copy");
        // It must be there before its reader knows that it is open.
        let mut state = self.state.lock().expect("no thread has failed");
        state.readers.push(Reader {
            socket: copy,
            path,
            held: None,
        });
        socket.write_all(answer.as_bytes()).expect("it listens");
        for piece in ready {
            socket.write_all(&piece).expect("it listens");
        }
    }

    fn obey(&self, socket: TcpStream) {
        for line in BufReader::new(socket).lines() {
            // The generator goes without good-bye.
            let Ok(line) = line else { return };
            let line = line.strip_prefix("PUBLISH ").expect("a line");
            let (topic, payload) = line.split_once(' ').expect("a topic");
            self.tell(topic, payload);
        }
    }

    fn tell(&self, topic: &str, text: &str) {
        let mut payload = None;
        Finder::new(PAD_BYTES).scan(text.as_bytes(), |found| payload = Some(found));
        let payload = payload.expect("a payload");
        let block = format!("id: 1~2\ndata: {{\"id\":\"1\",\"data\":{text}}}\n\n");
        let mut state = self.state.lock().expect("no thread has failed");
        let cut = state.cut;
        state.cut += 1;
        state.told += 1;
        for reader in &mut state.readers {
            if !reader.topics().any(|asked| asked == topic) {
                continue;
            }
            let bytes = block.as_bytes();
            match (self.plan)(reader.number(), payload) {
                Fault::Lose => continue,
                Fault::None => self.send(reader, bytes, cut),
                Fault::Double => {
                    self.send(reader, bytes, cut);
                    self.send(reader, bytes, cut + 1);
                }
                Fault::Hold => {
                    reader.held = Some(bytes.to_vec());
                    continue;
                }
            }
            if let Some(held) = reader.held.take() {
                self.send(reader, &held, cut);
            }
        }
        if self.last == Some(state.told) {
            for reader in &state.readers {
                reader.socket.shutdown(Shutdown::Both).expect("it is open");
            }
        }
    }

    fn send(&self, reader: &Reader, block: &[u8], cut: usize) {
        for piece in self.pieces(block, cut) {
            // A generator that has all that it wants may have gone.
            let _ = (&reader.socket).write_all(&piece);
        }
    }

    /// What is written, one write after the other.
    fn pieces(&self, block: &[u8], cut: usize) -> Vec<Vec<u8>> {
        let (first, second) = block.split_at(1 + cut % (block.len() - 1));
        match self.manner {
            Manner::Plain => vec![first.to_vec(), second.to_vec()],
            Manner::Chunk => vec![chunk(block)],
            Manner::TwoChunks => vec![[chunk(first), chunk(second)].concat()],
            Manner::TwoWrites => {
                let mut first = chunk(block);
                let second = first.split_off(1 + cut % (first.len() - 1));
                vec![first, second]
            }
            Manner::Bytes => vec![block.chunks(1).flat_map(chunk).collect()],
        }
    }
}

impl Reader {
    fn topics(&self) -> impl Iterator<Item = &str> {
        let query = self.path.split_once('?').expect("a query").1;
        query
            .split('&')
            .filter_map(|part| part.strip_prefix("topic="))
    }

    fn number(&self) -> usize {
        let mut own = self
            .topics()
            .filter_map(|topic| topic.strip_prefix("user:u"));
        own.next()
            .expect("its own topic")
            .parse()
            .expect("a number")
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Serves each connection on a thread of its own.
fn listen(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming() {
            let serve = serve.clone();
            let socket = socket.expect("a connection");
            socket.set_nodelay(true).expect("an option");
            thread::spawn(move || serve(socket));
        }
    });
    address
}

/// Measures such a server with these flags.
async fn run(servers: (SocketAddr, SocketAddr), flags: &str) -> Figures {
    let (streams, publishers) = servers;
    let fixed = format!(
        "--url=http://{streams} --publish=line:{publishers} --payload-bytes={PAD_BYTES} \
         --path=/v1/events?topic={{own}}&topic={{all}} --patience=60"
    );
    let words = ["load"].into_iter();
    let words = words.chain(flags.split_whitespace().chain(fixed.split_whitespace()));
    let options = Options::try_parse_from(words).expect("flags");
    options.check().expect("flags that fit");
    measure(&options).await.expect("figures")
}

/// Lost, doubled, reordered.
fn faults(figures: &Figures) -> [u64; 3] {
    ["lost", "doubled", "reordered"].map(|name| figures.count(name))
}

fn no_faults(_: usize, _: Payload) -> Fault {
    Fault::None
}

#[tokio::test]
async fn a_clean_server_is_found_clean_wherever_its_events_are_cut() {
    for manner in [
        Manner::Plain,
        Manner::Chunk,
        Manner::TwoChunks,
        Manner::TwoWrites,
        Manner::Bytes,
    ] {
        let servers = Server::start(manner, no_faults, None);
        // More events than a block has bytes, so that each place is cut.
        let flags = "broadcast --streams=5 --events=300 --warm-up=7 --in-flight=4";
        let figures = run(servers, flags).await;
        assert_eq!(faults(&figures), [0; 3]);
        assert!(figures.are_clean());
        assert_eq!(figures.count("events"), 300);
        assert_eq!(figures.count("deliveries"), 1_500);
    }
}

#[tokio::test]
async fn every_scenario_that_publishes_is_clean_on_a_clean_server() {
    for (flags, events, deliveries) in [
        ("broadcast --events=10 --batch=3", 10, 120),
        ("broadcast --events=50 --rate=5000", 50, 600),
        ("unicast --events=100", 100, 100),
        ("unicast --events=100 --batch=4 --in-flight=3", 100, 100),
        ("unicast --events=100 --batch=3 --rate=9000", 100, 100),
        ("mixed --events=20 --rate=500 --unicast-rate=2000", 100, 320),
    ] {
        let servers = Server::start(Manner::TwoChunks, no_faults, None);
        let figures = run(servers, &format!("{flags} --streams=12 --warm-up=5")).await;
        assert_eq!(faults(&figures), [0; 3], "{flags}");
        assert_eq!(figures.count("events"), events, "{flags}");
        assert_eq!(figures.count("deliveries"), deliveries, "{flags}");
    }
}

#[tokio::test]
async fn streams_that_open_and_close_are_counted() {
    for flags in [
        "connect --streams=40 --opening=7",
        "idle --streams=40 --warm-up-connects=20 --churn=95",
    ] {
        let servers = Server::start(Manner::TwoWrites, no_faults, None);
        assert!(run(servers, flags).await.are_clean(), "{flags}");
    }
}

#[tokio::test]
async fn every_loss_is_found() {
    let plan: Plan = |stream, payload| match (stream, payload.n) {
        (3, 5) | (7, 1) | (7, 2) | (8, 19) | (9, 20) => Fault::Lose,
        _ => Fault::None,
    };
    let servers = Server::start(Manner::TwoChunks, plan, Some(20));
    let flags = "broadcast --streams=10 --events=20 --warm-up=0 --rate=2000 --in-flight=1";
    let figures = run(servers, flags).await;
    assert_eq!(faults(&figures), [5, 0, 0]);
    assert_eq!(figures.count("deliveries"), 195);
    assert!(!figures.are_clean());
}

#[tokio::test]
async fn every_doubled_event_is_found() {
    let plan: Plan = |stream, payload| match (stream, payload.n) {
        (0, 1) | (4, 2) | (4, 3) | (9, 19) => Fault::Double,
        _ => Fault::None,
    };
    let servers = Server::start(Manner::TwoChunks, plan, None);
    let flags = "broadcast --streams=10 --events=20 --warm-up=0";
    let figures = run(servers, flags).await;
    assert_eq!(faults(&figures), [0, 4, 0]);
    assert_eq!(figures.count("deliveries"), 200);
    assert!(!figures.are_clean());
}

#[tokio::test]
async fn every_reordered_event_is_found() {
    let plan: Plan = |stream, payload| match (stream, payload.n) {
        (0, 1) | (4, 2) | (4, 17) | (9, 19) => Fault::Hold,
        _ => Fault::None,
    };
    let servers = Server::start(Manner::TwoChunks, plan, None);
    let flags = "broadcast --streams=10 --events=20 --warm-up=0 --rate=2000 --in-flight=1";
    let figures = run(servers, flags).await;
    assert_eq!(faults(&figures), [0, 0, 4]);
    assert_eq!(figures.count("deliveries"), 200);
    assert!(!figures.are_clean());
}

#[tokio::test]
async fn faults_of_unicasts_are_found_beside_each_other() {
    // Each stream is told four times.
    let plan: Plan = |stream, payload| match (stream, payload.n) {
        (0, 1) => Fault::Lose,
        (1, 2) => Fault::Double,
        (2, 3) => Fault::Hold,
        (5, 1..=3) => Fault::Double,
        (6, 4) => Fault::Lose,
        _ => Fault::None,
    };
    let servers = Server::start(Manner::TwoWrites, plan, Some(40));
    let flags = "unicast --streams=10 --events=40 --warm-up=0 --rate=5000 --in-flight=1";
    let figures = run(servers, flags).await;
    assert_eq!(faults(&figures), [2, 4, 1]);
    assert_eq!(figures.count("deliveries"), 38);
}

#[tokio::test]
async fn a_server_that_ends_its_streams_ends_the_run() {
    for flags in ["", "--rate=2000"] {
        let servers = Server::start(Manner::Chunk, no_faults, Some(7));
        let flags = format!("broadcast --streams=10 --events=20 --warm-up=0 --in-flight=1 {flags}");
        let figures = run(servers, &flags).await;
        assert_eq!(figures.count("ended"), 10);
        assert_eq!(figures.count("deliveries"), 70);
        assert_eq!(faults(&figures)[1..], [0, 0]);
        assert!(!figures.are_clean());
    }
}
