//! The settings as an operator writes them: every flag, its variable, its default and its reason.
//!
//! Values stay texts here, so that a wrong one does not hide the next; [`super::Config`] reads them
//! all and reports every fault together. What `--help` says about a setting stands here alone.

use std::path::PathBuf;

use clap::Args;

/// Where the database is. Shared by every command that talks to it.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Database")]
pub struct DatabaseArgs {
    /// The database, as a URL: postgres://user:password@host/database?sslmode=verify-full
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,

    /// A file that holds the URL, so that the password is in no process list
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "PATH")]
    pub database_url_file: Option<PathBuf>,
}

/// The shared secret of tokens. Also what signs them in `tidings token`.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens")]
pub struct SecretArgs {
    /// The secret that tokens are signed with (HS256), at least 32 bytes
    #[arg(
        long,
        env = "TIDINGS_JWT_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    pub jwt_secret: Option<String>,

    /// A file that holds the secret
    #[arg(long, env = "TIDINGS_JWT_SECRET_FILE", value_name = "PATH")]
    pub jwt_secret_file: Option<PathBuf>,
}

/// Everything that `tidings serve` can be told.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,

    /// Whether to apply migrations at the start (auto), to only check them (check), or neither (off)
    #[arg(
        long,
        env = "TIDINGS_MIGRATE",
        default_value = "auto",
        value_name = "MODE"
    )]
    #[arg(help_heading = "Database")]
    pub(super) migrate: String,

    /// How long events are kept, at least: whoever was away for longer gets a reset
    #[arg(
        long,
        env = "TIDINGS_RETENTION",
        default_value = "7 days",
        value_name = "TIME"
    )]
    #[arg(help_heading = "Database")]
    pub(super) retention: String,

    /// Channels that an application already notifies, one `channel -> topic-template [type]` a line
    #[arg(
        long,
        env = "TIDINGS_CHANNELS",
        default_value = "",
        value_name = "LINES"
    )]
    #[arg(help_heading = "Database", hide_default_value = true)]
    pub(super) channels: String,

    /// Doorbells a second from which on this gateway looks by itself every few milliseconds and publishers ring
    /// none, which is what makes their commits cheap; or off
    #[arg(
        long,
        env = "TIDINGS_AWAKE",
        default_value = "100",
        value_name = "RATE"
    )]
    #[arg(help_heading = "Database")]
    pub(super) awake: String,

    /// The address for clients; loopback by default, since a proxy for TLS stands before it
    #[arg(
        long,
        env = "TIDINGS_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    #[arg(help_heading = "Addresses")]
    pub(super) listen: String,

    /// Whether the sockets of streams are written without hyper (on), which takes a tenth of the memory, or by it
    /// (off)
    #[arg(
        long,
        env = "TIDINGS_DIRECT",
        default_value = "on",
        value_name = "SWITCH"
    )]
    #[arg(help_heading = "Limits")]
    pub(super) direct: String,

    /// The address for health and metrics, which are nobody's business outside
    #[arg(
        long,
        env = "TIDINGS_OPS_LISTEN",
        default_value = "127.0.0.1:9180",
        value_name = "ADDRESS"
    )]
    #[arg(help_heading = "Addresses")]
    pub(super) ops_listen: String,

    /// Origins of pages that may use the gateway, such as `https://app.example.org`
    #[arg(
        long,
        env = "TIDINGS_CORS_ORIGINS",
        default_value = "",
        value_name = "LIST"
    )]
    #[arg(help_heading = "Addresses", hide_default_value = true)]
    pub(super) cors_origins: String,

    /// Address ranges of proxies whose X-Forwarded-For is believed, such as 10.0.0.0/8
    #[arg(
        long,
        env = "TIDINGS_TRUSTED_PROXIES",
        default_value = "",
        value_name = "LIST"
    )]
    #[arg(help_heading = "Addresses", hide_default_value = true)]
    pub(super) trusted_proxies: String,

    #[command(flatten)]
    pub(super) tokens: TokenArgs,

    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// Which tokens are accepted, and what they allow.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Tokens")]
