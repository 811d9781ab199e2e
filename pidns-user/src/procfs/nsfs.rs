//! Namespace files: how to open them, and their ioctls (include/uapi/linux/nsfs.h).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstat, open as open_file, stat, statx},
    io::Errno,
};

use super::mount_paths::device_at;

const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
const NS_GET_ID: libc::Ioctl = 0x8008_b70d;

/// Opens a path that must be a namespace file. It checks the type first, because the path may lead to anything by now.
/// Opening a FIFO, for example, waits forever for a writer.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let found = open_file(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match reopen(&found)? {
        Some(file) => Ok(file),
        // If a link must not be followed, 5.10 (but not 6.1) opens the directory of the link with O_PATH.
        None if is_folder_of(path, &found) => Err(Errno::ACCESS.into()),
        None => Err(io::Error::other("this is not a namespace file")),
    }
}

/// Opens a file that was found with O_PATH; `None` if it is not a namespace file.
pub(super) fn reopen(found: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    // All namespace files are in one file system. (Do not use fstatfs: another file system may have a server, and it
    // would wait for that.)
    let namespaces = stat("/proc/self/ns/pid")?.st_dev;
    if device_at(found, Path::new(""))? != namespaces {
        return Ok(None);
    }
    // Open this very file, not whatever the path leads to by now.
    let itself = format!("/proc/self/fd/{}", found.as_raw_fd());
    Ok(Some(open_file(itself, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?))
}

fn is_folder_of(path: &Path, found: &OwnedFd) -> bool {
    let inode = |folder: BorrowedFd<'_>, path: &Path| {
        let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        let found = statx(folder, path, flags, StatxFlags::INO).ok()?;
        Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
    };
    let folder = path.parent().and_then(|folder| inode(CWD, folder));
    folder.is_some_and(|folder| inode(found.as_fd(), Path::new("")) == Some(folder))
}

/// The inode number, which identifies a namespace.
pub(crate) fn inum(fd: &OwnedFd) -> Option<u32> {
    u32::try_from(fstat(fd).ok()?.st_ino).ok()
}

/// The CLONE_NEW* flag of its type.
pub(crate) fn kind(fd: &OwnedFd) -> io::Result<i32> {
    // SAFETY: this request takes no argument, and the file is open.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind),
    }
}

fn file(fd: &OwnedFd, request: libc::Ioctl) -> Option<OwnedFd> {
    // SAFETY: this request takes no argument, and the file is open.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), request) };
    // SAFETY: the kernel just returned this descriptor, and nothing else has it.
    (found >= 0).then(|| unsafe { OwnedFd::from_raw_fd(found) })
}

fn value<T: Default>(fd: &OwnedFd, request: libc::Ioctl) -> Option<T> {
    let mut value = T::default();
    // SAFETY: `value` is an integer of the size that the request expects, and the file is open.
    (unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) } == 0).then_some(value)
}

/// `None` for the caller's own namespace, and for one that is not nested in it.
pub(super) fn parent(fd: &OwnedFd) -> Option<OwnedFd> {
    file(fd, NS_GET_PARENT)
}

pub(super) fn owner(fd: &OwnedFd) -> Option<OwnedFd> {
    file(fd, NS_GET_USERNS)
}

pub(super) fn owner_uid(fd: &OwnedFd) -> Option<u32> {
    value(fd, NS_GET_OWNER_UID)
}

/// Available since 6.18.
pub(super) fn id(fd: &OwnedFd) -> Option<u64> {
    value(fd, NS_GET_ID)
}
