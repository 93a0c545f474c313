//! Floods of connections: more than a gateway takes, each of them saying as little as it can and coming
//! back when it is ended. Who has something to ask is served meanwhile, and streams stay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::frames::{self, END_STREAM};
use super::watched::{USUAL, Watched};
use crate::room;
use crate::support::backend::{publish, run};
use crate::support::gateway::Door;
use crate::support::postgres::database;
use crate::support::setting;

/// Whoever is silent keeps a place for 10 s, so that who waits for one of these waits so long.
const SOON: Duration = Duration::from_secs(5);

/// People who hold connections for nothing; dropping it, they all go.
struct Flood {
    sockets: JoinSet<()>,
    connected: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Flood {
    /// So many, each saying one of these and nothing more, and coming back a while after its end.
    async fn start(address: SocketAddr, count: usize, say: &[Vec<u8>], seed: u64) -> Flood {
        let (connected, refused) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let mut sockets = JoinSet::new();
        for n in 0..count {
            let (connected, refused) = (connected.clone(), refused.clone());
            let say = say[n % say.len()].clone();
            let mut rng = fastrand::Rng::with_seed(seed + n as u64);
            sockets.spawn(async move {
                loop {
                    match hold(address, &say, &connected).await {
                        Ok(()) => {}
                        Err(_) => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    }
                    tokio::time::sleep(Duration::from_millis(rng.u64(500..1500))).await;
                }
            });
        }
        let flood = Flood {
            sockets,
            connected,
            refused,
        };
        let deadline = Instant::now() + crate::support::client::PATIENCE;
        while flood.connected.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "the flood does not rise");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        flood
    }

    /// How often one of them has connected.
    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }

    async fn end(mut self) {
        self.sockets.shutdown().await;
    }
}

async fn hold(address: SocketAddr, say: &[u8], connected: &AtomicUsize) -> std::io::Result<()> {
    let mut socket = TcpStream::connect(address).await?;
    connected.fetch_add(1, Ordering::Relaxed);
    socket.write_all(say).await?;
    let mut buffer = [0; 1024];
    while socket.read(&mut buffer).await? > 0 {}
    Ok(())
}

/// Every way to hold a connection without asking for anything.
fn ways() -> Vec<Vec<u8>> {
    let asked = frames::asks(1, END_STREAM, &frames::request("GET", "/", &[]));
    vec![
        Vec::new(),
        b"GET /v1/events HTTP/1.1\r\nhost: x\r\nx-".to_vec(),
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        frames::opening(&[]),
        [frames::opening(&[]), asked].concat(),
    ]
}

async fn is_well(door: Door) {
    for path in ["/livez", "/readyz"] {
        let asked = tokio::time::timeout(SOON, door.ops(path)).await;
        assert_eq!(asked.expect("an answer in time").status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_clients_are_served_while_a_flood_takes_every_connection() {
    let _room = room::half_heavy().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let database = database();
    // Connections are 1,024 more than streams.
    let gateway = Watched::serve(&database, USUAL, &["--streams=16"]).await;
    let backend = database.connect().await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(gateway.subscribe(&["t"]).await);
    }
    let mut slowest = Duration::ZERO;
    let mut arrivals = 0;
    let mut rounds = Vec::new();
    let silent = vec![Vec::new()];
    for (name, say) in [("silent", silent), ("of every way", ways())] {
        let flood = Flood::start(gateway.address(), 2_000, &say, seed).await;
        for _ in 0..20 {
            let begun = Instant::now();
            let arrived = tokio::time::timeout(SOON, gateway.subscribe(&["t"])).await;
            let mut arrived =
                arrived.unwrap_or_else(|_| panic!("seed {seed}: kept out by a flood {name}"));
            slowest = slowest.max(begun.elapsed());
            arrivals += 1;
            let id = publish(&backend, "t").await;
            for stream in open.iter_mut().chain([&mut arrived]) {
                let got = tokio::time::timeout(SOON, stream.ids(1)).await;
                assert_eq!(got.expect("an event in time"), [id]);
            }
            is_well(*gateway).await;
        }
        rounds.push((name, flood.connected()));
        flood.end().await;
        // They are gone, and it is as if they had never been.
        let mut after = tokio::time::timeout(SOON, gateway.subscribe(&["t"]))
            .await
            .expect("served at once");
        let id = publish(&backend, "t").await;
        for stream in open.iter_mut().chain([&mut after]) {
            assert_eq!(stream.ids(1).await, [id]);
        }
    }
    let spared = gateway.metric("tidings_connections_spared_total").await;
    println!(
        "seed {seed}: {arrivals} arrivals during floods, the slowest ready after {slowest:?}; \
         connections of floods {rounds:?}; {spared} were closed for others"
    );
    assert!(spared > 0.0, "the flood never filled the gateway");
    drop(open);
    gateway.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_beyond_the_descriptors_leaves_some_for_the_database_and_for_streams() {
    let _room = room::half_heavy().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let database = database();
    let gateway = Watched::serve_within(400, &database, &[]).await;
    let backend = database.connect().await;
    let mut open = gateway.subscribe(&["t"]).await;
    let flood = Flood::start(gateway.address(), 800, &[Vec::new()], seed).await;
    let mut killed = 0;
    for _ in 0..5 {
        // Each session that is killed needs a descriptor for the next one.
        run(
            &backend,
            "select pg_terminate_backend(pid) from pg_stat_activity
             where application_name in ('tidings/tail', 'tidings/listener') and datname = current_database()",
        )
        .await;
        killed += 1;
        let id = publish(&backend, "t").await;
        assert_eq!(open.ids(1).await, [id]);
        let arrived = tokio::time::timeout(SOON, gateway.subscribe(&["t"])).await;
        drop(arrived.unwrap_or_else(|_| panic!("seed {seed}: kept out")));
        is_well(*gateway).await;
    }
    println!(
        "seed {seed}: {killed} times with {} connections",
        flood.connected()
    );
    let spared = gateway.metric("tidings_connections_spared_total").await;
    assert!(spared > 0.0, "the flood never filled the gateway");
    flood.end().await;
    drop(open);
    gateway.end(&[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_answered_while_a_flood_takes_every_connection_of_theirs() {
    let _room = room::beside_others().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let database = database();
    let gateway = Watched::serve(&database, USUAL, &[]).await;
    drop(gateway.subscribe(&["t"]).await);
    let flood = Flood::start(gateway.ops_address(), 200, &ways(), seed).await;
    for _ in 0..10 {
        is_well(*gateway).await;
    }
    let refused = flood.refused.load(Ordering::Relaxed);
    println!(
        "seed {seed}: {} connections, {refused} reset",
        flood.connected()
    );
    flood.end().await;
    is_well(*gateway).await;
    gateway.end(&[]).await;
}
