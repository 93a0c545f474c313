//! The order of frames, as clients meet it: whichever sink a stream has, however its client reads, whenever it
//! leaves hyper, what it has received is what its last id claims.

use std::future::poll_fn;
use std::sync::mpsc;
use std::thread;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::frame::tests::{End, dechunk};
use crate::hub::direct::tests::connection;

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Streams that join before anything is sent: more than a narrow topic has.
const FIRST: usize = NARROW + 2;

/// What the shard is told in a look, in order.
#[derive(Clone, Debug)]
enum Told {
    /// Frames, each of a topic and with so much in it.
    Frames(Vec<(usize, usize)>),
    Through,
    /// Nothing for so long that whoever may beat does.
    Silence,
}

#[derive(Clone, Copy, Debug)]
enum Writer {
    Hyper,
    /// The shard, through buffers that are small or not.
    Shard {
        small: bool,
    },
}

/// A stream and its client.
#[derive(Clone, Debug)]
struct Plan {
    /// Its topics beside the one that every stream has.
    narrow: Vec<usize>,
    named: bool,
    writer: Writer,
    /// Before which words to the shard it joins, becomes live and loses its client, in per cent of all of them.
    joins: usize,
    live: usize,
    goes: Option<usize>,
    /// The most that its client reads at once.
    sip: usize,
    /// Whether its client reads nothing before all has been said.
    late: bool,
}

/// Frames of which a few are large.
fn told() -> impl Strategy<Value = Vec<Told>> {
    let size = prop_oneof![6 => 0usize..300, 1 => 300usize..30_000];
    let frames = proptest::collection::vec((0usize..4, size), 1..6).prop_map(Told::Frames);
    let told = prop_oneof![60 => frames, 20 => Just(Told::Through), 2 => Just(Told::Silence)];
    proptest::collection::vec(told, 1..40)
}

fn plan() -> impl Strategy<Value = Plan> {
    let writer = prop_oneof![
        1 => Just(Writer::Hyper),
        3 => any::<bool>().prop_map(|small| Writer::Shard { small }),
    ];
    let narrow = proptest::collection::btree_set(1usize..4, 0..3);
    let times = (0usize..100, 0usize..40);
    let goes = proptest::option::weighted(0.2, 0usize..100);
    let reads = (prop_oneof![30usize..300, 1_000usize..10_000], any::<bool>());
    (narrow, any::<bool>(), writer, times, goes, reads).prop_map(
        |(narrow, named, writer, (joins, then), goes, (sip, late))| Plan {
            narrow: narrow.into_iter().collect(),
            named,
            writer,
            joins,
            // Some become live when all is over.
            live: joins + then,
            goes,
            sip,
            late,
        },
    )
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    proptest::collection::vec(plan(), FIRST..36).prop_map(|mut plans| {
        for (at, plan) in plans.iter_mut().enumerate() {
            if at < FIRST {
                plan.joins = 0;
                plan.goes = None;
            }
            // A narrow topic stays one.
            if at >= NARROW {
                plan.narrow.clear();
            }
        }
        plans
    })
}

/// What has come to a client.
struct Received {
    body: String,
    /// Where it ended, if the stream had not lost its client.
    end: Option<End>,
}

/// A stream while the shard is told things.
struct Open {
    plan: Plan,
    outlet: Option<Outlet>,
    client: Option<JoinHandle<Received>>,
    gone: CancellationToken,
    expected: Vec<usize>,
    /// The position from which it is live.
    begun: usize,
    kept: Option<mpsc::Receiver<()>>,
}

async fn read_socket(mut socket: TcpStream, plan: Plan, all_said: CancellationToken) -> Vec<u8> {
    if plan.late {
        all_said.cancelled().await;
    }
    let (mut bytes, mut sip) = (Vec::new(), vec![0; plan.sip]);
    loop {
        match socket.read(&mut sip).await.expect("an orderly end") {
            0 => return bytes,
            count => bytes.extend_from_slice(&sip[..count]),
        }
        tokio::task::yield_now().await;
    }
}

async fn read_outlet(mut outlet: Outlet, plan: Plan, all_said: CancellationToken) -> String {
    if plan.late {
        all_said.cancelled().await;
    }
    let mut body = Vec::new();
    while let Some(bytes) = poll_fn(|cx| outlet.poll_next(cx)).await {
        body.extend_from_slice(&bytes);
        tokio::task::yield_now().await;
    }
    String::from_utf8(body).expect("text")
}

impl Open {
    /// The stream joins, after so many frames.
    async fn join(plan: &Plan, shard: &ShardHandle, number: usize) -> Self {
        let (outbox, outlet) = outbox(usize::MAX, plan.named);
        let mut topics = vec![topic(0)];
        topics.extend(plan.narrow.iter().map(|&name| topic(name)));
        let join = Join {
            outbox,
            topics,
            expires: None,
            label: "a client".into(),
        };
        let told = shard.send(Command::Join(join)).await;
        told.expect("it runs");
        Self {
            plan: plan.clone(),
            outlet: Some(outlet),
            client: None,
            gone: CancellationToken::new(),
            expected: Vec::new(),
            begun: number,
            kept: None,
        }
    }

