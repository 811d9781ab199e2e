//! Namespace files: how they are opened, and their ioctls (include/uapi/linux/nsfs.h).

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstat, open as open_file, stat, statx},
    io::Errno,
};

use super::reach::device_at;

const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
const NS_GET_ID: libc::Ioctl = 0x8008_b70d;

/// Opens what must be a namespace file. At its path there may be anything by now, a FIFO among it: to open one waits
/// for a writer, for ever. So its type is checked first.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let found = open_file(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match reopen(&found)? {
        Some(file) => Ok(file),
        // With O_PATH a link that may not be followed leads to the folder that it is in (5.10; not 6.1).
        None if is_folder_of(path, &found) => Err(Errno::ACCESS.into()),
        None => Err(io::Error::other("this is no namespace file")),
    }
}

/// Opens what was found with O_PATH; `None` where that is no namespace file.
pub(super) fn reopen(found: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    // All are in one file system. (What else is there may have a server, which fstatfs would wait for.)
    let namespaces = stat("/proc/self/ns/pid")?.st_dev;
    if device_at(found, Path::new(""))? != namespaces {
        return Ok(None);
    }
    // The same file, and not whatever the path leads to meanwhile.
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

/// The inode number: what a namespace is called by.
pub(crate) fn inum(fd: &OwnedFd) -> Option<u32> {
    u32::try_from(fstat(fd).ok()?.st_ino).ok()
}

/// The CLONE_NEW* of its type.
pub(crate) fn kind(fd: &OwnedFd) -> io::Result<i32> {
    // SAFETY: a request without an argument, on a file that is open.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        kind => Ok(kind),
    }
}

fn file(fd: &OwnedFd, request: libc::Ioctl) -> Option<OwnedFd> {
    // SAFETY: a request without an argument, on a file that is open.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), request) };
    // SAFETY: the kernel just returned this descriptor, and nothing else has it.
    (found >= 0).then(|| unsafe { OwnedFd::from_raw_fd(found) })
}

fn value<T: Default>(fd: &OwnedFd, request: libc::Ioctl) -> Option<T> {
    let mut value = T::default();
    // SAFETY: an integer of the size that the request names, on a file that is open.
    (unsafe { libc::ioctl(fd.as_raw_fd(), request, &raw mut value) } == 0).then_some(value)
}

/// `None` for the caller's own namespace, and for one that is not below it.
pub(super) fn parent(fd: &OwnedFd) -> Option<OwnedFd> {
    file(fd, NS_GET_PARENT)
}

pub(super) fn owner(fd: &OwnedFd) -> Option<OwnedFd> {
    file(fd, NS_GET_USERNS)
}

pub(super) fn owner_uid(fd: &OwnedFd) -> Option<u32> {
    value(fd, NS_GET_OWNER_UID)
}

/// Since 6.18.
pub(super) fn id(fd: &OwnedFd) -> Option<u64> {
    value(fd, NS_GET_ID)
}
