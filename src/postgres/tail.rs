//! The tail: the one session that looks at what has been committed since a mark.
//!
//! Each look is one READ COMMITTED statement, so that its snapshot and its rows agree. None is
//! retried here: whoever holds the position decides what a lost session means.

use std::time::Duration;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::bell::CHANNEL;
use super::connect::{ConnectError, Database, READING, Session};
use super::glance::Glance;
use super::page::{Head, Page, in_progress, read_head};
use crate::cursor::Mark;

/// How long a look may take: short enough for a session that swallows everything to be noticed within
/// 15 s, and long beside a look that finds a million events, which takes a few tenths of a second.
const LOOK_TIMEOUT: Duration = Duration::from_secs(12);

/// How much one look returns: enough to be efficient, little enough to bound memory.
const PAGE_ROWS: i64 = 5_000;
/// The bytes of payload that it returns where memory is not scarce.
pub const PAGE_BYTES: i64 = 8 << 20;

/// Who holds this advisory lock exclusively is awake, and publishers ring no bell: the default of
/// `tidings.event.xid` tries it too. It is only ever asked for by trying: a request that waits would silence the
/// bells with nobody awake.
const AWAKE: i64 = 8_386_654_097_862_812_519;

/// While awake, the server ends a session of which it has heard nothing for so long, and the lock with it: its gateway was
/// stopped or cut off, which keepalives alone would not tell of a process that is only stopped.
const AWAKE_IDLE: &str = "1s";
/// And one that has acknowledged nothing for so long.
const AWAKE_UNACKNOWLEDGED: &str = "2s";

/// The session and its prepared statements.
pub struct Tail {
    session: Session,
    glance: Glance,
    look: Statement,
    rest: Statement,
    position: Statement,
    wake: Statement,
    ring: Statement,
    barrier: Statement,
    process: i32,
    page_bytes: i64,
}

impl Tail {
    /// Opens the session; a page of what it returns has so many bytes.
    pub async fn open(database: &Database, page_bytes: i64) -> Result<Self, ConnectError> {
        let opened = within(async {
            let session = database.session("tail").await?;
            session
                .batch_execute(&format!(
                    "{READING}; set default_transaction_isolation = 'read committed'; \
                     set synchronous_commit = off; set statement_timeout = {}",
                    LOOK_TIMEOUT.as_millis()
                ))
                .await?;
            let glance = Glance::prepare(&session).await?;
            let look = session
                .prepare(include_str!("../../sql/queries/look.sql"))
                .await?;
            let rest = session
                .prepare(include_str!("../../sql/queries/rest.sql"))
                .await?;
            let position = session
                .prepare(include_str!("../../sql/queries/position.sql"))
                .await?;
            let wake = session
                .prepare(&format!(
                    "select case when pg_try_advisory_lock({AWAKE}) then \
                     set_config('idle_session_timeout', '{AWAKE_IDLE}', false) is not null and \
                     set_config('tcp_user_timeout', '{AWAKE_UNACKNOWLEDGED}', false) is not null \
                     else false end"
                ))
                .await?;
            let ring = session
                .prepare(&format!("select pg_notify('{CHANNEL}', '')"))
                .await?;
            let barrier = session.prepare("select pg_current_xact_id()::text").await?;
            let process = session.query_one("select pg_backend_pid()", &[]).await?;
            Ok(Self {
                glance,
                look,
                rest,
                position,
                wake,
                ring,
                barrier,
                process: process.try_get(0)?,
                page_bytes,
                session,
            })
        });
        opened.await
    }

    /// Where the log is now.
    pub async fn position(&self) -> Result<Head, ConnectError> {
        within(async {
            let row = self.session.query_one(&self.position, &[]).await?;
            let head = read_head(&row)?;
            self.glance.remember(&head, row.try_get("newest_at")?, true);
            Ok(head)
        })
        .await
    }

