//! Opens what is mounted in other mount namespaces, without waiting for the server of a file system on the way.
//!
//! A path of another mount namespace may lead through whatever its users have mounted. Where the server of a FUSE or network
//! file system does not answer, a process that walks there waits in the kernel, and no signal ends it. So the kernel is asked
//! to walk through what it has in memory alone (`RESOLVE_CACHED` of openat2(2), Linux 5.12): the way to a mount is always
//! there, and only a file system that has to ask its server is refused. An earlier kernel walks only where mountinfo shows
//! nothing but the kernel's own file systems on the way.

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, openat, openat2, statx},
    io::Errno,
};

use super::mountinfo::{Mount, mounts, unescape};

/// File systems that answer out of memory or from a disk of this machine. All others may have a server.
const WITHOUT_SERVER: &[&str] = &[
    "bcachefs",
    "bpf",
    "btrfs",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "erofs",
    "exfat",
    "ext2",
    "ext3",
    "ext4",
    "f2fs",
    "hugetlbfs",
    "iso9660",
    "jfs",
    "mqueue",
    "msdos",
    "nilfs2",
    "nsfs",
    "ntfs3",
    "proc",
    "pstore",
    "ramfs",
    "rootfs",
    "securityfs",
    "squashfs",
    "sysfs",
    "tmpfs",
    "tracefs",
    "udf",
    "vfat",
    "xfs",
    "zfs",
];

/// How often a walk through memory is tried: a mount or a rename anywhere on the machine can cut it short.
const TRIES: usize = 16;

/// What is on the way to a mount, its own file system left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// File systems without a server.
    Local,
    /// An overlay, too. Its layers may be on any file system; in a container's root they hardly ever are.
    Layered,
    /// One that may have a server.
    Foreign,
}

/// The mounts that a process sees, by their number.
pub(super) struct Reach<'a> {
    mounts: HashMap<u32, Mount<'a>>,
    /// The number of the file system that this program's own root is on: if that does not answer, nothing does.
    own_root: Option<u64>,
}

impl<'a> Reach<'a> {
    /// Of a mountinfo.
    pub(super) fn new(mountinfo: &'a [u8]) -> Self {
        let mounts = mounts(mountinfo).map(|mount| (mount.id, mount)).collect();
        Self { mounts, own_root: device_at(CWD, Path::new("/")).ok() }
    }

    /// What is on the way from the process's root to this mount.
    pub(super) fn way_to(&self, mount: &Mount<'_>) -> Way {
        let mut way = Way::Local;
        let mut next = mount.parent;
        // A mountinfo names no mount twice, and one that another process changes meanwhile may run in a circle.
        for _ in 0..=self.mounts.len() {
            let Some(around) = self.mounts.get(&next) else { break };
            let kind = str::from_utf8(around.kind).unwrap_or_default();
            way = match kind {
                _ if self.own_root == Some(around.device) || WITHOUT_SERVER.contains(&kind) => way,
                "overlay" => Way::Layered,
                _ => return Way::Foreign,
            };
            if around.parent == next {
                break;
            }
            next = around.parent;
        }
        way
    }
}

/// A place where something is mounted, seen from the root of a process.
#[derive(Clone, Debug)]
pub(super) struct MountPlace {
    /// The link to that root: `/proc/PID/root`.
    root: PathBuf,
    /// The way on from there; `.` is the root itself.
    inside: PathBuf,
    way: Way,
}

impl MountPlace {
    pub(super) fn new(root: &Path, mount: &Mount<'_>, way: Way) -> Self {
        let place = unescape(mount.place);
        let inside = Path::new(OsStr::from_bytes(&place));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        Self { root: root.to_owned(), inside: inside.to_owned(), way }
    }

    /// Opens what is seen there, with O_PATH.
    ///
    /// # Errors
    /// EAGAIN: a file system on the way would have to ask its server. ENOENT: it is not there any more.
    pub(super) fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags | OFlags::DIRECTORY, Mode::empty())?;
        // What mountinfo calls a place has no links on the way.
        let resolve = ResolveFlags::NO_SYMLINKS;
        let walk = |resolve| openat2(&root, &self.inside, flags, Mode::empty(), resolve);
        for _ in 0..TRIES {
            match walk(resolve | ResolveFlags::CACHED) {
                Err(Errno::AGAIN) => {}
                // Before 5.12.
                Err(Errno::INVAL) if self.way == Way::Foreign => return Err(Errno::AGAIN),
                Err(Errno::INVAL) => return walk(resolve),
                opened => return opened,
            }
        }
        // The way to a mount is always in memory. Where nothing on it could have been asked, the mount is gone.
        Err(if self.way == Way::Local { Errno::NOENT } else { Errno::AGAIN })
    }
}

