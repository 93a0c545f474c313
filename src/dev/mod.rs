//! `tidings dev`: everything that a newcomer needs to see tidings work, beside the gateway itself.
//!
//! A [private Postgres](cluster) in a directory that is kept, a secret beside it, a token, three
//! commands for the terminal and a [page] to watch it in. [`Development::prepare`] makes all of
//! this; the caller starts a gateway with its [arguments](Development::arguments), serves its
//! [page](Development::page) and prints its [banner](Development::banner), as `cli/dev.rs` does.

mod address;
mod binaries;
pub mod cluster;
mod error;
mod home;
pub mod page;
mod user;
mod watchdog;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::json;
use tokio_postgres::NoTls;

use self::address::{free_address, reachable};
pub use self::binaries::BinariesError;
use self::cluster::{Access, Cluster, ClusterError, ClusterOptions, StopMode};
use self::page::{Command, Page, Session};

/// The database in the private Postgres.
const DATABASE: &str = "tidings";
/// What the page and the commands begin with; the second is the own topic of the token.
const TOPICS: [&str; 2] = ["demo", "user:dev"];
/// Long enough for a day's work, short enough that a token in a shell's history grows old.
const TOKEN_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// What `tidings dev` can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct DevArgs {
    /// Where the private Postgres is kept [default: /var/lib/tidings-dev for root, else
    /// tidings-dev below $XDG_STATE_HOME or ~/.local/state]
    #[arg(long, env = "TIDINGS_DEV_DATA", value_name = "DIRECTORY")]
    pub data: Option<PathBuf>,

    /// The address of the gateway and the page [default: 127.0.0.1 and the first free port from
    /// 8080 on]
    #[arg(long, env = "TIDINGS_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,

    /// The address for health and metrics [default: 127.0.0.1 and the first free port from 9180 on]
    #[arg(long, env = "TIDINGS_OPS_LISTEN", value_name = "ADDRESS")]
    pub ops_listen: Option<SocketAddr>,
}

/// Why there is nothing to develop with.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// The private Postgres does not run.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// It runs, and its database could not be made.
    #[error("the private Postgres refuses its database")]
    Database(#[source] tokio_postgres::Error),
    /// No directory was named, and there is no home directory to put one in.
    #[error("neither XDG_STATE_HOME nor HOME is set; say where to keep the data by --data")]
    NoHome,
    /// A file or an address could not be had.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

/// Everything beside the gateway. Dropping it stops the private Postgres at once.
pub struct Development {
    cluster: Cluster,
    args: DevArgs,
    directory: PathBuf,
    secret: String,
    place: Place,
}

/// Where the gateway is to listen, and what follows from that.
struct Place {
    arguments: Vec<String>,
    page: Arc<Page>,
    banner: String,
}

impl Development {
    /// Starts the private Postgres with an empty or an earlier database, and chooses addresses.
    pub async fn prepare(args: &DevArgs) -> Result<Development, DevError> {
        let directory = args.data.clone().map_or_else(default_directory, Ok)?;
        let home = directory.clone();
        let cluster = tokio::task::spawn_blocking(move || start(&home))
            .await
            .expect("starting a cluster does not panic")?;
        make_database(&cluster).await.map_err(DevError::Database)?;
        let secret = secret(&directory.join("secret")).map_err(failed("keeping the secret"))?;
        let place = Place::choose(&cluster, args, &directory, &secret)?;
        Ok(Development {
            cluster,
            args: args.clone(),
            directory,
            secret,
            place,
        })
    }

    /// Chooses anew if `taken`, where somebody else listens by now, was our choice; nobody chooses anew
    /// what the user has named.
    pub fn choose_again(&mut self, taken: SocketAddr) -> Result<bool, DevError> {
        if [self.args.listen, self.args.ops_listen].contains(&Some(taken)) {
            return Ok(false);
        }
        self.place = Place::choose(&self.cluster, &self.args, &self.directory, &self.secret)?;
        Ok(true)
    }

    /// The arguments of `tidings serve` for this database, secret and addresses.
    pub fn arguments(&self) -> &[String] {
        &self.place.arguments
    }

    /// What is served beside the gateway's own paths.
    pub fn page(&self) -> Arc<Page> {
        Arc::clone(&self.place.page)
    }

    /// What is printed once the gateway is ready.
    pub fn banner(&self) -> &str {
        &self.place.banner
    }

    /// Stops the private Postgres and waits until all is written down.
    pub async fn stop(mut self) -> Result<(), DevError> {
        let stopped = tokio::task::spawn_blocking(move || self.cluster.stop(StopMode::Fast));
        Ok(stopped.await.expect("stopping a cluster does not panic")?)
    }
}

impl Place {
    fn choose(
        cluster: &Cluster,
        args: &DevArgs,
        directory: &Path,
        secret: &str,
    ) -> Result<Place, DevError> {
        let address = |wanted: Option<SocketAddr>, ports| {
            wanted
                .map_or_else(|| free_address(ports), Ok)
                .map_err(failed("finding a free port"))
        };
        let listen = address(args.listen, 8080..8180)?;
        let ops_listen = address(args.ops_listen, 9180..9280)?;
        let database = cluster.url(DATABASE);
        let arguments = [
            ("--database-url", database.as_str()),
            ("--jwt-secret", secret),
            ("--listen", &listen.to_string()),
            ("--ops-listen", &ops_listen.to_string()),
        ];
        let arguments = arguments
            .into_iter()
            .flat_map(|(flag, value)| [flag.into(), value.into()]);

        let told = Told {
            key: &random_hex::<8>(),
            token: &token(secret),
            gateway: &format!("http://{}", reachable(listen)),
            operations: &format!("http://{}", reachable(ops_listen)),
            database: &database,
            directory,
            psql: &cluster.client("psql"),
        };
        let commands = told.commands();
        let session = Session {
            token: told.token,
            topics: &TOPICS,
            commands: &commands,
        };
        Ok(Place {
            arguments: arguments.collect(),
            page: Arc::new(Page::new(told.key, &session)),
            banner: told.banner(&commands),
        })
    }
}

/// What the newcomer is told, on the terminal and by the page.
struct Told<'a> {
    key: &'a str,
    token: &'a str,
    gateway: &'a str,
    operations: &'a str,
    database: &'a str,
    directory: &'a Path,
    psql: &'a Path,
}

