//! Finds the id of a process's cgroup (v2): the inode number of its directory.

use std::{
    cell::OnceCell,
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::PathBuf,
};

use super::{
    Procfs,
    mount_paths::{MountTree, PathKind},
    mountinfo::{Mount, mounts, unescape},
    parse::line,
};

/// Looks up ids; each path only once.
pub(super) struct CgroupIds<'a> {
    procfs: &'a Procfs,
    places: OnceCell<Vec<CgroupMount>>,
    known: HashMap<Vec<u8>, Option<u64>>,
}

/// A mount of cgroups.
pub(super) struct CgroupMount {
    device: u64,
    /// The mounted cgroup, as a path in the reader's cgroup namespace. Paths of processes are relative to that, too.
    pub(super) root: Vec<u8>,
    pub(super) folder: PathBuf,
}

impl<'a> CgroupIds<'a> {
    pub(super) fn new(procfs: &'a Procfs) -> Self {
        Self { procfs, places: OnceCell::new(), known: HashMap::new() }
    }

    /// The id of the cgroup that a /proc/PID/cgroup names; `None` if no mount shows its directory.
    pub(super) fn of(&mut self, text: &[u8]) -> Option<u64> {
        let path = line(text, b"0::")?;
        if let Some(known) = self.known.get(path) {
            return *known;
        }
        let places = self.places.get_or_init(|| places(self.procfs));
        let id = places.iter().find_map(|place| place.id(path));
        self.known.insert(path.to_vec(), id);
        id
    }
}

fn places(procfs: &Procfs) -> Vec<CgroupMount> {
    // Without mountinfo, no mount is known.
    let text = fs::read(procfs.root.join("self/mountinfo")).unwrap_or_default();
    cgroup_mounts(&text, |mount| mount.kind == b"cgroup2")
}

/// The mounts of a mountinfo that `is_wanted` accepts, without those behind a file system whose server may not answer.
pub(super) fn cgroup_mounts(mountinfo: &[u8], is_wanted: impl Fn(&Mount<'_>) -> bool) -> Vec<CgroupMount> {
    let reach = MountTree::new(mountinfo);
    let found =
        mounts(mountinfo).filter(|mount| is_wanted(mount) && reach.path_kind(mount) != PathKind::Foreign);
    found.map(CgroupMount::from).collect()
}

impl From<Mount<'_>> for CgroupMount {
    fn from(mount: Mount<'_>) -> Self {
        Self {
            device: mount.device,
            root: unescape(mount.root),
            folder: PathBuf::from(OsStr::from_bytes(&unescape(mount.place))),
        }
    }
}

impl CgroupMount {
    /// The inode number of this cgroup's directory, if this mount shows it.
    fn id(&self, path: &[u8]) -> Option<u64> {
        let below = below(path, &self.root)?;
        let found = fs::metadata(self.folder.join(OsStr::from_bytes(below))).ok()?;
        // Ignore a mount over the directory.
        (found.dev() == self.device).then(|| found.ino())
    }

    /// Whether its directory is visible, and nothing is mounted over it.
    pub(super) fn is_seen(&self) -> bool {
        fs::metadata(&self.folder).is_ok_and(|found| found.dev() == self.device)
    }
}

/// The most specific path in a /proc/PID/cgroup: that of v2. If the process is in the root of v2, that of the v1
/// hierarchy with the pids controller; or the first in whose root the process is not.
pub(super) fn path(text: &[u8]) -> Option<&[u8]> {
    // "4:pids,cpu:/a:b" for v1, "0::/a" for v2.
    let lines = || {
        text.split(|&byte| byte == b'\n').filter_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
    };
    let has_pids = |list: &[u8]| list.split(|&byte| byte == b',').any(|name| name == b"pids");
    let unified = lines().find(|(list, _)| list.is_empty());
    let pids = lines().find(|(list, _)| has_pids(list));
    let others = lines().filter(|(list, _)| !list.is_empty() && !has_pids(list));
    let mut all = unified.into_iter().chain(pids).chain(others).map(|(_, path)| path);
    all.clone().find(|&path| path != b"/").or_else(|| all.next())
}

/// The part of a cgroup's path below this root.
pub(super) fn below<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    // A removed cgroup that still contains a process or zombie. (An existing cgroup may have such a name; then it
    // counts as unknown.)
    if path.ends_with(b" (deleted)") {
        return None;
    }
    let below = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
    let below = if below.is_empty() { below } else { below.strip_prefix(b"/")? };
    // Paths outside the reader's cgroup namespace begin with one `..` for each level above it.
    (!below.split(|&byte| byte == b'/').any(|part| part == b"..")).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_the_mounted_cgroup() {
        for (path, root, expected) in [
            ("/", "/", Some("")),
            ("/a/b", "/", Some("a/b")),
            ("/a/b", "/a", Some("b")),
            ("/a", "/a", Some("")),
            ("/ab", "/a", None),
            ("/b", "/a", None),
            ("/../b", "/", None),
            ("/../b", "/..", Some("b")),
            ("/../../b", "/..", None),
            ("/a (deleted)", "/", None),
            ("a", "/", None),
        ] {
            let found = below(path.as_bytes(), root.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{path} at {root}");
        }
    }

    #[test]
    fn the_most_specific_cgroup_path_is_chosen() {
        for (text, expected) in [
            ("0::/a\n", Some("/a")),
            ("0::/\n", Some("/")),
            ("4:pids:/a:b\n3:freezer:/f\n0::/\n", Some("/a:b")),
            ("4:pids:/a\n0::/u\n", Some("/u")),
            ("5:cpu,pids:/\n3:freezer:/f\n0::/\n", Some("/f")),
            ("4:pids:/\n1:name=systemd:/\n", Some("/")),
            ("", None),
            ("nothing", None),
        ] {
            assert_eq!(path(text.as_bytes()), expected.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_the_inode_number_of_the_directory() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cgroups = root.path().join("c g");
        let inner = cgroups.join("a");
        fs::create_dir_all(&inner).expect("create a directory");
        fs::create_dir(root.path().join("self")).expect("create a directory");
        let number = |folder| fs::metadata(folder).expect("read metadata").ino();
        let device = fs::metadata(&inner).expect("read metadata").dev();
        let put = |device: u64| {
            let place = cgroups.to_str().expect("UTF-8").replace(' ', "\\040");
            let (major, minor) = (libc::major(device), libc::minor(device));
            let line = format!("32 25 {major}:{minor} / {place} rw - cgroup2 cgroup2 rw\n");
            fs::write(root.path().join("self/mountinfo"), line).expect("write a file");
        };
        put(device);
        let procfs = Procfs::at(root.path());
        let mut ids = CgroupIds::new(&procfs);
        assert_eq!(ids.of(b"4:pids:/x\n0::/a\n"), Some(number(&inner)));
        assert_eq!(ids.of(b"0::/\n"), Some(number(&cgroups)));
        assert_eq!(ids.of(b"0::/gone\n"), None);
        assert_eq!(ids.of(b"4:pids:/a\n"), None, "another hierarchy");
        put(device + 1);
        assert_eq!(CgroupIds::new(&procfs).of(b"0::/a\n"), None, "something is mounted over it");
    }
}
