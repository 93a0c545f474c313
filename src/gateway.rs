//! The gateway: builds the parts, owns their tasks, and owns the order in which they end.

mod prepare;
mod relief;
mod upkeep;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::auth::Authority;
use crate::config::{Config, Limits, Shares};
use crate::frame::Bye;
use crate::http::accept::{self, Closing};
use crate::http::ops::Ops;
use crate::http::route::{App, Pages};
use crate::http::{accept::Bounds as AcceptBounds, route};
use crate::hub::{Budget, Directory, Shard, ShardHandle, Wakes, Window};
use crate::hub::{Command, Timing};
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::postgres::migrate::MigrateError;
use crate::postgres::{Bell, ConnectError, Database, Listener};
use crate::relay::attach::Bounds;
use crate::relay::pace::Pace;
use crate::relay::{Look, Relay, Rhythm, Signals, Status, Turns};
use relief::Relief;

/// Connections that may wait to be accepted; the system bounds it further (`net.core.somaxconn`).
const BACKLOG: u32 = 4096;

/// Messages with content that may wait between hearing and sending.
const MESSAGES: usize = 4096;

/// How long a stream that needs the database is held while that is away: as long as a client
/// would take to come back twice.
const HOLD: Duration = Duration::from_secs(15);

/// Shards at most.
const SHARDS: usize = 16;

/// How long load balancers have to see that the gateway is not ready before it stops accepting,
/// at most; a tenth of the drain time when that is less.
const GRACE_MAX: Duration = Duration::from_secs(2);

/// Connections of the operations listener: probes and a scraper or two.
const OPS_CONNECTIONS: usize = 64;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The system gives no poller for sockets.
    #[error("cannot wait for sockets; are descriptors used up?")]
    Poller(#[source] std::io::Error),
    /// The address of the database is not usable.
    #[error(transparent)]
    Database(ConnectError),
    /// The schema is not as it must be.
    #[error(transparent)]
    Schema(MigrateError),
    /// The token settings contradict each other.
    #[error("{}", .0.join("\n"))]
    Tokens(Vec<String>),
}

