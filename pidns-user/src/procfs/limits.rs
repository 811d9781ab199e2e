//! Finds the limit for the number of tasks that a process and its children can have, and how much of it is used.
//!
//! Limits count tasks, which include threads and zombies. Three limits apply to every process:
//! - `pids.max` of its cgroup and of each cgroup above (Documentation/admin-guide/cgroup-v2.rst, "PID";
//!   kernel/cgroup/pids.c).
//! - `kernel.pid_max`. A task has a PID at each level, so the host's limit applies to all namespaces. Since Linux 6.14,
//!   each namespace also has its own. /proc/sys/kernel/pid_max shows only the limit of the reader's namespace;
//!   snapshots have the others.
//! - `kernel.threads-max` (kernel/fork.c).
//!
//! The limit of a user namespace (`user.max_pid_namespaces`) is not included: a file shows the limit, but none shows
//! how much is used.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use super::{
    Procfs,
    cgroup::{CgroupMount, below, cgroup_mounts},
    is_gone,
    mountinfo::Mount,
    numbered,
};
use crate::{event::identity::HostPid, text::Name};

/// Number of cgroups of a path that are read, from the outermost on. A user may nest 2,000 (PATH_MAX), and reading one
/// takes 10 µs.
const DEEPEST: usize = 64;

/// Largest size of a file with one number, or one line of numbers, in bytes.
const LONGEST_LINE: u64 = 4 << 10;

/// Largest size of /proc/PID/cgroup in bytes. It has one line for each of at most 16 hierarchies, with paths up to 4
/// KiB.
const LONGEST_LIST: u64 = 256 << 10;

/// Largest size of mountinfo in bytes. It suffices for more than the 100,000 mounts that `fs.mount-max` allows.
const LONGEST_MOUNTINFO: u64 = 64 << 20;

/// The kind of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitKind {
    /// `pids.max` of a cgroup.
    PidsCgroup,
    /// `kernel.pid_max`.
    PidMax,
    /// `kernel.threads-max`.
    ThreadsMax,
}

impl LimitKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::PidsCgroup, Self::PidMax, Self::ThreadsMax];

    /// The name in metrics and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::PidsCgroup => "pids_cgroup",
            Self::PidMax => "pid_max",
            Self::ThreadsMax => "threads_max",
        }
    }
}

/// A limit, with its current use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The kind of limit.
    pub kind: LimitKind,
    /// Number of tasks that count against it. For `kernel.pid_max` this is a lower bound: a PID also stays in use while
    /// a session or group has it.
    pub current: u64,
    /// Largest number of tasks. (`kernel.pid_max` itself is not a valid PID, and PIDs below 300 are not reused.)
    pub limit: u64,
    /// The cgroup that has the limit, as a path in its hierarchy. The bytes are untrusted: whoever may create a cgroup
    /// chooses its name.
    pub cgroup: Option<Name>,
}

impl Limit {
    /// Number of tasks that it still allows. It is 0 if the limit was set below the current use.
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.current)
    }

    /// Returns the limit with less room; `other` if both have the same.
    pub fn tighter(self, other: Self) -> Self {
        if self.room() < other.room() { self } else { other }
    }
}

/// An error while reading limits.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {error}", path.display())]
pub struct LimitError {
    /// The unreadable file.
    pub path: PathBuf,
    /// The error.
    pub error: io::Error,
}

/// Reads limits, for one pass over many processes. Common values are read once, and are as old as the reader.
pub struct LimitReader<'a> {
    procfs: &'a Procfs,
    /// Limits that apply to all processes.
    machine: Vec<Limit>,
    /// Mounts with the pids controller, for cgroup version 1 and 2. The outermost come first.
    mounts: [Vec<CgroupMount>; 2],
    /// Limits of cgroups, by path.
    known: HashMap<Vec<u8>, Option<Limit>>,
    unread: u64,
}

