//! `tidings doctor`: each finding is provoked on a real server, pooler or gateway, and a healthy one has
//! none.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use tidings::dev::cluster::{Cluster, StopMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::support::client::PATIENCE;
use crate::support::command::{Outcome, run};
use crate::support::gateway::{Gateway, SECRET};
use crate::support::pgbouncer::PgBouncer;
use crate::support::postgres::{Database, database, empty_database, own_cluster};

/// What doctor has said about a database.
struct Told {
    outcome: Outcome,
    /// Lines such as `breaks: fsync`.
    findings: BTreeSet<String>,
}

impl Told {
    fn of(outcome: Outcome) -> Told {
        let headings = ["breaks: ", "hurts: ", "unknown: "];
        let heading = |line: &&str| headings.iter().any(|heading| line.starts_with(heading));
        let findings = outcome.out.lines().filter(heading).map(str::to_owned);
        Told {
            findings: findings.collect(),
            outcome,
        }
    }

    /// Whether the finding is there; its exit code and its three parts must be there too.
    #[track_caller]
    fn has(&self, finding: &str) -> &Self {
        let Told { outcome, findings } = self;
        assert!(findings.contains(finding), "no {finding}: {outcome:?}");
        if finding.starts_with("breaks: ") {
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
        }
        let block = outcome
            .out
            .split("\n\n")
            .find(|block| block.starts_with(finding));
        let lines: Vec<&str> = block.expect("a block for itself").lines().collect();
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(lines[2].starts_with("  why:  ") && lines[3].starts_with("  mend: "));
        self
    }

    #[track_caller]
    fn lacks(&self, finding: &str) -> &Self {
        assert!(!self.findings.contains(finding), "{:?}", self.outcome);
        self
    }

    #[track_caller]
    fn says(&self, words: &str) -> &Self {
        assert!(
            self.outcome.out.contains(words),
            "no {words:?}: {:?}",
            self.outcome
        );
        self
    }

    #[track_caller]
    fn is_healthy(&self) {
        assert_eq!(self.outcome.code, Some(0), "{:?}", self.outcome);
        assert!(self.findings.is_empty(), "{:?}", self.outcome);
        self.says("nothing found");
    }
}

async fn examine(url: &str, arguments: &[&str]) -> Told {
    let arguments = [&["doctor"], arguments].concat();
    Told::of(run(&arguments, &[("DATABASE_URL", url)]).await)
}

async fn doctor(database: &Database) -> Told {
    examine(&database.url(), &[]).await
}

