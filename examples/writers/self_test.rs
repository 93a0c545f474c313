//! The audience before a server whose faults are known: the verdict must find each of them, and none besides.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::audience::Audience;
use crate::verdict::{Committed, Verdict};

/// How many streams share the topics.
const STREAMS: usize = 4;

/// Nothing is waited for that has not been sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ids and topics, as they were committed.
const COMMITTED: [(u64, u64); 8] = [
    (11, 0),
    (12, 1),
    (13, 2),
    (14, 3),
    (15, 4),
    (16, 1),
    (17, 2),
    (18, 0),
];

/// Streams of a server in this process, by their numbers.
struct Server([TcpStream; STREAMS]);

impl Server {
    /// Starts it and opens all of its streams.
    async fn start() -> (Self, Audience) {
        let (address, sockets) = listen();
        let audience = Audience::open(address, "a secret", STREAMS).await;
        let mut sockets: Vec<_> = sockets.iter().take(STREAMS).collect();
        sockets.sort_by_key(|(number, _)| *number);
        let sockets: Vec<_> = sockets.into_iter().map(|(_, socket)| socket).collect();
        let sockets = sockets.try_into().expect("as many as were asked for");
        (Self(sockets), audience.expect("streams"))
    }

    /// Sends an event to a stream, in two chunks and two writes that are cut at this place.
    fn send(&mut self, stream: usize, (id, topic): (u64, u64), cut: usize) {
        let event = format!(
            "id: 1~2\ndata: {{\"id\":\"{id}\",\"topic\":\"user:{topic}\",\"type\":\"order.paid\",\
             \"at\":\"2026-11-20T14:28:00.123456Z\",\"data\":{{\"order\": 1}}}}\n\n"
        );
        let (first, second) = event.split_at(1 + cut % (event.len() - 1));
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let bytes = chunk(first) + &chunk(second);
        let (first, second) = bytes.split_at(1 + 3 * cut % (bytes.len() - 1));
        let mut socket = &self.0[stream];
        socket.write_all(first.as_bytes()).expect("it listens");
        socket.write_all(second.as_bytes()).expect("it listens");
    }
}

/// Where streams come in, and what they are then.
fn listen() -> (SocketAddr, Receiver<(usize, TcpStream)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (admitted, sockets) = channel();
    thread::spawn(move || {
        for _ in 0..STREAMS {
            let (socket, _) = listener.accept().expect("a connection");
            admitted.send(admit(socket)).expect("the test waits");
        }
    });
    (address, sockets)
}

/// Opens the stream, whose number is that of its first topic.
fn admit(mut socket: TcpStream) -> (usize, TcpStream) {
    socket.set_nodelay(true).expect("an option");
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text");
    let (_, topics) = head.split_once("?topic=user:").expect("topics");
    let number = topics.split(['&', ' ']).next().expect("a number");
    let ready = "event: tidings.ready\ndata: {}\n\n";
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{ready}\r\n",
        ready.len()
    );
    socket.write_all(answer.as_bytes()).expect("it listens");
    (number.parse().expect("a number"), socket)
}

fn committed() -> Vec<Committed> {
    let committed = COMMITTED.iter();
    committed
        .map(|&(id, topic)| Committed { id, topic })
        .collect()
}

/// The stream that asks for this topic.
fn own((_, topic): (u64, u64)) -> usize {
    topic as usize % STREAMS
}

fn found(lost: usize, doubled: usize, reordered: usize, foreign: usize) -> Verdict {
    Verdict {
        lost,
        doubled,
        reordered,
        foreign,
    }
}

/// What is found of these deliveries, to these streams.
async fn verdict(deliveries: &[(usize, (u64, u64))]) -> Verdict {
    let (mut server, mut audience) = Server::start().await;
    for (cut, (stream, event)) in deliveries.iter().enumerate() {
        server.send(*stream, *event, 7 * cut);
    }
    let all = audience.wait_for(deliveries.len(), PATIENCE).await;
    all.expect("no stream is ended");
    assert_eq!(audience.arrived().len(), deliveries.len());
    Verdict::of(&committed(), audience.arrived(), audience.count())
}

#[tokio::test]
async fn what_arrives_once_and_in_order_is_clean_wherever_it_is_cut() {
    let (mut server, mut audience) = Server::start().await;
    let mut committed = Vec::new();
    // More of them than an event has bytes.
    for id in 1..=400 {
        let topic = id * 7 % 1_000;
        committed.push(Committed { id, topic });
        server.send(own((id, topic)), (id, topic), id as usize);
    }
    let all = audience.wait_for(committed.len(), PATIENCE).await;
    all.expect("no stream is ended");
    let verdict = Verdict::of(&committed, audience.arrived(), STREAMS);
    assert_eq!(verdict, Verdict::default());
    verdict.check().expect("nothing is wrong");
}

#[tokio::test]
async fn each_fault_is_found() {
    let clean = COMMITTED.map(|event| (own(event), event));
    let changed = |change: fn(&mut Vec<_>)| {
        let mut deliveries = clean.to_vec();
        change(&mut deliveries);
        deliveries
    };
    for (deliveries, expected) in [
        (changed(|_| {}), Verdict::default()),
        (changed(|all| all.truncate(7)), found(1, 0, 0, 0)),
        (
            changed(|all| all.retain(|(_, event)| event.0 != 14)),
            found(1, 0, 0, 0),
        ),
        (changed(Vec::clear), found(8, 0, 0, 0)),
        (changed(|all| all.push(all[0])), found(0, 1, 0, 0)),
        (changed(|all| all.insert(1, all[0])), found(0, 1, 0, 0)),
        // Both of topic 1, and both of topic 2.
        (changed(|all| all.swap(1, 5)), found(0, 0, 1, 0)),
        (changed(|all| all.reverse()), found(0, 0, 3, 0)),
        // Topics 0 and 4 have the same stream, and no order between them.
        (changed(|all| all.swap(0, 4)), Verdict::default()),
        (changed(|all| all.push((2, (19, 2)))), found(0, 0, 0, 1)),
        // To a stream that has not asked for it, beside the one that has.
        (changed(|all| all.push((3, (13, 2)))), found(0, 0, 0, 1)),
        (changed(|all| all[2].0 = 3), found(1, 0, 0, 1)),
        // Under another topic of the same stream.
        (changed(|all| all[0].1.1 = 8), found(1, 0, 0, 1)),
    ] {
        let verdict = verdict(&deliveries).await;
        assert_eq!(verdict, expected, "{deliveries:?}");
        assert_eq!(verdict.check().is_ok(), expected == Verdict::default());
    }
}

#[tokio::test]
async fn a_stream_that_is_ended_is_a_failure() {
    let (server, mut audience) = Server::start().await;
    server.0[1].shutdown(Shutdown::Both).expect("it is open");
    let failure = audience.wait_for(1, PATIENCE).await;
    assert!(failure.is_err());
}
