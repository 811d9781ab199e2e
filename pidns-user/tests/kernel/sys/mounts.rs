//! Mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use super::checked;

fn path(path: &Path) -> CString {
    CString::new(path.as_os_str().as_encoded_bytes()).expect("the path has no NUL")
}

/// Keeps later mounts private to this mount namespace.
pub(crate) fn mount_privately() -> io::Result<()> {
    let flags = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the path is live; the other pointers may be null with these flags.
    let result =
        unsafe { libc::mount(std::ptr::null(), c"/".as_ptr(), std::ptr::null(), flags, std::ptr::null()) };
    checked(result.into()).map(drop)
}

/// Mounts a new proc with these options. It shows this process's namespace.
pub(crate) fn mount_proc(place: &Path, options: &str) -> io::Result<()> {
    let (place, options) = (path(place), CString::new(options)?);
    let kind = c"proc".as_ptr();
    // SAFETY: all are live, and NUL-terminated.
    checked(unsafe { libc::mount(kind, place.as_ptr(), kind, 0, options.as_ptr().cast()) }.into()).map(drop)
}

/// Mounts a file system for all users. The reader of this /dev/fuse serves it.
pub(crate) fn mount_fuse(place: &Path, device: BorrowedFd<'_>) -> io::Result<()> {
    let fd = device.as_raw_fd();
    let options = CString::new(format!("fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"))?;
    let place = path(place);
    let (name, kind) = (c"hanging".as_ptr(), c"fuse".as_ptr());
    // SAFETY: all are live, and NUL-terminated.
    checked(unsafe { libc::mount(name, place.as_ptr(), kind, 0, options.as_ptr().cast()) }.into()).map(drop)
}

/// Bind-mounts the file `what` on `place`, which must be a file.
pub(crate) fn bind_mount(what: &str, place: &Path) -> io::Result<()> {
    let (what, place) = (path(Path::new(what)), path(place));
    // SAFETY: both paths are live; the other pointers may be null with this flag.
    let result = unsafe {
        libc::mount(what.as_ptr(), place.as_ptr(), std::ptr::null(), libc::MS_BIND, std::ptr::null())
    };
    checked(result.into()).map(drop)
}

pub(crate) fn unmount(place: &Path) -> io::Result<()> {
    // SAFETY: the path is live.
    checked(unsafe { libc::umount(path(place).as_ptr()) }.into()).map(drop)
}
