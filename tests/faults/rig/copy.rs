//! A copy of the server's data, and its return: what happens to those who restore a backup over a
//! database that has gone on.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidings::dev::cluster::StopMode;
use tokio::task::block_in_place;

use super::Rig;

impl Rig<'_> {
    /// Stops the server, copies its data, and starts it again.
    pub(crate) async fn copy_postgres(&mut self) -> PathBuf {
        self.fault("postgres is stopped and copied");
        let data = self.server.cluster.data();
        let copy = data.with_file_name("copy");
        self.while_stopped(StopMode::Fast, || duplicate(&data, &copy));
        copy
    }

    /// Stops the server, puts the copy into the place of its data, and starts it again.
    pub(crate) async fn restore_postgres(&mut self, copy: &Path) {
        self.fault("postgres is stopped and restored from the copy");
        let data = self.server.cluster.data();
        self.while_stopped(StopMode::Immediate, || {
            std::fs::remove_dir_all(&data).expect("it can be removed");
            duplicate(copy, &data);
        });
    }

    fn while_stopped(&mut self, mode: StopMode, act: impl FnOnce()) {
        block_in_place(|| {
            let cluster = &mut self.server.cluster;
            cluster.stop(mode).expect("it stops");
            act();
            cluster.start_again().expect("it starts again");
        });
    }
}

/// A copy with owners and rights as they are.
fn duplicate(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}
