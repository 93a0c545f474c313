//! How much memory this process may have, and how much of that is taken.
//!
//! The bound is the smallest of the machine's memory and of the limits of the process's control group and
//! of all groups around it, in either version of control groups. Taken is what the kernel cannot take
//! back: of a group, everything but the cache of files; where no group has a limit, what the process
//! itself has written to. Systems that do not tell have no bound.

use std::fs;
use std::path::{Path, PathBuf};

/// A bound, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: usize,
    /// The group whose limit it is; the machine, where there is none.
    group: Option<Group>,
}

/// The two versions of control groups name and count things differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    directory: PathBuf,
    version: Version,
}

impl Memory {
    /// The bound of this process.
    pub fn find() -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let machine = total(&read("/proc/meminfo")).map(|bytes| Self { bytes, group: None });
        let mut groups = groups(&read("/proc/self/cgroup"), &read("/proc/self/mountinfo"));
        // Where they are commonly found, for a system that does not tell where.
        groups.extend([
            Group::new("/sys/fs/cgroup", Version::Two),
            Group::new("/sys/fs/cgroup/memory", Version::One),
        ]);
        let limited = groups.into_iter().filter_map(|group| {
            let bytes = group.limit()?;
            let group = Some(group);
            Some(Self { bytes, group })
        });
        limited.chain(machine).min_by_key(|memory| memory.bytes)
    }

    /// The bound in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much of it is taken, in bytes.
    pub fn taken(&self) -> Option<usize> {
        match &self.group {
            Some(group) => group.taken(),
            None => {
                let status = fs::read_to_string("/proc/self/status").ok()?;
                kib(&status, "RssAnon:")
            }
        }
    }
}

impl Group {
    fn new(directory: impl Into<PathBuf>, version: Version) -> Self {
        Self {
            directory: directory.into(),
            version,
        }
    }

    fn number(&self, file: &str) -> Option<usize> {
        let text = fs::read_to_string(self.directory.join(file)).ok()?;
        text.trim().parse().ok()
    }

    /// The limit; without one, version 1 tells a number beyond all memory, and version 2 `max`. Beyond
    /// `memory.high` a process is held up until it hardly runs, which is as bad.
    fn limit(&self) -> Option<usize> {
        let files: &[&str] = match self.version {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        };
        files.iter().filter_map(|file| self.number(file)).min()
    }

    fn taken(&self) -> Option<usize> {
        let (usage, cache): (_, &[&str]) = match self.version {
            Version::One => (
                "memory.usage_in_bytes",
                &["total_inactive_file", "total_active_file"],
            ),
            Version::Two => (
                "memory.current",
                &["inactive_file", "active_file", "slab_reclaimable"],
            ),
        };
        let usage = self.number(usage)?;
        let stat = fs::read_to_string(self.directory.join("memory.stat")).ok()?;
        let cache = stat.lines().filter_map(|line| {
            let (name, bytes) = line.split_once(' ')?;
            cache.contains(&name).then(|| bytes.parse::<usize>().ok())?
        });
        Some(usage.saturating_sub(cache.sum()))
    }
}

/// The groups of this process that may limit its memory, each with all that are around it, by what the
/// kernel says of the process and of what is mounted where.
fn groups(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let version = match controllers {
            "" => Version::Two,
            list if list.split(',').any(|name| name == "memory") => Version::One,
            _ => continue,
        };
        let mounted = mountinfo.lines().filter_map(|line| mount(line, version));
        for (root, point) in mounted {
            // Of a mount that does not show the process's own group, its top is the nearest that is seen.
            let below = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
            // Joined by its parts: an empty path would leave a slash at the end.
            let own: PathBuf = Path::new(point)
                .components()
                .chain(below.components())
                .collect();
            let around = own.ancestors().take_while(|path| path.starts_with(point));
            groups.extend(around.map(|directory| Group::new(directory, version)));
        }
    }
    groups
}

/// The root and the place of a mount, if it is one of such groups.
fn mount(line: &str, version: Version) -> Option<(&str, &str)> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1)?);
    let is_it = match version {
        Version::One => name == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => name == "cgroup2",
    };
    is_it.then_some((root, point))
}

fn total(meminfo: &str) -> Option<usize> {
    kib(meminfo, "MemTotal:")
}

/// The bytes in a line of the kernel's, which counts in KiB.
fn kib(text: &str, name: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(cgroup: &str, mountinfo: &str) -> Vec<String> {
        let groups = groups(cgroup, mountinfo);
        let path = |group: &Group| format!("{:?} {}", group.version, group.directory.display());
        groups.iter().map(path).collect()
    }

    #[test]
    fn every_group_around_the_process_counts_in_version_one() {
        let cgroup = "5:cpu,cpuacct:/a/b\n4:memory:/a/b\n1:name=systemd:/a/b\n";
        let mountinfo = "30 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             36 31 0:33 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n";
        assert_eq!(
            paths(cgroup, mountinfo),
            [
                "One /sys/fs/cgroup/memory/a/b",
                "One /sys/fs/cgroup/memory/a",
                "One /sys/fs/cgroup/memory",
            ]
        );
    }

    #[test]
    fn every_group_around_the_process_counts_in_version_two() {
        let mountinfo = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            paths("0::/kubepods/pod1/own\n", mountinfo),
            [
                "Two /sys/fs/cgroup/kubepods/pod1/own",
                "Two /sys/fs/cgroup/kubepods/pod1",
                "Two /sys/fs/cgroup/kubepods",
                "Two /sys/fs/cgroup",
            ]
        );
    }

    #[test]
    fn a_container_sees_its_own_group_at_the_top() {
        // With a namespace of its own, without one, and with a path that leads out of what is mounted.
        for (cgroup, root) in [
            ("0::/\n", "/"),
            ("0::/docker/4711\n", "/docker/4711"),
            ("0::/docker/4711\n", "/docker/another"),
        ] {
            let mountinfo = format!("29 23 0:26 {root} /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
            assert_eq!(paths(cgroup, &mountinfo), ["Two /sys/fs/cgroup"]);
        }
        assert_eq!(paths("", ""), [""; 0]);
        assert_eq!(paths("nonsense\n0::/x", "nonsense"), [""; 0]);
    }

    #[test]
    fn hybrid_groups_are_of_both_versions() {
        let cgroup = "4:memory:/a\n0::/b\n";
        let mountinfo = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            paths(cgroup, mountinfo),
            [
                "One /sys/fs/cgroup/memory/a",
                "One /sys/fs/cgroup/memory",
                "Two /sys/fs/cgroup/unified/b",
                "Two /sys/fs/cgroup/unified",
            ]
        );
    }

    #[test]
    fn meminfo_is_understood() {
        assert_eq!(
            total("MemTotal:       16 kB\nMemFree: 1 kB\n"),
            Some(16 << 10)
        );
        assert_eq!(total("nothing"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_a_bound_and_is_below_it() {
        let memory = Memory::find().expect("Linux tells");
        let taken = memory.taken().expect("Linux tells");
        assert!(0 < taken && taken < memory.bytes(), "{taken} of {memory:?}");
    }
}
