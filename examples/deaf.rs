//! What a thousand clients that never read cost those who do.
//!
//! `cargo run --release --example deaf [PAIRS]`: a hundred streams are told 200 events a second, while bulk
//! commits go to the topics of the deaf; five pairs of ten seconds each without and with a thousand deaf,
//! who have one topic together, and five where each has its own. The bulk is written in both halves of a
//! pair, so that only the deaf differ. Prints one table for each, in milliseconds from sending COMMIT.

mod figures;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use figures::{Result, Rig, Stream};
use futures::{StreamExt, TryStreamExt};
use tokio::net::TcpSocket;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

const DEAF: usize = 1_000;
/// Streams that are being opened at a time.
const OPENING: usize = 50;
/// Room in the socket of one who does not read, and what a segment carries on an Ethernet, in bytes.
const DEAF_BYTES: u32 = 2048;
const SEGMENT_BYTES: u32 = 1_400;

const HONEST: usize = 100;
/// Topics of those who read; each has as many streams.
const HONEST_TOPICS: usize = 10;

const HALF: Duration = Duration::from_secs(10);
/// Time for what a half has left behind.
const BETWEEN: Duration = Duration::from_secs(2);
const PUBLISH_EVERY: Duration = Duration::from_millis(5);
const BULK_EVERY: Duration = Duration::from_millis(250);

/// Where the deaf are, and what is written there.
struct Bulk {
    name: &'static str,
    /// The topic of the n-th, in Rust and in SQL.
    topic: fn(usize) -> String,
    sql_topic: &'static str,
    /// Events of one commit, and the bytes of each.
    events: usize,
    event_bytes: usize,
}

const BULKS: [Bulk; 2] = [
    Bulk {
        name: "one topic",
        topic: |_| "deaf".into(),
        sql_topic: "'deaf'",
        events: 500,
        event_bytes: 1_000,
    },
    Bulk {
        name: "own topics",
        topic: |n| format!("deaf{n}"),
        sql_topic: "'deaf' || n % 1000",
        events: 1_000,
        event_bytes: 4_000,
    },
];

/// An event of this number is with a client.
type Arrival = (usize, Instant);

#[tokio::main]
async fn main() -> Result<()> {
    let pairs: usize = std::env::args().nth(1).map_or(Ok(5), |text| text.parse())?;
    for bulk in &BULKS {
        let mut figure = Figure::start().await?;
        println!(
            "{DEAF} deaf, {}; {} events of {} bytes every {BULK_EVERY:?}",
            bulk.name, bulk.events, bulk.event_bytes
        );
        println!(
            "{:<8}{:>12}{:>12}{:>12}{:>12}{:>12}{:>12}",
            "", "p50 without", "p50 with", "p99 without", "p99 with", "ratio", "difference"
        );
        let mut rows = Vec::new();
        for pair in 1..=pairs {
            // Which half comes first alternates.
            let first = figure.half(bulk, pair % 2 == 0).await?;
            let second = figure.half(bulk, pair % 2 == 1).await?;
            let (without, with) = if pair % 2 == 0 {
                (second, first)
            } else {
                (first, second)
            };
            let row = [
                without[0],
                with[0],
                without[1],
                with[1],
                with[1] / without[1],
                with[1] - without[1],
            ];
            print_row(&pair.to_string(), row);
            rows.push(row);
        }
        let medians = std::array::from_fn(|column| {
            let mut values: Vec<f64> = rows.iter().map(|row| row[column]).collect();
            values.sort_unstable_by(f64::total_cmp);
            values[values.len() / 2]
        });
        print_row("median", medians);
    }
    Ok(())
}

fn print_row(name: &str, row: [f64; 6]) {
    print!("{name:<8}");
    for value in row {
        print!("{value:>12.2}");
    }
    println!();
}

/// A gateway with those who read.
struct Figure {
    rig: Rig,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
    /// How many events have been told.
    told: usize,
}

impl Figure {
    async fn start() -> Result<Self> {
        let rig = Rig::start(&["--streams=5000".to_owned()]).await?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        for n in 0..HONEST {
            let from = SocketAddr::from(([127, 0, 0, 1], 0));
            let topic = format!("honest{}", n % HONEST_TOPICS);
            let stream = Stream::open(rig.address(), from, &format!("honest{n}"), &topic).await?;
            tokio::spawn(read(stream, sender.clone()));
        }
        Ok(Self {
            rig,
            arrivals,
            told: 0,
        })
    }

