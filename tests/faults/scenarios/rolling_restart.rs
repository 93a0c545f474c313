//! A rolling restart of two gateways behind a real proxy, under load: one is told to end and is started
//! anew on its address, then the other. Everybody is told good-bye, comes back through the proxy, and
//! has every event once.
//!
//! `TIDINGS_TEST_STREAMS` says how many they are. The proxies run with what `docs/operations.md` shows.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::crowd::{Crowd, Load, until_ready};
use crate::journal::Journal;
use crate::oracle::prepare;
use crate::room;
use crate::support::client::PATIENCE;
use crate::support::front::{Scratch, free_port, listens, snippet};
use crate::support::gateway::Door;
use crate::support::postgres::own_cluster;
use crate::support::process::Process;
use crate::support::{program, setting};

const EVENTS_PER_S: u64 = 500;

/// What `TIDINGS_DRAIN` is unless it is set, and what the machine may add to the end of a process.
const DRAIN: Duration = Duration::from_secs(20);
const ENDING: Duration = Duration::from_secs(2);

/// Before, between and after the restarts.
const CALM: Duration = Duration::from_secs(3);

/// What a gateway did when it was told to end.
struct Leaving {
    streams: f64,
    unready: Duration,
    closed: Duration,
    ended: Duration,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_behind_haproxy_notices_a_rolling_restart() {
    let size = setting("TIDINGS_TEST_STREAMS", 1_000) as usize;
    rolls(size, |scratch, address, gateways| {
        let [one, two] = gateways;
        let server = |door: &Door| format!("{} port {}", door.address, door.ops_address.port());
        let several = snippet("haproxy-several")
            .replace("127.0.0.1:8080 port 9180", &server(one))
            .replace("127.0.0.2:8080 port 9180", &server(two));
        let whole = snippet("haproxy")
            .replace(
                "backend gateways\n    server one 127.0.0.1:8080 check\n",
                &several,
            )
            .replace(
                "    server one 127.0.0.1:8080 track gateways/one\n",
                &format!(
                    "    server one {} track gateways/one\n    server two {} track gateways/two\n",
                    one.address, two.address
                ),
            )
            .replace(
                "bind :443 ssl crt /etc/ssl/app.example.org.pem alpn h2,http/1.1",
                &format!("bind {address}"),
            );
        let mut command = Command::new(program(&["haproxy"], "haproxy")?);
        command.args(["-db", "-f"]);
        command.arg(scratch.write("haproxy.cfg", &whole));
        Some(command)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_behind_nginx_notices_a_rolling_restart() {
    let size = setting("TIDINGS_TEST_STREAMS", 1_000) as usize / 2;
    rolls(size, |scratch, address, gateways| {
        let [one, two] = gateways;
        let several = snippet("nginx-several")
            .replace("127.0.0.1:8080", &one.address.to_string())
            .replace("127.0.0.2:8080", &two.address.to_string());
        let snippet = snippet("nginx")
            .replace(
                "upstream gateways {\n    least_conn;\n    server 127.0.0.1:8080;\n}\n",
                &several,
            )
            .replace("listen 443 ssl http2;", &format!("listen {address};"))
            .replace("/etc/ssl/app.example.org", &scratch.certificate());
        let directory = scratch.0.display();
        // Where nginx keeps bodies is fixed when it is built, and may not be ours to write.
        let kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|part| format!("{part}_temp_path {directory}/{part};"))
            .join("\n");
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {directory}/pid;\nerror_log stderr crit;\n\
             events {{ worker_connections 19000; }}\n\
             http {{\naccess_log off;\n{kept}\n{snippet}\n}}\n"
        );
        let mut command = Command::new(program(&["nginx"], "nginx-light")?);
        command.args(["-e", "stderr", "-c"]);
        command.arg(scratch.write("nginx.conf", &whole));
        Some(command)
    })
    .await;
}

/// `configure` makes the command of a proxy that listens at an address before two gateways, where it is
/// installed.
async fn rolls(
    size: usize,
    configure: impl FnOnce(&Scratch, SocketAddr, &[Door; 2]) -> Option<Command>,
) {
    let _room = room::half_heavy().await;
    let seed = setting("TIDINGS_TEST_SEED", 7);
    let context = format!("TIDINGS_TEST_SEED={seed} TIDINGS_TEST_STREAMS={size}");
    let doors = [(); 2].map(|()| Door {
        address: free_port(),
        ops_address: free_port(),
    });
    let (scratch, address) = (Scratch::new(), free_port());
    let Some(mut command) = configure(&scratch, address, &doors) else {
        return;
    };
    let server = own_cluster(&[("fsync", "off")]);
    let database = server.database();
    let session = database.connect().await;
    prepare(&session).await;
    let mut gateways = VecDeque::new();
    for door in doors {
        gateways.push_back(starts(&database.url(), door).await);
    }
    let mut proxy = command
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    listens(&mut proxy, address).await;
    let journal = Journal::create("rolling-restart");
    let crowd = Crowd::open(&journal, &session, &[address], size).await;
    let rng = &mut Rng::with_seed(seed);
    let load = Load::start(&database, &journal, rng, size, EVENTS_PER_S).await;

    let mut told = 0.0;
    for door in doors {
        sleep(CALM).await;
        let left = leaves(gateways.pop_front().expect("two run")).await;
        println!(
            "a gateway with {} streams was told to end: not ready after {:.2?}, closed after {:.2?}, ended \
             after {:.2?}",
            left.streams, left.unready, left.closed, left.ended
        );
        assert!(left.streams > 0.0, "{context}");
        told += left.streams;
        gateways.push_back(starts(&database.url(), door).await);
        crowd.all_live().await;
    }
    sleep(CALM).await;
    let published = load.stop().await;
    let (verdict, ..) = crowd.settle(&session).await;
    println!(
        "held: a rolling restart under {size} streams, seed {seed}: {verdict}; {published} published"
    );
    // Whoever came after the count was told as well; and nobody's stream ended in any other way.
    let byes = verdict.times("ends, bye drain");
    assert!(
        byes as f64 >= told,
        "{byes} of {told} told: {verdict}; {context}"
    );
    assert_eq!(verdict.all("ends, "), byes, "{verdict}; {context}");
}

/// Starts a gateway at its place, and waits until it is ready.
async fn starts(url: &str, door: Door) -> Process {
    let flags = [
        format!("--listen={}", door.address),
        format!("--ops-listen={}", door.ops_address),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let process = block_in_place(|| Process::serve_at(url, &flags));
    until_ready(&process).await;
    process
}

/// Tells a gateway to end, and watches it go: not ready first, and still accepting, so that nobody is turned
/// away while the proxy finds out; then closed, and alive; then gone in time, with nobody left behind.
async fn leaves(gateway: Process) -> Leaving {
    let (door, log) = (gateway.door(), gateway.log().clone());
    let streams = door.streams().await;
    let told = Instant::now();
    gateway.signal("TERM");
    while door.ops("/readyz").await.status != 503 {
        assert!(told.elapsed() < PATIENCE, "still ready");
    }
    let unready = told.elapsed();
    let accepts = TcpStream::connect(door.address).await;
    assert!(accepts.is_ok(), "it closed before anybody could know");
    while TcpStream::connect(door.address).await.is_ok() {
        assert!(told.elapsed() < PATIENCE, "it still accepts");
        sleep(Duration::from_millis(50)).await;
    }
    let closed = told.elapsed();
    assert_eq!(door.ops("/livez").await.status, 200);
    let status = gateway.ended().await;
    let ended = told.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(ended < DRAIN + ENDING, "it took {ended:?}");
    let log = log.lock().expect("nobody panics here");
    let cut = log.iter().find(|line| line.contains("were cut"));
    assert_eq!(cut, None, "somebody was left behind");
    Leaving {
        streams,
        unready,
        closed,
        ended,
    }
}
