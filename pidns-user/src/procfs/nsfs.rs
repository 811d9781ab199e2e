//! The ioctls of namespace files (include/uapi/linux/nsfs.h).

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_PARENT: libc::Ioctl = 0xb702;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;
const NS_GET_ID: libc::Ioctl = 0x8008_b70d;

fn file(fd: &OwnedFd, request: libc::Ioctl) -> Option<OwnedFd> {
    // SAFETY: a request without an argument, on a file that is open.
    let found = unsafe { libc::ioctl(fd.as_raw_fd(), request) };
    // SAFETY: the kernel just returned this descriptor, and nobody else has it.
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