async fn execute(client: &Client, statements: &str) {
    let done = client.batch_execute(statements).await;
    done.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

// ---- the server

#[tokio::test]
async fn a_healthy_server_has_no_findings_also_behind_a_pooler_by_the_session() {
    let own = own_cluster(&[]);
    let database = own.database();
    doctor(&database).await.is_healthy();
    let Some(pooler) = PgBouncer::start(&database, &["pool_mode = session"]).await else {
        return;
    };
    examine(&pooler.url(), &[]).await.is_healthy();
}

#[tokio::test]
async fn settings_that_lose_data_are_found() {
    let own = own_cluster(&[
        ("fsync", "off"),
        ("full_page_writes", "off"),
        ("synchronous_commit", "off"),
        ("autovacuum", "off"),
    ]);
    let database = own.database();
    let told = doctor(&database).await;
    told.has("breaks: fsync").has("breaks: full-page-writes");
    told.has("hurts: synchronous-commit")
        .says("off for the gateway's role");
    told.has("hurts: autovacuum");
    assert_eq!(told.findings.len(), 4);
    assert_eq!(told.outcome.err, "tidings: 2 findings break tidings\n");
}

#[tokio::test]
async fn a_default_of_a_role_or_database_is_found() {
    let own = own_cluster(&[]);
    let database = own.database();
    let client = database.connect().await;
    let name = database.name();
    execute(
        &client,
        &format!(
            "create role hasty; alter role hasty set synchronous_commit = 'off';
             create role patient; alter role patient set synchronous_commit = 'local';
             alter database {name} set synchronous_commit = false;
             alter table tidings.key set (autovacuum_enabled = off)"
        ),
    )
    .await;
    let told = doctor(&database).await;
    told.has("hurts: synchronous-commit");
    told.says("role hasty").says("every role in this database");
    assert!(!told.outcome.out.contains("patient"));
    told.has("hurts: autovacuum").says("leaves out key");
    assert_eq!(told.outcome.code, Some(0), "these hurt and do not break");
}

/// A stopped cluster that runs again as a standby; dropping it ends it.
struct Standby(Child);

impl Standby {
    async fn of(cluster: &Cluster) -> Standby {
        let mark = cluster.data().join("standby.signal");
        std::fs::write(mark, "").expect("ours");
        let postmaster = cluster
            .command("postgres")
            .arg("-D")
            .arg(cluster.data())
            .args(["-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories="])
            .args(["-c", &format!("port={}", cluster.port())])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let standby = Standby(postmaster.expect("postgres starts"));
        let url = cluster.url("postgres");
        let answers = tokio::time::timeout(PATIENCE, async {
            while tokio_postgres::connect(&url, NoTls).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        answers.await.expect("the standby answers");
        standby
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.0), Signal::QUIT);
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_standby_is_found() {
    let mut own = own_cluster(&[]);
    let database = own.database();
    own.cluster.stop(StopMode::Fast).expect("it stops");
    let _standby = Standby::of(&own.cluster).await;
    let told = doctor(&database).await;
    told.has("breaks: standby");
    assert_eq!(told.findings.len(), 1, "{:?}", told.outcome);
}

#[tokio::test]
async fn a_listener_that_fills_the_queue_of_notifications_is_found() {
    let own = own_cluster(&[]);
    let database = own.database();
    let deaf = database.connect().await;
    execute(&deaf, "set application_name = 'deaf'; listen x").await;
    execute(&deaf, "begin; select 1").await;
    let client = database.connect().await;
    execute(
        &client,
        "select count(pg_notify('x', n || repeat('x', 7900))) from generate_series(1, 11000) n",
    )
    .await;
    let told = doctor(&database).await;
    told.has("hurts: notify-queue").says("(deaf)");
    execute(&deaf, "rollback").await;
}

// ---- the way to it

#[tokio::test]
async fn a_pooler_by_the_transaction_is_found() {
    let database = database();
    for settings in [
        &["pool_mode = transaction"][..],
        &["pool_mode = transaction", "default_pool_size = 1"],
        &[
            "pool_mode = transaction",
            "server_round_robin = 1",
            "min_pool_size = 5",
        ],
        &["pool_mode = statement"],
    ] {
        let Some(pooler) = PgBouncer::start(&database, settings).await else {
            return;
        };
        let told = examine(&pooler.url(), &[]).await;
        told.has("breaks: transaction-pooler")
            .lacks("hurts: session-name");
        told.lacks("breaks: migrations").lacks("breaks: grants");
    }
}

#[tokio::test]
async fn a_pooler_whose_backends_are_all_taken_is_not_waited_for() {
    let database = database();
    let settings = ["pool_mode = transaction", "default_pool_size = 1"];
    let Some(pooler) = PgBouncer::start(&database, &settings).await else {
        return;
    };
    let (holder, connection) = tokio_postgres::connect(&pooler.url(), NoTls)
        .await
        .expect("connected");
    let driver = tokio::spawn(connection);
    execute(&holder, "begin").await;
    let told = examine(&pooler.url(), &[]).await;
    assert_eq!(told.outcome.code, Some(1));
    let words = &told.outcome.err;
    assert!(
        words.contains("within 20s") && words.contains("pooler"),
        "{words}"
    );
    drop(holder);
    driver.await.expect("driven").expect("ended");
}

#[tokio::test]
async fn publishing_goes_through_any_pooler() {
    let database = database();
    let settings = ["pool_mode = transaction", "default_pool_size = 1"];
    let Some(pooler) = PgBouncer::start(&database, &settings).await else {
        return;
    };
    for n in ["1", "2", "3"] {
        let url = pooler.url();
        let variables = [("DATABASE_URL", url.as_str())];
        let published = run(&["publish", "t", "n", n], &variables).await;
        assert_eq!(published.code, Some(0), "{published:?}");
        assert_eq!(published.out.trim(), n);
    }
}

#[tokio::test]
async fn a_session_that_is_renamed_is_found() {
    let database = database();
    let settings = ["pool_mode = session", "application_name_add_host = 1"];
    let Some(pooler) = PgBouncer::start(&database, &settings).await else {
        return;
    };
    let told = examine(&pooler.url(), &[]).await;
    told.has("hurts: session-name")
        .lacks("breaks: transaction-pooler");
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_said_to_be() {
    let database = database();
    let (server, _) = database
        .url()
        .rsplit_once('/')
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .expect("a URL");
    let told = examine(&format!("{server}/nowhere"), &[]).await;
    assert_eq!(told.outcome.code, Some(1));
    assert!(told.outcome.err.contains("nowhere"), "{:?}", told.outcome);
    let unset = run(&["doctor"], &[]).await;
    assert_eq!(unset.code, Some(64), "{unset:?}");
}

// ---- the schema

#[tokio::test]
async fn missing_grants_are_found() {
    let own = own_cluster(&[]);
    let database = own.database();
    let client = database.connect().await;
    execute(
        &client,
        "create role stranger login; create role gateway login in role tidings_gateway",
    )
    .await;
    let told = examine(&database.url_as("stranger"), &[]).await;
    told.has("breaks: grants");
    told.says("select on tidings.event")
        .says("select on tidings.floor");
    told.has("hurts: grants-partial")
        .has("unknown: activity-hidden");

    let told = examine(&database.url_as("gateway"), &[]).await;
    told.lacks("breaks: grants").lacks("hurts: grants-partial");
    assert_eq!(told.outcome.code, Some(0), "{:?}", told.outcome);

    execute(
        &client,
        "revoke execute on function tidings.publish from tidings_gateway; \
         revoke select on tidings.secret from tidings_gateway",
    )
    .await;
    let told = examine(&database.url_as("gateway"), &[]).await;
    told.has("hurts: grants-partial").lacks("breaks: grants");
    told.says("execute on tidings.publish; select on tidings.secret");

    execute(&client, "revoke usage on schema tidings from public").await;
    let told = examine(&database.url_as("stranger"), &[]).await;
    told.has("breaks: grants").says("usage on schema tidings");
}

#[tokio::test]
async fn migrations_that_are_missing_newer_or_altered_are_found() {
    let told = doctor(&empty_database()).await;
    told.has("breaks: migrations");
    for (statement, finding) in [
        (
            "delete from tidings.migration where version = (select max(version) from tidings.migration)",
            "breaks: migrations",
        ),
        (
            "insert into tidings.migration (version, name, checksum) values (9000, '9000_future', '')",
            "breaks: migrations-newer",
        ),
        (
            "update tidings.migration set checksum = 'x' where version = 1",
            "breaks: migrations-altered",
        ),
        (
            "drop function tidings.foreign_rows",
            "unknown: migrations-unknown",
        ),
    ] {
        let database = database();
        doctor(&database).await.lacks(finding);
        execute(&database.connect().await, statement).await;
        doctor(&database).await.has(finding);
    }
}

#[tokio::test]
async fn rows_of_another_server_are_found() {
    let database = database();
    doctor(&database).await.lacks("breaks: foreign-rows");
    let client = database.connect().await;
    execute(
        &client,
        "insert into tidings.event (xid, topic, type) values ('900000000', 't', 'n')",
    )
    .await;
    doctor(&database)
        .await
        .has("breaks: foreign-rows")
        .says("--adopt");
}

#[tokio::test]
async fn days_without_a_partition_are_found() {
    let database = database();
    let client = database.connect().await;
    let told = doctor(&database).await;
    told.lacks("hurts: partition-tomorrow")
        .lacks("hurts: partition-default");
    // Beside the days that exist, before and after them, and a gap between them.
    execute(
        &client,
        "insert into tidings.event (topic, type, created_at)
         values ('t', 'n', now() - interval '40 days'), ('t', 'n', now() + interval '40 days')",
    )
    .await;
    doctor(&database)
        .await
        .has("hurts: partition-default")
        .says("holds events: 2\n");
    execute(
        &client,
        "do $$ begin
             execute 'drop table tidings.event_'
                 || to_char((now() at time zone 'UTC')::date + 1, 'YYYYMMDD');
         end $$;
         insert into tidings.event (topic, type, created_at) values ('t', 'n', now() + interval '1 day')",
    )
    .await;
    let told = doctor(&database).await;
    told.has("hurts: partition-tomorrow")
        .has("hurts: partition-default");
    told.says("holds events: 3\n");
}

#[tokio::test]
async fn a_bell_that_is_out_of_order_is_found() {
    let database = database();
    doctor(&database).await.lacks("hurts: bell");
    execute(
        &database.connect().await,
        "alter table tidings.event alter column xid set default pg_current_xact_id()",
    )
    .await;
    doctor(&database).await.has("hurts: bell");
}

// ---- what runs on it

#[tokio::test]
async fn transactions_that_stay_open_are_found() {
    let own = own_cluster(&[("max_prepared_transactions", "4")]);
    let database = own.database();
    let long = ["--long", "1ms"];
    let told = examine(&database.url(), &long).await;
    told.is_healthy();

    let idle = database.connect().await;
    execute(
        &idle,
        "set application_name = 'idler'; begin; select pg_current_xact_id()",
    )
    .await;
    let busy = database.connect().await;
    execute(&busy, "set application_name = 'worker'").await;
    let token = busy.cancel_token();
    let working = tokio::spawn(async move {
        // It is cancelled.
        let _ = busy.batch_execute("select pg_sleep(600)").await;
    });
    let prepared = database.connect().await;
    execute(
        &prepared,
        "begin; set local tidings.bell = off; select tidings.publish('t', 'n'); prepare transaction 'orphan'",
    )
    .await;
    let watcher = database.connect().await;
    let runs = "select count(*) from pg_stat_activity \
                where application_name = 'worker' and wait_event = 'PgSleep' \
                and xact_start < clock_timestamp() - interval '10 ms'";
    while watcher
        .query_one(runs, &[])
        .await
        .expect("asked")
        .get::<_, i64>(0)
        == 0
    {
        tokio::task::yield_now().await;
    }
    let told = examine(&database.url(), &long).await;
    told.has("hurts: idle-in-transaction")
        .says("(idler)")
        .says("has written");
    told.has("hurts: long-transaction").says("(worker)");
    told.has("hurts: prepared-transaction").says("\"orphan\"");
    assert_eq!(told.outcome.code, Some(0), "these hurt and do not break");
    // By default they are not long yet.
    doctor(&database).await.is_healthy();

    token.cancel_query(NoTls).await.expect("cancelled");
    working.await.expect("ended");
    execute(&prepared, "rollback prepared 'orphan'").await;
}

// ---- the way to a gateway

/// What a proxy does that is not as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    None,
    /// Passes nothing on until it has all of it.
    Buffers,
    /// Passes on the head, and of the body nothing until it has all of it.
    BuffersBody,
    /// Speaks HTTP/1.0 to the gateway, as nginx does unless told otherwise, and hands on the answer.
    OldVersion,
    Compresses,
    LosesHeaders,
    /// Hangs up after the head.
    Cuts,
}

/// A reverse proxy before a gateway, byte by byte.
struct Proxy {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Proxy {
    async fn start(gateway: SocketAddr, habit: Habit) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(gateway)
                    .await
                    .expect("the gateway is there");
                relay(client, server, habit).await;
            }
        });
        Proxy {
            address,
            _connections: connections,
        }
    }
}