/// A gateway that runs.
pub struct Gateway {
    address: SocketAddr,
    ops_address: SocketAddr,
    shards: Vec<ShardHandle>,
    draining: Arc<AtomicBool>,
    drain: Duration,
    status: Arc<Status>,
    clients: Closing,
    operators: Closing,
    /// Ends everything that is not a connection.
    parts: CancellationToken,
    doors: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Gateway {
    /// Starts a gateway; waits for the database as long as it takes to be there. `pages` answers
    /// what the gateway itself has no route for.
    pub async fn start(config: Config, pages: Option<Pages>) -> Result<Self, StartError> {
        let database = Database::parse(&config.database_url).map_err(StartError::Database)?;
        let authority = Authority::new(config.auth.clone()).map_err(StartError::Tokens)?;
        let authority = Arc::new(authority);
        let (door, ops_door) = (bind(config.listen)?, bind(config.ops_listen)?);
        let (limits, shares) = (config.limits.clone(), config.shares);
        if let Some(memory) = &config.memory {
            warn_of_little(memory, &limits, &shares);
        }

        let metrics = Arc::new(Metrics::new());
        let status = Arc::new(Status::default());
        let budget = Arc::new(Budget::default());
        let draining = Arc::new(AtomicBool::new(false));
        let parts = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let mut doors = JoinSet::new();

        // Operators are answered first: a gateway that waits for its database is alive.
        let ops = Ops {
            metrics: metrics.clone(),
            status: status.clone(),
            budget: budget.clone(),
            draining: draining.clone(),
        };
        let gateway_address = local_address(&door, config.listen)?;
        let ops_address = local_address(&ops_door, config.ops_listen)?;
        let ops_listener = listen(ops_door, config.ops_listen)?;
        let bounds = AcceptBounds {
            connections: limits.connections(),
            head_timeout: limits.head_timeout,
            head_bytes: limits.head_bytes,
            write_timeout: limits.write_timeout,
            h2_streams: limits.h2_streams,
            direct: config.direct.then(|| metrics.streams("direct")),
            spared: metrics.connections_spared.clone(),
        };
        let ops_bounds = AcceptBounds {
            direct: None,
            connections: OPS_CONNECTIONS,
            ..bounds.clone()
        };
        let (clients, operators) = (Closing::default(), Closing::default());
        let closing = operators.clone();
        tasks.spawn(accept::serve(
            ops_listener,
            Arc::new(ops),
            ops_bounds,
            closing,
        ));

        prepare::prepare(&database, config.migrate, &authority).await?;

        let timing = Timing {
            heartbeat: limits.heartbeat,
            stream_age: limits.stream_age,
            write_timeout: limits.write_timeout,
            queue_bytes: limits.queue_bytes,
        };
        let wakes = Arc::new(Wakes::default());
        let mut shards = Vec::new();
        // One for each core: more would only take turns. Every event is told to all of them, though.
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        for _ in 0..cores.min(SHARDS) {
            let timing = timing.clone();
            let shard = Shard::new(timing, budget.clone(), wakes.clone(), metrics.clone());
            let (shard, handle) = shard.map_err(StartError::Poller)?;
            tasks.spawn_blocking(move || shard.run());
            shards.push(handle);
        }
        let waking = parts.clone();
        tasks.spawn(async move {
            waking.run_until_cancelled(wakes.run()).await;
        });
        let window = Arc::new(Window::new(limits.window_bytes));
        let pool = database.pool(limits.pool_size, limits.pool_wait, limits.statement_timeout);
        let at_once = (limits.pool_size / 2).clamp(1, shares.turns);
        let turns = Turns::new(at_once, limits.pool_wait, shares.replays, shares.answers);
        let (relay, arrivals) = Relay::new(
            window.clone(),
            pool.clone(),
            turns.clone(),
            metrics.clone(),
            status.clone(),
            Bounds {
                stream_queue_bytes: limits.stream_queue_bytes,
                replay_events: limits.replay,
                statement_timeout: limits.statement_timeout,
                hold: HOLD,
                page_bytes: shares.page,
            },
        );
        let bell = Arc::new(Bell::default());
        let look = Look::new(
            database.clone(),
            shares.page,
            Rhythm {
                every: config.look_every,
                awake: config.awake,
                awake_for: config.awake_for,
            },
            bell.clone(),
            arrivals,
            Pace::new(shards.clone(), budget.clone(), limits.stream_queue_bytes),
            window.clone(),
            metrics.clone(),
            status.clone(),
            draining.clone(),
            parts.clone(),
        );
        tasks.spawn(look.run());
        let (messages, heard) = mpsc::channel(MESSAGES);
        let channels: BTreeSet<String> = config
            .channels
            .iter()
            .map(|rule| rule.channel().to_owned())
            .collect();
        let listening = Listener::new(database.clone(), channels, bell, messages, metrics.clone());
        tasks.spawn(listening.run(parts.clone()));
        let signals = Signals::new(
            heard,
            config.channels.clone(),
            shards.clone(),
            budget.clone(),
            metrics.clone(),
        );
        tasks.spawn(signals.run());
        tasks.spawn(upkeep::maintain(database, config.retention, parts.clone()));

        let directory = Directory::new(
            limits.streams,
            limits.streams_per_user,
            limits.anonymous_per_address,
        );
        tasks.spawn(upkeep::reap(
            directory.clone(),
            limits.write_timeout,
            metrics.clone(),
            parts.clone(),
        ));
        if let Some(memory) = config.memory {
            let relief = Relief {
                memory,
                directory: directory.clone(),
                window,
                shards: shards.clone(),
                budget,
                metrics: metrics.clone(),
            };
            tasks.spawn(relief.run(parts.clone()));
        }
        let app = App {
            authority,
            origins: config.cors_origins.clone(),
            trusted_proxies: config.trusted_proxies.clone(),
            directory,
            relay,
            metrics,
            limits: route::Limits {
                topics_per_stream: limits.topics_per_stream,
                sync_page: limits.sync_page,
                statement_timeout: limits.statement_timeout,
                body_bytes: limits.body_bytes,
                // A body has as long as a head.
                body_timeout: limits.head_timeout,
            },
            pages,
        };
        // Only now can anybody connect: until the database is there, proxies are to go elsewhere.
        let listener = listen(door, config.listen)?;
        let closing = clients.clone();
        doors.spawn(accept::serve(listener, Arc::new(app), bounds, closing));
        tracing::info!(
            address = %gateway_address,
            operations = %ops_address,
            streams = limits.streams,
            "gateway started"
        );
        Ok(Self {
            address: gateway_address,
            ops_address,
            shards,
            draining,
            drain: limits.drain,
            status,
            clients,
            operators,
            parts,
            doors,
            tasks,
        })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are.
    pub fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Waits until the gateway has read the log, from when on it is ready.
    pub async fn ready(&self) {
        self.status.looked().await;
    }

    /// Resolves when a part has ended that never should, which is a fault of ours.
    pub async fn failed(&mut self) {
        let ended = tokio::select! {
            Some(ended) = self.tasks.join_next() => ended,
            Some(ended) = self.doors.join_next() => ended,
        };
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the gateway has failed");
        }
    }

    /// Goes away in order: not ready, then no new connections, then each stream told, spread over
    /// half of the drain time, then whatever is left is cut at its end.
    pub async fn drain(mut self) {
        let deadline = tokio::time::Instant::now() + self.drain;
        self.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(GRACE_MAX.min(self.drain / 10)).await;
        self.clients.graceful.cancel();
        self.tell(|| Command::Drain(self.drain / 2)).await;
        let ended = tokio::time::timeout_at(deadline, self.doors.join_next()).await;
        if ended.is_err() {
            tracing::warn!("connections outlived the drain time and were cut");
        }
        self.stop().await;
    }

    /// Tells every shard.
    async fn tell(&self, command: impl Fn() -> Command) {
        for shard in &self.shards {
            // It has gone only if it has failed, and then there is nobody to tell.
            let _ = shard.send(command()).await;
        }
    }

    /// Ends at once; clients resume by their cursors.
    pub async fn stop(mut self) {
        self.clients.graceful.cancel();
        self.clients.hard.cancel();
        self.tell(|| Command::Close).await;
        while self.doors.join_next().await.is_some() {}
        // Nobody is left who hears it; it frees what still waits.
        self.tell(|| Command::EndAll(Bye::Drain)).await;
        self.shards.clear();
        self.parts.cancel();
        self.operators.graceful.cancel();
        self.operators.hard.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Says when the settings promise more than there is: then streams will be shed long before their bounds.
fn warn_of_little(memory: &Memory, limits: &Limits, shares: &Shares) {
    let needed = shares.with_streams(limits.streams, memory.bytes());
    if needed > memory.bytes() {
        tracing::warn!(
            needed,
            bound = memory.bytes(),
            streams = limits.streams,
            queue_bytes = limits.queue_bytes,
            window_bytes = limits.window_bytes,
            "the limits allow for more memory than there is: set them lower, or give it more"
        );
    }
}

/// Takes an address, without anybody being able to connect yet.
fn bind(address: SocketAddr) -> Result<TcpSocket, StartError> {
    let bound = || {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart need not wait for the connections of the process before it to be forgotten. Any free port
        // is another matter: it would be shared with whoever else has bound it and does not listen yet.
        socket.set_reuseaddr(address.port() != 0)?;
        socket.bind(address)?;
        Ok(socket)
    };
    bound().map_err(|source| StartError::Listen { address, source })
}

/// Opens it.
fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, StartError> {
    let listener = socket.listen(BACKLOG);
    listener.map_err(|source| StartError::Listen { address, source })
}

fn local_address(listener: &TcpSocket, address: SocketAddr) -> Result<SocketAddr, StartError> {
    let local = listener.local_addr();
    local.map_err(|source| StartError::Listen { address, source })
}
