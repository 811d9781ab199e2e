//! Opens mounts in other mount namespaces without waiting for the server of a file system on the path.
//!
//! A path in another mount namespace may lead through anything that its users have mounted. If the server of a FUSE or
//! network file system does not answer, a process that walks there waits in the kernel, and no signal ends it. So the
//! kernel may only use what it has in memory (`RESOLVE_CACHED` of openat2(2), Linux 5.12). The path to a mount is
//! always in memory; only file systems that must ask their server are refused. On earlier kernels, this walks only if
//! mountinfo shows nothing but the kernel's own file systems on the path.

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

/// File systems that answer from memory or from a local disk. All others may have a server.
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

/// Number of attempts to walk through memory. A mount or rename anywhere on the machine can interrupt it.
const TRIES: usize = 16;

/// The file systems on the path to a mount, without the mount's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    /// Only file systems without a server.
    Local,
    /// Also an overlay. Its layers may be on any file system, but in a container's root they hardly ever have a server.
    Layered,
    /// A file system that may have a server.
    Foreign,
}

/// The mounts that a process sees, by id.
pub(super) struct MountTree<'a> {
    mounts: HashMap<u32, Mount<'a>>,
    /// The device of this program's own root. If that does not answer, nothing does.
    own_root: Option<u64>,
}

impl<'a> MountTree<'a> {
    /// Parses a mountinfo.
    pub(super) fn new(mountinfo: &'a [u8]) -> Self {
        let mounts = mounts(mountinfo).map(|mount| (mount.id, mount)).collect();
        Self { mounts, own_root: device_at(CWD, Path::new("/")).ok() }
    }

    /// The file systems on the path from the process's root to this mount.
    pub(super) fn path_kind(&self, mount: &Mount<'_>) -> PathKind {
        let mut path_kind = PathKind::Local;
        let mut next = mount.parent;
        // mountinfo names each mount once. If another process changes mounts meanwhile, the chain of parents may be a
        // cycle.
        for _ in 0..=self.mounts.len() {
            let Some(around) = self.mounts.get(&next) else { break };
            let kind = str::from_utf8(around.kind).unwrap_or_default();
            path_kind = match kind {
                _ if self.own_root == Some(around.device) || WITHOUT_SERVER.contains(&kind) => path_kind,
                "overlay" => PathKind::Layered,
                _ => return PathKind::Foreign,
            };
            if around.parent == next {
                break;
            }
            next = around.parent;
        }
        path_kind
    }
}

/// A mount point, seen from the root of a process.
#[derive(Clone, Debug)]
pub(super) struct MountPoint {
    /// The link to that root: `/proc/PID/root`.
    root: PathBuf,
    /// The path from there; `.` is the root itself.
    inside: PathBuf,
    path_kind: PathKind,
}

impl MountPoint {
    pub(super) fn new(root: &Path, mount: &Mount<'_>, path_kind: PathKind) -> Self {
        let place = unescape(mount.place);
        let inside = Path::new(OsStr::from_bytes(&place));
        let inside = inside.strip_prefix("/").unwrap_or(inside);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        Self { root: root.to_owned(), inside: inside.to_owned(), path_kind }
    }

    /// Opens the visible object at the mount point, with O_PATH.
    ///
    /// # Errors
    /// EAGAIN: a file system on the path would have to ask its server. ENOENT: the mount is gone.
    pub(super) fn open(&self) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = openat(CWD, &self.root, flags | OFlags::DIRECTORY, Mode::empty())?;
        // Mount points in mountinfo contain no links.
        let resolve = ResolveFlags::NO_SYMLINKS;
        let walk = |resolve| openat2(&root, &self.inside, flags, Mode::empty(), resolve);
        for _ in 0..TRIES {
            match walk(resolve | ResolveFlags::CACHED) {
                Err(Errno::AGAIN) => {}
                // Kernels before 5.12 return EINVAL.
                Err(Errno::INVAL) if self.path_kind == PathKind::Foreign => return Err(Errno::AGAIN),
                Err(Errno::INVAL) => return walk(resolve),
                opened => return opened,
            }
        }
        // The path to a mount is always in memory. If no file system on it could have been asked, the mount is gone.
        Err(if self.path_kind == PathKind::Local { Errno::NOENT } else { Errno::AGAIN })
    }
}

