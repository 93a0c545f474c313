//! A headless Chromium, driven from Node by the driver for browsers.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tokio::process::Command;

use super::installed::node_modules;
use crate::support::front::Scratch;
use crate::support::program;

/// A Chromium, and what drives it.
pub(crate) struct Chromium {
    chromium: PathBuf,
    node: PathBuf,
    pub(crate) modules: PathBuf,
    workshop: Scratch,
}

impl Chromium {
    /// Where all of it is there.
    pub(crate) async fn find() -> Option<Chromium> {
        let chromium = program(
            &["chromium", "chromium-browser", "google-chrome"],
            "chromium",
        )?;
        let node = program(&["node"], "nodejs")?;
        let modules = node_modules().await?;
        let workshop = Scratch::new();
        workshop.write("driver.mjs", include_str!("drivers/browser.mjs"));
        symlink(&modules, workshop.0.join("node_modules")).expect("a link can be made");
        Some(Chromium {
            chromium,
            node,
            modules,
            workshop,
        })
    }

    /// A command that opens this page. The page's `tell(route, kind, data)` is heard; its `start(routes)` is
    /// called when there are any.
    pub(crate) fn open(&self, page: &str) -> Command {
        let mut command = Command::new(&self.node);
        command
            .arg(self.workshop.0.join("driver.mjs"))
            .arg(&self.chromium)
            .arg(page);
        command
    }
}