pub(super) struct TokenArgs {
    #[command(flatten)]
    pub(super) secret: SecretArgs,

    /// The public key that tokens are checked with, as PEM (RSA, P-256 or Ed25519)
    #[arg(long, env = "TIDINGS_JWT_PUBLIC_KEY", value_name = "PEM")]
    pub(super) jwt_public_key: Option<String>,

    /// A file that holds the public key
    #[arg(long, env = "TIDINGS_JWT_PUBLIC_KEY_FILE", value_name = "PATH")]
    pub(super) jwt_public_key_file: Option<PathBuf>,

    /// A file that holds a JWK Set, whose keys tokens choose by kid
    #[arg(long, env = "TIDINGS_JWT_JWKS_FILE", value_name = "PATH")]
    pub(super) jwt_jwks_file: Option<PathBuf>,

    /// The algorithm that the key must be for: HS256, RS256, ES256 or EdDSA. The key decides; this
    /// refuses a key of another kind
    #[arg(long, env = "TIDINGS_JWT_ALGORITHM", value_name = "NAME")]
    pub(super) jwt_algorithm: Option<String>,

    /// The audience that tokens must name; required with public keys
    #[arg(long, env = "TIDINGS_JWT_AUDIENCE", value_name = "TEXT")]
    pub(super) jwt_audience: Option<String>,

    /// The issuer that tokens must name
    #[arg(long, env = "TIDINGS_JWT_ISSUER", value_name = "TEXT")]
    pub(super) jwt_issuer: Option<String>,

    /// The cookie in which tokens are accepted, from pages of the allowed origins
    #[arg(long, env = "TIDINGS_COOKIE", value_name = "NAME")]
    pub(super) cookie: Option<String>,

    /// Topics that may be read without a token; * at the end covers what begins so
    #[arg(
        long,
        env = "TIDINGS_PUBLIC_TOPICS",
        default_value = "",
        value_name = "LIST"
    )]
    #[arg(hide_default_value = true)]
    pub(super) public_topics: String,

    /// Whether tokens may do without a tenant (optional) or not (required)
    #[arg(
        long,
        env = "TIDINGS_TENANTS",
        default_value = "optional",
        value_name = "MODE"
    )]
    pub(super) tenants: String,

    /// Where in a token the readable topics stand, as a JSON pointer
    #[arg(
        long,
        env = "TIDINGS_CLAIM_TOPICS",
        default_value = "/topics",
        value_name = "POINTER"
    )]
    pub(super) claim_topics: String,

    /// Where in a token the topics to publish to stand
    #[arg(
        long,
        env = "TIDINGS_CLAIM_PUBLISH",
        default_value = "/publish",
        value_name = "POINTER"
    )]
    pub(super) claim_publish: String,

    /// Where in a token the tenant stands
    #[arg(
        long,
        env = "TIDINGS_CLAIM_TENANT",
        default_value = "/tenant",
        value_name = "POINTER"
    )]
    pub(super) claim_tenant: String,
}

