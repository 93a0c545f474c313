//! A standby of the rig's server, and what a failover does with it: it streams through a proxy of its
//! own, so that replication can be cut, and takes the primary's place.

use std::fs;

use tidings::dev::cluster::StopMode;
use tokio::task::block_in_place;

use super::{Rig, SETTINGS};
use crate::support::backend::until;
use crate::support::postgres::{OwnCluster, own_cluster};
use crate::support::proxy::Proxy;

/// Where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

/// A server that follows the rig's.
pub(crate) struct Standby {
    replication: Proxy,
    pub(crate) server: OwnCluster,
}

impl Standby {
    /// Nothing of the primary reaches it any more.
    pub(crate) fn cut_off(&self) {
        self.replication.lead_to(NOWHERE);
        self.replication.cut();
    }
}

impl Rig<'_> {
    /// A standby, by `pg_basebackup -R`, which streams when this returns.
    pub(crate) async fn standby(&self) -> Standby {
        let replication = Proxy::start(&self.database).await;
        let logged = [("log_connections", "on")];
        let settings = [&SETTINGS[..], self.plan.settings, &logged].concat();
        let server = block_in_place(|| {
            let mut server = own_cluster(&settings);
            server.cluster.stop(StopMode::Fast).expect("it stops");
            base_backup(&server, replication.url());
            server.cluster.start_again().expect("a standby starts");
            server
        });
        let streams = "select exists (select from pg_stat_replication where state = 'streaming')";
        until(&self.session().await, streams).await;
        Standby {
            replication,
            server,
        }
    }

    /// Stops the server; whoever is led elsewhere finds the database there.
    pub(crate) async fn stop_postgres(&mut self, mode: StopMode) {
        self.fault(&format!("postgres stops, {mode:?}"));
        let stopped = block_in_place(|| self.server.cluster.stop(mode));
        stopped.expect("it stops");
    }

    /// From now on the gateways reach this server, by the proxy, and so do publishers.
    pub(crate) fn lead_to(&mut self, server: &OwnCluster) {
        self.database.move_to(server);
        self.place.move_to(self.database.url());
        let proxy = self.proxy();
        proxy.lead_to(&format!("127.0.0.1:{}", server.cluster.port()));
        proxy.cut();
    }

    /// The standby becomes the primary, for good.
    pub(crate) async fn promote(&mut self, standby: Standby) {
        self.fault("the standby is promoted");
        let client = self.session().await;
        let promoted = client.query_one("select pg_promote()", &[]).await;
        assert!(promoted.expect("an answer").get::<_, bool>(0));
        self.server = standby.server;
    }
}

/// Puts a copy of the running server at this address into the place of a stopped one's data.
fn base_backup(server: &OwnCluster, url: &str) {
    let data = server.cluster.data();
    // The directory itself stays, since the server's user may not make another beside it.
    for entry in fs::read_dir(&data).expect("it is there").flatten() {
        let is_directory = entry.file_type().expect("a type").is_dir();
        let removed = match is_directory {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        removed.expect("it can be removed");
    }
    let mut command = server.cluster.command("pg_basebackup");
    command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
    command.arg("--pgdata").arg(&data).arg("--dbname").arg(url);
    let output = command.output().expect("pg_basebackup runs");
    assert!(output.status.success(), "{output:?}");
}
