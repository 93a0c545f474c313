//! A program that uses the client, in a process of its own. It answers each line with one of JSON.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::program;

/// How long an answer may take: a machine may be busy, and a browser has to start.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) struct Agent {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Runs a script of `client/test`; `None` where there is no Node.
    pub(super) fn start(script: &str, settings: &Value) -> Option<Agent> {
        let node = program(&["node"], "nodejs")?;
        build(&program(&["npm"], "npm")?);
        let mut child = Command::new(node)
            .arg(package().join("test").join(script))
            .arg(settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs");
        let stdout = child.stdout.take().expect("it is piped");
        Some(Agent {
            stdin: child.stdin.take().expect("it is piped"),
            lines: BufReader::new(stdout).lines(),
            child,
        })
    }

    /// Asks it for something.
    pub(super) async fn ask<T: DeserializeOwned>(&mut self, what: &str) -> T {
        self.stdin
            .write_all(format!("{what}\n").as_bytes())
            .await
            .expect("it listens");
        self.next().await
    }

    /// What it says next.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> T {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        let line = line.expect("it says nothing");
        let line = line.expect("it is read").expect("it has not ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Sends it a signal, by the name that `kill` takes.
    pub(super) async fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &pid]).status().await;
        assert!(sent.expect("kill runs").success());
    }

    /// It ends by itself when it is asked nothing more.
    pub(super) async fn end(mut self) {
        drop(self.stdin);
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let status = ended.expect("in time").expect("it is waited for");
        assert!(status.success(), "{status}");
    }
}

/// Where the client is.
pub(super) fn package() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("client")
}

/// Installs what builds the client, unless it is there, and builds it, once in a run.
pub(super) fn build(npm: &Path) {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let changed = |path: &str| {
            package()
                .join(path)
                .metadata()
                .and_then(|of| of.modified())
                .ok()
        };
        let installed = changed("node_modules/.package-lock.json") >= changed("package-lock.json");
        let steps = [&["ci"][..], &["run", "prepack"]];
        for arguments in &steps[usize::from(installed)..] {
            let done = std::process::Command::new(npm)
                .args(*arguments)
                .current_dir(package())
                .stdin(Stdio::null())
                .output()
                .expect("npm runs");
            assert!(
                done.status.success(),
                "npm {arguments:?}: {}{}",
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr)
            );
        }
    });
}
