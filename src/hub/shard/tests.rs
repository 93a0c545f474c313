//! A shard without its loop: what it takes, and what its streams read.

mod order;
mod sockets;

use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;
use crate::frame::{Frame, Position};
use crate::hub::Attempt;
use crate::hub::direct::Leaving;
use crate::hub::outbox::{Outlet, outbox};

/// A frame that is recognised by its position.
fn frame(shard: &Shard, number: usize, size: usize) -> Arc<Queued> {
    let json = format!("{{\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(size));
    let frame = Frame::numbered(&number.to_string(), &json);
    Queued::new(frame, Instant::now(), &shard.budget)
}

fn topic(name: usize) -> Topic {
    Topic::parse(&format!("t{name}")).expect("a topic")
}

fn shard(queue_bytes: usize) -> (Shard, ShardHandle) {
    shard_with(Duration::from_secs(3600), queue_bytes)
}

fn shard_with(heartbeat: Duration, queue_bytes: usize) -> (Shard, ShardHandle) {
    let timing = Timing {
        heartbeat,
        stream_age: None,
        write_timeout: Duration::from_secs(10),
        queue_bytes,
    };
    let shard = Shard::new(
        timing,
        Arc::default(),
        Arc::default(),
        Arc::new(Metrics::new()),
    );
    shard.expect("a poller")
}

/// A client: what it has read, as text.
struct Reader {
    outlet: Outlet,
    topics: Vec<usize>,
    text: String,
    expected: Vec<usize>,
}

impl Reader {
    fn join(topics: Vec<usize>, limit: usize) -> (Self, Command) {
        let (outbox, outlet) = outbox(limit, false);
        outlet.go_live(None);
        let join = Join {
            outbox,
            topics: topics.iter().map(|&name| topic(name)).collect(),
            expires: None,
            label: "a reader".into(),
        };
        let reader = Self {
            outlet,
            topics,
            text: String::new(),
            expected: Vec::new(),
        };
        (reader, Command::Join(join))
    }

    /// Reads once; false when nothing waits.
    fn read(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        match self.outlet.poll_next(&mut cx) {
            Poll::Ready(Some(bytes)) => {
                self.text += std::str::from_utf8(&bytes).expect("text");
                true
            }
            _ => false,
        }
    }

    fn numbers(&self) -> Vec<usize> {
        let ids = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("id: "));
        ids.filter_map(|id| id.parse().ok()).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Join(Vec<usize>),
    Frames(Vec<usize>),
    Read(prop::sample::Index),
    Leave(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Topic 0 is wide: every stream has it; the others are narrow.
    let join = proptest::collection::btree_set(1usize..6, 0..3).prop_map(|narrow| {
        let mut topics = vec![0];
        topics.extend(narrow);
        Step::Join(topics)
    });
    let frames = proptest::collection::vec(0usize..6, 1..8).prop_map(Step::Frames);
    let step = prop_oneof![
        2 => join,
        3 => frames,
        4 => any::<prop::sample::Index>().prop_map(Step::Read),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Whoever is cut at any frame holds that frame's position, and its position claims every
    /// frame of its topics before it: so all of them must have come, in order.
    #[test]
    fn every_stream_reads_the_frames_of_its_topics_in_order(steps in steps()) {
        let (mut shard, _handle) = shard(usize::MAX);
        let mut readers: Vec<Reader> = Vec::new();
        let mut number = 0;
        for step in steps {
            match step {
                Step::Join(topics) => {
                    let (reader, join) = Reader::join(topics, usize::MAX);
                    shard.take(join);
                    readers.push(reader);
                }
                Step::Frames(topics) => {
                    let mut slice = Vec::new();
                    for name in topics {
                        number += 1;
                        slice.push((topic(name), frame(&shard, number, 10)));
                        for reader in &mut readers {
                            if reader.topics.contains(&name) {
                                reader.expected.push(number);
                            }
                        }
                    }
                    let (attempt, _) = Attempt::new();
                    shard.take(Command::Frames(slice.into(), attempt));
                }
                Step::Read(which) if !readers.is_empty() => {
                    let reader = which.get_mut(&mut readers);
                    reader.read();
                    let read = reader.numbers();
                    prop_assert_eq!(&read[..], &reader.expected[..read.len()]);
                }
                Step::Leave(which) if !readers.is_empty() => {
                    let which = which.index(readers.len());
                    readers.swap_remove(which);
                }
                Step::Read(_) | Step::Leave(_) => {}
            }
        }
        for reader in &mut readers {
            while reader.read() {}
            prop_assert_eq!(reader.numbers(), reader.expected.clone());
        }
        drop(readers);
        prop_assert_eq!(shard.budget.used(), 0, "nothing stays charged");
    }
}

#[test]
fn a_stream_beyond_its_queue_ends_with_the_position_that_it_holds() {
    let (mut shard, _handle) = shard(usize::MAX);
    let (mut reader, join) = Reader::join(vec![0], 1000);
    shard.take(join);
    let mut send = |number| {
        let (attempt, _) = Attempt::new();
        let slice = vec![(topic(0), frame(&shard, number, 400))];
        shard.take(Command::Frames(slice.into(), attempt));
    };
    send(1);
    assert!(reader.read());
    (2..6).for_each(&mut send);
    assert!(reader.read());
    let bye = "\n\nevent: tidings.bye\ndata: {\"reason\":\"slow\"}\nretry: ";
    assert!(reader.text.contains(bye), "{}", reader.text);
    assert_eq!(
        reader.numbers(),
        [1, 1],
        "the frame's id and again the bye's"
    );
    assert!(!reader.read());
    assert_eq!(shard.budget.used(), 0);
    assert!(shard.streams.is_empty());
}

#[test]
fn an_empty_queue_takes_any_frame() {
    let (mut shard, _handle) = shard(usize::MAX);
    let (mut reader, join) = Reader::join(vec![0], 10);
    shard.take(join);
    let (attempt, _) = Attempt::new();
    let slice = vec![(topic(0), frame(&shard, 1, 4000))];
    shard.take(Command::Frames(slice.into(), attempt));
    assert!(reader.read());
    assert_eq!(reader.numbers(), [1]);
}

#[test]
fn those_furthest_behind_are_shed_and_shared_frames_count_once() {
    let (mut shard, _handle) = shard(10_000);
    let mut readers = Vec::new();
    for _ in 0..3 {
        let (reader, join) = Reader::join(vec![0], usize::MAX);
        shard.take(join);
        readers.push(reader);
    }
    let mut send = |number, readers: &mut [Reader]| {
        let (attempt, _) = Attempt::new();
        let slice = vec![(topic(0), frame(&shard, number, 1000))];
        shard.take(Command::Frames(slice.into(), attempt));
        // One client never reads.
        for reader in &mut readers[1..] {
            assert!(reader.read());
        }
    };
    for number in 1..=9 {
        send(number, &mut readers);
    }
    assert!(!readers[0].outlet_ended(), "nine shared frames fit");
    for number in 10..=20 {
        send(number, &mut readers);
    }
    assert!(readers[0].outlet_ended());
    for reader in &readers[1..] {
        assert_eq!(reader.numbers(), (1..=20).collect::<Vec<_>>());
    }
}

impl Reader {
    /// Whether the queue has been replaced by a bye.
    fn outlet_ended(&mut self) -> bool {
        self.outlet.is_ending()
    }
}

#[test]
fn a_slice_is_not_over_because_another_came() {
    let (mut shard, _handle) = shard(usize::MAX);
    let (mut reader, join) = Reader::join(vec![0], usize::MAX);
    shard.take(join);
    assert!(!reader.read());
    let mut send = |number| {
        let (attempt, tried) = Attempt::new();
        let slice = vec![(topic(0), frame(&shard, number, 10))];
        shard.take(Command::Frames(slice.into(), attempt));
        shard.take(Command::Signal(topic(0), frame(&shard, 0, 10)));
        tried
    };
    let (mut first, mut second) = (send(1), send(2));
    assert!(!first.is_over());
    assert!(second.is_over(), "the first stands for it");
    assert!(reader.read());
    assert!(first.is_over());
}

#[test]
fn a_stream_that_has_ended_gives_up_its_backlog_before_one_that_lives() {
    let (mut shard, _handle) = shard(2_000);
    let (mut ended, join) = Reader::join(vec![0], usize::MAX);
    shard.take(join);
    let send = |shard: &mut Shard, number| {
        let (attempt, _) = Attempt::new();
        let slice = vec![(topic(0), frame(shard, number, 1_000))];
        shard.take(Command::Frames(slice.into(), attempt));
    };
    send(&mut shard, 1);
    shard.take(Command::EndAll(Bye::Diverged));
    let (mut alive, join) = Reader::join(vec![0], usize::MAX);
    shard.take(join);
    send(&mut shard, 2);
    assert!(!alive.outlet_ended());
    assert!(ended.read() && alive.read());
    assert_eq!(ended.numbers(), [] as [usize; 0]);
    assert!(ended.text.contains("diverged"), "{}", ended.text);
    assert_eq!(alive.numbers(), [2]);
}

#[test]
fn a_stream_that_takes_nothing_is_not_waited_for_until_it_takes_something() {
    let (mut shard, _handle) = shard(usize::MAX);
    // The wide topic is everybody's, and each has one of its own besides.
    let mut readers = Vec::new();
    for name in 1..=100 {
        let (mut reader, join) = Reader::join(vec![0, name], usize::MAX);
        shard.take(join);
        assert!(!reader.read());
        readers.push(reader);
    }
    // Sends a slice that is made then, and tells whether somebody is waited for.
    let mut send = |name, made| {
        let (attempt, mut tried) = Attempt::made_at(made);
        let slice = vec![(topic(name), frame(&shard, name, 10))];
        shard.take(Command::Frames(slice.into(), attempt));
        !tried.is_over()
    };
    // However slow the test is, one is too early for any patience to be over, and one too late.
    let soon = Instant::now();
    let later = soon + Duration::from_secs(3600);
    assert!(
        send(0, later),
        "they sleep, and will try when they are woken"
    );
    for reader in &mut readers {
        assert!(reader.read());
    }
    assert!(send(1, soon), "it may still be writing");
    for name in 2..=100 {
        assert!(!send(name, later), "{name} has taken nothing for too long");
    }
    for name in 2..=100 {
        while readers[name - 1].read() {}
        assert!(send(name, later), "{name} waits for more");
    }
}

#[tokio::test(start_paused = true)]
async fn within_a_look_that_takes_long_beats_say_only_that_the_stream_is_alive() {
    let (mut shard, _handle) = shard(usize::MAX);
    shard.timing.heartbeat = Duration::from_secs(20);
    let (mut reader, join) = Reader::join(vec![0], 1000);
    shard.take(join);
    shard.take(Command::Through(Some("7".into())));
    let begun = Instant::now();
    let (attempt, _) = Attempt::new();
    let slice = vec![(topic(1), frame(&shard, 8, 10))];
    shard.take(Command::Frames(slice.into(), attempt));
    shard.turn(begun + Duration::from_millis(24_300));
    assert!(reader.read());
    assert_eq!(reader.text, "event: tidings.beat\ndata: {}\n\n");
}

#[tokio::test(start_paused = true)]
async fn beats_and_ends_come_through_the_queue() {
    let (mut shard, _handle) = shard_with(Duration::from_secs(20), usize::MAX);
    let (mut reader, join) = Reader::join(vec![0], 1000);
    shard.take(join);
    shard.take(Command::Through(Some("7".into())));
    let start = Instant::now();
    shard.turn(start + Duration::from_secs(15));
    assert!(!reader.read(), "not before 16 s");
    shard.turn(start + Duration::from_millis(24_300));
    assert!(reader.read());
    assert_eq!(reader.text, "event: tidings.beat\ndata: {}\nid: 7\n\n");
    shard.take(Command::EndAll(Bye::Diverged));
    assert!(reader.read());
    let bye = "\n\nevent: tidings.bye\ndata: {\"reason\":\"diverged\"}\nretry: ";
    assert!(reader.text.contains(bye), "{}", reader.text);
    assert_eq!(reader.numbers(), [7, 7]);
}

#[test]
fn a_shard_whose_streams_read_ends_none_of_them_for_those_of_another() {
    let budget: Arc<Budget> = Arc::default();
    let timing = Timing {
        heartbeat: Duration::from_secs(3600),
        stream_age: None,
        write_timeout: Duration::from_secs(10),
        queue_bytes: 5_000,
    };
    let mut shards = [(); 2].map(|()| {
        let metrics = Arc::new(Metrics::new());
        let shard = Shard::new(timing.clone(), budget.clone(), Arc::default(), metrics);
        shard.expect("a poller")
    });
    let [(reading, _), (deaf, _)] = &mut shards;
    let (mut reader, join) = Reader::join(vec![0], usize::MAX);
    reading.take(join);
    let (mut behind, join) = Reader::join(vec![0], usize::MAX);
    deaf.take(join);
    for number in 1..=10 {
        let slice: Arc<[_]> = vec![(topic(0), frame(reading, number, 1_000))].into();
        let (attempt, _) = Attempt::new();
        // It sheds before the shard of the one that is behind has even heard of the frame.
        reading.take(Command::Frames(slice.clone(), attempt.clone()));
        assert!(!reader.outlet_ended(), "{number}");
        deaf.take(Command::Frames(slice, attempt));
        assert!(reader.read());
    }
    assert!(behind.outlet_ended());
}