/// Carries one request and its answer.
async fn relay(mut client: TcpStream, mut server: TcpStream, habit: Habit) {
    let (mut request, _) = read_head(&mut client).await;
    if habit == Habit::OldVersion {
        request = request.replacen(" HTTP/1.1", " HTTP/1.0", 1);
    }
    server.write_all(request.as_bytes()).await.expect("sent");
    let (mut head, rest) = read_head(&mut server).await;
    match habit {
        Habit::Compresses => head = head.replacen("\r\n", "\r\ncontent-encoding: gzip\r\n", 1),
        Habit::LosesHeaders => {
            let kept =
                |line: &&str| !line.starts_with("cache-control") && !line.starts_with("vary");
            head = head
                .split("\r\n")
                .filter(kept)
                .collect::<Vec<_>>()
                .join("\r\n");
        }
        _ => {}
    }
    let mut passed = head.into_bytes();
    match habit {
        Habit::Buffers => passed.clear(),
        Habit::BuffersBody | Habit::Cuts => {}
        _ => passed.extend(rest),
    }
    client.write_all(&passed).await.expect("sent");
    match habit {
        Habit::Cuts => {}
        // The stream never ends by itself, and neither does the collecting.
        Habit::Buffers | Habit::BuffersBody => {
            let _ = tokio::io::copy(&mut server, &mut tokio::io::sink()).await;
        }
        _ => {
            let _ = tokio::io::copy(&mut server, &mut client).await;
        }
    }
}