/// The number of the file system of what is there, as the kernel has it: no server is asked.
pub(super) fn device_at(folder: impl rustix::fd::AsFd, path: &Path) -> rustix::io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(folder, path, flags, StatxFlags::empty())?;
    Ok(libc::makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// Whether this folder, of this program's own mount namespace, is on a file system without a server. One that is not in mountinfo
/// is on none that is known.
pub(crate) fn is_without_server(folder: &OwnedFd) -> bool {
    let Ok(device) = device_at(folder, Path::new("")) else { return false };
    // A disk of this machine has a number of its own; and what this program's root and /run are on is the machine's.
    let is_own = |path| device_at(CWD, Path::new(path)) == Ok(device);
    if libc::major(device) != 0 || is_own("/") || is_own("/run") {
        return true;
    }
    let mountinfo = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let kind = mounts(&mountinfo).find(|mount| mount.device == device).map(|mount| mount.kind);
    let kind = kind.and_then(|kind| str::from_utf8(kind).ok());
    kind.is_some_and(|kind| kind == "overlay" || WITHOUT_SERVER.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_disk_in_memory_or_of_the_kernel_has_no_server() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        for folder in [temporary.path(), Path::new("/proc"), Path::new("/sys"), Path::new("/dev")] {
            let opened = openat(CWD, folder, OFlags::PATH, Mode::empty()).expect("a folder");
            assert!(is_without_server(&opened), "{}", folder.display());
        }
    }

    fn ways(text: &str) -> Vec<Way> {
        let reach = Reach { own_root: Some(libc::makedev(8, 1)), ..Reach::new(text.as_bytes()) };
        mounts(text.as_bytes()).map(|mount| reach.way_to(&mount)).collect()
    }

    #[test]
    fn paths_below_a_file_system_with_a_server_are_foreign() {
        let text = "1 0 0:9 / / rw - overlay overlay rw\n\
            2 1 0:10 / /run rw - tmpfs tmpfs rw\n\
            3 1 0:11 / /mnt rw - fuse.sshfs host rw\n\
            4 3 0:12 / /mnt/a/proc rw - proc proc rw\n\
            5 4 0:13 / /mnt/a/proc/b rw - proc proc rw\n\
            6 2 0:12 / /run/proc rw - proc proc rw\n";
        let expected = [Way::Local, Way::Layered, Way::Layered, Way::Foreign, Way::Foreign, Way::Layered];
        assert_eq!(ways(text), expected);
    }

    #[test]
    fn the_file_system_of_this_programs_own_root_may_be_of_any_kind() {
        let text = "1 0 8:1 / / rw - nfs4 server:/ rw\n2 1 0:12 / /proc rw - proc proc rw\n";
        assert_eq!(ways(text), [Way::Local, Way::Local]);
    }

    #[test]
    fn mounts_in_a_circle_have_an_end() {
        let text = "1 2 0:9 / /a rw - tmpfs tmpfs rw\n2 1 0:9 / /b rw - tmpfs tmpfs rw\n";
        assert_eq!(ways(text), [Way::Local, Way::Local]);
    }

    #[test]
    fn a_mount_is_opened_and_links_on_the_way_are_not_followed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(root.path().join("a b/c")).expect("a folder");
        std::os::unix::fs::symlink("a b", root.path().join("link")).expect("a link");
        let open = |place: &str| {
            let line = format!("80 27 0:4 / {place} rw - proc proc rw\n");
            let mount = mounts(line.as_bytes()).next().expect("a mount");
            MountPlace::new(root.path(), &mount, Way::Local).open().map(drop)
        };
        // Now the kernel has it in memory.
        let _ = std::fs::metadata(root.path().join("a b/c"));
        assert_eq!(open("/a\\040b/c"), Ok(()));
        assert_eq!(open("/"), Ok(()));
        assert_eq!(open("/link/c"), Err(Errno::LOOP));
        assert_eq!(open("/none"), Err(Errno::NOENT));
    }
}
