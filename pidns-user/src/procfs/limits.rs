//! Which limit bounds how many tasks a process and its children can have, and how much of it is used.
//!
//! Tasks are what the limits count: threads and zombies too. Three limits apply to every process:
//! - `pids.max` of its cgroup and of each one above it (Documentation/admin-guide/cgroup-v2.rst, "PID"; kernel/cgroup/pids.c).
//! - `kernel.pid_max`. A task has a PID at each level, so that the host's bounds all namespaces. Since Linux 6.14 a namespace
//!   has one of its own too. /proc/sys/kernel/pid_max shows that of the reader's namespace, and those of others are in no file:
//!   the caller adds what it has from the kernel (`pid_namespace.pid_max`) with [`Limit::tighter`].
//! - `kernel.threads-max` (kernel/fork.c).
//!
//! What a user namespace allows (`user.max_pid_namespaces`) is not here: its limit is in a file, how much of it is used is not.

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

/// Most cgroups of a path that are read, from the outermost on: a user may make 2,000 in each other (PATH_MAX), and each costs
/// 10 µs.
const DEEPEST: usize = 64;

/// Most bytes of a file that holds one number, or one line of them.
const LONGEST_LINE: u64 = 4 << 10;

/// Most bytes of /proc/PID/cgroup: a line a hierarchy, of which there are 16 at most, and each path has up to 4 KiB.
const LONGEST_LIST: u64 = 256 << 10;

/// Most bytes of mountinfo: more than 100,000 mounts, which is what `fs.mount-max` allows.
const LONGEST_MOUNTINFO: u64 = 64 << 20;

/// Which limit it is.
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
    /// All of them.
    pub const ALL: [Self; 3] = [Self::PidsCgroup, Self::PidMax, Self::ThreadsMax];

    /// What metrics and JSON call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::PidsCgroup => "pids_cgroup",
            Self::PidMax => "pid_max",
            Self::ThreadsMax => "threads_max",
        }
    }
}

/// A limit, and how much of it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Which one.
    pub kind: LimitKind,
    /// Tasks that count against it. Of `kernel.pid_max` that is the least there are: a PID stays taken while it is a session's or
    /// a group's, too.
    pub current: u64,
    /// Most tasks that it allows. (`kernel.pid_max` itself is no PID, and of those below 300 none is given out twice.)
    pub limit: u64,
    /// The cgroup that it is set on, as a path of its hierarchy. Untrusted bytes: who may make a cgroup chooses its name.
    pub cgroup: Option<Name>,
}

impl Limit {
    /// Tasks that it still allows; 0 where it was lowered below what is there.
    pub fn room(&self) -> u64 {
        self.limit.saturating_sub(self.current)
    }

    /// The one of the two that leaves less room; `other` where they leave the same.
    pub fn tighter(self, other: Self) -> Self {
        if self.room() < other.room() { self } else { other }
    }
}

/// Why limits are not known.
#[derive(Debug, thiserror::Error)]
#[error("read {}: {error}", path.display())]
pub struct LimitError {
    /// The file that could not be read.
    pub path: PathBuf,
    /// What came back.
    pub error: io::Error,
}

/// Reads limits. For one pass over many processes: what they have in common is read once, and is as old as the reader.
pub struct LimitReader<'a> {
    procfs: &'a Procfs,
    /// Those that all processes have in common.
    machine: Vec<Limit>,
    /// Where the pids controller is, of the first cgroup version and of the second. Those of a version are the outermost first.
    mounts: [Vec<CgroupMount>; 2],
    /// What is set on cgroups, by path.
    known: HashMap<Vec<u8>, Option<Limit>>,
    unread: u64,
}

impl<'a> LimitReader<'a> {
    /// Reads what all processes have in common, and where cgroups are mounted.
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

    /// The limit that leaves this process the least room; `None` where the process is gone.
    ///
    /// Of its cgroups those count that the reader's cgroup namespace and mounts show, and of these the outermost 64.
    ///
    /// # Errors
    /// /proc/PID/cgroup may not be read. A cgroup whose files may not be read is counted in [`LimitReader::unread`].
    pub fn tightest(&mut self, pid: HostPid) -> Result<Option<Limit>, LimitError> {
        let file = format!("{pid}/cgroup");
        let cgroups = match self.procfs.limit_file(&file, LONGEST_LIST)? {
            Some(text) => self.cgroups(&text),
            // A kernel without cgroups has no such file.
            None if self.procfs.path(pid, "stat").exists() => Vec::new(),
            None => return Ok(None),
        };
        // Of two that leave the same room the later one.
        Ok(self.machine.iter().cloned().chain(cgroups).reduce(Limit::tighter))
    }

