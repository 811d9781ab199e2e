//! The id of a process's cgroup (v2): the inode number of its folder.

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
    mountinfo::{Mount, mounts, unescape},
    parse::line,
    reach::{Reach, Way},
};

/// Looks ids up, each path once.
pub(super) struct CgroupIds<'a> {
    procfs: &'a Procfs,
    places: OnceCell<Vec<CgroupMount>>,
    known: HashMap<Vec<u8>, Option<u64>>,
}

/// Where cgroups are mounted.
pub(super) struct CgroupMount {
    device: u64,
    /// The cgroup that is there, as the reader's cgroup namespace has its path: so are those of processes.
    pub(super) root: Vec<u8>,
    pub(super) folder: PathBuf,
}

impl<'a> CgroupIds<'a> {
    pub(super) fn new(procfs: &'a Procfs) -> Self {
        Self { procfs, places: OnceCell::new(), known: HashMap::new() }
    }

    /// The id of the cgroup that a /proc/PID/cgroup names; `None` where its folder is nowhere to be seen.
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
    // Without it none is known.
    let text = fs::read(procfs.root.join("self/mountinfo")).unwrap_or_default();
    cgroup_mounts(&text, |mount| mount.kind == b"cgroup2")
}

/// The mounts of a mountinfo that `is_wanted` accepts, but for those behind a file system whose server may not answer.
pub(super) fn cgroup_mounts(mountinfo: &[u8], is_wanted: impl Fn(&Mount<'_>) -> bool) -> Vec<CgroupMount> {
    let reach = Reach::new(mountinfo);
    let found = mounts(mountinfo).filter(|mount| is_wanted(mount) && reach.way_to(mount) != Way::Foreign);
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
    /// The inode number of this cgroup's folder, if it is here.
    fn id(&self, path: &[u8]) -> Option<u64> {
        let below = below(path, &self.root)?;
        let found = fs::metadata(self.folder.join(OsStr::from_bytes(below))).ok()?;
        // Not a mount over it.
        (found.dev() == self.device).then(|| found.ino())
    }

    /// Whether its folder is still seen, and nothing is mounted over it.
    pub(super) fn is_seen(&self) -> bool {
        fs::metadata(&self.folder).is_ok_and(|found| found.dev() == self.device)
    }
}

/// The most specific path of a /proc/PID/cgroup: that of the hierarchy of v2, or where it is in the root of that, of the one of v1
/// that has the pids controller, or else of the first in whose root it is not.
pub(super) fn path(text: &[u8]) -> Option<&[u8]> {
    // "4:pids,cpu:/a:b", of v2 "0::/a".
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

/// What of a cgroup's path is below this root.
pub(super) fn below<'p>(path: &'p [u8], root: &[u8]) -> Option<&'p [u8]> {
    // A cgroup that is gone, in which a process or zombie still is. (One can have such a name: then it is not known.)
    if path.ends_with(b" (deleted)") {
        return None;
    }
    let below = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
    let below = if below.is_empty() { below } else { below.strip_prefix(b"/")? };
    // What is outside of the reader's cgroup namespace begins with as many `..` as it is further up.
    (!below.split(|&byte| byte == b'/').any(|part| part == b"..")).then_some(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_below_the_cgroup_that_is_mounted() {
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
    fn the_longest_container_path_is_the_cgroups() {
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
    fn an_id_is_the_inode_number_of_the_folder() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let cgroups = root.path().join("c g");
        let inner = cgroups.join("a");
        fs::create_dir_all(&inner).expect("a folder");
        fs::create_dir(root.path().join("self")).expect("a folder");
        let number = |folder| fs::metadata(folder).expect("a folder").ino();
        let device = fs::metadata(&inner).expect("a folder").dev();
        let put = |device: u64| {
            let place = cgroups.to_str().expect("UTF-8").replace(' ', "\\040");
            let (major, minor) = (libc::major(device), libc::minor(device));
            let line = format!("32 25 {major}:{minor} / {place} rw - cgroup2 cgroup2 rw\n");
            fs::write(root.path().join("self/mountinfo"), line).expect("a file");
        };
        put(device);
        let procfs = Procfs::at(root.path());
        let mut ids = CgroupIds::new(&procfs);
        assert_eq!(ids.of(b"4:pids:/x\n0::/a\n"), Some(number(&inner)));
        assert_eq!(ids.of(b"0::/\n"), Some(number(&cgroups)));
        assert_eq!(ids.of(b"0::/gone\n"), None);
        assert_eq!(ids.of(b"4:pids:/a\n"), None, "of another hierarchy");
        put(device + 1);
        assert_eq!(CgroupIds::new(&procfs).of(b"0::/a\n"), None, "something is mounted over it");
    }
}
