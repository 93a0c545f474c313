//! Streams that the shard writes itself, at real sockets: what their clients read, and when they end.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::thread;

use super::*;
use crate::frame::tests::{End, dechunk};
use crate::frame::{self, Chunk};
use crate::hub::direct::tests::connection;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// Held by a stream: says when it has been let go.
struct Kept(#[expect(dead_code, reason = "it speaks by being dropped")] mpsc::Sender<()>);

/// The client of a direct stream.
struct Client {
    socket: TcpStream,
    bytes: Vec<u8>,
    /// Whether nothing more comes: the stream has ended, or has been cut.
    over: Option<Result<(), ErrorKind>>,
    kept: mpsc::Receiver<()>,
}

impl Client {
    /// Reads what has come, at most so many bytes; returns whether there was any.
    fn read(&mut self, most: usize) -> bool {
        let mut bytes = vec![0; most];
        self.socket.set_nonblocking(true).expect("an option");
        match self.socket.read(&mut bytes) {
            Ok(0) => self.over = Some(Ok(())),
            Ok(count) => self.bytes.extend_from_slice(&bytes[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => self.over = Some(Err(error.kind())),
        }
        self.over.is_none()
    }

    fn body(&self) -> (String, End) {
        dechunk(&self.bytes)
    }

    fn numbers(&self) -> Vec<usize> {
        let (body, _) = self.body();
        let ids = body.lines().filter_map(|line| line.strip_prefix("id: "));
        ids.filter_map(|id| id.parse().ok()).collect()
    }

    /// Whether its stream has let go of what it kept.
    fn is_free(&self) -> bool {
        self.kept.try_recv() == Err(mpsc::TryRecvError::Disconnected)
    }

    /// Closes its connection, by a reset or not; what is left is how its stream lets go.
    fn close(self, resets: bool) -> mpsc::Receiver<()> {
        if resets {
            let socket = socket2::SockRef::from(&self.socket);
            socket.set_linger(Some(Duration::ZERO)).expect("an option");
        }
        self.kept
    }
}

/// A shard whose loop is turned by hand.
struct Turned {
    shard: Shard,
    _handle: ShardHandle,
    events: Events,
    number: usize,
}

impl Turned {
    fn new() -> Self {
        let (shard, handle) = shard(usize::MAX);
        Self {
            shard,
            _handle: handle,
            events: Events::with_capacity(64),
            number: 0,
        }
    }

    /// What the loop does between two commands, without its clock.
    fn turn(&mut self) {
        self.shard.write_some();
        let patience = match self.shard.sockets.is_ready() {
            true => Duration::ZERO,
            false => Duration::from_millis(5),
        };
        self.shard.await_events(&mut self.events, patience);
    }

    /// Turns until something is so.
    fn until(&mut self, mut is_so: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "it never was");
            self.turn();
        }
    }

    /// Writes until nothing can be written.
    fn write(&mut self) {
        self.until(|turned| !turned.shard.sockets.is_ready());
    }

    /// A stream of these topics that is live from `position` on, and still to be taken over.
    fn join(
        &mut self,
        topics: &[usize],
        limit: usize,
        position: Option<&str>,
        small: bool,
    ) -> (Client, Command) {
        let (outbox, outlet) = outbox(limit, false);
        self.shard.take(Command::Join(Join {
            outbox,
            topics: topics.iter().map(|&name| topic(name)).collect(),
            expires: None,
            label: "a client".into(),
        }));
        outlet.go_live(position.map(Position::from));
        let (client, socket) = connection(small);
        let (keep, kept) = mpsc::channel();
        let client = Client {
            socket: client,
            bytes: Vec::new(),
            over: None,
            kept,
        };
        let leaving = Leaving::new(outlet, socket, Box::new(Kept(keep)));
        (client, Command::Direct(leaving))
    }

    /// A direct stream of one topic.
    fn stream(&mut self, topic: usize) -> Client {
        let (client, direct) = self.join(&[topic], usize::MAX, None, false);
        self.shard.take(direct);
        client
    }

    /// A direct stream of one topic to a client that reads little at a time.
    fn slow_stream(&mut self, topic: usize, limit: usize) -> Client {
        let (client, direct) = self.join(&[topic], limit, None, true);
        self.shard.take(direct);
        client
    }

    /// The next frame of a topic, with so much in it.
    fn send(&mut self, name: usize, size: usize) {
        self.number += 1;
        let frame = frame(&self.shard, self.number, size);
        let (attempt, _) = Attempt::new();
        let frames = Command::Frames(vec![(topic(name), frame)].into(), attempt);
        self.shard.take(frames);
    }

    /// Sends frames of a topic until the socket of a stream takes no more.
    fn fill(&mut self, name: usize) {
        while !self.is_stalled() {
            self.send(name, 20_000);
            self.write();
        }
    }

    fn is_stalled(&self) -> bool {
        let now = Instant::now();
        let mut sinks = self.shard.streams.iter().map(|(_, record)| &record.sink);
        sinks.any(|sink| sink.stalled_for(now).is_some())
    }

    /// Lets a client read until nothing more comes.
    fn read_all(&mut self, client: &mut Client) {
        self.until(|_| {
            while client.read(64 << 10) {}
            client.over.is_some()
        });
    }

    fn is_empty(&self) -> bool {
        let shard = &self.shard;
        shard.streams.is_empty() && (0..10).all(|name| shard.topics.of(&topic(name)).len() == 0)
    }
}

/// The good-bye at the end of a stream: its reason, and the position in it.
fn good_bye(body: &str) -> (String, Option<usize>) {
    let blocks = body.strip_suffix("\n\n").expect("whole blocks");
    let (_, last) = blocks.rsplit_once("\n\n").unwrap_or(("", blocks));
    let mut lines = last.lines();
    assert_eq!(lines.next(), Some("event: tidings.bye"));
    let reason = lines
        .next()
        .and_then(|line| line.strip_prefix("data: {\"reason\":\""));
    let reason = reason.and_then(|rest| rest.strip_suffix("\"}"));
    let retry = lines.next().expect("a wait");
    assert!(retry.starts_with("retry: "), "{last}");
    let id = lines.next();
    assert_eq!(lines.next(), None);
    let number = id.map(|line| line["id: ".len()..].parse().expect("a number"));
    (reason.expect("a reason").to_owned(), number)
}

#[test]
fn a_client_that_closes_frees_its_stream_and_what_that_kept() {
    for resets in [false, true] {
        let mut turned = Turned::new();
        let (one, mut other) = (turned.stream(1), turned.stream(1));
        turned.send(1, 10);
        turned.until(|_| other.read(1_000));
        assert_eq!(turned.shard.streams.len(), 2);
        assert!(!one.is_free() && !other.is_free());
        // Nothing is sent to it, and no beat is due for an hour: only its end can say that it has gone.
        let kept = one.close(resets);
        turned.until(|_| kept.try_recv() == Err(mpsc::TryRecvError::Disconnected));
        assert_eq!(turned.shard.streams.len(), 1);
        assert_eq!(turned.shard.topics.of(&topic(1)).len(), 1);
        assert!(!other.is_free());
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut_after_the_time_of_a_write_and_owes_nothing() {
    let mut turned = Turned::new();
    let mut client = turned.slow_stream(1, usize::MAX);
    let before = Instant::now();
    turned.fill(1);
    let after = Instant::now();
    let timeout = turned.shard.timing.write_timeout;
    turned
        .shard
        .turn(before + timeout - Duration::from_millis(1));
    assert!(!client.is_free() && turned.shard.budget.used() > 0);
    turned.shard.turn(after + timeout + 2 * TICK);
    assert!(client.is_free() && turned.is_empty());
    assert_eq!(turned.shard.budget.used(), 0);
    assert_eq!(turned.shard.metrics.streams_cut.get(), 1);
    turned.read_all(&mut client);
    assert_ne!(client.body().1, End::Over);
}

#[test]
fn a_client_that_is_too_slow_is_told_so_at_the_position_that_it_holds() {
    let mut turned = Turned::new();
    let mut client = turned.slow_stream(1, 50_000);
    turned.fill(1);
    let is_ending = |turned: &Turned| {
        let mut sinks = turned.shard.streams.iter().map(|(_, record)| &record.sink);
        sinks.any(Sink::is_ending)
    };
    while !is_ending(&turned) {
        turned.send(1, 20_000);
    }
    assert_eq!(turned.shard.topics.of(&topic(1)).len(), 0);
    turned.send(1, 20_000);
    turned.read_all(&mut client);
    let (body, end) = client.body();
    // What it was in the middle of came whole, and nothing of what waited behind that.
    let mut numbers = client.numbers();
    let held = numbers.pop();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() + 2 < turned.number, "it missed nothing");
    assert_eq!(held, numbers.last().copied());
    assert_eq!(good_bye(&body), ("slow".into(), held));
    assert_eq!((end, client.over), (End::Over, Some(Ok(()))));
    assert!(client.is_free() && turned.is_empty());
    assert_eq!(turned.shard.budget.used(), 0);
}

#[test]
fn a_good_bye_comes_after_the_frames_that_wait_with_the_position_of_the_last() {
    let mut turned = Turned::new();
    let (mut slow, mut idle) = (turned.slow_stream(1, usize::MAX), turned.stream(2));
    turned.fill(1);
    for _ in 0..3 {
        turned.send(1, 20_000);
    }
    let last = turned.number;
    turned.shard.take(Command::EndAll(Bye::Drain));
    turned.send(1, 10);
    turned.read_all(&mut slow);
    let (body, end) = slow.body();
    let mut numbers: Vec<usize> = (1..=last).collect();
    numbers.push(last);
    assert_eq!(slow.numbers(), numbers);
    assert_eq!(good_bye(&body), ("drain".into(), Some(last)));
    assert_eq!((end, slow.over), (End::Over, Some(Ok(()))));
    turned.read_all(&mut idle);
    assert_eq!(good_bye(&idle.body().0), ("drain".into(), None));
    assert_eq!((idle.body().1, idle.over), (End::Over, Some(Ok(()))));
    assert!(slow.is_free() && idle.is_free() && turned.is_empty());
}

#[test]
fn what_a_client_has_sent_does_not_turn_the_end_of_its_stream_into_a_reset() {
    let mut turned = Turned::new();
    let (mut client, direct) = turned.join(&[1], usize::MAX, None, false);
    let Command::Direct(leaving) = &direct else {
        unreachable!("it leaves hyper");
    };
    let socket = leaving.socket.try_clone().expect("a descriptor");
    turned.shard.take(direct);
    turned.shard.take(Command::EndAll(Bye::Drain));
    client.socket.write_all(b"more").expect("it is open");
    let deadline = Instant::now() + PATIENCE;
    while !socket.peek(&mut [0; 4]).is_ok_and(|count| count == 4) {
        assert!(Instant::now() < deadline, "it never came");
    }
    drop(socket);
    turned.shard.write_some();
    assert!(turned.is_empty());
    turned.read_all(&mut client);
    assert_eq!((client.body().1, client.over), (End::Over, Some(Ok(()))));
}

#[test]
fn closing_closes_every_socket_and_whoever_leaves_hyper_later() {
    let mut turned = Turned::new();
    let (mut slow, mut quick) = (turned.slow_stream(1, usize::MAX), turned.stream(2));
    let (mut late, direct) = turned.join(&[2], usize::MAX, None, false);
    let (mut reader, join) = Reader::join(vec![2], usize::MAX);
    turned.shard.take(join);
    turned.fill(1);
    turned.shard.take(Command::Close);
    turned.shard.take(direct);
    for client in [&mut slow, &mut quick, &mut late] {
        turned.read_all(client);
        assert_ne!(client.body().1, End::Over, "it was not told");
        assert!(client.is_free());
    }
    assert_eq!(turned.shard.budget.used(), 0);
    // What hyper writes is hyper's.
    turned.send(2, 10);
    assert!(reader.read());
    assert_eq!(turned.shard.streams.len(), 1);
}

#[test]
fn what_came_for_a_stream_while_it_left_hyper_is_written_without_more() {
    let mut turned = Turned::new();
    let (mut client, direct) = turned.join(&[1], usize::MAX, Some("0"), false);
    turned.send(1, 10);
    turned.send(1, 10);
    turned.shard.take(direct);
    turned.until(|_| {
        client.read(1_000);
        client.numbers() == [1, 2] && client.body().1 == End::Between
    });
    assert_eq!(turned.shard.budget.used(), 0);
}

#[test]
fn a_stream_that_ended_before_it_left_hyper_gets_its_rest_and_the_good_bye() {
    let mut turned = Turned::new();
    let (mut full, with_frames) = turned.join(&[1], usize::MAX, Some("0"), true);
    let (mut idle, without) = turned.join(&[2], usize::MAX, Some("7"), false);
    let (mut slow, too_slow) = turned.join(&[1], 30_000, Some("0"), false);
    for _ in 0..10 {
        turned.send(1, 20_000);
    }
    turned.shard.take(Command::EndAll(Bye::Expired));
    assert!(turned.is_empty());
    for direct in [with_frames, without, too_slow] {
        turned.shard.take(direct);
    }
    assert_eq!(turned.shard.streams.len(), 3);
    turned.read_all(&mut full);
    assert_eq!(full.numbers(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10]);
    assert_eq!(good_bye(&full.body().0), ("expired".into(), Some(10)));
    turned.read_all(&mut idle);
    assert_eq!(idle.numbers(), [7]);
    assert_eq!(good_bye(&idle.body().0), ("expired".into(), Some(7)));
    turned.read_all(&mut slow);
    assert_eq!(slow.numbers(), [0]);
    assert_eq!(good_bye(&slow.body().0), ("slow".into(), Some(0)));
    for client in [full, idle, slow] {
        assert_eq!((client.body().1, client.over), (End::Over, Some(Ok(()))));
        assert!(client.is_free());
    }
    assert!(turned.is_empty());
    assert_eq!(turned.shard.budget.used(), 0);
}

#[test]
fn a_stream_that_has_ended_gives_up_its_backlog_and_no_more_than_that() {
    let mut turned = Turned::new();
    let mut client = turned.slow_stream(1, usize::MAX);
    turned.fill(1);
    turned.send(1, 20_000);
    turned.shard.take(Command::EndAll(Bye::Diverged));
    turned.shard.take(Command::Shed(0, PATIENCE));
    assert_eq!(turned.shard.budget.used(), 0);
    turned.read_all(&mut client);
    let mut numbers = client.numbers();
    let (body, end) = client.body();
    if end == End::Over {
        // Its socket was full between two events.
        let held = numbers.pop();
        assert_eq!(good_bye(&body), ("diverged".into(), held));
    } else {
        assert!(!body.contains("tidings.bye"), "within an event: {body}");
    }
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
    assert!(numbers.len() < turned.number);
    assert!(client.is_free() && turned.is_empty());
}

#[test]
fn the_half_that_has_taken_nothing_for_the_longest_time_is_cut() {
    let mut turned = Turned::new();
    let mut clients = Vec::new();
    for name in 1..=3 {
        clients.push(turned.slow_stream(name, usize::MAX));
        let stalled = |turned: &Turned| {
            let now = Instant::now();
            let records = turned.shard.streams.iter();
            records
                .filter(|(_, record)| record.sink.stalled_for(now).is_some())
                .count()
        };
        while stalled(&turned) < name {
            turned.send(name, 20_000);
            turned.write();
        }
    }
    let quick = turned.stream(4);
    turned.shard.take(Command::Shed(usize::MAX, PATIENCE));
    assert!(
        clients.iter().all(|client| !client.is_free()),
        "nobody is that late"
    );
    turned.shard.take(Command::Shed(usize::MAX, Duration::ZERO));
    let free: Vec<bool> = clients.iter().map(Client::is_free).collect();
    assert_eq!(free, [true, true, false]);
    assert!(!quick.is_free());
    assert_eq!(turned.shard.metrics.streams_cut.get(), 2);
}

#[test]
fn beats_come_as_chunks() {
    let mut turned = Turned::new();
    turned.shard.timing.heartbeat = Duration::from_secs(20);
    let start = Instant::now();
    let mut client = turned.stream(1);
    turned.shard.take(Command::Through(Some("7".into())));
    turned.shard.turn(start + Duration::from_secs(15));
    assert!(!turned.shard.sockets.is_ready(), "not before 16 s");
    turned
        .shard
        .turn(Instant::now() + Duration::from_millis(24_300));
    turned.until(|_| client.read(1_000));
    assert_eq!(client.bytes, Chunk::new(&frame::beat(Some("7"))).bytes());
}

#[test]
fn what_does_not_go_into_one_write_goes_into_several() {
    let mut turned = Turned::new();
    let (mut client, mut unread) = (turned.stream(1), turned.slow_stream(1, usize::MAX));
    for _ in 0..500 {
        turned.send(1, 10);
    }
    assert_eq!(turned.shard.metrics.frames_out.get(), 1_000);
    for (client, most) in [(&mut client, 1_000), (&mut unread, 100)] {
        turned.until(|_| {
            while client.read(most) {}
            client.numbers().len() == 500 && client.body().1 == End::Between
        });
    }
    assert_eq!(client.numbers(), (1..=500).collect::<Vec<_>>());
    assert!(client.bytes == unread.bytes);
    assert_eq!(turned.shard.budget.used(), 0);
}

#[test]
fn a_slice_is_tried_when_sockets_have_been_offered_it() {
    let mut turned = Turned::new();
    let (_quick, _slow) = (turned.stream(1), turned.slow_stream(1, usize::MAX));
    turned.fill(1);
    let send = |turned: &mut Turned, made| {
        let (attempt, tried) = Attempt::made_at(made);
        let slice = vec![(topic(1), frame(&turned.shard, 0, 10))];
        turned.shard.take(Command::Frames(slice.into(), attempt));
        tried
    };
    // One waits for the socket, and for its time on the processor the other.
    let mut soon = send(&mut turned, Instant::now());
    assert!(!soon.is_over());
    turned.write();
    assert!(!soon.is_over(), "who has just written is still waited for");
    let mut later = send(&mut turned, Instant::now() + Duration::from_secs(3600));
    assert!(!later.is_over());
    turned.write();
    assert!(
        later.is_over(),
        "and not who has taken nothing for too long"
    );
}

#[test]
fn who_takes_over_the_number_of_a_stream_gets_nothing_that_was_meant_for_it() {
    let mut turned = Turned::new();
    let gone = turned.slow_stream(1, usize::MAX);
    turned.fill(1);
    let gone_too = turned.stream(1);
    // Both have frames that wait, and the second stands in a list of those that can be written to.
    turned.send(1, 10);
    assert!(turned.shard.sockets.is_ready());
    let kept = [gone.close(true), gone_too.close(true)];
    let deadline = Instant::now() + PATIENCE;
    while !turned.is_empty() {
        assert!(Instant::now() < deadline, "it never was");
        turned
            .shard
            .await_events(&mut turned.events, Duration::from_millis(5));
    }
    assert!(turned.shard.sockets.is_ready());
    drop(kept);
    let (mut one, mut two) = (turned.stream(2), turned.stream(3));
    let mut numbers: Vec<usize> = turned.shard.streams.iter().map(|(key, _)| key).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1], "they were free");
    turned.write();
    turned.send(1, 10);
    turned.send(2, 10);
    let second = turned.number;
    turned.send(3, 10);
    turned.until(|_| one.read(1_000));
    turned.until(|_| two.read(1_000));
    // Much later nobody remembers the one that took nothing.
    turned.shard.turn(Instant::now() + Duration::from_secs(60));
    turned.shard.take(Command::EndAll(Bye::Drain));
    turned.read_all(&mut one);
    turned.read_all(&mut two);
    assert_eq!(one.numbers(), [second, second]);
    assert_eq!(two.numbers(), [second + 1, second + 1]);
    assert_eq!(turned.shard.metrics.streams_cut.get(), 0);
    assert_eq!(turned.shard.budget.used(), 0);
}

