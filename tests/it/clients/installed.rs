//! What the clients need besides their programs: packages of npm and PyPI at the versions of the files beside
//! this one, and a program of a crate of its own. All of it is made once, below cargo's target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use crate::support::program;

/// The sources of the clients.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/clients");

/// The directory `node_modules` with the packages of `package-lock.json`, where npm is there.
pub(crate) async fn node_modules() -> Option<PathBuf> {
    let npm = program(&["npm"], "npm")?;
    let place = installed(
        "npm",
        &["package.json", "package-lock.json", ".npmrc"],
        |place| {
            run(Command::new(&npm)
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(place));
        },
    );
    Some(place.await.join("node_modules"))
}

/// A Python with the packages of `requirements.txt`, where one is there.
pub(crate) async fn python() -> Option<PathBuf> {
    let python = program(&["python3"], "python3-venv")?;
    let place = installed("python", &["requirements.txt"], |place| {
        run(Command::new(&python)
            .args(["-m", "venv", "--clear"])
            .arg(place.join("venv")));
        run(Command::new(place.join("venv/bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--requirement",
            ])
            .arg(place.join("requirements.txt")));
    });
    Some(place.await.join("venv/bin/python"))
}

/// The program of the crate in `rust/` with this snippet in it, where the toolchain is new enough for it.
pub(crate) async fn rust(snippet: &str) -> Option<PathBuf> {
    let manifest = Path::new(SOURCES).join("rust/Cargo.toml");
    if !is_new_enough(&manifest) {
        let old = "the Rust toolchain is too old for the Rust client";
        let demanded = std::env::var("TIDINGS_TEST_PROGRAMS").is_ok_and(|wish| wish == "all");
        assert!(!demanded, "{old}");
        eprintln!("skipped: {old}");
        return None;
    }
    let place = place("rust");
    let path = place.join("snippet.rs");
    let _lock = lock(&place).await;
    // Unchanged, it is not to be built again.
    if fs::read_to_string(&path).ok().as_deref() != Some(snippet) {
        fs::write(&path, snippet).expect("a file can be written");
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("it is in the target directory");
    run(Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .env("SNIPPET", path));
    Some(target.join("debug/tidings-clients"))
}

/// Whether the compiler is at least what this manifest asks for.
fn is_new_enough(manifest: &Path) -> bool {
    let minor = |text: &str, before: &str| {
        let (_, rest) = text.split_once(before).expect("a version of Rust");
        let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
        minor.parse::<u32>().expect("a number")
    };
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let version =
        String::from_utf8_lossy(&output.expect("there is a compiler").stdout).into_owned();
    let manifest = fs::read_to_string(manifest).expect("it is in the sources");
    minor(&version, "rustc 1.") >= minor(&manifest, "rust-version = \"1.")
}

/// The directory of this name in which `install` has found copies of these files and done its work, now or
/// in an earlier run.
async fn installed(name: &str, files: &[&str], install: impl FnOnce(&Path)) -> PathBuf {
    let place = place(name);
    let _lock = lock(&place).await;
    let texts: Vec<String> = files
        .iter()
        .map(|file| {
            fs::read_to_string(Path::new(SOURCES).join(file)).expect("it is in the sources")
        })
        .collect();
    let done = place.join("done");
    if fs::read_to_string(&done).ok() != Some(texts.concat()) {
        for (file, text) in files.iter().zip(&texts) {
            fs::write(place.join(file), text).expect("a file can be written");
        }
        install(&place);
        fs::write(&done, texts.concat()).expect("a file can be written");
    }
    place
}

fn place(name: &str) -> PathBuf {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("clients")
        .join(name);
    fs::create_dir_all(&place).expect("a directory can be made");
    place
}

/// One test of one run at a time installs; whoever waits finds it done.
async fn lock(place: &Path) -> File {
    let file = File::create(place.join("lock")).expect("a file can be made");
    let locked = tokio::task::spawn_blocking(move || {
        flock(&file, FlockOperation::LockExclusive).map(|()| file)
    });
    locked
        .await
        .expect("waiting does not panic")
        .expect("it can be locked")
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
}
