//! The directory that a private Postgres lives in: whose it is, and what lies beside the data.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::cluster::Access;
use super::error::{ClusterError, io_error};
use super::user::{self, User};

/// The directory of the cluster, which the server's user can enter but not list.
pub(super) fn make_home(
    wanted: Option<&Path>,
    user: Option<&User>,
) -> Result<PathBuf, ClusterError> {
    let directory = match wanted {
        Some(directory) => directory.to_owned(),
        None => {
            let name = format!("tidings-{}-{:08x}", std::process::id(), fastrand::u32(..));
            std::env::temp_dir().join(name)
        }
    };
    let new = !directory.exists();
    if new {
        make_directory(&directory, if user.is_some() { 0o711 } else { 0o700 })?;
    }
    // The watchdog knows the server by this path, so it is one without links.
    let directory = directory
        .canonicalize()
        .map_err(io_error("data directory"))?;
    if let Some(user) = user
        && let Some(parent) = user::closed_parent(&directory, user)
    {
        if new {
            let _ = fs::remove_dir(&directory);
        }
        let user = user.name.clone();
        return Err(ClusterError::NotTraversable { parent, user });
    }
    Ok(directory)
}

pub(super) fn make_directory(directory: &Path, mode: u32) -> Result<(), ClusterError> {
    let what = || format!("making {}", directory.display());
    fs::create_dir_all(directory)
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(mode)))
        .map_err(|source| ClusterError::Io {
            what: what(),
            source,
        })
}

/// The major version that made the data, or `None` where there is none yet.
pub(super) fn made_by(directory: &Path) -> Option<u32> {
    let version = fs::read_to_string(directory.join("data/PG_VERSION")).ok()?;
    version.trim().parse().ok()
}

/// The password of the cluster, made together with its data. The server's user may read it,
/// since `initdb` does.
pub(super) fn password(
    directory: &Path,
    access: Access,
    user: Option<&User>,
) -> Result<Option<String>, ClusterError> {
    let path = directory.join("password");
    if made_by(directory).is_some() {
        return match fs::read_to_string(&path) {
            Ok(password) => Ok(Some(password.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io_error("reading the password")(error)),
        };
    }
    if access == Access::Trust {
        return Ok(None);
    }
    let password = super::random_hex::<16>();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    (options.open(&path))
        .and_then(|mut file| file.write_all(password.as_bytes()))
        .and_then(|()| give(&path, user))
        .map_err(io_error("keeping the password"))?;
    Ok(Some(password))
}

/// Makes the server's user the owner, when that is not ourselves.
pub(super) fn give(path: &Path, user: Option<&User>) -> io::Result<()> {
    user.map_or(Ok(()), |user| chown(path, Some(user.uid), Some(user.gid)))
}
