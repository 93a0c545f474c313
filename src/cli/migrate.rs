//! `tidings migrate`: bring the schema up to date, or adopt a database that came by dump.

use super::Failure;
use crate::config::DatabaseArgs;
use crate::postgres::{Database, migrate};

/// What to do to which database.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Empty the event log and begin anew: for a database whose rows came by dump, replication or
    /// hand, and carry transaction ids of another server. Every cursor is then refused.
    #[arg(long)]
    adopt: bool,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let url = args.database.url();
    let url = url.map_err(|fault| Failure::Usage(format!("DATABASE_URL: {fault}")))?;
    let database = Database::parse(&url)?;
    let mut session = database.session("maintenance").await?;
    if args.adopt {
        migrate::adopt(session.client_mut()).await?;
        println!("adopted: the event log is empty, and every earlier cursor is refused");
    }
    let applied = migrate::migrate(session.client_mut()).await?;
    for name in &applied {
        println!("applied {name}");
    }
    if applied.is_empty() {
        println!("up to date");
    }
    Ok(())
}
