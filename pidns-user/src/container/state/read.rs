//! Reads files that others control, with limits: bounded size, only below their root, only regular files.

use std::{
    cell::Cell,
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat2},
    io::Errno,
    time::{ClockId, clock_gettime},
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::super::roots::Folder;
use crate::{event::identity::HostPid, procfs};

/// Largest accepted file in bytes. The state of a container takes about 10 KiB; Podman's list takes 700 bytes for each
/// container.
pub(super) const LARGEST_FILE: u64 = 4 << 20;
/// Limit for directories that are read for a container, including those that may belong to one. Daemons have about ten.
const MAX_FOLDERS: u32 = 64;
/// Limit for reading files of a container, in bytes.
const MAX_BYTES: u64 = 16 << 20;
/// Limit for processor time of reading for a container. One read takes about 0.1 ms.
const LONGEST_LOOK: Duration = Duration::from_millis(50);
/// Limit for entries of a directory.
const MAX_ENTRIES: usize = 256;
/// The error of [`open`] for a directory whose file system may have a server. The kernel returns it if it would have to
/// wait.
const BEHIND_SERVER: Errno = Errno::AGAIN;
/// Longest name of a directory (NAME_MAX) in bytes.
const LONGEST_ID: usize = 255;

/// Why a file was not read.
#[derive(Debug, Error)]
pub(super) enum ReadFailure {
    /// The file does not exist: not yet, or no longer.
    #[error("{0}: no such file")]
    Absent(PathBuf),
    #[error("{0}: it is a symbolic link, or the path to it contains one or another mount")]
    LeadsAway(PathBuf),
    #[error("{0}: it is not a regular file")]
    NotAFile(PathBuf),
    #[error("{0}: it is on a file system whose server may not answer")]
    BehindServer(PathBuf),
    #[error("{0}: it is larger than {limit} MiB", limit = LARGEST_FILE >> 20)]
    TooLarge(PathBuf),
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Json(PathBuf, serde_json::Error),
    #[error("{0}: it does not contain a PID")]
    NoPid(PathBuf),
    #[error(
        "it has too many or too large files: reading is limited to {MAX_FOLDERS} directories, {most} MiB and {longest} ms, \
         and the rest was not read",
        most = MAX_BYTES >> 20,
        longest = LONGEST_LOOK.as_millis()
    )]
    Spent,
}

/// An id, or the name of one directory, that may become part of a path. It allows the characters that every runtime
/// allows in ids (runc: validateID, libcontainer/factory_linux.go; containerd: pkg/identifiers), and nothing that leads
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

/// Reads files as long as that costs little. It runs in the stream's thread, and a user's directory can contain 64,000
/// directories of containers, each with a file of 4 MiB.
#[derive(Debug)]
pub(super) struct Reader {
    folders_left: Cell<u32>,
    bytes_left: Cell<u64>,
    /// Limit of this thread's processor time. (Wall-clock time would cost names on a busy machine.)
    end: Duration,
}

impl Reader {
    /// A reader for all files of one container.
    pub(super) fn new() -> Self {
        Self {
            folders_left: Cell::new(MAX_FOLDERS),
            bytes_left: Cell::new(MAX_BYTES),
            end: processor_time() + LONGEST_LOOK,
        }
    }

    /// Counts a directory that will be read.
    pub(super) fn enter(&self) -> Result<(), ReadFailure> {
        let left = self.folders_left.get().checked_sub(1).ok_or(ReadFailure::Spent)?;
        self.folders_left.set(left);
        if processor_time() > self.end { Err(ReadFailure::Spent) } else { Ok(()) }
    }

