//! `tidings tail`: the events of some topics at a terminal, as they are committed.
//!
//! It reads the log as the gateway does, by looks from a snapshot, and promises the same: every
//! committed event once, also when the session is lost in between. A position that the log cannot
//! continue ends it with the reason, never with a gap.

mod output;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::output::Output;
use super::serve::Stop;
use super::{Failure, session};
use crate::config::DatabaseArgs;
use crate::cursor::{Cursor, Standing};
use crate::event::Event;
use crate::metrics::Metrics;
use crate::postgres::backoff::Backoff;
use crate::postgres::tail::PAGE_BYTES;
use crate::postgres::{Bell, ConnectError, Database, Listener, Tail};
use crate::topic::Pattern;

/// A look happens at least this often, whatever becomes of the bells.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long what is being written may take when it is to stop, so that the position that it tells is that of what
/// can be read.
const SETTLE: Duration = Duration::from_millis(100);

/// What to show.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Each event is one line of JSON on standard output: id, topic, type, at, data. Signals, which are in no
log, are not shown. Begins now, or after what the cursor has seen; says on standard error how to go
on when it is stopped.

Exit codes: 0 stopped (Ctrl-C, SIGTERM) or nobody reads any more, 1 the database refused, or the log
cannot continue the cursor: what it has not seen was trimmed, or its history is not the database's;
64 the command line is not usable.")]
pub(super) struct Args {
    /// A topic, or a prefix ending in *
    #[arg(required = true, value_name = "TOPIC", value_parser = Pattern::parse)]
    topics: Vec<Pattern>,

    /// Begin after what this cursor has seen: the text of an `id:` line or a `cursor` field
    #[arg(long, value_name = "CURSOR")]
    since: Option<Cursor>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let database = session::database(&args.database)?;
    let mut stop = Stop::new()?;
    let output = Output::start()?;
    let opening = async {
        let tail = Tail::open(&database, PAGE_BYTES).await?;
        let position = match args.since {
            Some(cursor) => cursor,
            None => Cursor::At(tail.position().await?.mark()),
        };
        Ok((tail, position))
    };
    let (tail, position) = tokio::select! {
        () = stop.asked() => return Ok(()),
        opened = opening => opened.map_err(session::failure)?,
    };
    let bell = Arc::new(Bell::default());
    // Signals go nowhere: nobody receives them.
    let (messages, _) = mpsc::channel(1);
    let listener = Listener::new(
        database.clone(),
        BTreeSet::new(),
        bell.clone(),
        messages,
        Arc::new(Metrics::new()),
    );
    let mut watch = Watch {
        topics: args.topics,
        position,
        database,
        bell,
        output: &output,
        writing: None,
    };
    let end = tokio::select! {
        () = stop.asked() => End::Stopped,
        () = output.closed() => End::Closed,
        () = listener.run(CancellationToken::new()) => unreachable!("never cancelled"),
        end = watch.follow(tail) => match end {
            Err(end) => end,
            Ok(never) => match never {},
        },
    };
    match end {
        End::Stopped => {
            watch.settle().await;
            if let Some(text) = watch.position.to_text() {
                eprintln!("tidings: to go on from here: --since {text}");
            }
            Ok(())
        }
        End::Closed => Ok(()),
        End::Failed(failure) => Err(failure),
    }
}

/// Why nothing more is shown.
enum End {
    Stopped,
    Closed,
    Failed(Failure),
}

/// Why a look did not come about.
enum Over {
    /// The session is gone; another one goes on.
    Lost(ConnectError),
    End(End),
}

impl From<ConnectError> for Over {
    fn from(error: ConnectError) -> Self {
        Self::Lost(error)
    }
}

/// What is shown, and how far.
struct Watch<'a> {
    topics: Vec<Pattern>,
    /// Everything up to here was written to the output.
    position: Cursor,
    database: Database,
    bell: Arc<Bell>,
    output: &'a Output,
    /// What is being written, and the position once it is.
    writing: Option<(oneshot::Receiver<io::Result<()>>, Cursor)>,
}

impl Watch<'_> {
    /// Moves on to what has just been written, if it was interrupted while it waited for that.
    async fn settle(&mut self) {
        if let Some((written, next)) = self.writing.take()
            && let Ok(Ok(Ok(()))) = tokio::time::timeout(SETTLE, written).await
        {
            self.position = next;
        }
    }

    /// Shows events, through every loss of the session.
    async fn follow(&mut self, mut tail: Tail) -> Result<Infallible, End> {
        let mut backoff = Backoff::new();
        // The first look of a session also finds new ids under transaction ids used again.
        let mut verified = false;
        loop {
            let whole = matches!(self.position, Cursor::At(_));
            match self.look(&tail, !verified).await {
                Ok(more) => {
                    backoff.mended("tail");
                    verified |= whole;
                    if more || !verified {
                        continue;
                    }
                    tokio::select! {
                        () = self.bell.rung() => {}
                        () = tokio::time::sleep(LOOK_EVERY) => {}
                    }
                }
                Err(Over::Lost(error)) => {
                    backoff.log("tail", &error);
                    tail = self.reopen(&mut backoff).await;
                    verified = false;
                }
                Err(Over::End(end)) => return Err(end),
            }
        }
    }

    async fn reopen(&self, backoff: &mut Backoff) -> Tail {
        loop {
            backoff.wait().await;
            match Tail::open(&self.database, PAGE_BYTES).await {
                Ok(tail) => return tail,
                Err(error) => backoff.log("tail", &error),
            }
        }
    }

    /// One page: of a look, or of what the last look had left. Returns whether there is more.
    async fn look(&mut self, tail: &Tail, verify: bool) -> Result<bool, Over> {
        let (from, sent) = match &self.position {
            Cursor::At(mark) => (mark, None),
            Cursor::Between { from, to, sent } => (from, Some((to, *sent))),
        };
        let page = match sent {
            None => tail.look(from, verify).await?,
            Some((to, sent)) => tail.rest(from, to, sent).await?,
        };
        let standing = self.position.standing(&page.head.floor, page.head.anchor);
        if let Some(reason) = refusal(standing) {
            return Err(Over::End(End::Failed(anyhow!(reason).into())));
        }
        let to = sent.map_or_else(|| page.head.mark(), |(to, _)| to.clone());
        let next = match page.events.last() {
            Some(last) if page.more => Cursor::Between {
                from: from.clone(),
                to,
                sent: last.id,
            },
            _ => Cursor::At(to),
        };
        self.show(&page.events, &next).await.map_err(Over::End)?;
        self.writing = None;
        self.position = next;
        Ok(page.more)
    }

    async fn show(&mut self, events: &[Event], next: &Cursor) -> Result<(), End> {
        let mut lines = String::new();
        for event in events {
            if self.topics.iter().any(|topic| topic.covers(&event.topic)) {
                event.write_json(&mut lines);
                lines.push('\n');
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let written = self.output.write(lines.into_bytes()).await;
        let (written, _) = self.writing.insert((written, next.clone()));
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(End::Failed(anyhow!("standard output: {error}").into()))
            }
            Ok(Err(_)) | Err(_) => Err(End::Closed),
        }
    }
}

/// Why the log cannot continue a position, if it cannot.
fn refusal(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Served => None,
        Standing::Trimmed => Some(
            "trimmed: events that this cursor has not seen are older than the retention and gone; \
             begin without --since",
        ),
        Standing::Diverged => Some(
            "diverged: this database does not hold the history that the cursor has seen (another \
             database, a restored copy, or a failover that lost commits); begin without --since",
        ),
    }
}
