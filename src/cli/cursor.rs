//! `tidings cursor`: a cursor in words, and how it stands to the log.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_postgres::Row;
use tokio_postgres::types::Type;

use super::{Failure, session};
use crate::config::DatabaseArgs;
use crate::cursor::{Cursor, Mark, Snapshot, Standing};
use crate::event::rfc3339;
use crate::postgres::connect::READING;
use crate::postgres::page::{Head, in_progress, read_head};

/// Events that a cursor has missed are counted up to this many: beyond, nobody needs the number.
const MISSED_MAX: i64 = 100_000;

/// Transactions in progress that are named; the others are counted.
const NAMED: usize = 8;

/// Which cursor.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes: 0 explained, 1 the database could not be asked, 64 the text is no cursor.")]
pub(super) struct Args {
    /// The cursor: the text of an `id:` line or of a `cursor` field, unchanged
    #[arg(value_name = "TEXT")]
    cursor: Cursor,

    /// Also ask the database at DATABASE_URL whether it serves the cursor, and how far behind it is
    #[arg(long = "database")]
    ask_database: bool,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let mut text = explain(&args.cursor);
    if args.ask_database {
        let database = session::database(&args.database)?;
        let session = database.session("cursor").await.map_err(session::failure)?;
        let row = ask(&session, &args.cursor).await;
        let row = row.map_err(|error| session::failure(error.into()))?;
        let head = read_head(&row).map_err(session::failure)?;
        text += &compare(&args.cursor, &head, &row)?;
    }
    print!("{text}");
    Ok(())
}

/// What the cursor says by itself.
fn explain(cursor: &Cursor) -> String {
    let mut text = String::new();
    match cursor {
        Cursor::At(mark) => {
            line(&mut text, "position", "one mark: all that a snapshot sees");
            describe(&mut text, "seen", mark);
        }
        Cursor::Between { from, to, sent } => {
            let words = "two marks: on the way from one snapshot to the next";
            line(&mut text, "position", words);
            describe(&mut text, "seen", from);
            describe(&mut text, "under way", to);
            let way = format!("of that, the events up to id {sent} were sent");
            line(&mut text, "", &way);
        }
    }
    let anchor = cursor.anchor();
    let newest = match anchor.newest {
        0 => "no event: the log was empty".into(),
        id => format!("event {id}, tag {}", anchor.tag),
    };
    line(&mut text, "anchor", &newest);
    text
}

fn describe(text: &mut String, label: &str, mark: &Mark) {
    let seen = format!(
        "transactions below {}, in events up to id {}",
        mark.snapshot.xmax(),
        mark.newest
    );
    line(text, label, &seen);
    if !mark.snapshot.in_progress().is_empty() {
        line(text, "", &format!("but for {}", unfinished(&mark.snapshot)));
    }
}

fn unfinished(snapshot: &Snapshot) -> String {
    let xids = snapshot.in_progress();
    let named: Vec<String> = xids.iter().take(NAMED).map(u64::to_string).collect();
    let others = match xids.len().saturating_sub(NAMED) {
        0 => String::new(),
        n => format!(" and {n} others"),
    };
    let noun = if xids.len() == 1 {
        "transaction"
    } else {
        "transactions"
    };
    let (count, named) = (xids.len(), named.join(", "));
    format!("{count} {noun} then in progress: {named}{others}")
}

async fn ask(
    session: &tokio_postgres::Client,
    cursor: &Cursor,
) -> Result<Row, tokio_postgres::Error> {
    let first = cursor.first();
    let (second, sent) = match cursor {
        Cursor::At(_) => (None, None),
        Cursor::Between { to, sent, .. } => (Some(to.snapshot.to_string()), Some(*sent)),
    };
    session.batch_execute(READING).await?;
    let statement = include_str!("../../sql/queries/standing.sql");
    session
        .query_typed_one(
            statement,
            &[
                (&first.snapshot.xmax().to_string(), Type::TEXT),
                (&in_progress(&first.snapshot), Type::TEXT_ARRAY),
                (&first.newest, Type::INT8),
                (&first.snapshot.to_string(), Type::TEXT),
                (&second, Type::TEXT),
                (&sent, Type::INT8),
                (&cursor.anchor().newest, Type::INT8),
                (&(MISSED_MAX + 1), Type::INT8),
            ],
        )
        .await
}

/// What the log says about the cursor.
fn compare(cursor: &Cursor, head: &Head, row: &Row) -> Result<String, tokio_postgres::Error> {
    let mut text = String::new();
    let now = match row.try_get::<_, Option<SystemTime>>("newest_at")? {
        Some(at) => format!("newest event {}, of {}", head.newest.0, time(at)),
        None => "empty".into(),
    };
    line(&mut text, "log", &now);
    if let Some(at) = row.try_get("anchor_at")? {
        line(&mut text, "", &format!("the anchor is of {}", time(at)));
    }
    let standing = match cursor.standing(&head.floor, head.anchor) {
        Standing::Served => "served: everything that it has not seen is in the log",
        Standing::Trimmed => {
            "trimmed: some of what it has not seen may be older than the retention and gone; \
             its client gets reset{trimmed}"
        }
        Standing::Diverged => {
            "diverged: the log does not hold the history that it has seen (another database, a \
             restored copy, or a failover that lost commits); its client gets reset{diverged}"
        }
    };
    line(&mut text, "standing", standing);
    if cursor.standing(&head.floor, head.anchor) == Standing::Served {
        let behind = match row.try_get("missed")? {
            0 => "nothing: it has seen every event of the log".into(),
            1 => "1 event of the log, of whatever topic".into(),
            n if n > MISSED_MAX => format!("more than {MISSED_MAX} events of the log"),
            n => format!("{n} events of the log, of whatever topics"),
        };
        line(&mut text, "not seen", &behind);
    }
    Ok(text)
}

fn time(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    rfc3339(since.as_micros() as i64)
}

fn line(text: &mut String, label: &str, words: &str) {
    writeln!(text, "{label:<10} {words}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_in_words() {
        let cursor = "1~7701234.3.1~4711.9af3c2d1".parse().expect("a cursor");
        assert_eq!(
            explain(&cursor),
            "position   one mark: all that a snapshot sees\n\
             seen       transactions below 7701237, in events up to id 4711\n\
             \x20          but for 2 transactions then in progress: 7701234, 7701235\n\
             anchor     event 4711, tag 9af3c2d1\n"
        );
    }

    #[test]
    fn two_marks_in_words() {
        let cursor = "1~100~7~5~9.3.00000abc".parse().expect("a cursor");
        let text = explain(&cursor);
        for words in [
            "two marks",
            "seen       transactions below 100, in events up to id 7\n",
            "under way  transactions below 105, in events up to id 12\n",
            "up to id 9 were sent",
            "event 12, tag 00000abc",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn many_transactions_are_counted() {
        let snapshot = Snapshot::new(100, (1..=20).collect()).expect("ascends");
        let text = unfinished(&snapshot);
        assert_eq!(
            text,
            "20 transactions then in progress: 1, 2, 3, 4, 5, 6, 7, 8 and 12 others"
        );
    }
}
