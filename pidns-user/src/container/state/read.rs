//! Files that others wrote, read with suspicion: bounded, only below their root, only regular ones.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Largest file that is read, bytes. The state of a container takes some 10 KiB; Podman's list of all
/// containers, 700 bytes each.
pub(super) const LARGEST_FILE: u64 = 4 << 20;
/// Most entries of a folder that are looked at.
const MOST_ENTRIES: usize = 256;
/// Longest name of a folder (NAME_MAX), bytes.
const LONGEST_ID: usize = 255;

/// Why a file was not read.
#[derive(Debug, Error)]
pub(super) enum Unread {
    /// There is none, or not yet, or no more.
    #[error("{0}: there is no such file")]
    Absent(PathBuf),
    #[error("{0}: it is a symbolic link, or on the way to it there is one or another mount")]
    LeadsAway(PathBuf),
    #[error("{0}: it is no regular file")]
    NotAFile(PathBuf),
    #[error("{0}: it is larger than {limit} MiB", limit = LARGEST_FILE >> 20)]
    TooLarge(PathBuf),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Json(PathBuf, serde_json::Error),
    #[error("{0}: it does not hold a PID")]
    NoPid(PathBuf),
}

/// An id, or another name of one folder, that may become part of a path: what every runtime makes ids of
/// (runc: validateID, libcontainer/factory_linux.go; containerd: pkg/identifiers), and nothing that leads
/// elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FolderName<'a>(&'a str);

impl<'a> FolderName<'a> {
    pub(super) fn new(name: &'a [u8]) -> Option<Self> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(byte);
        if name.is_empty()
            || name.len() > LONGEST_ID
            || !name.iter().all(allowed)
            || matches!(name, b"." | b"..")
        {
            return None;
        }
        str::from_utf8(name).ok().map(Self)
    }

    pub(super) fn as_str(self) -> &'a str {
        self.0
    }
}

/// Reads `root/relative`. The root may be reached through links, as an administrator may have moved it; below
/// it there may be neither a link nor another mount, which a rootless user could make of anything.
pub(super) fn read(root: &Path, relative: &Path) -> Result<Vec<u8>, Unread> {
    let path = || root.join(relative);
    let mut file = File::from(open(root, relative, OFlags::RDONLY).map_err(|errno| unread(path(), errno))?);
    let kind = fstat(&file).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::RegularFile)) {
        return Err(Unread::NotAFile(path()));
    }
    let mut contents = Vec::new();
    file.by_ref()
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut contents)
        .map_err(|error| Unread::Io(path(), error))?;
    // Its length of a moment ago says nothing: it may grow while it is read.
    if contents.len() as u64 > LARGEST_FILE {
        return Err(Unread::TooLarge(path()));
    }
    Ok(contents)
}

/// Reads `root/relative` as JSON.
pub(super) fn json<T: DeserializeOwned>(root: &Path, relative: &Path) -> Result<T, Unread> {
    let contents = read(root, relative)?;
    serde_json::from_slice(&contents).map_err(|error| Unread::Json(root.join(relative), error))
}

/// Reads `root/relative` as a PID in digits.
pub(super) fn pid(root: &Path, relative: &Path) -> Result<u32, Unread> {
    let contents = read(root, relative)?;
    let pid = str::from_utf8(&contents).ok().and_then(|digits| digits.trim().parse().ok());
    pid.filter(|&pid| pid != 0).ok_or_else(|| Unread::NoPid(root.join(relative)))
}