impl Told<'_> {
    fn commands(&self) -> [Command; 3] {
        let Told {
            token,
            gateway,
            database,
            ..
        } = self;
        let [topic, ..] = TOPICS;
        let psql = self.psql.display();
        let tidings = std::env::current_exe().unwrap_or_else(|_| "tidings".into());
        let tidings = tidings.display();
        [
            Command {
                title: "Listen with curl",
                text: format!(
                    "curl -N -H 'authorization: Bearer {token}' '{gateway}/v1/events?topic={topic}'"
                ),
            },
            Command {
                title: "Listen at the database",
                text: format!("DATABASE_URL='{database}' {tidings} tail {topic}"),
            },
            Command {
                title: "Publish from SQL, in any transaction",
                text: format!(
                    "{psql} '{database}' -c \"select tidings.publish('{topic}', 'hello', '{{\\\"from\\\": \\\"psql\\\"}}')\""
                ),
            },
        ]
    }

    fn banner(&self, commands: &[Command]) -> String {
        let Told {
            key,
            token,
            gateway,
            operations,
            database,
            ..
        } = self;
        let directory = self.directory.display();
        let mut banner = format!(
            "\ntidings runs, with a Postgres of its own. Ctrl-C stops both.\n\n\
             Open       {gateway}/#{key}\n\
             Gateway    {gateway}/v1/events\n\
             Health     {operations}/readyz, {operations}/metrics\n\
             Database   {database}\n\
             Data       {directory} (kept, and found again next time)\n\
             Token      {token}\n           \
             (user `dev`, every topic, for a day)\n"
        );
        for Command { title, text } in commands {
            banner.push_str(&format!("\n{title}:\n  {text}\n"));
        }
        banner
    }
}

/// Data that is kept needs its durability, so the server's own defaults hold.
fn start(directory: &Path) -> Result<Cluster, ClusterError> {
    let (directory, access) = (Some(directory), Access::Password);
    Cluster::start(ClusterOptions {
        directory,
        access,
        settings: &[],
    })
}

/// Not below a home directory for root: the server's user could not get there.
fn default_directory() -> Result<PathBuf, DevError> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/tidings-dev".into());
    }
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    let state = state.filter(|state| state.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/state"));
    Ok(state
        .or_else(home)
        .ok_or(DevError::NoHome)?
        .join("tidings-dev"))
}

async fn make_database(cluster: &Cluster) -> Result<(), tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(&cluster.url("postgres"), NoTls).await?;
    let driver = tokio::spawn(connection);
    let exists = client.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&DATABASE]);
    if exists.await?.is_none() {
        client
            .batch_execute(&format!("CREATE DATABASE {DATABASE}"))
            .await?;
    }
    drop(client);
    driver.await.expect("the driver does not panic")
}

/// The secret of this directory, made at the first start, so that tokens outlive a start.
fn secret(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        read => return read.map(|secret| secret.trim().to_owned()),
    }
    let secret = random_hex::<32>();
    // Written aside first: a start that is interrupted must not leave half a secret.
    let unfinished = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&unfinished)?.write_all(secret.as_bytes())?;
    fs::rename(unfinished, path)?;
    Ok(secret)
}

/// A token of the user `dev`, who may read and publish everything.
fn token(secret: &str) -> String {
    let expires_at = SystemTime::now() + TOKEN_AGE;
    let exp = expires_at
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970")
        .as_secs();
    let claims = json!({ "sub": "dev", "exp": exp, "topics": ["*"], "publish": ["*"] });
    encode(
        &Header::default(),
        &claims,
        &EncodingKey::from_secret(secret.as_bytes()),
    )
    .expect("a secret signs any claims")
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> DevError {
    move |source| DevError::Io {
        what: what.to_owned(),
        source,
    }
}

/// `N` random bytes as text, for passwords and secrets.
fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