    /// Ten seconds; the median and the p99 in milliseconds.
    async fn half(&mut self, bulk: &Bulk, with_deaf: bool) -> Result<[f64; 2]> {
        let count = if with_deaf { DEAF } else { 0 };
        let gateway = self.rig.address();
        let opening = (0..count).map(|n| open_deaf(gateway, n, (bulk.topic)(n)));
        let opening = futures::stream::iter(opening).buffer_unordered(OPENING);
        let deaf: Vec<Stream> = opening.try_collect().await?;
        tokio::time::sleep(BETWEEN).await;

        let first = self.told;
        let events = (HALF.as_micros() / PUBLISH_EVERY.as_micros()) as usize;
        let sent: Arc<[OnceLock<Instant>]> = (0..events).map(|_| OnceLock::new()).collect();
        let publisher = self.rig.connect().await?;
        let writer = self.rig.connect().await?;
        let (commits, ()) = tokio::try_join!(
            write(&writer, bulk),
            publish(&publisher, first, sent.clone())
        )?;
        self.told += events;
        let mut delays = Vec::new();
        while delays.len() < events * HONEST / HONEST_TOPICS {
            let (number, at) = self.arrivals.recv().await.ok_or("a stream ended")?;
            let sent = sent[number - first].get().ok_or("it came unsent")?;
            delays.push(at - *sent);
        }
        let open = self.rig.metric("tidings_streams{kind=\"hyper\"}").await?;
        let slow = self
            .rig
            .metric("tidings_byes_total{reason=\"slow\"}")
            .await?;
        eprintln!(
            "{} arrivals, {commits} bulk commits, {} deaf; at the end {open} streams, {slow} ended as slow so far",
            delays.len(),
            deaf.len()
        );
        drop(deaf);
        tokio::time::sleep(BETWEEN).await;
        delays.sort_unstable();
        Ok([0.5, 0.99].map(|share| {
            let place = ((delays.len() - 1) as f64 * share).round() as usize;
            delays[place].as_secs_f64() * 1_000.0
        }))
    }
}

/// Opens a stream that is live, and of which nothing will be read.
async fn open_deaf(gateway: SocketAddr, n: usize, topic: String) -> Result<Stream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(DEAF_BYTES)?;
    // Loopback's segments are so large that the gateway's kernel would take megabytes for each.
    socket2::SockRef::from(&socket).set_tcp_mss(SEGMENT_BYTES)?;
    Stream::over(socket, gateway, &format!("deaf{n}"), &topic).await
}

/// Notes when each event comes.
async fn read(mut stream: Stream, arrivals: mpsc::UnboundedSender<Arrival>) -> Result<()> {
    loop {
        stream.wait_for("\"number\":").await?;
        let number = stream.text_until("}").await?;
        arrivals.send((number.trim().parse()?, Instant::now()))?;
    }
}

/// Tells those who read 200 events a second, in turn to each of their topics.
async fn publish(
    publisher: &tokio_postgres::Client,
    first: usize,
    sent: Arc<[OnceLock<Instant>]>,
) -> Result<()> {
    let publish = publisher
        .prepare("select tidings.publish($1, 'said', jsonb_build_object('number', $2::int8))")
        .await?;
    let mut tick = tokio::time::interval(PUBLISH_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for (n, sent) in sent.iter().enumerate() {
        tick.tick().await;
        let topic = format!("honest{}", n % HONEST_TOPICS);
        publisher.batch_execute("begin").await?;
        let number = (first + n) as i64;
        publisher.query_one(&publish, &[&topic, &number]).await?;
        sent.get_or_init(Instant::now);
        publisher.batch_execute("commit").await?;
    }
    Ok(())
}

/// Writes to the topics of the deaf, again and again; returns how many commits that were.
async fn write(writer: &tokio_postgres::Client, bulk: &Bulk) -> Result<usize> {
    let write = format!(
        "select count(tidings.publish({}, 'bulk', to_jsonb(repeat('x', {})))) from generate_series(1, {}) n",
        bulk.sql_topic, bulk.event_bytes, bulk.events
    );
    let mut tick = tokio::time::interval(BULK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begun = Instant::now();
    let mut commits = 0;
    while begun.elapsed() < HALF {
        tick.tick().await;
        writer.batch_execute(&write).await?;
        commits += 1;
    }
    Ok(commits)
}
