//! A server of pages on `http://localhost`, from where a browser visits the gateway as another origin.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The server; dropping it ends it.
pub(crate) struct Pages {
    origin: String,
    listener: Option<TcpListener>,
    task: Option<AbortHandle>,
}

/// A page, made anew for each visit.
pub(crate) type Page = Box<dyn Fn() -> String + Send + Sync>;

/// What it serves.
struct Shelf {
    /// Pages by their paths.
    pages: BTreeMap<&'static str, Page>,
    /// Where packages are found, below `/modules/`.
    modules: PathBuf,
}

impl Pages {
    /// A place for pages: its origin is known before they are.
    pub(crate) async fn bind() -> Pages {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let port = listener.local_addr().expect("an address").port();
        Pages {
            origin: format!("http://localhost:{port}"),
            listener: Some(listener),
            task: None,
        }
    }

    /// The origin of the pages, without a slash at its end.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// Begins to serve these pages, by their paths, and the packages below this directory.
    pub(crate) fn serve<const N: usize>(
        &mut self,
        pages: [(&'static str, Page); N],
        modules: PathBuf,
    ) {
        let shelf = Arc::new(Shelf {
            pages: pages.into(),
            modules,
        });
        let listener = self.listener.take().expect("it serves once");
        let accept = async move {
            let mut visits = JoinSet::new();
            while let Ok((visitor, _)) = listener.accept().await {
                visits.spawn(answer(visitor, shelf.clone()));
            }
        };
        self.task = Some(tokio::spawn(accept).abort_handle());
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn answer(mut visitor: TcpStream, shelf: Arc<Shelf>) -> Option<()> {
    let mut lines = BufReader::new(&mut visitor).lines();
    let request = lines.next_line().await.ok()??;
    while !lines.next_line().await.ok()??.is_empty() {}
    let path = request.split(' ').nth(1)?;
    let found = match path.strip_prefix("/modules/") {
        // Packages name their own files without an ending.
        Some(module) => {
            let mut file = shelf.modules.join(module);
            if file.extension().is_none() {
                file.set_extension("js");
            }
            let text = std::fs::read_to_string(file).ok();
            text.map(|text| ("text/javascript", text))
        }
        None => shelf.pages.get(path).map(|page| ("text/html", page())),
    };
    let (status, kind, text) = match found {
        Some((kind, text)) => ("200 OK", kind, text),
        None => ("404 Not Found", "text/plain", String::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}; charset=utf-8\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        text.len()
    );
    visitor.write_all(head.as_bytes()).await.ok()?;
    visitor.write_all(text.as_bytes()).await.ok()
}