    /// What has been committed since `from`. `verify` is for the first look of a session: it also
    /// finds new ids under transaction ids that `from` believes to have seen.
    pub async fn look(&self, from: &Mark, verify: bool) -> Result<Page, ConnectError> {
        within(self.look_whole_or_glance(from, verify)).await
    }

    /// A look for which there is no reason but the time: in a quiet log it costs next to nothing, and
    /// elsewhere a round trip more.
    pub async fn look_again(&self, from: &Mark) -> Result<Page, ConnectError> {
        within(async {
            match self.glance.still(&self.session, from).await? {
                Some(page) => Ok(page),
                None => self.look_whole_or_glance(from, false).await,
            }
        })
        .await
    }

    async fn look_whole_or_glance(&self, from: &Mark, verify: bool) -> Result<Page, ConnectError> {
        if !verify {
            let (rows, bytes) = (PAGE_ROWS, self.page_bytes);
            let page = self.glance.all(&self.session, from, rows, bytes).await?;
            if let Some(page) = page {
                return Ok(page);
            }
        }
        let xmax = from.snapshot.xmax().to_string();
        let parameters: [&(dyn ToSql + Sync); 6] = [
            &xmax,
            &in_progress(&from.snapshot),
            &from.newest,
            &verify,
            &PAGE_ROWS,
            &self.page_bytes,
        ];
        let rows = self.session.query(&self.look, &parameters).await?;
        let page = Page::read(&rows)?;
        let at = rows[0].try_get("newest_at")?;
        self.glance.remember(&page.head, at, page.events.is_empty());
        Ok(page)
    }

    /// What the look from `from` to `to` found beyond the id `sent`.
    pub async fn rest(&self, from: &Mark, to: &Mark, sent: i64) -> Result<Page, ConnectError> {
        let xmax = from.snapshot.xmax().to_string();
        self.page(
            &self.rest,
            &[
                &xmax,
                &in_progress(&from.snapshot),
                &from.newest,
                &sent,
                &PAGE_ROWS,
                &self.page_bytes,
                &to.snapshot.to_string(),
                &to.newest,
            ],
        )
        .await
    }

    /// The process of the server that serves this session.
    pub fn process(&self) -> i32 {
        self.process
    }

    /// Silences the bells of all publishers, unless another gateway has done so; tells whether it did.
    pub async fn wake(&self) -> Result<bool, ConnectError> {
        within(async {
            let row = self.session.query_one(&self.wake, &[]).await?;
            Ok(row.try_get(0)?)
        })
        .await
    }

    /// Lets publishers ring again, and returns the [barrier](Self::barrier) of those who may not have rung.
    pub async fn sleep(&self) -> Result<u64, ConnectError> {
        within(async {
            let sleep = format!(
                "select pg_advisory_unlock({AWAKE}); reset idle_session_timeout; reset tcp_user_timeout"
            );
            Ok(self.session.batch_execute(&sleep).await?)
        })
        .await?;
        self.barrier().await
    }

    /// A transaction that begins now. Whoever found the bells silent before had written its event by then, and so
    /// has a lower id; but the `xmax` of a snapshot could lie below it.
    pub async fn barrier(&self) -> Result<u64, ConnectError> {
        within(async {
            let row = self.session.query_one(&self.barrier, &[]).await?;
            let barrier = row.try_get::<_, &str>(0)?.parse();
            barrier.map_err(|_| ConnectError::Lost("the database answered with a malformed row"))
        })
        .await
    }

    /// Rings for the other gateways. That commit may be lost with the server, and every gateway with it looks anew.
    pub async fn ring(&self) -> Result<(), ConnectError> {
        within(async {
            self.session.query_one(&self.ring, &[]).await?;
            Ok(())
        })
        .await
    }

    async fn page(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Page, ConnectError> {
        within(async {
            let rows = self.session.query(statement, parameters).await?;
            Page::read(&rows)
        })
        .await
    }
}

/// Bounds an act of this session: a peer that swallows everything must not hold up the log.
async fn within<T>(act: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
    match tokio::time::timeout(LOOK_TIMEOUT, act).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Lost("the session does not answer")),
    }
}
