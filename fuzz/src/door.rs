//! The gateway's own door on a loopback socket, with everything behind it but a database: what a request
//! meets before that is all here, and what needs it is told that it is away.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tidings::auth::{AuthSettings, Authority, Keys, Origins};
use tidings::http::accept::{self, Bounds, Closing};
use tidings::http::route::{App, Limits};
use tidings::hub::{Directory, Window};
use tidings::metrics::Metrics;
use tidings::postgres::Database;
use tidings::relay::attach::Bounds as RelayBounds;
use tidings::relay::{Relay, Status, Turns};
use tidings::topic::Pattern;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::issuer;

/// How long the door waits for anything that a client leaves unfinished.
const PATIENCE: Duration = Duration::from_secs(2);

/// A door that is open for as long as the process lives. Its requests are answered in the thread that
/// asks, while that waits.
pub(crate) struct Door {
    runtime: Runtime,
    address: SocketAddr,
}

impl Door {
    /// Opens one on a free port.
    pub(crate) fn open() -> Door {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime starts");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("a port is free");
        let address = listener.local_addr().expect("has an address");
        let app = Arc::new(app());
        let bounds = Bounds {
            spared: app.metrics.connections_spared.clone(),
            connections: 64,
            head_timeout: PATIENCE,
            head_bytes: 16 << 10,
            write_timeout: PATIENCE,
            h2_streams: 100,
            direct: Some(app.metrics.streams("direct")),
        };
        runtime.spawn(accept::serve(listener, app, bounds, Closing::default()));
        Door { runtime, address }
    }

    /// Lets a client do something, for so long at most; `None` when that was not enough.
    pub(crate) fn visit<T>(
        &self,
        most: Duration,
        act: impl AsyncFnOnce(TcpStream) -> T,
    ) -> Option<T> {
        let visit = async {
            let socket = TcpStream::connect(self.address).await;
            act(socket.expect("the door is open")).await
        };
        let visit = async { tokio::time::timeout(most, visit).await };
        self.runtime.block_on(visit).ok()
    }
}

fn app() -> App {
    let origins = Origins::parse(["https://app.example.org"]).expect("is an origin");
    let authority = Authority::new(AuthSettings {
        keys: Some(Keys::secret(issuer::SECRET).expect("is a secret")),
        cookie: Some("session".into()),
        origins: origins.clone(),
        public_topics: vec![Pattern::parse("news:*").expect("is a pattern")],
        ..AuthSettings::default()
    });
    let authority = authority.expect("the settings agree");
    authority.accept_tickets(&issuer::TICKETS);
    let metrics = Arc::new(Metrics::new());
    // Nobody listens there, and the system says so at once.
    let database =
        Database::parse("postgres://tidings@127.0.0.1:1/tidings").expect("is an address");
    let pool = database.pool(4, PATIENCE, PATIENCE);
    // Nobody looks: a stream hears that the gateway is going away, which ends it.
    let (relay, _) = Relay::new(
        Arc::new(Window::new(1 << 20)),
        pool,
        Turns::new(2, PATIENCE, 1 << 20, 1 << 20),
        metrics.clone(),
        Arc::new(Status::default()),
        RelayBounds {
            stream_queue_bytes: 1 << 20,
            replay_events: 1000,
            statement_timeout: PATIENCE,
            hold: PATIENCE,
            page_bytes: 1 << 20,
        },
    );
    App {
        authority: Arc::new(authority),
        origins,
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("is a range")],
        directory: Directory::new(64, 20, 20),
        relay,
        metrics,
        limits: Limits {
            topics_per_stream: 50,
            sync_page: 1000,
            statement_timeout: PATIENCE,
            body_bytes: 4 << 10,
            body_timeout: PATIENCE,
        },
        pages: None,
    }
}
