//! `tidings publish`: one event, by `tidings.publish` in a transaction of its own.

use std::io::Read;

use serde_json::value::RawValue;
use tokio_postgres::types::Type;

use super::{Failure, session};
use crate::config::DatabaseArgs;

/// The most bytes read from standard input: data beyond 256 KiB is refused by the database, whose
/// words say what to do, and more than this is not carried there.
const DATA_BYTES_MAX: u64 = 16 << 20;

/// What to publish.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The id of the event goes to standard output. Works through any pooler.

Exit codes: 0 published (or found by its key), 1 the database refused, 64 the command line is not usable.")]
pub(super) struct Args {
    /// What the event is about, such as user:42
    topic: String,

    /// What happened, such as payment.settled
    #[arg(value_name = "TYPE")]
    kind: String,

    /// The payload as JSON, at most 256 KiB; - reads it from standard input
    #[arg(default_value = "null", allow_hyphen_values = true)]
    data: String,

    /// Publish once for this key and topic within the retention: a repetition gives the first id
    #[arg(long, value_name = "KEY")]
    key: Option<String>,

    #[command(flatten)]
    database: DatabaseArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let database = session::database(&args.database)?;
    let data = match args.data.as_str() {
        "-" => read_input()?,
        _ => args.data,
    };
    if let Err(error) = serde_json::from_str::<&RawValue>(&data) {
        return Err(Failure::Usage(format!(
            "DATA is not JSON: {error} (a text has quotes of its own: '\"hello\"')"
        )));
    }
    let opened = session::Plain::open(&database, "publish").await;
    let session = opened.map_err(session::failure)?;
    let published = session
        .query_typed_one(
            "select tidings.publish($1, $2, $3::text::jsonb, $4)",
            &[
                (&args.topic, Type::TEXT),
                (&args.kind, Type::TEXT),
                (&data, Type::TEXT),
                (&args.key, Type::TEXT),
            ],
        )
        .await;
    let row = published.map_err(|error| session::failure(error.into()))?;
    println!("{}", row.get::<_, i64>(0));
    Ok(())
}

fn read_input() -> Result<String, Failure> {
    let mut data = String::new();
    let mut input = std::io::stdin().take(DATA_BYTES_MAX);
    input
        .read_to_string(&mut data)
        .map_err(|error| Failure::Usage(format!("standard input: {error}")))?;
    Ok(data)
}