impl<'a> LimitReader<'a> {
    /// Reads the limits that apply to all processes, and finds the mounts of cgroups.
    pub fn new(procfs: &'a Procfs) -> Result<Self, LimitError> {
        let mountinfo = procfs.limit_file("self/mountinfo", LONGEST_MOUNTINFO)?.unwrap_or_default();
        let find = |is_wanted: fn(&Mount<'_>) -> bool| {
            let mut found = cgroup_mounts(&mountinfo, is_wanted);
            found.retain(CgroupMount::is_seen);
            found.sort_by_key(|mount| mount.root.len());
            found
        };
        let has_pids = |mount: &Mount<'_>| {
            mount.kind == b"cgroup"
                && mount.options.split(|&byte| byte == b',').any(|option| option == b"pids")
        };
        let mounts = [find(has_pids), find(|mount| mount.kind == b"cgroup2")];
        Ok(Self { procfs, machine: machine(procfs)?, mounts, known: HashMap::new(), unread: 0 })
    }

    /// Returns the limit that leaves this process the least room; `None` if the process is gone.
    ///
    /// Only cgroups that the reader's cgroup namespace and mounts show count, and of these only the outermost 64.
    ///
    /// # Errors
    /// /proc/PID/cgroup cannot be read. If only the files of a cgroup cannot be read, [`LimitReader::unread`] counts
    /// it.
    pub fn tightest(&mut self, pid: HostPid) -> Result<Option<Limit>, LimitError> {
        let file = format!("{pid}/cgroup");
        let cgroups = match self.procfs.limit_file(&file, LONGEST_LIST)? {
            Some(text) => self.cgroups(&text),
            // A kernel without cgroups does not have this file.
            None if self.procfs.path(pid, "stat").exists() => Vec::new(),
            None => return Ok(None),
        };
        // If two leave the same room, take the later one.
        Ok(self.machine.iter().cloned().chain(cgroups).reduce(Limit::tighter))
    }

    /// All limits that apply to this process, from the machine's to that of its innermost cgroup. Empty if the process
    /// is gone.
    ///
    /// # Errors
    /// Like [`LimitReader::tightest`].
    pub fn chain(&mut self, pid: HostPid) -> Result<Vec<Limit>, LimitError> {
        let Some(text) = self.procfs.limit_file(&format!("{pid}/cgroup"), LONGEST_LIST)? else {
            return Ok(Vec::new());
        };
        Ok(self.chain_in(&text))
    }

    /// All limits that apply to a process in these cgroups, which are the contents of its /proc/PID/cgroup.
    pub fn chain_in(&mut self, cgroups: &[u8]) -> Vec<Limit> {
        [self.machine.clone(), self.cgroups(cgroups)].concat()
    }

    /// The path of the cgroup with this inode number, if it counts the tasks of this process, directly or from above.
    /// `None` if the process is gone, or no mount shows the cgroup.
    pub fn pids_cgroup(&self, pid: HostPid, number: u64) -> Option<Name> {
        let text = self.procfs.limit_file(&format!("{pid}/cgroup"), LONGEST_LIST).ok()??;
        let (version, path) = pids_path(&text)?;
        let mut shown = self.mounts[version].iter();
        let (mount, rest) = shown.find_map(|mount| Some((mount, below(path, &mount.root)?)))?;
        let end = ends(rest).take(DEEPEST).find(|&end| {
            fs::metadata(mount.folder.join(OsStr::from_bytes(&rest[..end])))
                .is_ok_and(|folder| folder.ino() == number)
        })?;
        Some(Name::from(up_to(path, rest, end)))
    }

    /// The path of the cgroup with this number, in the hierarchies that count tasks. If the kernel can open directories
    /// by number (CAP_DAC_READ_SEARCH), the number suffices. Otherwise at most `most_folders` directories are searched.
    /// `None` if the cgroup is gone, no mount shows it, or the search did not reach it.
    pub fn cgroup_of_number(&self, number: u64, most_folders: usize) -> Option<Name> {
        let shown = || self.mounts.iter().flatten();
        let path = |mount: &CgroupMount, folder: &Path| {
            let below = folder.strip_prefix(&mount.folder).ok()?.as_os_str().as_bytes();
            let root = mount.root.strip_suffix(b"/").unwrap_or(&mount.root);
            Some(Name::from(&[root, b"/", below].concat()[..]))
        };
        let mut may_open = true;
        for mount in shown() {
            match numbered::open(&mount.folder, number) {
                Ok(folder) => return path(mount, &folder),
                Err(error) => may_open &= error.kind() != io::ErrorKind::PermissionDenied,
            }
        }
        if may_open {
            return None;
        }
        shown().find_map(|mount| path(mount, &numbered::find(&mount.folder, number, most_folders)?))
    }

    /// Number of times that a cgroup's limit was unknown: its files cannot be read, no mount shows it, or it is nested
    /// too deeply.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// Limits of the cgroups in a /proc/PID/cgroup, the outermost first.
    fn cgroups(&mut self, text: &[u8]) -> Vec<Limit> {
        let Some((version, path)) = pids_path(text) else { return Vec::new() };
        let mut shown = self.mounts[version].iter();
        let Some((mount, rest)) = shown.find_map(|mount| Some((mount, below(path, &mount.root)?))) else {
            self.unread += 1;
            return Vec::new();
        };
        let mut found = Vec::new();
        for (depth, end) in ends(rest).enumerate() {
            let path = up_to(path, rest, end);
            if depth == DEEPEST {
                self.unread += 1;
                break;
            }
            let known = match self.known.get(path) {
                Some(known) => known.clone(),
                None => {
                    let folder = mount.folder.join(OsStr::from_bytes(&rest[..end]));
                    let read = of_cgroup(&folder, path).unwrap_or_else(|_| {
                        self.unread += 1;
                        None
                    });
                    self.known.insert(path.to_vec(), read.clone());
                    read
                }
            };
            found.extend(known);
        }
        found
    }
}

