//! How long after its publisher sends COMMIT an event is with its client, when little else happens.
//!
//! `cargo run --release --example latency [EVENTS]`: one publisher and one stream on a private Postgres
//! that flushes every commit, as by default; 1,000 events, one at a time. Prints one table.

mod figures;

use std::time::{Duration, Instant};

use figures::{Result, Rig, Stream};

#[tokio::main]
async fn main() -> Result<()> {
    let events: usize = std::env::args()
        .nth(1)
        .map_or(Ok(1_000), |text| text.parse())?;
    let rig = Rig::start(&[]).await?;
    let publisher = rig.connect().await?;
    let publish = publisher
        .prepare("select tidings.publish('user:1', 'said', '{\"text\": \"hello\"}')")
        .await?;
    let from = "127.0.0.1:0".parse()?;
    let mut stream = Stream::open(rig.address(), from, "1", "user:1").await?;

    let (mut commits, mut arrivals) = (Vec::new(), Vec::new());
    for _ in 0..events {
        publisher.batch_execute("begin").await?;
        let id: i64 = publisher.query_one(&publish, &[]).await?.get(0);
        let sent = Instant::now();
        let commit = async {
            publisher.batch_execute("commit").await?;
            Ok::<_, tokio_postgres::Error>(sent.elapsed())
        };
        let arrival = async {
            stream.wait_for(&format!("\"id\":\"{id}\"")).await?;
            Ok::<_, figures::gateway::Failure>(sent.elapsed())
        };
        let (commit, arrival) = tokio::join!(commit, arrival);
        commits.push(commit?);
        arrivals.push(arrival?);
        // Idle: the next one comes when the last has long been served, and never in step with anything.
        tokio::time::sleep(Duration::from_micros(fastrand::u64(2_000..12_000))).await;
    }

    println!("{events} events, one at a time; milliseconds from sending COMMIT");
    println!("{:<24}{:>10}{:>10}{:>10}", "", "median", "p99", "max");
    for (name, times) in [
        ("to its answer", commits),
        ("to the event at a client", arrivals),
    ] {
        print_row(name, times);
    }
    Ok(())
}

fn print_row(name: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        let place = ((times.len() - 1) as f64 * share).round() as usize;
        times[place].as_secs_f64() * 1_000.0
    };
    println!(
        "{name:<24}{:>10.2}{:>10.2}{:>10.2}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
