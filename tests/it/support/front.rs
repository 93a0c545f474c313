//! Proxies in front of gateways, as `docs/operations.md` configures them, with ports and a certificate of
//! the test's own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::process::Child;

use super::client::PATIENCE;

/// Waits until the program accepts connections; fails when it ends instead.
pub(crate) async fn listens(program: &mut Child, address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = program.try_wait().expect("a child can be asked") {
            panic!("the proxy has ended: {status}; what it says is above");
        }
        assert!(Instant::now() < deadline, "the proxy does not listen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The snippet of this name in `docs/operations.md`; the name begins with its language.
pub(crate) fn snippet(name: &str) -> String {
    snippet_of(include_str!("../../../docs/operations.md"), name)
}

/// The snippet of this name in a page.
pub(crate) fn snippet_of(page: &str, name: &str) -> String {
    let language = name.split('-').next().expect("a name");
    let marker = format!("<!-- snippet: {name} -->\n```{language}\n");
    let (_, rest) = page
        .split_once(&marker)
        .unwrap_or_else(|| panic!("the page has no snippet {name}"));
    let (snippet, _) = rest.split_once("\n```\n").expect("its fence is closed");
    format!("{snippet}\n")
}

/// An address of loopback that nobody listens on.
pub(crate) fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address")
}

/// A directory of one test's own, removed at its end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let name = format!("tidings-proxy-{:016x}", fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory can be made");
        Scratch(path)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file can be written");
        path
    }

    /// Writes a certificate as `.crt`, `.key`, and both as `.pem`; returns the path before the dot.
    pub(crate) fn certificate(&self) -> String {
        let names = vec!["app.example.org".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).expect("a certificate can be made");
        let (certificate, key) = (own.cert.pem(), own.signing_key.serialize_pem());
        self.write("app.crt", &certificate);
        self.write("app.key", &key);
        self.write("app.pem", &format!("{certificate}{key}"));
        self.0.join("app").display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
