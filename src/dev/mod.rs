//! What a developer's machine needs beside the gateway: a private Postgres of its own.

mod binaries;
pub mod cluster;
mod error;
mod home;
mod user;
mod watchdog;

pub use binaries::BinariesError;

/// `N` random bytes as text, for passwords and secrets.
fn random_hex<const N: usize>() -> String {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