/// The device at this path, as the kernel knows it, without asking a server.
pub(super) fn device_at(folder: impl rustix::fd::AsFd, path: &Path) -> rustix::io::Result<u64> {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let found = statx(folder, path, flags, StatxFlags::empty())?;
    Ok(libc::makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// Whether this directory of this program's own mount namespace is on a file system without a server. If mountinfo does
/// not list it, the file system is unknown.
pub(crate) fn is_without_server(folder: &OwnedFd) -> bool {
    let Ok(device) = device_at(folder, Path::new("")) else { return false };
    // A local disk has its own device number. The file systems of this program's root and of /run belong to the
    // machine.
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
    fn local_and_kernel_file_systems_have_no_server() {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        for folder in [temporary.path(), Path::new("/proc"), Path::new("/sys"), Path::new("/dev")] {
            let opened = openat(CWD, folder, OFlags::PATH, Mode::empty()).expect("a folder");
            assert!(is_without_server(&opened), "{}", folder.display());
        }
    }

    fn path_kinds(text: &str) -> Vec<PathKind> {
        let reach = MountTree { own_root: Some(libc::makedev(8, 1)), ..MountTree::new(text.as_bytes()) };
        mounts(text.as_bytes()).map(|mount| reach.path_kind(&mount)).collect()
    }

    #[test]
    fn paths_below_a_file_system_with_a_server_are_foreign() {
        let text = "1 0 0:9 / / rw - overlay overlay rw\n\
            2 1 0:10 / /run rw - tmpfs tmpfs rw\n\
            3 1 0:11 / /mnt rw - fuse.sshfs host rw\n\
            4 3 0:12 / /mnt/a/proc rw - proc proc rw\n\
            5 4 0:13 / /mnt/a/proc/b rw - proc proc rw\n\
            6 2 0:12 / /run/proc rw - proc proc rw\n";
        let expected = [
            PathKind::Local,
            PathKind::Layered,
            PathKind::Layered,
            PathKind::Foreign,
            PathKind::Foreign,
            PathKind::Layered,
        ];
        assert_eq!(path_kinds(text), expected);
    }

    #[test]
    fn the_file_system_of_this_programs_own_root_may_be_of_any_kind() {
        let text = "1 0 8:1 / / rw - nfs4 server:/ rw\n2 1 0:12 / /proc rw - proc proc rw\n";
        assert_eq!(path_kinds(text), [PathKind::Local, PathKind::Local]);
    }

    #[test]
    fn a_cycle_of_mounts_ends() {
        let text = "1 2 0:9 / /a rw - tmpfs tmpfs rw\n2 1 0:9 / /b rw - tmpfs tmpfs rw\n";
        assert_eq!(path_kinds(text), [PathKind::Local, PathKind::Local]);
    }

    #[test]
    fn a_mount_is_opened_and_links_on_the_way_are_not_followed() {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir_all(root.path().join("a b/c")).expect("create a directory");
        std::os::unix::fs::symlink("a b", root.path().join("link")).expect("create a link");
        let open = |place: &str| {
            let line = format!("80 27 0:4 / {place} rw - proc proc rw\n");
            let mount = mounts(line.as_bytes()).next().expect("a mount");
            MountPoint::new(root.path(), &mount, PathKind::Local).open().map(drop)
        };
        // Now the path is in the kernel's memory.
        let _ = std::fs::metadata(root.path().join("a b/c"));
        assert_eq!(open("/a\\040b/c"), Ok(()));
        assert_eq!(open("/"), Ok(()));
        assert_eq!(open("/link/c"), Err(Errno::LOOP));
        assert_eq!(open("/none"), Err(Errno::NOENT));
    }
}