/// A shard whose loop runs.
struct Running {
    handle: ShardHandle,
    thread: thread::JoinHandle<()>,
    budget: Arc<Budget>,
}

impl Running {
    /// The shard, and whatever it has been told by hand.
    fn start(turned: Turned) -> Self {
        let budget = turned.shard.budget.clone();
        Self {
            thread: thread::spawn(|| turned.shard.run()),
            handle: turned._handle,
            budget,
        }
    }

    fn tell(&self, command: Command) {
        let told = futures::executor::block_on(self.handle.send(command));
        told.expect("it runs");
    }

    fn send(&self, name: usize, number: usize, size: usize) {
        let json = format!("\"{}\"", "x".repeat(size));
        let frame = crate::frame::Frame::numbered(&number.to_string(), &json);
        let queued = Queued::new(frame, Instant::now(), &self.budget);
        let (attempt, _) = Attempt::new();
        self.tell(Command::Frames(vec![(topic(name), queued)].into(), attempt));
    }

    /// It ends when nobody can tell it anything.
    fn end(self) -> Arc<Budget> {
        drop(self.handle);
        self.thread.join().expect("it does not panic");
        self.budget
    }
}

impl Client {
    /// Reads until nothing more comes, patiently.
    fn wait(&mut self) {
        self.socket.set_nonblocking(false).expect("an option");
        self.socket
            .set_read_timeout(Some(PATIENCE))
            .expect("an option");
        let mut bytes = [0; 4096];
        self.over = Some(loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => break Ok(()),
                Ok(count) => self.bytes.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => panic!("nothing comes"),
                Err(error) => break Err(error.kind()),
            }
        });
    }

    /// Waits until its stream has let go of what it kept.
    fn wait_until_free(&self) {
        let free = self.kept.recv_timeout(PATIENCE);
        assert_eq!(free, Err(mpsc::RecvTimeoutError::Disconnected));
    }
}

