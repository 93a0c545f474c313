//! `tidings doctor`: what in this database or proxy will hurt, why, and how to mend it.
//!
//! It only looks: nothing is changed, and what it opens is closed again. Every finding has a name that
//! stays the same, says what was seen, why that hurts and what to do. Those that break tidings decide the
//! exit code.

mod activity;
mod pooler;
mod proxy;
mod schema;
mod server;

use std::fmt::Write;
use std::time::Duration;

use anyhow::anyhow;
use jiff::{Span, SpanRelativeTo};

use super::token::SigningArgs;
use super::{Failure, session};
use crate::config::DatabaseArgs;
use crate::postgres::Database;

/// How long examining a database may take: every statement of it is quick.
const LIMIT: Duration = Duration::from_secs(20);

/// What to examine.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Run it as the role that the gateway connects with: grants and settings are those of that role.

Exit codes: 0 nothing that breaks tidings, 1 something that does, or the database cannot be reached,
64 the command line is not usable.")]
pub(super) struct Args {
    #[command(flatten)]
    database: DatabaseArgs,

    /// Transactions open for longer than this are told
    #[arg(long, default_value = "5 minutes", value_name = "TIME")]
    #[arg(value_parser = length_of_time, help_heading = "Database")]
    long: Duration,

    #[arg(
        long,
        value_name = "URL",
        help_heading = "Proxy",
        help = "Also examine the way to a gateway from outside, such as https://app.example.org: whether what \
                stands there passes a stream on at once and as it is. Without DATABASE_URL, only that"
    )]
    proxy: Option<String>,

    /// The token for that [default: one for user tidings-doctor, signed with TIDINGS_JWT_SECRET]
    #[arg(
        long,
        env = "TIDINGS_DOCTOR_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    #[arg(help_heading = "Proxy")]
    token: Option<String>,

    #[command(flatten)]
    signing: SigningArgs,
}

/// Something that hurts.
#[derive(Debug)]
struct Finding {
    /// Stays the same from release to release.
    name: &'static str,
    weight: Weight,
    /// What was seen.
    what: String,
    /// Why it hurts.
    why: &'static str,
    /// What to do.
    mend: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    /// With this, tidings does not work or does not keep its promises.
    Breaks,
    /// It works, at a price or with a risk.
    Hurts,
    /// Something could not be examined.
    Unknown,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let mut findings = Vec::new();
    if args.database.url().is_ok() || args.proxy.is_none() {
        let database = session::database(&args.database)?;
        findings.extend(examine(&database, args.long).await?);
    }
    if let Some(url) = &args.proxy {
        let way = proxy::Way::parse(url).map_err(Failure::Usage)?;
        let token = proxy::token(args.token, &args.signing)?;
        findings.extend(proxy::examine(&way, token.as_deref()).await);
    }
    findings.sort_by_key(|finding| finding.weight);
    print!("{}", report(&findings));
    let breaking = findings
        .iter()
        .filter(|finding| finding.weight == Weight::Breaks)
        .count();
    match breaking {
        0 => Ok(()),
        1 => Err(anyhow!("1 finding breaks tidings").into()),
        n => Err(anyhow!("{n} findings break tidings").into()),
    }
}

async fn examine(database: &Database, long: Duration) -> Result<Vec<Finding>, Failure> {
    let opened = session::Plain::open(database, "doctor").await;
    let session = opened.map_err(session::failure)?;
    let told = async {
        let server = server::Server::read(&session).await?;
        println!("{}\n", server.introduce());
        let mut findings = server.findings();
        let pooled = pooler::findings(database, &session).await?;
        let behind_pooler = !pooled.is_empty();
        findings.extend(pooled);
        findings.extend(activity::findings(&session, long).await?);
        if !server.is_too_old() {
            let ours = !server.is_standby() && !behind_pooler;
            findings.extend(schema::findings(&session, ours).await?);
        }
        Ok(findings)
    };
    match tokio::time::timeout(LIMIT, told).await {
        Ok(told) => told.map_err(|error| session::refusal(&error)),
        Err(_) => Err(anyhow!(
            "the database did not answer within {LIMIT:?}: it is overloaded, or a pooler stands in front \
             whose backends are all taken"
        )
        .into()),
    }
}

fn report(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing found\n".into();
    }
    let mut text = String::new();
    for finding in findings {
        let weight = match finding.weight {
            Weight::Breaks => "breaks",
            Weight::Hurts => "hurts",
            Weight::Unknown => "unknown",
        };
        let Finding {
            name,
            what,
            why,
            mend,
            ..
        } = finding;
        writeln!(
            text,
            "{weight}: {name}\n  {what}\n  why:  {why}\n  mend: {mend}\n"
        )
        .expect("a string takes all");
    }
    text
}

fn length_of_time(text: &str) -> Result<Duration, String> {
    let span: Span = text.trim().parse().map_err(|_| HINT)?;
    let length = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| HINT)?;
    return Duration::try_from(length).map_err(|_| HINT.into());
    const HINT: &str = "a time looks like 30s, 5 minutes or 1 hour";
}

/// A length of time as people say it, by its largest unit.
fn say(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} minutes", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} hours", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

/// The first few of a list, and how many others there are.
fn some(list: &[String]) -> String {
    const FEW: usize = 5;
    let few = list[..list.len().min(FEW)].join("; ");
    match list.len().saturating_sub(FEW) {
        0 => few,
        n => format!("{few}; and {n} more"),
    }
}