/// The folders in `root/relative` whose names `wanted` says yes to, sorted. None where there is no such
/// folder; of one that may not be read, `doubts` tell.
pub(super) fn folders(
    root: &Path,
    relative: &Path,
    doubts: &mut Vec<String>,
    wanted: impl Fn(FolderName<'_>) -> bool,
) -> Vec<String> {
    let opened = open(root, relative, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::read_from);
    let entries = match opened.map_err(|errno| unread(root.join(relative), errno)) {
        Ok(entries) => entries,
        Err(error) => {
            if !matches!(error, Unread::Absent(_)) {
                doubts.push(error.to_string());
            }
            return Vec::new();
        }
    };
    let mut names: Vec<String> = entries
        .take(MOST_ENTRIES)
        .flatten()
        .filter(|entry| matches!(entry.file_type(), FileType::Directory | FileType::Unknown))
        .filter_map(|entry| {
            let name = FolderName::new(entry.file_name().to_bytes())?;
            wanted(name).then(|| name.as_str().to_owned())
        })
        .collect();
    names.sort_unstable();
    names
}

fn open(root: &Path, relative: &Path, flags: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Of an absolute path openat2 would say EXDEV, as of a link; of an empty one, ENOENT.
    let relative = if relative.as_os_str().is_empty() { OsStr::new(".") } else { relative.as_os_str() };
    openat2(
        root,
        relative.as_bytes(),
        // A FIFO without a writer would hold up whoever opens it, and a terminal could become ours.
        flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV,
    )
}

fn unread(path: PathBuf, errno: Errno) -> Unread {
    match errno {
        Errno::NOENT | Errno::NOTDIR => Unread::Absent(path),
        Errno::LOOP | Errno::XDEV => Unread::LeadsAway(path),
        // A socket cannot be opened.
        Errno::NXIO => Unread::NotAFile(path),
        errno => Unread::Io(path, errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::{fs, os::unix::fs::symlink, os::unix::net::UnixListener};

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("web")).unwrap();
        fs::write(root.path().join("web/state.json"), "{}").unwrap();
        root
    }

    fn error(root: &Path, relative: &str) -> Unread {
        read(root, Path::new(relative)).expect_err(relative)
    }

    #[test]
    fn a_regular_file_below_the_root_is_read() {
        let root = root();
        assert_eq!(read(root.path(), Path::new("web/state.json")).unwrap(), b"{}");
        let link = root.path().with_extension("link");
        symlink(root.path(), &link).unwrap();
        let through_link = read(&link, Path::new("web/state.json"));
        fs::remove_file(&link).unwrap();
        assert_eq!(through_link.unwrap(), b"{}", "the root itself may be a link");
    }

    #[test]
    fn links_are_not_followed_wherever_they_are() {
        let root = root();
        symlink("/etc/passwd", root.path().join("web/link")).unwrap();
        symlink("state.json", root.path().join("web/near")).unwrap();
        symlink("/etc", root.path().join("etc")).unwrap();
        symlink("web", root.path().join("other")).unwrap();
        for path in [
            "web/link",
            "other/state.json",
            "web/near",
            "etc/passwd",
            "../../../../../../etc/passwd",
            "/etc/passwd",
        ] {
            assert!(matches!(error(root.path(), path), Unread::LeadsAway(_)), "{path}");
        }
        assert_eq!(folders(root.path(), Path::new(""), &mut Vec::new(), |_| true), ["web"]);
    }

    #[test]
    fn another_mount_on_the_way_is_not_entered() {
        assert!(fs::read("/proc/version").is_ok(), "it can be read otherwise");
        assert!(matches!(error(Path::new("/"), "proc/version"), Unread::LeadsAway(_)));
        assert!(read(Path::new("/proc"), Path::new("version")).is_ok(), "the root itself may be a mount");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let root = root();
        rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(root.path().join("socket")).unwrap();
        for path in ["fifo", "socket", "web"] {
            assert!(matches!(error(root.path(), path), Unread::NotAFile(_)), "{path}");
        }
        assert!(matches!(error(root.path(), "web/none"), Unread::Absent(_)));
        assert!(matches!(error(root.path(), "web/state.json/x"), Unread::Absent(_)));
        assert!(matches!(error(&root.path().join("nowhere"), "x"), Unread::Absent(_)));
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let root = root();
        let file = File::create(root.path().join("large")).unwrap();
        file.set_len(LARGEST_FILE).unwrap();
        assert_eq!(read(root.path(), Path::new("large")).unwrap().len() as u64, LARGEST_FILE);
        file.set_len(LARGEST_FILE + 1).unwrap();
        assert!(matches!(error(root.path(), "large"), Unread::TooLarge(_)));
        file.set_len(1 << 40).unwrap();
        assert!(matches!(error(root.path(), "large"), Unread::TooLarge(_)));
    }

    #[test]
    fn a_truncated_document_is_told_with_its_place() {
        let root = root();
        fs::write(root.path().join("web/state.json"), "{\"id\": \"we").unwrap();
        let error = json::<serde_json::Value>(root.path(), Path::new("web/state.json")).unwrap_err();
        assert!(error.to_string().contains("web/state.json: EOF while parsing"), "{error}");
    }

    #[test]
    fn only_a_plain_name_becomes_part_of_a_path() {
        for good in ["web", "a.b-c_d+e", "..."] {
            assert!(FolderName::new(good.as_bytes()).is_some(), "{good}");
        }
        let long = "a".repeat(LONGEST_ID + 1);
        for bad in ["", ".", "..", "a/b", "/", "a\0b", "a b", "ä", "a\n", &long] {
            assert!(FolderName::new(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(FolderName::new(b"\xff").is_none());
    }
}