/// A head with its empty line, and what came with it.
async fn read_head(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return (String::from_utf8(bytes).expect("text"), rest);
        }
        assert_ne!(
            stream.read_buf(&mut bytes).await.expect("read"),
            0,
            "a whole head"
        );
    }
}

async fn examine_proxy(url: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Told {
    let arguments = [&["doctor", "--proxy", url], arguments].concat();
    Told::of(run(&arguments, variables).await)
}

#[tokio::test]
async fn each_habit_of_a_proxy_is_found() {
    let database = database();
    let gateway = Gateway::start(&database).await;
    for (habit, finding) in [
        (Habit::None, None),
        (Habit::Buffers, Some("breaks: proxy-buffering")),
        (Habit::BuffersBody, Some("breaks: proxy-buffering")),
        (Habit::OldVersion, Some("hurts: proxy-http10")),
        (Habit::Compresses, Some("breaks: proxy-compression")),
        (Habit::LosesHeaders, Some("hurts: proxy-headers")),
        (Habit::Cuts, Some("breaks: proxy-cut")),
    ] {
        let proxy = Proxy::start(gateway.address(), habit).await;
        let url = format!("http://{}/", proxy.address);
        let told = examine_proxy(&url, &[("TIDINGS_JWT_SECRET", SECRET)], &[]).await;
        match finding {
            None => told.is_healthy(),
            Some(finding) => {
                told.has(finding);
                assert_eq!(told.findings.len(), 1, "{habit:?}: {:?}", told.outcome);
            }
        }
    }
}

/// Ends TLS before a gateway, for one connection after the other, on a thread of its own.
fn end_tls(gateway: SocketAddr) -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a certificate and its key");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let session = rustls::ServerConnection::new(config.clone()).expect("a session");
            let mut client = rustls::StreamOwned::new(session, client.expect("accepted"));
            // Who does not trust the certificate goes away, and whoever has seen enough does too.
            let _ = pass_on(&mut client, gateway);
        }
    });
    (address, made.cert.pem())
}

