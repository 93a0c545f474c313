//! Backends of the rig's own server, by the names of their sessions: terminated, as an administrator
//! does it, or killed, as the kernel does it when memory is short.

use std::fs;
use std::process::Command;
use std::time::Duration;

use tidings::dev::cluster::Cluster;
use tokio::time::sleep;
use tokio_postgres::Client;

use super::Rig;

impl Rig<'_> {
    /// Terminates every session of this name, and tells how many there were.
    pub(crate) async fn terminate(&self, name: &str) -> u64 {
        self.fault(&format!("all sessions of {name} are terminated"));
        let client = self.session().await;
        let terminate = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                         where application_name = $1 and datname = current_database()";
        let row = client.query_one(terminate, &[&name]).await;
        let count: i64 = row.expect("terminates").get(0);
        count as u64
    }

    /// Kills one backend of a publisher; Postgres then recovers as from a crash, without a new postmaster.
    pub(crate) async fn kill_backend(&mut self) {
        self.kill_backend_of("").await;
    }

    /// Kills one backend whose session has this name.
    pub(crate) async fn kill_backend_of(&mut self, name: &str) {
        self.fault(&format!("a backend of '{name}' is killed"));
        let client = self.session().await;
        kill_backend(&self.server.cluster, client, name).await;
    }
}

/// Kills one backend whose session has this name, and waits until the server has noticed: the session by
/// which it was found ends with all others.
pub(crate) async fn kill_backend(cluster: &Cluster, client: Client, name: &str) {
    let question = "select pid from pg_stat_activity
        where backend_type = 'client backend' and application_name = $1 and pid <> pg_backend_pid()
        limit 1";
    let found = async {
        loop {
            let row = client.query_opt(question, &[&name]).await;
            if let Some(row) = row.expect("the sessions") {
                return row.get::<_, i32>(0);
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(15), found).await;
    let pid = found.unwrap_or_else(|_| panic!("no session of '{name}'"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux tells");
    let postmaster = cluster.pid().expect("it runs");
    let parent = format!("PPid:\t{postmaster}\n");
    assert!(status.contains(&parent), "not of this server: {status}");
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("kill runs").success());
    while client.simple_query("select").await.is_ok() {
        sleep(Duration::from_millis(1)).await;
    }
}
