//! The tail: the one session that looks at what has been committed since a mark.
//!
//! Each look is one READ COMMITTED statement, so that its snapshot and its rows agree. None is
//! retried here: whoever holds the position decides what a lost session means.

use std::time::Duration;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connect::{ConnectError, Database, READING, Session};
use super::page::{Head, Page, in_progress, read_head};
use crate::cursor::Mark;

/// How long a look may take: short enough for a session that swallows everything to be noticed within
/// 15 s, and long beside a look that finds a million events, which takes a few tenths of a second.
const LOOK_TIMEOUT: Duration = Duration::from_secs(12);

/// How much one look returns: enough to be efficient, little enough to bound memory.
const PAGE_ROWS: i64 = 5_000;
/// The bytes of payload that it returns where memory is not scarce.
pub const PAGE_BYTES: i64 = 8 << 20;

/// The session and its prepared statements.
pub struct Tail {
    session: Session,
    look: Statement,
    rest: Statement,
    position: Statement,
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
                     set statement_timeout = {}",
                    LOOK_TIMEOUT.as_millis()
                ))
                .await?;
            let look = session
                .prepare(include_str!("../../sql/queries/look.sql"))
                .await?;
            let rest = session
                .prepare(include_str!("../../sql/queries/rest.sql"))
                .await?;
            let position = session
                .prepare(include_str!("../../sql/queries/position.sql"))
                .await?;
            Ok(Self {
                session,
                look,
                rest,
                position,
                page_bytes,
            })
        });
        opened.await
    }

    /// Where the log is now.
    pub async fn position(&self) -> Result<Head, ConnectError> {
        within(async {
            let row = self.session.query_one(&self.position, &[]).await?;
            read_head(&row)
        })
        .await
    }

    /// What has been committed since `from`. `verify` is for the first look of a session: it also
    /// finds new ids under transaction ids that `from` believes to have seen.
    pub async fn look(&self, from: &Mark, verify: bool) -> Result<Page, ConnectError> {
        let xmax = from.snapshot.xmax().to_string();
        self.page(
            &self.look,
            &[
                &xmax,
                &in_progress(&from.snapshot),
                &from.newest,
                &verify,
                &PAGE_ROWS,
                &self.page_bytes,
            ],
        )
        .await
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
