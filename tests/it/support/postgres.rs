//! A real Postgres for every test: one cluster per run, a fresh and migrated database per test.
//!
//! The first test starts a private cluster, which ends with this process, also when the process is
//! killed. `TIDINGS_TEST_POSTGRES` names another server to use, as a superuser and without a
//! database (`postgres://postgres@127.0.0.1:5432`): it must allow some hundred connections and
//! prepared transactions, as [`SETTINGS`] do. A database comes from a template that was migrated once, and is dropped with its
//! [`Database`]. Tests that stop or crash a server take an [`own_cluster`].

use std::collections::hash_map::DefaultHasher;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, thread};

use tidings::dev::cluster::{Access, Cluster, ClusterOptions};
use tidings::postgres::migrate::migrate;
use tokio_postgres::{Client, NoTls};

/// Nothing in the cluster of a run outlives it, so nothing there waits for a disk.
const SETTINGS: [(&str, &str); 5] = [
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("max_connections", "500"),
    ("max_prepared_transactions", "64"),
];

/// A database of one test's own. Dropping it drops the database, whoever is connected.
pub(crate) struct Database {
    server: String,
    name: String,
}

/// A fresh database with the schema of tidings.
pub(crate) fn database() -> Database {
    Database::create(shared_server(), Some(shared_template()))
}

/// A fresh database without anything in it, for tests of the migrations themselves.
pub(crate) fn empty_database() -> Database {
    Database::create(shared_server(), None)
}

/// A cluster of the test's own, which it may stop, crash and start again. It keeps the server's
/// own defaults for durability, and `settings` on top.
pub(crate) fn own_cluster(settings: &[(&str, &str)]) -> OwnCluster {
    let options = ClusterOptions {
        directory: None,
        access: Access::Trust,
        settings,
    };
    let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("own cluster: {error}"));
    OwnCluster {
        cluster,
        template: OnceLock::new(),
    }
}

/// See [`own_cluster`]. Its databases must be dropped before it, and are.
pub(crate) struct OwnCluster {
    pub(crate) cluster: Cluster,
    template: OnceLock<String>,
}

impl OwnCluster {
    /// A fresh database with the schema of tidings.
    pub(crate) fn database(&self) -> Database {
        let server = self.cluster.url("");
        let template = self.template.get_or_init(|| make_template(&server));
        Database::create(&server, Some(template))
    }

    /// A fresh database without anything in it.
    pub(crate) fn empty_database(&self) -> Database {
        Database::create(&self.cluster.url(""), None)
    }
}

impl Database {
    /// Where it is, as its superuser.
    pub(crate) fn url(&self) -> String {
        format!("{}{}", self.server, self.name)
    }

    /// Where it is, as another role, which must be allowed to log in.
    pub(crate) fn url_as(&self, role: &str) -> String {
        let (_, host) = self
            .server
            .rsplit_once('@')
            .expect("the server's URL names its user");
        format!("postgres://{role}@{host}{}", self.name)
    }

    /// It is found at this server from now on: a copy of the one where it was made.
    pub(crate) fn move_to(&mut self, server: &OwnCluster) {
        self.server = server.cluster.url("");
    }

    /// Its name, which is unique in the run.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A new session. Its driver ends when the client is dropped.
    pub(crate) async fn connect(&self) -> Client {
        self.try_connect()
            .await
            .unwrap_or_else(|error| panic!("{}: {error}", self.url()))
    }

    /// A new session, or why there is none.
    pub(crate) async fn try_connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&self.url()).await
    }

    fn create(server: &str, template: Option<&str>) -> Database {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        // The server may outlive this process, so that the name must differ between runs too.
        let name = format!(
            "test_{}_{:08x}_{number}",
            std::process::id(),
            fastrand::u32(..)
        );
        let template = template.unwrap_or("template0");
        execute(
            server,
            &format!("CREATE DATABASE {name} TEMPLATE {template}"),
        )
        .unwrap_or_else(|error| panic!("creating {name}: {error:?}"));
        Database {
            server: server.to_owned(),
            name,
        }
    }
}

impl Drop for Database {
    /// A server that the test has stopped takes its databases with it, so that failing is well.
    fn drop(&mut self) {
        let _ = execute(
            &self.server,
            &format!("DROP DATABASE {} WITH (FORCE)", self.name),
        );
    }
}

/// The server of this run, as a URL that ends where the database's name begins.
fn shared_server() -> &'static str {
    static SERVER: OnceLock<(String, Option<Cluster>)> = OnceLock::new();
    let (url, _) = SERVER.get_or_init(|| {
        if let Ok(url) = env::var("TIDINGS_TEST_POSTGRES") {
            return (format!("{}/", url.trim_end_matches('/')), None);
        }
        let options = ClusterOptions {
            directory: None,
            access: Access::Trust,
            settings: &SETTINGS,
        };
        let cluster = Cluster::start(options).unwrap_or_else(|error| panic!("cluster: {error}"));
        (cluster.url(""), Some(cluster))
    });
    url
}

fn shared_template() -> &'static str {
    static TEMPLATE: OnceLock<String> = OnceLock::new();
    TEMPLATE.get_or_init(|| make_template(shared_server()))
}

/// The migrated template, made once per server: its name carries the migrations' hash, so that a
/// server that lives longer than a run never hands out an old schema.
fn make_template(server: &str) -> String {
    let name = format!("tidings_template_{:016x}", migrations());
    block_on(async {
        let admin = connect(&format!("{server}postgres")).await?;
        // Several test processes may begin at once.
        admin
            .execute("SELECT pg_advisory_lock(hashtext('tidings_template'))", &[])
            .await?;
        let ready = "SELECT FROM pg_database WHERE datname = $1 AND datistemplate";
        if admin.query_opt(ready, &[&name]).await?.is_none() {
            admin
                .batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                .await?;
            admin
                .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))
                .await?;
            let mut client = connect(&format!("{server}{name}")).await?;
            migrate(&mut client)
                .await
                .unwrap_or_else(|error| panic!("migrating: {error:?}"));
            drop(client);
            // Nobody may connect, since a template with sessions cannot be copied.
            let done = format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false");
            admin.batch_execute(&done).await?;
        }
        Ok::<_, tokio_postgres::Error>(())
    })
    .unwrap_or_else(|error| panic!("the template could not be made: {error:?}"));
    name
}

/// A hash over the migrations, in order.
fn migrations() -> u64 {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let entries = fs::read_dir(&directory).expect("the migrations are in sql/");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    let mut hasher = DefaultHasher::new();
    for path in files {
        fs::read_to_string(&path)
            .expect("a migration can be read")
            .hash(&mut hasher);
    }
    hasher.finish()
}

async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn execute(server: &str, statement: &str) -> Result<(), tokio_postgres::Error> {
    block_on(async {
        let client = connect(&format!("{server}postgres")).await?;
        client.batch_execute(statement).await
    })
}

/// Runs to the end, also from inside a test's runtime, by a runtime on a thread of its own.
fn block_on<T: Send>(work: impl Future<Output = T> + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be built")
                .block_on(work)
        });
        worker.join().expect("the worker does not panic")
    })
}
