//! What idle streams cost the gateway.
//!
//! `cargo run --release --example idle [STREAMS]`: opens 10,000 streams from several loopback addresses,
//! each for its own connection, tells all of them one event, and prints one table. Sockets' buffers are
//! the kernel's and not in it.

mod figures;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use figures::{Result, Rig, Stream};
use futures::{StreamExt, TryStreamExt};

/// Streams of one user, as many as it may have by default.
const PER_USER: usize = 20;
/// Streams from one address, well below the number of its ports.
const PER_ADDRESS: usize = 5_000;
/// Streams that are being opened at a time.
const OPENING: usize = 100;

#[tokio::main]
async fn main() -> Result<()> {
    let count: usize = std::env::args()
        .nth(1)
        .map_or(Ok(10_000), |text| text.parse())?;
    let rig = Rig::start(&[format!("--streams={count}")]).await?;
    // The first one warms up what is made once.
    let address = rig.address();
    let first = Stream::open(address, SocketAddr::from(([127, 0, 0, 1], 0)), "0", "all").await?;
    let before = rig.resident_bytes()?;

    let begun = Instant::now();
    let opening = (1..count).map(|n| async move {
        let host = 1 + u8::try_from(n / PER_ADDRESS)?;
        let from = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
        Stream::open(address, from, &(n / PER_USER).to_string(), "all").await
    });
    let opened = futures::stream::iter(opening).buffer_unordered(OPENING);
    let mut streams: Vec<Stream> = opened.try_collect().await?;
    streams.push(first);
    let opened = begun.elapsed();
    // What opening left behind is given back by now, as far as it ever is.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = rig.resident_bytes()?;

    let publisher = rig.connect().await?;
    let begun = Instant::now();
    publisher
        .execute("select tidings.publish('all', 'said')", &[])
        .await?;
    for stream in &mut streams {
        stream.wait_for("\"type\":\"said\"").await?;
    }
    let told = begun.elapsed();
    let after = rig.resident_bytes()?;

    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let each = |bytes: usize| bytes.saturating_sub(before) as f64 / 1024.0 / (count - 1) as f64;
    println!("{count} streams, opened in {opened:.1?}, all told one event within {told:.1?}");
    println!("{:<24}{:>12}{:>18}", "", "resident MiB", "KiB per stream");
    println!("{:<24}{:>12.1}{:>18}", "one stream", mib(before), "");
    println!("{:<24}{:>12.1}{:>18.1}", "all, idle", mib(idle), each(idle));
    println!(
        "{:<24}{:>12.1}{:>18.1}",
        "all, after the event",
        mib(after),
        each(after)
    );
    Ok(())
}
