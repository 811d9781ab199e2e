//! Control groups of a test's own, of whichever version this machine has.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where cgroup v1 has the pids controller.
pub(crate) const PIDS_CGROUPS: &str = "/sys/fs/cgroup/pids";

/// Where cgroups count tasks: of the first version where it has the controller, else of the second.
pub(crate) fn pids_controller() -> Option<String> {
    if Path::new(PIDS_CGROUPS).join("cgroup.procs").exists() {
        return Some(PIDS_CGROUPS.to_owned());
    }
    let root = unified_cgroups()?;
    fs::write(format!("{root}/cgroup.subtree_control"), "+pids").ok()?;
    Some(root.to_owned())
}

/// Where cgroups limit memory: of the first version where it has the controller, else of the second.
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
    /// A group of this many bytes at most.
    pub(crate) fn make(&self, bytes: u64) -> ScratchCgroup {
        let group = ScratchCgroup::make(self.root);
        fs::write(format!("{}/{}", group.0, self.limit), bytes.to_string()).expect("a limit can be set");
        group
    }
}

/// Where cgroups of the second version are mounted.
pub(crate) fn unified_cgroups() -> Option<&'static str> {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
    roots.into_iter().find(|root| Path::new(root).join("cgroup.controllers").exists())
}

/// A cgroup that goes when it is dropped, which must be after its processes have.
pub(crate) struct ScratchCgroup(String);

impl ScratchCgroup {
    pub(crate) fn make(root: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = format!("{root}/pidns-trace-test-{}-{number}", std::process::id());
        fs::create_dir(&path).expect("a cgroup");
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
