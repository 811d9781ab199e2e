//! Finds a directory of a file system by its inode number.

use std::{
    collections::VecDeque,
    ffi::c_int,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::{DirEntryExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

/// `struct file_handle` (include/linux/fs.h) of kernfs, which cgroups use: it contains the number of the node.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: c_int,
    node: u64,
}

/// Opens the directory with this number in the kernfs that is mounted at `mount`. Returns its path for this process.
///
/// # Errors
/// It does not exist, it is not below `mount`, or CAP_DAC_READ_SEARCH is missing.
pub(super) fn open(mount: &Path, number: u64) -> io::Result<PathBuf> {
    /// `FILEID_KERNFS`, include/linux/exportfs.h.
    const KERNFS: c_int = 0xfe;
    let mount = File::open(mount)?;
    let mut handle = Handle { bytes: size_of::<u64>() as u32, kind: KERNFS, node: number };
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the handle has the kernel's layout, with as many bytes after its head as it states.
    let found =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut handle, flags) };
    if found < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor, and nothing else has it.
    let found = unsafe { OwnedFd::from_raw_fd(found as c_int) };
    let path = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    // The kernel marks the path of a removed directory, and of one outside the mount.
    match fs::metadata(&path) {
        Ok(shown) if shown.ino() == number => Ok(path),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Finds the directory with this number among the first `most` directories below `top`. Outer ones come first.
pub(super) fn find(top: &Path, number: u64, most: usize) -> Option<PathBuf> {
    let mut open = VecDeque::from([top.to_owned()]);
    let mut seen = 0;
    while let Some(folder) = open.pop_front() {
        // A directory that is gone by now has no entries.
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries.flatten().filter(is_folder) {
            if seen == most {
                return None;
            }
            seen += 1;
            if entry.ino() == number {
                return Some(entry.path());
            }
            open.push_back(entry.path());
        }
    }
    None
}

fn is_folder(entry: &fs::DirEntry) -> bool {
    entry.file_type().is_ok_and(|kind| kind.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_found_by_number_within_the_limit() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let inner = top.path().join("b/c");
        fs::create_dir_all(&inner).expect("folders");
        fs::create_dir(top.path().join("a")).expect("create a directory");
        fs::write(top.path().join("file"), "").expect("write a file");
        let number = |path: &Path| fs::metadata(path).expect("read metadata").ino();
        assert_eq!(find(top.path(), number(&inner), 3), Some(inner.clone()));
        assert_eq!(find(top.path(), number(&inner), 2), None, "it is the third directory");
        assert_eq!(find(top.path(), number(&top.path().join("a")), 0), None, "none may be read");
        assert_eq!(find(top.path(), number(&top.path().join("file")), 9), None, "a file is not a directory");
        assert_eq!(find(&top.path().join("nothing"), 1, 9), None);
    }

    #[test]
    fn only_kernfs_can_open_by_number() {
        let top = tempfile::tempdir().expect("a temporary directory");
        let number = fs::metadata(top.path()).expect("read metadata").ino();
        assert!(open(top.path(), number).is_err());
        assert!(open(&top.path().join("nothing"), number).is_err());
    }
}