    /// All limits that apply to this process, from the machine's own to that of its innermost cgroup; none where it is gone.
    ///
    /// # Errors
    /// As of [`LimitReader::tightest`].
    pub fn chain(&mut self, pid: HostPid) -> Result<Vec<Limit>, LimitError> {
        let Some(text) = self.procfs.limit_file(&format!("{pid}/cgroup"), LONGEST_LIST)? else {
            return Ok(Vec::new());
        };
        Ok([self.machine.clone(), self.cgroups(&text)].concat())
    }

    /// The path of the cgroup with this number (inode number of its folder) which counts the tasks of this process, or is above the one
    /// that does. `None` where the process is gone, or no mount shows it.
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

    /// The path of the cgroup with this number, of the hierarchies that count tasks: by the number alone where the kernel opens a
    /// folder by that (CAP_DAC_READ_SEARCH), else by searching so many folders at most. `None` where the cgroup is gone, no
    /// mount shows it, or it is not among those.
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

    /// How often a cgroup's limit was not known: its files may not be read, no mount shows it, or it is too far within others.
    pub fn unread(&self) -> u64 {
        self.unread
    }

    /// The limits of the cgroups that a /proc/PID/cgroup leads to, the outermost first.
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

/// Where the paths of a cgroup below its mount and of each one above it end, from the mount's own on, which is empty.
fn ends(path: &[u8]) -> impl Iterator<Item = usize> {
    let inner = (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&byte| byte == b'/'));
    std::iter::once(0).chain(inner)
}

/// The part of a path up to one of the [`ends`] of its rest.
fn up_to<'a>(path: &'a [u8], rest: &[u8], end: usize) -> &'a [u8] {
    match &path[..path.len() - rest.len() + end] {
        [path @ .., b'/'] if !path.is_empty() => path,
        path => path,
    }
}

/// The path of the cgroup that counts the tasks of a process, and the version of its hierarchy: 0 for the first, 1 for the second.
fn pids_path(text: &[u8]) -> Option<(usize, &[u8])> {
    let lines = || {
        text.split(|&byte| byte == b'\n').filter_map(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':').skip(1);
            Some((fields.next()?, fields.next()?))
        })
    };
    // A controller is in one hierarchy, and if that is one of the first version the second does without it.
    let first = lines().find(|(list, _)| list.split(|&byte| byte == b',').any(|name| name == b"pids"));
    let unified = || Some((1, lines().find(|(list, _)| list.is_empty())?.1));
    first.map(|(_, path)| (0, path)).or_else(unified)
}

/// The limit that is set on the cgroup in this folder. None has the root, who has `max`, and where the controller is not on.
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

/// `kernel.threads-max` and `kernel.pid_max`, as far as they are there.
fn machine(procfs: &Procfs) -> Result<Vec<Limit>, LimitError> {
    let file = "loadavg";
    let Some(loadavg) = procfs.limit_file(file, LONGEST_LINE)? else { return Ok(Vec::new()) };
    let Some(current) = tasks(&loadavg) else {
        let error = io::Error::new(io::ErrorKind::InvalidData, "it has no number of tasks");
        return Err(LimitError { path: procfs.root.join(file), error });
    };
    let mut found = Vec::new();
    for (kind, file) in
        [(LimitKind::ThreadsMax, "sys/kernel/threads-max"), (LimitKind::PidMax, "sys/kernel/pid_max")]
    {
        let Some(text) = procfs.limit_file(file, LONGEST_LINE)? else { continue };
        let Some(limit) = number(&text) else {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it holds no number");
            return Err(LimitError { path: procfs.root.join(file), error });
        };
        found.push(Limit { kind, current, limit, cgroup: None });
    }
    Ok(found)
}

/// The tasks of the machine: 99 of `0.25 0.33 2.00 3/99 30145` (proc_loadavg(5); `nr_threads`, which counts zombies too).
fn tasks(loadavg: &[u8]) -> Option<u64> {
    let field = loadavg.split(|&byte| byte == b' ').nth(3)?;
    let at = field.iter().position(|&byte| byte == b'/')?;
    number(&field[at + 1..])
}

fn number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.trim().parse().ok()
}

/// All of a file of up to this many bytes; `None` where there is none, or what it is about is gone.
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
    /// The tasks of the machine; `None` where /proc/loadavg has no number.
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
