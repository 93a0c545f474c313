//! A control group with a bound on memory, made by the test and removed by it: of version 1 or 2,
//! wherever the machine has mounted them.

use std::fs;
use std::path::{Path, PathBuf};

/// A group with a bound, and one within it without, in which the process runs: so the bound is one
/// that is found only by who looks around.
pub(crate) struct Group {
    outer: PathBuf,
    inner: PathBuf,
    is_v2: bool,
}

impl Group {
    /// Makes them; without a memory controller that may be used, there is none, which is said, and is a
    /// failure where nothing may be left out.
    pub(crate) fn make(bytes: usize) -> Option<Group> {
        let made = Group::try_make(bytes);
        if let Err(reason) = &made {
            let demanded = std::env::var("TIDINGS_TEST_PROGRAMS").is_ok_and(|wish| wish == "all");
            assert!(!demanded, "no group for memory: {reason}");
            eprintln!("skipped: no group for memory can be made: {reason}");
        }
        made.ok()
    }

    fn try_make(bytes: usize) -> Result<Group, String> {
        let (top, is_v2) = mounted().ok_or("no memory controller is mounted")?;
        if is_v2 {
            // Refused where processes run at the top, and then often granted already.
            let _ = fs::write(top.join("cgroup.subtree_control"), "+memory");
        }
        let outer = top.join(format!(
            "tidings-test-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        let inner = outer.join("inner");
        fs::create_dir(&outer).map_err(|error| format!("{}: {error}", outer.display()))?;
        let group = Group {
            outer,
            inner,
            is_v2,
        };
        group.bound(bytes)?;
        Ok(group)
    }

    fn bound(&self, bytes: usize) -> Result<(), String> {
        let write = |name: &str, value: &str| {
            let path = self.outer.join(name);
            fs::write(&path, value).map_err(|error| format!("{}: {error}", path.display()))
        };
        let bytes = bytes.to_string();
        if self.is_v2 {
            write("memory.max", &bytes)?;
            // Absent where the kernel has no swap.
            let _ = write("memory.swap.max", "0");
        } else {
            write("memory.limit_in_bytes", &bytes)?;
            let _ = write("memory.memsw.limit_in_bytes", &bytes);
        }
        fs::create_dir(&self.inner).map_err(|error| error.to_string())
    }

    /// The file that lists the processes of the inner group; who writes itself to it, goes there.
    pub(crate) fn processes(&self) -> PathBuf {
        self.inner.join("cgroup.procs")
    }

    /// How many processes of it were killed for want of memory.
    pub(crate) fn kills(&self) -> u64 {
        // Version 1 counts where the process was, version 2 in all groups around it.
        let (group, name) = if self.is_v2 {
            (&self.outer, "memory.events")
        } else {
            (&self.inner, "memory.oom_control")
        };
        let text = fs::read_to_string(group.join(name)).expect("the kernel tells");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.expect("kills are counted").parse().expect("a number")
    }

    /// The most that was taken at once, with the cache of files.
    pub(crate) fn peak(&self) -> usize {
        let name = if self.is_v2 {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        // Older kernels of version 2 do not tell.
        let text = fs::read_to_string(self.outer.join(name)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }
}

impl Drop for Group {
    /// A process that was killed leaves its group a moment later than its parent hears of it.
    fn drop(&mut self) {
        for group in [&self.inner, &self.outer] {
            for _ in 0..100 {
                match fs::remove_dir(group) {
                    Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                        std::thread::sleep(std::time::Duration::from_millis(20));
                    }
                    _ => break,
                }
            }
        }
    }
}

/// Where the memory controller is mounted, and whether it is of version 2.
fn mounted() -> Option<(PathBuf, bool)> {
    let one = Path::new("/sys/fs/cgroup/memory");
    if one.join("memory.limit_in_bytes").exists() {
        return Some((one.into(), false));
    }
    let two = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(two.join("cgroup.controllers")).ok()?;
    let has_memory = controllers.split_whitespace().any(|name| name == "memory");
    has_memory.then(|| (two.into(), true))
}
