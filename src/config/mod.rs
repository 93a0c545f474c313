//! What the operator decided, checked as a whole: flag before environment before default.
//!
//! A [`Config`] in hand is consistent. All faults are found in one go and reported together, each
//! with the name of its variable, none with the value of a secret; the caller exits 64 with them.

mod args;
mod capacity;
mod faults;
mod limits;
mod units;

#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as _, FromArgMatches as _};
use ipnet::IpNet;

use crate::auth::{AuthSettings, ClaimNames, Keys, Origins};
use crate::channel::ChannelRule;
use crate::memory::Memory;
use crate::topic::Pattern;
use args::TokenArgs;

pub use args::{DatabaseArgs, SecretArgs, ServeArgs};
pub use capacity::Shares;
pub use faults::Faults;
pub use limits::Limits;

/// Everything that a gateway needs to know.
#[derive(Clone)]
pub struct Config {
    /// The database; its password is in it.
    pub database_url: String,
    /// What to do about migrations at the start.
    pub migrate: MigrateMode,
    /// How long events are kept.
    pub retention: Duration,
    /// Channels of the application that become signals.
    pub channels: Vec<ChannelRule>,
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where health and metrics are.
    pub ops_listen: SocketAddr,
    /// Whether sockets of streams leave hyper.
    pub direct: bool,
    /// Doorbells a second from which on the gateway looks by itself; `None` is never.
    pub awake: Option<u32>,
    /// The most time that it does so at once; only tests of the hand-over bound it.
    pub awake_for: Option<Duration>,
    /// How long after a look the next comes whether or not a bell calls; only tests change it.
    pub look_every: Duration,
    /// The pages that may use the gateway.
    pub cors_origins: Origins,
    /// The proxies whose word about the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Which tokens are accepted.
    pub auth: AuthSettings,
    /// What nobody may go beyond.
    pub limits: Limits,
    /// The memory that there is, where the system tells.
    pub memory: Option<Memory>,
    /// What parts of the gateway may hold of it.
    pub shares: Shares,
}

/// What to do about migrations at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrateMode {
    /// Apply what is missing.
    Auto,
    /// Refuse to start when something is missing.
    Check,
    /// Neither.
    Off,
}

impl ServeArgs {
    /// The settings that these flags give, above the environment: for who starts a gateway from
    /// inside the program.
    pub fn from_flags<'a>(
        flags: impl IntoIterator<Item = &'a str>,
    ) -> Result<ServeArgs, clap::Error> {
        let command = without_empty(ServeArgs::augment_args(clap::Command::new("tidings")));
        let line = std::iter::once("tidings").chain(flags);
        ServeArgs::from_arg_matches(&command.try_get_matches_from(line)?)
    }

    /// Reads everything, or says everything that is wrong.
    pub fn into_config(self) -> Result<Config, Faults> {
        let mut faults = Faults::default();
        let origins = faults.take_all(
            "TIDINGS_CORS_ORIGINS",
            Origins::parse(list(&self.cors_origins)),
        );
        let memory = Memory::find();
        let bytes = memory.as_ref().map(Memory::bytes);
        let (limits, shares) = Limits::read(&self.limits, bytes, &mut faults);
        let unset = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = Config {
            database_url: faults.take("DATABASE_URL", self.database.url(), String::new()),
            migrate: faults.take("TIDINGS_MIGRATE", migrate(&self.migrate), MigrateMode::Off),
            // Less than a day could not be kept: partitions are days, and trimmed as a whole.
            retention: faults.time("TIDINGS_RETENTION", &self.retention, (HOUR, 3650 * DAY)),
            channels: faults.take_all("TIDINGS_CHANNELS", ChannelRule::parse_all(&self.channels)),
            listen: faults.take("TIDINGS_LISTEN", address(&self.listen), unset),
            ops_listen: faults.take("TIDINGS_OPS_LISTEN", address(&self.ops_listen), unset),
            direct: faults.take("TIDINGS_DIRECT", switch(&self.direct), true),
            awake: faults.take("TIDINGS_AWAKE", rate(&self.awake), None),
            awake_for: None,
            look_every: Duration::from_secs(1),
            trusted_proxies: faults
                .take_all("TIDINGS_TRUSTED_PROXIES", networks(&self.trusted_proxies)),
            auth: read_tokens(self.tokens, origins.clone(), &mut faults),
            cors_origins: origins,
            limits,
            memory,
            shares,
        };
        if config.listen == config.ops_listen && config.listen.port() != 0 {
            faults.add(
                "TIDINGS_OPS_LISTEN",
                "it is the address for clients as well",
            );
        }
        if faults.0.is_empty() {
            Ok(config)
        } else {
            Err(faults)
        }
    }
}

/// Takes an empty variable for one that is not set: deployment templates cannot leave one out.
pub(crate) fn without_empty(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let value = arg.get_env().and_then(std::env::var_os);
        match value {
            Some(value) if value.is_empty() => arg.env(clap::builder::Resettable::Reset),
            _ => arg,
        }
    });
    command.mut_subcommands(without_empty)
}

impl DatabaseArgs {
    /// The URL of the database, from the value or the file.
    pub fn url(&self) -> Result<String, String> {
        secret(&self.database_url, &self.database_url_file)?
            .ok_or_else(|| "it is not set: postgres://user:password@host/database".into())
    }
}

impl SecretArgs {
    /// The secret of tokens, from the value or the file, when there is one.
    pub fn secret(&self) -> Result<Option<String>, String> {
        secret(&self.jwt_secret, &self.jwt_secret_file)
    }
}

