//! The user that a private Postgres runs as, since it refuses to run as root.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// An unprivileged user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Whom to become before a server is started: nobody when we are unprivileged ourselves, else
/// `postgres`, which the distributions' packages make, else `nobody`. An error when there is
/// neither.
pub(super) fn unprivileged() -> Result<Option<User>, ()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = find(&passwd, "postgres").or_else(|| find(&passwd, "nobody"));
    user.map(Some).ok_or(())
}

/// The first directory on the way to `directory`, itself included, that the user cannot enter.
pub(super) fn closed_parent(directory: &Path, user: &User) -> Option<PathBuf> {
    let mut way: Vec<&Path> = directory.ancestors().collect();
    way.reverse();
    way.into_iter()
        .find(|parent| !may_enter(parent, user))
        .map(Path::to_owned)
}

fn may_enter(directory: &Path, user: &User) -> bool {
    let Ok(metadata) = fs::metadata(directory) else {
        return false;
    };
    let bit = if metadata.uid() == user.uid {
        0o100
    } else if metadata.gid() == user.gid {
        0o010
    } else {
        0o001
    };
    metadata.permissions().mode() & bit != 0
}

/// A line of `/etc/passwd` is `name:password:uid:gid:…`; macOS writes `nobody`'s id as -2.
fn find(passwd: &str, name: &str) -> Option<User> {
    let id = |text: &str| text.parse::<i64>().ok().map(|id| id as u32);
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let (uid, gid) = (id(fields.nth(1)?)?, id(fields.next()?)?);
        Some(User {
            name: name.to_owned(),
            uid,
            gid,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:\npostgres:x:104:112:,,,:/var/lib/postgresql:/bin/bash\n";
        let user = find(passwd, "postgres").unwrap();
        assert_eq!((user.uid, user.gid), (104, 112));
        assert_eq!(find(passwd, "nobody"), None);
        assert_eq!(
            find("nobody:*:-2:-2::/:", "nobody").unwrap().uid,
            u32::MAX - 1
        );
    }

    #[test]
    fn a_closed_parent_is_named() {
        let root = std::env::temp_dir().join(format!("tidings-user-{}", std::process::id()));
        let inner = root.join("closed/inner");
        fs::create_dir_all(&inner).unwrap();
        let stranger = User {
            name: "stranger".into(),
            uid: u32::MAX - 5,
            gid: u32::MAX - 5,
        };
        assert_eq!(closed_parent(&inner, &stranger), None);
        let closed = root.join("closed");
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(closed_parent(&inner, &stranger), Some(closed));
        fs::remove_dir_all(&root).unwrap();
    }
}