    /// Reads a file in the directory or below.
    pub(super) fn read(&self, folder: &Folder, relative: &Path) -> Result<Vec<u8>, ReadFailure> {
        let most = self.bytes_left.get();
        if most == 0 || processor_time() > self.end {
            return Err(ReadFailure::Spent);
        }
        let whole = folder.join(relative);
        let mut file = File::from(open(&whole, OFlags::RDONLY).map_err(|errno| unread(whole.path(), errno))?);
        let stat = fstat(&file).map_err(|errno| unread(whole.path(), errno))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ReadFailure::NotAFile(whole.path()));
        }
        if stat.st_size > LARGEST_FILE as i64 {
            return Err(ReadFailure::TooLarge(whole.path()));
        }
        let mut contents = Vec::new();
        let read = file.by_ref().take(LARGEST_FILE.min(most) + 1).read_to_end(&mut contents);
        let length = contents.len() as u64;
        self.bytes_left.set(most.saturating_sub(length));
        read.map_err(|error| ReadFailure::Io(whole.path(), error))?;
        // Check again: the file may have grown since its length was checked.
        if length > LARGEST_FILE {
            return Err(ReadFailure::TooLarge(whole.path()));
        }
        if length > most { Err(ReadFailure::Spent) } else { Ok(contents) }
    }

    /// Reads a file as JSON.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        folder: &Folder,
        relative: &Path,
    ) -> Result<T, ReadFailure> {
        let contents = self.read(folder, relative)?;
        serde_json::from_slice(&contents)
            .map_err(|error| ReadFailure::Json(folder.join(relative).path(), error))
    }

    /// Reads a file as a PID in digits.
    pub(super) fn pid(&self, folder: &Folder, relative: &Path) -> Result<HostPid, ReadFailure> {
        let contents = self.read(folder, relative)?;
        let pid = str::from_utf8(&contents).ok().and_then(|digits| digits.trim().parse().ok());
        pid.and_then(HostPid::known).ok_or_else(|| ReadFailure::NoPid(folder.join(relative).path()))
    }

    /// The directories in this one whose names `wanted` accepts, sorted. Empty if the directory does not exist. If it
    /// cannot be read, that is added to `doubts`.
    pub(super) fn folders(
        &self,
        folder: &Folder,
        doubts: &mut Vec<String>,
        wanted: impl Fn(FolderName<'_>) -> bool,
    ) -> Vec<String> {
        let opened = self.enter().and_then(|()| {
            let opened = open(folder, OFlags::RDONLY | OFlags::DIRECTORY).and_then(Dir::read_from);
            opened.map_err(|errno| unread(folder.path(), errno))
        });
        let entries = match opened {
            Ok(entries) => entries,
            Err(ReadFailure::Absent(_)) => return Vec::new(),
            Err(error) => {
                doubts.push(error.to_string());
                return Vec::new();
            }
        };
        let mut names: Vec<String> = entries
            .take(MAX_ENTRIES)
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
}

/// Processor time of this thread so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

fn open(folder: &Folder, flags: OFlags) -> Result<rustix::fd::OwnedFd, Errno> {
    let base =
        rustix::fs::open(&folder.base, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // Users may mount anything over their own run directory. From here on, openat2 forbids other mounts.
    if !procfs::is_without_server(&base) {
        return Err(BEHIND_SERVER);
    }
    // For an absolute path openat2 would return EXDEV, as for a link; for an empty one, ENOENT.
    let below = if folder.below.as_os_str().is_empty() { OsStr::new(".") } else { folder.below.as_os_str() };
    openat2(
        base,
        below.as_bytes(),
        // A FIFO without a writer would block the process that opens it, and a terminal could become ours.
        flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV,
    )
}

/// When a directory was last changed; `None` if it does not exist or cannot be opened.
pub(super) fn modified(folder: &Folder) -> Option<SystemTime> {
    let folder = open(folder, OFlags::RDONLY | OFlags::DIRECTORY).ok()?;
    File::from(folder).metadata().and_then(|folder| folder.modified()).ok()
}

fn unread(path: PathBuf, errno: Errno) -> ReadFailure {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ReadFailure::Absent(path),
        Errno::LOOP | Errno::XDEV => ReadFailure::LeadsAway(path),
        // A socket cannot be opened.
        Errno::NXIO => ReadFailure::NotAFile(path),
        BEHIND_SERVER => ReadFailure::BehindServer(path),
        errno => ReadFailure::Io(path, errno.into()),
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

    fn folder(base: &Path) -> Folder {
        Folder { base: base.to_owned(), below: PathBuf::new() }
    }

    fn read(base: &Path, relative: &str) -> Result<Vec<u8>, ReadFailure> {
        Reader::new().read(&folder(base), Path::new(relative))
    }

    fn error(base: &Path, relative: &str) -> ReadFailure {
        read(base, relative).expect_err(relative)
    }

    #[test]
    fn a_regular_file_below_the_root_is_read() {
        let root = root();
        assert_eq!(read(root.path(), "web/state.json").unwrap(), b"{}");
        let link = root.path().with_extension("link");
        symlink(root.path(), &link).unwrap();
        let through_link = read(&link, "web/state.json");
        fs::remove_file(&link).unwrap();
        assert_eq!(through_link.unwrap(), b"{}", "the root itself may be a link");
    }

    #[test]
    fn links_anywhere_in_the_path_are_not_followed() {
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
            assert!(matches!(error(root.path(), path), ReadFailure::LeadsAway(_)), "{path}");
        }
        assert_eq!(Reader::new().folders(&folder(root.path()), &mut Vec::new(), |_| true), ["web"]);
    }

    #[test]
    fn another_mount_on_the_way_is_not_entered() {
        assert!(fs::read("/proc/version").is_ok(), "it is readable");
        assert!(matches!(error(Path::new("/"), "proc/version"), ReadFailure::LeadsAway(_)));
        assert!(read(Path::new("/proc"), "version").is_ok(), "the root itself may be a mount");
        let version = |folder: Folder| Reader::new().read(&folder, Path::new("version"));
        assert!(version(folder(Path::new("/")).mountable("proc")).is_ok(), "the machine's");
        let of_user = Folder { base: PathBuf::from("/"), below: PathBuf::from(".") };
        let refused = version(of_user.mountable("proc"));
        assert!(matches!(refused, Err(ReadFailure::LeadsAway(_))), "a user's: {refused:?}");
    }

    #[test]
    fn a_fifo_is_refused_without_waiting() {
        let root = root();
        rustix::fs::mknodat(CWD, root.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let _listener = UnixListener::bind(root.path().join("socket")).unwrap();
        for path in ["fifo", "socket", "web"] {
            assert!(matches!(error(root.path(), path), ReadFailure::NotAFile(_)), "{path}");
        }
        assert!(matches!(error(root.path(), "web/none"), ReadFailure::Absent(_)));
        assert!(matches!(error(root.path(), "web/state.json/x"), ReadFailure::Absent(_)));
        assert!(matches!(error(&root.path().join("nowhere"), "x"), ReadFailure::Absent(_)));
    }

    #[test]
    fn a_file_is_read_up_to_the_limit() {
        let root = root();
        let file = File::create(root.path().join("large")).unwrap();
        file.set_len(LARGEST_FILE).unwrap();
        assert_eq!(read(root.path(), "large").unwrap().len() as u64, LARGEST_FILE);
        file.set_len(LARGEST_FILE + 1).unwrap();
        assert!(matches!(error(root.path(), "large"), ReadFailure::TooLarge(_)));
        file.set_len(1 << 40).unwrap();
        assert!(matches!(error(root.path(), "large"), ReadFailure::TooLarge(_)));
    }

    #[test]
    fn no_more_is_read_than_the_budget_allows() {
        let root = root();
        for name in ["a", "b", "c", "d", "e"] {
            File::create(root.path().join(name)).unwrap().set_len(LARGEST_FILE).unwrap();
        }
        let folder = folder(root.path());
        let reader = Reader::new();
        for name in ["a", "b", "c", "d"] {
            assert!(reader.read(&folder, Path::new(name)).is_ok(), "{name}");
        }
        for name in ["e", "web/state.json"] {
            assert!(matches!(reader.read(&folder, Path::new(name)), Err(ReadFailure::Spent)), "{name}");
        }
        let mut doubts = Vec::new();
        for _ in 0..=MAX_FOLDERS {
            reader.folders(&folder, &mut doubts, |_| true);
        }
        assert_eq!(doubts, [ReadFailure::Spent.to_string()], "the last directory exceeds the limit");
        assert!(doubts[0].contains("64 directories, 16 MiB and 50 ms"), "{}", doubts[0]);
        let late = Reader { end: processor_time(), ..Reader::new() };
        assert!(matches!(late.read(&folder, Path::new("web/state.json")), Err(ReadFailure::Spent)));
        assert!(matches!(late.enter(), Err(ReadFailure::Spent)));
    }

    #[test]
    fn a_truncated_document_is_reported_with_its_position() {
        let root = root();
        fs::write(root.path().join("web/state.json"), "{\"id\": \"we").unwrap();
        let error = Reader::new()
            .json::<serde_json::Value>(&folder(root.path()), Path::new("web/state.json"))
            .unwrap_err();
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