/// Secrets stay out of logs, whoever prints a configuration.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("ops_listen", &self.ops_listen)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

fn read_tokens(args: TokenArgs, origins: Origins, faults: &mut Faults) -> AuthSettings {
    let before = faults.0.len();
    let keys = read_keys(&args, faults);
    let keys_are_faulty = faults.0.len() > before;
    let settings = AuthSettings {
        keys,
        audience: given(args.jwt_audience),
        issuer: given(args.jwt_issuer),
        cookie: given(args.cookie),
        origins,
        public_topics: faults.take_all("TIDINGS_PUBLIC_TOPICS", patterns(&args.public_topics)),
        tenants_required: match args.tenants.trim() {
            "required" => true,
            "optional" => false,
            _ => {
                faults.add("TIDINGS_TENANTS", "it is either required or optional");
                true
            }
        },
        claims: ClaimNames {
            topics: args.claim_topics,
            publish: args.claim_publish,
            tenant: args.claim_tenant,
        },
    };
    // A key that cannot be read is one fault, and not a second time that there is none.
    let missing = if keys_are_faulty {
        Vec::new()
    } else {
        settings.key_faults()
    };
    faults.0.extend(missing);
    faults.0.extend(settings.name_faults());
    settings
}

fn read_keys(args: &TokenArgs, faults: &mut Faults) -> Option<Keys> {
    let sources = [
        (
            "TIDINGS_JWT_SECRET",
            args.secret.secret(),
            Keys::secret as fn(&str) -> _,
        ),
        (
            "TIDINGS_JWT_PUBLIC_KEY",
            secret(&args.jwt_public_key, &args.jwt_public_key_file),
            Keys::pem,
        ),
        (
            "TIDINGS_JWT_JWKS_FILE",
            secret(&None, &args.jwt_jwks_file),
            Keys::jwk_set,
        ),
    ];
    let mut keys: Option<Keys> = None;
    for (name, text, read) in sources {
        let parsed = text.and_then(|text| text.as_deref().map(read).transpose());
        match (faults.take(name, parsed, None), &keys) {
            (Some(_), Some(_)) => faults.add(name, "there is another key; give the gateway one"),
            (Some(own), None) => keys = Some(own),
            (None, _) => {}
        }
    }
    let expected = given(args.jwt_algorithm.clone());
    if let (Some(expected), Some(keys)) = (expected, &keys)
        && keys.algorithms() != [expected.as_str()]
    {
        let own = keys.algorithms().join(", ");
        faults.add(
            "TIDINGS_JWT_ALGORITHM",
            &format!("it says {expected:?}, the key is for {own}"),
        );
    }
    keys
}

/// A value given directly or in a file, whose last line break does not belong to it.
fn secret(value: &Option<String>, file: &Option<PathBuf>) -> Result<Option<String>, String> {
    let value = given(value.clone());
    let file = file.as_ref().filter(|path| !path.as_os_str().is_empty());
    match (value, file) {
        (Some(_), Some(_)) => Err("it is given as a value and as a file: which one counts?".into()),
        (Some(value), None) => Ok(Some(value)),
        (None, Some(path)) => {
            let text = fs::read_to_string(path)
                .map_err(|e| format!("the file {} cannot be read: {e}", path.display()))?;
            match text.trim_end_matches(['\r', '\n']) {
                "" => Err(format!("the file {} is empty", path.display())),
                text => Ok(Some(text.to_owned())),
            }
        }
        (None, None) => Ok(None),
    }
}

/// An empty variable is one that is not set: deployment templates cannot leave one out.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|text| !text.is_empty())
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\n', '\t'])
        .filter(|item| !item.is_empty())
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let hint = |_| format!("{text:?} is no address and port: 127.0.0.1:8080, [::]:8080");
    text.trim().parse().map_err(hint)
}

fn migrate(text: &str) -> Result<MigrateMode, String> {
    match text.trim() {
        "auto" => Ok(MigrateMode::Auto),
        "check" => Ok(MigrateMode::Check),
        "off" => Ok(MigrateMode::Off),
        _ => Err("it is auto, check or off".into()),
    }
}

fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("it is on or off".into()),
    }
}

/// A rate of a second, or `off`.
fn rate(text: &str) -> Result<Option<u32>, String> {
    match text.trim() {
        "off" => Ok(None),
        text => match text.parse() {
            Ok(rate @ 1..=100_000) => Ok(Some(rate)),
            _ => Err("it is off, or a whole number from 1 to 100000".into()),
        },
    }
}

fn networks(text: &str) -> Result<Vec<IpNet>, Vec<String>> {
    let network = |item: &str| {
        let single = || item.parse::<IpAddr>().map(IpNet::from);
        item.parse()
            .or_else(|_| single())
            .map_err(|_| format!("{item:?} is no address range: 10.0.0.0/8, fd00::/8"))
    };
    all(list(text).map(network))
}

fn patterns(text: &str) -> Result<Vec<Pattern>, Vec<String>> {
    all(list(text).map(|item| Pattern::parse(item).map_err(|fault| format!("{item:?}: {fault}"))))
}

fn all<T>(results: impl Iterator<Item = Result<T, String>>) -> Result<Vec<T>, Vec<String>> {
    let (mut values, mut faults) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(value) => values.push(value),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() {
        Ok(values)
    } else {
        Err(faults)
    }
}