#[test]
fn the_loop_ends_those_who_send_too_much_take_nothing_go_or_are_closed() {
    let mut turned = Turned::new();
    turned.shard.timing.write_timeout = Duration::from_millis(300);
    let mut sender = turned.stream(1);
    let mut stalled = turned.slow_stream(2, usize::MAX);
    let (gone, reset) = (turned.stream(3), turned.stream(3));
    let (mut told, mut closed) = (turned.stream(4), turned.stream(5));
    let (late, leaving) = turned.join(&[5], usize::MAX, None, false);
    let running = Running::start(turned);

    for (client, resets) in [(gone, false), (reset, true)] {
        let kept = client.close(resets);
        let free = kept.recv_timeout(PATIENCE);
        assert_eq!(free, Err(mpsc::RecvTimeoutError::Disconnected));
    }
    let _ = sender.socket.write_all(&vec![b'x'; (64 << 10) + 1]);
    sender.wait_until_free();
    sender.wait();
    for number in 1..=100 {
        running.send(2, number, 100_000);
    }
    // Nobody tells it anything meanwhile.
    stalled.wait_until_free();
    stalled.wait();
    assert!(stalled.numbers().len() < 100);
    running.send(4, 101, 10);
    let mut byte = [0; 1];
    told.socket.read_exact(&mut byte).expect("a frame comes");
    told.bytes.extend(byte);
    running.tell(Command::Close);
    running.tell(leaving);
    for client in [&mut told, &mut closed] {
        client.wait();
        client.wait_until_free();
        assert_eq!(client.body().1, End::Between);
    }
    assert_eq!(told.numbers(), [101]);
    late.wait_until_free();
    let budget = running.end();
    assert_eq!(budget.used(), 0);
}