    /// Its replay is over, and its client reads what comes.
    async fn go_live(&mut self, shard: &ShardHandle, all_said: &CancellationToken) {
        let Some(outlet) = self.outlet.take() else {
            return;
        };
        outlet.go_live(Some(self.begun.to_string().into()));
        let (plan, gone, said) = (self.plan.clone(), self.gone.clone(), all_said.clone());
        let Writer::Shard { small } = plan.writer else {
            self.client = Some(tokio::spawn(async move {
                let read = gone.run_until_cancelled(read_outlet(outlet, plan, said));
                let body = read.await;
                Received {
                    end: body.is_some().then_some(End::Over),
                    body: body.unwrap_or_default(),
                }
            }));
            return;
        };
        let (client, socket) = connection(small);
        client.set_nonblocking(true).expect("an option");
        let client = TcpStream::from_std(client).expect("a runtime");
        let (keep, kept) = mpsc::channel::<()>();
        let leaving = Leaving::new(outlet, socket, Box::new(keep));
        let told = shard.send(Command::Direct(leaving)).await;
        told.expect("it runs");
        self.kept = Some(kept);
        self.client = Some(tokio::spawn(async move {
            let read = gone.run_until_cancelled(read_socket(client, plan, said));
            let bytes = read.await;
            let (body, end) = dechunk(bytes.as_deref().unwrap_or_default());
            Received {
                end: bytes.is_some().then_some(end),
                body,
            }
        }));
    }

    /// What its client has read is right, at every id in it.
    fn check(self, received: &Received) {
        let Some(end) = received.end else {
            return;
        };
        assert_eq!(end, End::Over);
        let plan = &self.plan;
        let (mut held, mut left, mut bye) = (self.begun, &self.expected[..], false);
        let blocks = received.body.strip_suffix("\n\n").expect("whole blocks");
        for block in blocks.split("\n\n") {
            assert!(!bye, "after the good-bye: {block}");
            let line = |field| block.lines().find_map(|line| line.strip_prefix(field));
            let id: Option<usize> = line("id: ").map(|id| id.parse().expect("a number"));
            match line("event: ") {
                Some("tidings.beat") => {}
                Some("tidings.bye") => {
                    assert_eq!(id, Some(held), "{plan:?}");
                    bye = true;
                }
                kind => {
                    assert_eq!(kind, plan.named.then_some("k"));
                    let (next, rest) = left.split_first().expect("a frame too much");
                    assert_eq!(id, Some(*next), "{plan:?}");
                    let data = line("data: ").expect("a frame has data");
                    assert!(data.starts_with(&format!("{{\"number\":{next},")), "{data}");
                    left = rest;
                }
            }
            // Whoever is cut here comes back with this id, and gets nothing up to it again.
            if let Some(id) = id {
                assert!(held <= id, "it goes back from {held} to {id}");
                assert!(
                    left.first().is_none_or(|next| id < *next),
                    "{id} claims {left:?}"
                );
                held = id;
            }
        }
        assert!(bye && left.is_empty(), "{left:?} are missing: {plan:?}");
    }
}

/// Tells a shard all this while clients read, and checks what they have read.
async fn tell(told: &[Told], plans: &[Plan], shard: ShardHandle, budget: &Arc<Budget>) {
    let all_said = CancellationToken::new();
    let mut streams: Vec<Option<Open>> = plans.iter().map(|_| None).collect();
    let mut number = 0;
    for (at, word) in told.iter().enumerate() {
        let now = 100 * at / told.len();
        for (stream, plan) in streams.iter_mut().zip(plans) {
            if stream.is_none() && plan.joins <= now {
                *stream = Some(Open::join(plan, &shard, number).await);
            }
            if let Some(stream) = stream {
                if plan.live <= now {
                    stream.go_live(&shard, &all_said).await;
                }
                if plan.goes.is_some_and(|goes| goes <= now) {
                    stream.gone.cancel();
                }
            }
        }
        let command = match word {
            Told::Frames(words) => {
                let mut frames = Vec::new();
                for &(name, size) in words {
                    number += 1;
                    let json = format!("{{\"number\":{number},\"pad\":\"{}\"}}", "x".repeat(size));
                    let frame = Frame::numbered(&number.to_string(), &json);
                    frames.push((topic(name), Queued::new(frame, Instant::now(), budget)));
                    for stream in streams.iter_mut().flatten() {
                        if name == 0 || stream.plan.narrow.contains(&name) {
                            stream.expected.push(number);
                        }
                    }
                }
                Command::Frames(frames.into(), Attempt::new().0)
            }
            Told::Through => Command::Through(Some(number.to_string().into())),
            Told::Silence => {
                tokio::time::sleep(2 * TICK).await;
                continue;
            }
        };
        shard.send(command).await.expect("it runs");
        tokio::task::yield_now().await;
    }
    shard
        .send(Command::EndAll(Bye::Drain))
        .await
        .expect("it runs");
    all_said.cancel();
    for mut stream in streams.into_iter().flatten() {
        // Those that are not live yet have ended meanwhile.
        stream.go_live(&shard, &all_said).await;
        let client = stream.client.take().expect("it is live");
        let received = tokio::time::timeout(PATIENCE, client).await;
        let received = received.expect("an end").expect("no panic");
        if let Some(kept) = stream.kept.take() {
            let free = kept.recv_timeout(PATIENCE);
            assert_eq!(free, Err(mpsc::RecvTimeoutError::Disconnected));
        }
        stream.check(&received);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_client_has_received_what_its_last_id_claims(told in told(), plans in plans()) {
        // They beat whenever they may.
        let (mut shard, handle) = shard_with(Duration::from_millis(1), usize::MAX);
        shard.timing.write_timeout = PATIENCE;
        let (budget, wakes) = (shard.budget.clone(), shard.wakes.clone());
        let thread = thread::spawn(|| shard.run());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            tokio::select! {
                () = wakes.run() => {}
                () = tell(&told, &plans, handle, &budget) => {}
            }
        });
        thread.join().expect("it does not panic");
        prop_assert_eq!(budget.used(), 0);
    }
}
