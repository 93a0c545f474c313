//! Runs a snippet of `docs/clients.md` on every route of the command line, and prints what it hears.

use std::io::{Read, Write};

mod bare;
mod snippet {
    // The test takes it out of the page, and says here where it has put it.
    include!(env!("SNIPPET"));
}

#[tokio::main]
async fn main() {
    let routes: Vec<String> = std::env::args().skip(1).collect();
    for route in routes.chunks_exact(3) {
        let [name, url, token] = [0, 1, 2].map(|at| route[at].clone());
        tokio::spawn(async move {
            let hear = |kind: &str, data: &str| {
                // The data goes out as it came: if that is no JSON, neither is the line.
                let line =
                    format!("{{\"route\":\"{name}\",\"kind\":\"{kind}\",\"data\":{data}}}\n");
                std::io::stdout()
                    .write_all(line.as_bytes())
                    .expect("it is read");
            };
            match name.as_str() {
                "bare" => bare::follow(&url, &token, hear).await.expect("it goes on"),
                _ => snippet::follow(&url, &token, hear)
                    .await
                    .expect("it goes on"),
            }
            println!("{name} has ended");
        });
    }
    let input = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = input.await;
    std::process::exit(0);
}
