//! Finds the server binaries of an installed Postgres.
//!
//! Distributions keep `initdb` and `postgres` away from the search path, each in a place of its
//! own; this file knows these places, takes the newest server that tidings supports (or the one
//! that fits a directory made earlier), and says how to install one where there is none. It
//! starts nothing but `postgres --version` and `pg_config --bindir`.

use std::{
    cmp::Reverse,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The oldest server whose snapshots and functions tidings was built on.
const OLDEST_MAJOR: u32 = 15;

/// One installed server: the directory of its programs and its major version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Binaries {
    directory: PathBuf,
    major: u32,
}

/// Why no server binaries could be used.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// `PGBIN` is set, so nowhere else was looked.
    #[error("PGBIN={} holds no usable Postgres server (version {OLDEST_MAJOR} or newer)", .0.display())]
    NotInPgbin(PathBuf),
    /// Nothing is installed, or only servers that are too old.
    #[error(
        "no Postgres server binaries (version {OLDEST_MAJOR} or newer) were found{}.\n\
         Install them:\n  \
         Debian, Ubuntu:  sudo apt-get install postgresql\n  \
         Fedora:          sudo dnf install postgresql-server\n  \
         macOS:           brew install postgresql@17\n\
         or set PGBIN to the directory that holds `initdb` and `postgres`",
        too_old(.found)
    )]
    NotFound {
        /// The major versions of servers that were found but are too old.
        found: Vec<u32>,
    },
    /// The directory was made by a server version that is not installed any more.
    #[error(
        "the data in this directory was made by Postgres {wanted}, and only {} is installed; \
         install Postgres {wanted} again, or choose a new directory",
        list(.found)
    )]
    OtherVersion {
        /// The version that made the directory.
        wanted: u32,
        /// The versions that are installed.
        found: Vec<u32>,
    },
}

impl Binaries {
    /// The newest usable server, or the one of major version `wanted`, which a directory that
    /// was made earlier asks for. `PGBIN` is an explicit wish and is obeyed alone.
    pub(super) fn find(wanted: Option<u32>) -> Result<Binaries, BinariesError> {
        let pgbin = env::var_os("PGBIN").map(PathBuf::from);
        let places = pgbin.clone().map_or_else(places, |place| vec![place]);
        let installed: Vec<Binaries> = places.into_iter().filter_map(probe).collect();
        match (choose(&installed, wanted), pgbin) {
            (Some(chosen), _) => Ok(chosen.clone()),
            (None, Some(pgbin)) if usable(&installed).next().is_none() => {
                Err(BinariesError::NotInPgbin(pgbin))
            }
            (None, _) => {
                let mut found: Vec<u32> = installed.iter().map(|server| server.major).collect();
                found.dedup();
                Err(match wanted {
                    Some(wanted) if usable(&installed).next().is_some() => {
                        BinariesError::OtherVersion { wanted, found }
                    }
                    _ => BinariesError::NotFound { found },
                })
            }
        }
    }

    /// Where a program of this server lies, for example `initdb`. Where only some are linked into the
    /// search path, the others lie where those links lead.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        let near = self.directory.join(name);
        let home = fs::canonicalize(self.directory.join("postgres"));
        let beside = home.map_or_else(|_| near.clone(), |postgres| postgres.with_file_name(name));
        if near.is_file() || !beside.is_file() {
            near
        } else {
            beside
        }
    }
}

/// Keeps the order of the places, so that a server on the search path wins over a newer one that
/// merely lies on the disk.
fn choose(installed: &[Binaries], wanted: Option<u32>) -> Option<&Binaries> {
    usable(installed).find(|server| wanted.is_none_or(|wanted| server.major == wanted))
}

fn usable(installed: &[Binaries]) -> impl Iterator<Item = &Binaries> {
    installed
        .iter()
        .filter(|server| server.major >= OLDEST_MAJOR)
}

/// Every directory worth a look, the most deliberate choice first.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = env::var_os("PATH")
        .map(|path| env::split_paths(&path).collect())
        .unwrap_or_default();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    places.extend(versioned("/usr/lib/postgresql", "", "bin"));
    places.extend(versioned("/usr", "pgsql-", "bin"));
    for prefix in [
        "/opt/homebrew/opt",
        "/usr/local/opt",
        "/home/linuxbrew/.linuxbrew/opt",
    ] {
        places.extend(versioned(prefix, "postgresql@", "bin"));
        places.push(Path::new(prefix).join("postgresql/bin"));
    }
    places
}

/// The directories `<parent>/<prefix><number>/<child>`, the highest number first.
fn versioned(parent: &str, prefix: &str, child: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let number = entry
                .file_name()
                .to_str()?
                .strip_prefix(prefix)?
                .parse()
                .ok()?;
            Some((number, entry.path().join(child)))
        })
        .collect();
    found.sort_by_key(|(number, _)| Reverse(*number));
    found.into_iter().map(|(_, place)| place).collect()
}

/// A directory counts as a server only when both programs are there and the server runs.
fn probe(directory: PathBuf) -> Option<Binaries> {
    if !directory.join("initdb").is_file() {
        return None;
    }
    let output = Command::new(directory.join("postgres"))
        .arg("--version")
        .output()
        .ok()?;
    let major = major_of(&String::from_utf8_lossy(&output.stdout))?;
    Some(Binaries { directory, major })
}

/// `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)` and `… 18beta2` name their major
/// version first after the closing parenthesis.
fn major_of(version: &str) -> Option<u32> {
    let rest = version.split_once("(PostgreSQL)")?.1.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn too_old(found: &[u32]) -> String {
    if found.is_empty() {
        String::new()
    } else {
        format!("; too old: {}", list(found))
    }
}

fn list(found: &[u32]) -> String {
    found
        .iter()
        .map(u32::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(major: u32) -> Binaries {
        Binaries {
            directory: format!("/opt/{major}").into(),
            major,
        }
    }

    #[test]
    fn versions_are_read_from_every_distribution() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 17.2\n"), Some(17));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta2\n"), Some(18));
        assert_eq!(major_of("sh: postgres: not found\n"), None);
    }

    #[test]
    fn a_new_directory_takes_the_first_usable_server_and_an_old_one_takes_its_own() {
        let installed = [server(13), server(17), server(15)];
        assert_eq!(choose(&installed, None), Some(&server(17)));
        assert_eq!(choose(&installed, Some(15)), Some(&server(15)));
        assert_eq!(choose(&installed, Some(16)), None);
        assert_eq!(choose(&installed[..1], None), None);
    }

    #[test]
    fn the_message_names_the_install_command_of_each_system() {
        let message = BinariesError::NotFound { found: vec![13] }.to_string();
        for part in [
            "apt-get install postgresql",
            "dnf install",
            "brew install",
            "too old: 13",
        ] {
            assert!(message.contains(part), "{part:?} is missing in {message}");
        }
    }
}