/// What nobody may go beyond.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Limits")]
pub(super) struct LimitArgs {
    /// Open streams of one user: tabs and devices, and not a loop gone wild
    #[arg(
        long,
        env = "TIDINGS_STREAMS_PER_USER",
        default_value = "20",
        value_name = "COUNT"
    )]
    pub(super) streams_per_user: String,

    /// Open streams without a token from one address (IPv6: one /64, which is one household)
    #[arg(
        long,
        env = "TIDINGS_ANONYMOUS_PER_ADDRESS",
        default_value = "100",
        value_name = "COUNT"
    )]
    pub(super) anonymous_per_address: String,

    /// Open streams in all [default: what memory and the descriptor limit allow]
    #[arg(long, env = "TIDINGS_STREAMS", value_name = "COUNT")]
    pub(super) streams: Option<String>,

    /// Open streams on one HTTP/2 connection, as many as browsers expect
    #[arg(
        long,
        env = "TIDINGS_H2_STREAMS",
        default_value = "100",
        value_name = "COUNT"
    )]
    pub(super) h2_streams: String,

    /// How old a stream may grow, so that streams spread after scaling out; off: any age
    #[arg(
        long,
        env = "TIDINGS_STREAM_AGE",
        default_value = "off",
        value_name = "TIME"
    )]
    pub(super) stream_age: String,

    /// Topics of one stream: each is a place in the hub and a lookup at every resume
    #[arg(
        long,
        env = "TIDINGS_TOPICS_PER_STREAM",
        default_value = "50",
        value_name = "COUNT"
    )]
    pub(super) topics_per_stream: String,

    /// Bytes that wait for one stream before it is cut as slow, to be resumed from its cursor
    #[arg(
        long,
        env = "TIDINGS_STREAM_QUEUE_BYTES",
        default_value = "512KiB",
        value_name = "SIZE"
    )]
    pub(super) stream_queue_bytes: String,

    /// Bytes that wait for all streams together, each frame counted once [default: 256MiB, an eighth of less than 2 GiB]
    #[arg(long, env = "TIDINGS_QUEUE_BYTES", value_name = "SIZE")]
    pub(super) queue_bytes: Option<String>,

    /// How long a write may make no progress: such a peer is gone or does not read
    #[arg(
        long,
        env = "TIDINGS_WRITE_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub(super) write_timeout: String,

    /// How long a request's head may take from the moment of connecting
    #[arg(
        long,
        env = "TIDINGS_HEAD_TIMEOUT",
        default_value = "10s",
        value_name = "TIME"
    )]
    pub(super) head_timeout: String,

    /// Bytes of a request's head: a token, a long cursor and what proxies add
    #[arg(
        long,
        env = "TIDINGS_HEAD_BYTES",
        default_value = "16KiB",
        value_name = "SIZE"
    )]
    pub(super) head_bytes: String,

    /// Bytes of a request's body: the data of an event is at most 256 KiB, and JSON may escape it
    #[arg(
        long,
        env = "TIDINGS_BODY_BYTES",
        default_value = "512KiB",
        value_name = "SIZE"
    )]
    pub(super) body_bytes: String,

    /// Events of one page of a sync, at most
    #[arg(
        long,
        env = "TIDINGS_SYNC_PAGE",
        default_value = "1000",
        value_name = "COUNT"
    )]
    pub(super) sync_page: String,

    /// Database sessions for sync, replay and publishing: a few are faster than many
    #[arg(
        long,
        env = "TIDINGS_POOL_SIZE",
        default_value = "8",
        value_name = "COUNT"
    )]
    pub(super) pool_size: String,

    /// How long a request waits for a database session before it is told to come back
    #[arg(
        long,
        env = "TIDINGS_POOL_WAIT",
        default_value = "1s",
        value_name = "TIME"
    )]
    pub(super) pool_wait: String,

    /// How long the statements of a sync may take, all together
    #[arg(
        long,
        env = "TIDINGS_STATEMENT_TIMEOUT",
        default_value = "5s",
        value_name = "TIME"
    )]
    pub(super) statement_timeout: String,

    /// Events that a stream is sent to catch up; beyond, it is sent to sync, which has pages
    #[arg(
        long,
        env = "TIDINGS_REPLAY",
        default_value = "1000",
        value_name = "COUNT"
    )]
    pub(super) replay: String,

    /// Bytes of the newest events kept in memory, so that reconnects need no database [default: 64MiB, a sixteenth of less than 1 GiB]
    #[arg(long, env = "TIDINGS_WINDOW_BYTES", value_name = "SIZE")]
    pub(super) window_bytes: Option<String>,

    /// How long a stop may take; streams are closed over the first half of it
    #[arg(
        long,
        env = "TIDINGS_DRAIN",
        default_value = "20s",
        value_name = "TIME"
    )]
    pub(super) drain: String,

    /// The mean time between heartbeats, which keep proxies from closing: most do so after 60 s
    #[arg(
        long,
        env = "TIDINGS_HEARTBEAT",
        default_value = "20s",
        value_name = "TIME"
    )]
    pub(super) heartbeat: String,
}