/// One request, in a single read, and its answer until either side goes.
fn pass_on(client: &mut (impl Read + Write), gateway: SocketAddr) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    let length = client.read(&mut buffer)?;
    let mut server = std::net::TcpStream::connect(gateway)?;
    server.write_all(&buffer[..length])?;
    loop {
        match server.read(&mut buffer)? {
            0 => return Ok(()),
            length => client.write_all(&buffer[..length])?,
        }
        client.flush()?;
    }
}

#[tokio::test]
async fn a_certificate_is_checked() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--heartbeat=100ms"]).await;
    let (address, certificate) = end_tls(gateway.address());
    let name = format!("tidings-roots-{:08x}.pem", fastrand::u32(..));
    let roots = std::env::temp_dir().join(name);
    std::fs::write(&roots, certificate).expect("written");
    let trusted = ("SSL_CERT_FILE", roots.to_str().expect("text"));
    let secret = ("TIDINGS_JWT_SECRET", SECRET);
    let url = format!("https://localhost:{}", address.port());
    let distrusted = examine_proxy(&url, &[secret], &[]).await;
    distrusted
        .has("breaks: proxy-unreachable")
        .says("certificate");
    let told = examine_proxy(&url, &[secret, trusted], &[]).await;
    std::fs::remove_file(&roots).expect("removed");
    told.is_healthy();
}

#[tokio::test]
async fn an_address_without_a_stream_is_found() {
    let database = database();
    let gateway = Gateway::start_with(&database, &["--public-topics=news"]).await;
    let secret = ("TIDINGS_JWT_SECRET", SECRET);
    let base = format!("http://{}", gateway.address());

    let told = examine_proxy(&format!("{base}/elsewhere"), &[secret], &[]).await;
    told.has("breaks: proxy-no-stream").says("404");
    let told = examine_proxy(&base, &[], &["--token", "bad"]).await;
    told.has("unknown: proxy-refused").says("401");
    assert_eq!(told.outcome.code, Some(0));
    let told = examine_proxy(&base, &[], &[]).await;
    told.has("unknown: proxy-refused").says("400");
    let news = format!("{base}/v1/events?topic=news");
    examine_proxy(&news, &[], &[]).await.is_healthy();

    gateway.stop().await;
    let told = examine_proxy(&base, &[secret], &[]).await;
    told.has("breaks: proxy-unreachable");
    let told = examine_proxy("nonsense", &[secret], &[]).await;
    assert_eq!(told.outcome.code, Some(64));
}
