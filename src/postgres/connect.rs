//! Sessions: how the gateway reaches its Postgres, and what every session has in common.
//!
//! Every session names itself, keeps its socket alive, notices a peer that has vanished, and
//! refuses a standby: a snapshot read there lacks running transactions, and events would be lost.

use std::ops::Deref;
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::tls;

/// How long opening a session may take: a database further away than this is away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a silent peer keeps a session: with the probes, a vanished one is noticed in 15 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
const KEEPALIVE_RETRIES: u32 = 3;
/// How long sent bytes may stay unacknowledged.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a pool session with a running query makes sure that its client is still there: after a
/// client has gone, its query ends within this time.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// What a session that reads the log is set to, so that its statements run as they were written, whatever
/// the statistics say. Generic plans, because a custom one plans every partition anew for every
/// statement; not compiled, because compiling one takes longer than a thousand looks. Such a plan is
/// made once and kept, while the log grows under it from nothing to millions of rows: it may neither
/// scan a partition nor sort where an index has the order, however small the partition was.
pub const READING: &str = "set plan_cache_mode = force_generic_plan; set jit = off; \
     set enable_seqscan = off; set enable_bitmapscan = off; set enable_sort = off; \
     set timezone = 'UTC'";

/// A socket with TLS around it where the address asks for it.
type Tls = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// Why a session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not usable; the text says what to do.
    #[error("DATABASE_URL: {0}")]
    Url(String),
    /// Postgres refused or was not reached.
    #[error("{}: {}", whose(.0), tell(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// The session has gone silent or away.
    #[error("{0}")]
    Lost(&'static str),
    /// It is a standby.
    #[error(
        "the database is a standby (pg_is_in_recovery): tidings reads snapshots, which only the \
         primary can give; point DATABASE_URL at the primary"
    )]
    Standby,
}

/// Who speaks: whoever gets an answer that refuses has reached the database, and need not look for it.
fn whose(error: &tokio_postgres::Error) -> &'static str {
    match error.as_db_error() {
        Some(_) => "the database says",
        None => "cannot reach the database",
    }
}

/// A database error in one line, with what the server said rather than "db error".
pub fn tell(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        let hint = db.hint().map(|hint| format!(" ({hint})"));
        return format!("{}{}", db.message(), hint.unwrap_or_default());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Where the database is and how it is spoken to.
#[derive(Clone)]
pub struct Database {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A session whose connection is driven in the background, for as long as it is held.
pub struct Session {
    client: Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Session {
    /// The client, for what needs it whole: transactions.
    pub fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Database {
    /// Reads a URL or a `key=value` string of libpq, with `sslmode` and `sslrootcert`.
    pub fn parse(url: &str) -> Result<Self, ConnectError> {
        let (url, ssl) = tls::take(url)?;
        let mut config: Config = url
            .parse()
            .map_err(|error: tokio_postgres::Error| ConnectError::Url(tell(&error)))?;
        if config.get_hosts().is_empty() {
            return Err(ConnectError::Url(
                "no host; expected postgres://user@host/database".into(),
            ));
        }
        config
            .ssl_mode(ssl.mode)
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(USER_TIMEOUT);
        let tls = MakeRustlsConnect::new(tls::config(&ssl)?);
        Ok(Self { config, tls })
    }

    /// Opens a session named `tidings/<name>` and drives it in the background.
    pub async fn session(&self, name: &str) -> Result<Session, ConnectError> {
        let (client, connection) = self.connect(name).await?;
        let driver = tokio::spawn(async move {
            // An error of the connection reaches whoever uses the client.
            let _ = connection.await;
        });
        let session = Session { client, driver };
        in_time(refuse_standby(&session)).await?;
        Ok(session)
    }

    /// Opens a session whose connection the caller drives, to hear its notifications. The caller
    /// asks [`refuse_standby`] itself.
    pub async fn connect(
        &self,
        name: &str,
    ) -> Result<(Client, Connection<Socket, Tls>), ConnectError> {
        // The driver bounds reaching the socket, but not what is said on it.
        let named = self.named(name);
        in_time(async { Ok(named.connect(self.tls.clone()).await?) }).await
    }

    /// A pool of sessions named `tidings/pool`, opened when first needed; waiting for one ends
    /// after `wait`, and a statement after `statement_timeout`.
    pub fn pool(&self, size: usize, wait: Duration, statement_timeout: Duration) -> Pool {
        let manager = Manager::from_config(
            self.named("pool"),
            self.tls.clone(),
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let settings = format!(
            "set statement_timeout = {}; set idle_in_transaction_session_timeout = '10s'; \
             set client_connection_check_interval = {}; {READING}",
            statement_timeout.as_millis(),
            CHECK_INTERVAL.as_millis()
        );
        let prepare = Hook::async_fn(move |client, _| {
            let settings = settings.clone();
            Box::pin(async move {
                client
                    .batch_execute(&settings)
                    .await
                    .map_err(HookError::Backend)?;
                let standby = refuse_standby(client).await;
                standby.map_err(|error| HookError::message(error.to_string()))
            })
        });
        Pool::builder(manager)
            .max_size(size)
            .wait_timeout(Some(wait))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .post_create(prepare)
            .build()
            .expect("a runtime is given")
    }

    fn named(&self, name: &str) -> Config {
        let mut config = self.config.clone();
        config.application_name(format!("tidings/{name}"));
        config
    }
}

async fn in_time<T>(act: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    match tokio::time::timeout(CONNECT_TIMEOUT, act).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Lost("the database does not answer")),
    }
}

/// Refuses a session on a server that replays another's log.
pub async fn refuse_standby(client: &Client) -> Result<(), ConnectError> {
    let row = client.query_one("select pg_is_in_recovery()", &[]).await?;
    if row.get(0) {
        return Err(ConnectError::Standby);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_address_says_what_to_do() {
        for url in [
            "",
            "postgres://",
            "host=h sslmode=verify-full sslrootcert=/nowhere",
        ] {
            let error = Database::parse(url).err().expect("refused").to_string();
            assert!(error.starts_with("DATABASE_URL: "), "{error}");
        }
    }
}
