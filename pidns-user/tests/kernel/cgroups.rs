//! Separate cgroups for tests, with the cgroup version of this machine.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The mount point of cgroup v1's pids controller.
pub(crate) const PIDS_CGROUPS: &str = "/sys/fs/cgroup/pids";

/// The cgroup root with the pids controller: v1 if it has the controller, else v2.
pub(crate) fn pids_controller() -> Option<String> {
    if Path::new(PIDS_CGROUPS).join("cgroup.procs").exists() {
        return Some(PIDS_CGROUPS.to_owned());
    }
    let root = unified_cgroups()?;
    fs::write(format!("{root}/cgroup.subtree_control"), "+pids").ok()?;
    Some(root.to_owned())
}

/// The cgroup root with the memory controller: v1 if it has the controller, else v2.
pub(crate) fn memory_cgroups() -> Option<MemoryCgroups> {
    let has = |path: &str| Path::new(path).exists();
    if has("/sys/fs/cgroup/memory/memory.limit_in_bytes") {
        return Some(MemoryCgroups { root: "/sys/fs/cgroup/memory", limit: "memory.limit_in_bytes" });
    }
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find_map(|root| {
        let controllers = fs::read_to_string(format!("{root}/cgroup.controllers")).ok()?;
        controllers.split_whitespace().find(|name| *name == "memory")?;
        fs::write(format!("{root}/cgroup.subtree_control"), "+memory").ok()?;
        Some(MemoryCgroups { root, limit: "memory.max" })
    })
}

pub(crate) struct MemoryCgroups {
    root: &'static str,
    limit: &'static str,
}

impl MemoryCgroups {
    /// Makes a cgroup with this memory limit in bytes.
    pub(crate) fn make(&self, bytes: u64) -> ScratchCgroup {
        let group = ScratchCgroup::make(self.root);
        fs::write(format!("{}/{}", group.0, self.limit), bytes.to_string()).expect("set the limit");
        group
    }
}

/// The mount point of cgroup v2.
pub(crate) fn unified_cgroups() -> Option<&'static str> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    roots.into_iter().find(|root| Path::new(root).join("cgroup.controllers").exists())
}

/// A cgroup that is removed on drop. Its processes must have ended by then.
pub(crate) struct ScratchCgroup(String);

impl ScratchCgroup {
    pub(crate) fn make(root: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self::named(root, &format!("pidns-trace-test-{}-{number}", std::process::id()))
    }

    /// A cgroup with this name below a root.
    pub(crate) fn named(root: &str, name: &str) -> Self {
        let path = format!("{root}/{name}");
        fs::create_dir(&path).expect("create the cgroup");
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for ScratchCgroup {
    fn drop(&mut self) {
        let _busy_where_a_test_failed = fs::remove_dir(&self.0);
    }
}