/// The ends of all prefixes of a path below a mount: first that of the mount itself, which is empty, then one for each
/// cgroup.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let inner = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'));
    std::iter::once(0).chain(inner)
}

/// The part of a path up to one of the [`ends`] of `rest`.
fn up_to<'a>(path: &'a [u8], rest: &[u8], end: usize) -> &'a [u8] {
    match &path[..path.len() - rest.len() + end] {
        [path @ .., b'/'] if !path.is_empty() => path,
        path => path,
    }
}

/// The version of the hierarchy that counts a process's tasks (0 for v1, 1 for v2), and the path of its cgroup there.
fn pids_path(text: &[u8]) -> Option<(usize, &[u8])> {
    let lines = || {
        text.split(|&byte| byte == b'\n').filter_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
    };
    // A controller is in only one hierarchy. If that is v1, v2 does not have it.
    let first = lines().find(|(list, _)| list.split(|&byte| byte == b',').any(|name| name == b"pids"));
    let unified = || Some((1, lines().find(|(list, _)| list.is_empty())?.1));
    first.map(|(_, path)| (0, path)).or_else(unified)
}

/// The limit of the cgroup in this directory. `None` for the root, for `max`, and if the controller is off.
fn of_cgroup(folder: &Path, path: &[u8]) -> io::Result<Option<Limit>> {
    let Some(limit) = read(&folder.join("pids.max"), LONGEST_LINE)? else { return Ok(None) };
    if limit.trim_ascii() == b"max" {
        return Ok(None);
    }
    let limit = number(&limit).ok_or(io::ErrorKind::InvalidData)?;
    let Some(current) = read(&folder.join("pids.current"), LONGEST_LINE)? else { return Ok(None) };
    let current = number(&current).ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(Limit { kind: LimitKind::PidsCgroup, current, limit, cgroup: Some(Name::from(path)) }))
}

/// `kernel.threads-max` and `kernel.pid_max`, if they exist.
fn machine(procfs: &Procfs) -> Result<Vec<Limit>, LimitError> {
    let file = "loadavg";
    let Some(loadavg) = procfs.limit_file(file, LONGEST_LINE)? else { return Ok(Vec::new()) };
    let Some(current) = tasks(&loadavg) else {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it does not contain the number of tasks");
        return Err(LimitError { path: procfs.root.join(file), error });
    };
    let mut found = Vec::new();
    for (kind, file) in
        [(LimitKind::ThreadsMax, "sys/kernel/threads-max"), (LimitKind::PidMax, "sys/kernel/pid_max")]
    {
        let Some(text) = procfs.limit_file(file, LONGEST_LINE)? else { continue };
        let Some(limit) = number(&text) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it does not contain a number");
            return Err(LimitError { path: procfs.root.join(file), error });
        };
        found.push(Limit { kind, current, limit, cgroup: None });
    }
    Ok(found)
}

/// The number of tasks of the machine: 99 in `0.25 0.33 2.00 3/99 30145` (proc_loadavg(5); `nr_threads`, which includes
/// zombies).
fn tasks(loadavg: &[u8]) -> Option<u64> {
    let field = loadavg.split(|&byte| byte == b' ').nth(3)?;
    let at = field.iter().position(|&byte| byte == b'/')?;
    number(&field[at + 1..])
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Reads a whole file up to this size; `None` if the file or its object is gone.
fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let read = || {
        let mut text = Vec::new();
        File::open(path)?.take(most + 1).read_to_end(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() as u64 > most => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")))
        }
        Ok(text) => Ok(Some(text)),
        // ENODEV: the cgroup was removed between opening the file and reading it (kernfs).
        Err(error) if is_gone(&error) || error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Procfs {
    /// The number of tasks of the machine; `None` if /proc/loadavg does not contain it.
    pub fn tasks(&self) -> Option<u64> {
        tasks(&self.limit_file("loadavg", LONGEST_LINE).ok()??)
    }

    fn limit_file(&self, file: &str, most: u64) -> Result<Option<Vec<u8>>, LimitError> {
        let path = self.root.join(file);
        read(&path, most).map_err(|error| LimitError { path, error })
    }
}

#[cfg(test)]
mod tests;
