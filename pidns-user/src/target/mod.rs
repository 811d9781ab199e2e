//! What a namespace or a PID on the command line stands for, looked up in /proc.

pub(crate) mod find;
pub(crate) mod pinned;
pub(crate) mod scope;

use std::{fs, io, path::Path};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process},
};

use crate::{
    event::identity::{HostPid, NsInum},
    kernel::namespace,
    procfs::nsfs,
    text::Count,
};

/// Where /proc begins to number namespaces (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c, and the initial ones below).
const FIRST_INUM: NsInum = NsInum(0xeffffff8);
/// The largest PID that a 64-bit kernel gives (one below `PID_MAX_LIMIT`, include/linux/threads.h).
pub const LAST_PID: u32 = (4 << 20) - 1;

/// What a TARGET can be. A number is a namespace's from 4026531832 on, where /proc begins to number them, and a PID below:
/// no PID is as large.
pub const FORMS: &str = "a namespace's inode number (4026532847 or pid:[4026532847]), a PID, the path of a namespace \
                         file like /proc/PID/ns/pid, or a container's name, pod or id";

/// What it can be in a recording, which has nothing about this machine's files.
pub const RECORDED_FORMS: &str = "the inode number of a namespace (4026532847 or pid:[4026532847]) that was there then, a \
                                  PID of the host, or a container's name, pod or id";

/// Why a TARGET finds nothing in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// What it names does not exist, or not there.
    #[error("{0}")]
    NoMatch(String),
    /// It names nothing, or more than one thing, or something that may not be read.
    #[error("{0}")]
    Usage(String),
}

/// Why a TARGET stands for no namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// It has the form of none.
    Meaningless(String),
    /// What it names does not exist.
    Nothing(String),
    /// The named object cannot be read.
    Unreadable(String),
}

/// The form of a TARGET. Whether it exists is another question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedTarget<'a> {
    /// The namespace of this inode number.
    Namespace(NsInum),
    /// The process of this PID on the host.
    Pid(HostPid),
    /// The namespace that this file stands for.
    Path(&'a str),
    /// The name, pod or id of a container. (Relative paths have the same form.)
    Name(&'a str),
}

impl<'a> ParsedTarget<'a> {
    /// The form of this TARGET.
    pub fn of(target: &'a str) -> Result<Self, NotFound> {
        let number = target.strip_prefix("pid:[").and_then(|rest| rest.strip_suffix(']'));
        match number.unwrap_or(target).parse::<u32>() {
            Ok(inum) if inum >= FIRST_INUM.0 => Ok(Self::Namespace(NsInum(inum))),
            Ok(_) if number.is_some() => {
                Err(NotFound::Meaningless("no namespace has such a small number".to_owned()))
            }
            Ok(pid) => Ok(Self::Pid(HostPid(pid))),
            Err(_) if number.is_some() => Err(NotFound::Meaningless("this names no namespace".to_owned())),
            Err(_) if target.starts_with(['/', '.']) => Ok(Self::Path(target)),
            Err(_) => Ok(Self::Name(target)),
        }
    }
}

/// The inode number that a TARGET stands for where no lookup is possible.
pub fn number_of_namespace(target: &str) -> Result<NsInum, String> {
    match ParsedTarget::of(target) {
        Ok(ParsedTarget::Namespace(inum)) => Ok(inum),
        _ => Err("in a recording a namespace is asked for by its inode number".to_owned()),
    }
}

/// The inode number that a TARGET stands for; or the reason why it stands for none.
pub fn find_namespace(target: &str) -> Result<NsInum, String> {
    look_up_namespace(target).map_err(|error| match error {
        NotFound::Meaningless(text) | NotFound::Nothing(text) | NotFound::Unreadable(text) => text,
    })
}

/// The inode number that a TARGET stands for; or why it stands for none.
pub fn look_up_namespace(target: &str) -> Result<NsInum, NotFound> {
    match ParsedTarget::of(target)? {
        ParsedTarget::Namespace(inum) => Ok(inum),
        ParsedTarget::Pid(pid) => {
            inode(Path::new(&format!("/proc/{pid}/ns/pid"))).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => NotFound::Nothing(format!("there is no process of PID {pid}")),
                _ => NotFound::Unreadable(format!(
                    "cannot look up the namespace of PID {pid}: {}",
                    explain(&error)
                )),
            })
        }
        ParsedTarget::Path(path) | ParsedTarget::Name(path) if path.contains('/') => {
            inode(Path::new(path)).map_err(|error| NotFound::Unreadable(explain(&error)))
        }
        ParsedTarget::Path(_) | ParsedTarget::Name(_) => {
            Err(NotFound::Meaningless("this names no namespace".to_owned()))
        }
    }
}

/// What a user should know who asked for these namespaces, by their numbers, and processes.
pub fn warnings(namespaces: &[NsInum], pids: &[HostPid]) -> Vec<String> {
    let of_namespaces = namespaces.iter().filter_map(|&inum| doubt_namespace(inum));
    of_namespaces.chain(pids.iter().filter_map(|&pid| doubt_pid(pid))).collect()
}

/// What a user should know who asked for this namespace by its number.
fn doubt_namespace(inum: NsInum) -> Option<String> {
    let hidden = match hidden_if_nobody_is_in(inum)? {
        (0, _) => String::new(),
        (1, pid) => format!(", but that of PID {pid} may not be read (permission denied)"),
        (more, pid) => format!(
            ", but those of {} may not be read (permission denied), PID {pid} among them",
            Count(more, "process", "processes")
        ),
    };
    Some(format!(
        "--ns {inum}: no process is in such a namespace now{hidden}; a later one of this number is shown"
    ))
}

/// What a user should know who asked for this PID.
fn doubt_pid(pid: HostPid) -> Option<String> {
    if namespace::is_initial() != Some(true) {
        // The numbers in this /proc are others.
        return None;
    }
    let number = i32::try_from(pid.0).ok().and_then(Pid::from_raw)?;
    if test_kill_process(number) == Err(Errno::SRCH) {
        return Some(format!(
            "--pid {pid}: there is no such process now; a later one of this number is shown"
        ));
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim();
    (leader != pid.to_string()).then(|| {
        format!("--pid {pid}: this is a thread; its process, which events are about, is --pid {leader}")
    })
}

/// Finds a process that is a member of this namespace, or whose children will be. Where there is none: how many may
/// not be read, and one of those.
fn hidden_if_nobody_is_in(inum: NsInum) -> Option<(u64, u32)> {
    if namespace::is_initial() != Some(true) {
        // The processes of this /proc are not all there are.
        return None;
    }
    let name = format!("pid:[{inum}]");
    let mut hidden = (0, 0);
    for process in fs::read_dir("/proc").ok()? {
        let process = process.ok()?.file_name();
        let Some(pid) = process.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let link = |kind| fs::read_link(format!("/proc/{pid}/ns/{kind}"));
        let links = [link("pid"), link("pid_for_children")];
        if links.iter().flatten().any(|link| link.as_os_str() == name.as_str()) {
            return None;
        }
        let denied = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        if links.iter().any(|link| link.as_ref().is_err_and(denied)) {
            hidden = (hidden.0 + 1, pid);
        }
    }
    Some(hidden)
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("{error}: that of another user's process takes CAP_SYS_PTRACE")
        }
        _ => error.to_string(),
    }
}

fn inode(path: &Path) -> io::Result<NsInum> {
    let file = nsfs::open(path)?;
    if nsfs::kind(&file)? != libc::CLONE_NEWPID {
        return Err(io::Error::other("this is a namespace of another type"));
    }
    nsfs::inum(&file).map(NsInum).ok_or_else(|| io::Error::other("it has no inode number"))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt as _, sync::mpsc, thread, time::Duration};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn own() -> NsInum {
        NsInum(fs::metadata("/proc/self/ns/pid").unwrap().ino() as u32)
    }

    #[test]
    fn a_namespace_is_found_by_number_pid_and_path() {
        let own = own();
        assert_eq!(find_namespace(&own.to_string()), Ok(own));
        assert_eq!(find_namespace(&format!("pid:[{own}]")), Ok(own));
        assert_eq!(find_namespace(&std::process::id().to_string()), Ok(own));
        assert_eq!(find_namespace("/proc/self/ns/pid"), Ok(own));
        for (bad, why) in [
            ("4194305", "no process of PID 4194305"),
            ("web", "names no namespace"),
            ("pid:[12]", "small"),
            ("/etc/passwd", "no namespace file"),
            ("/proc/self/ns/net", "another type"),
            ("/nowhere/at/all", "No such file"),
            ("", "names no namespace"),
        ] {
            let error = find_namespace(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn a_fifo_is_no_namespace_and_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let (sender, answer) = mpsc::channel();
        thread::spawn(move || sender.send(find_namespace(fifo.to_str().unwrap())));
        let found = answer.recv_timeout(Duration::from_secs(20)).expect("it waits for a writer");
        assert!(found.unwrap_err().contains("no namespace file"));
    }

    #[test]
    fn target_forms_are_distinguished_by_syntax_alone() {
        for (target, text) in [
            ("4026532178", ParsedTarget::Namespace(NsInum(4026532178))),
            ("pid:[4026532178]", ParsedTarget::Namespace(NsInum(4026532178))),
            ("1", ParsedTarget::Pid(HostPid(1))),
            ("./x", ParsedTarget::Path("./x")),
            ("/proc/1/ns/pid", ParsedTarget::Path("/proc/1/ns/pid")),
            ("web", ParsedTarget::Name("web")),
            ("default/api-7f", ParsedTarget::Name("default/api-7f")),
            // No namespace has so large a number: the beginning of an id.
            ("402653217812", ParsedTarget::Name("402653217812")),
        ] {
            assert_eq!(ParsedTarget::of(target), Ok(text), "{target}");
        }
        for nonsense in ["pid:[12]", "pid:[web]", "pid:[]"] {
            assert!(matches!(ParsedTarget::of(nonsense), Err(NotFound::Meaningless(_))), "{nonsense}");
        }
    }

    #[test]
    fn a_filter_that_may_match_later_is_warned_of() {
        let expected = usize::from(namespace::is_initial() == Some(true));
        let warnings = warnings(&[], &[HostPid(LAST_PID), HostPid(std::process::id())]);
        assert_eq!(warnings.len(), expected, "{warnings:?}");
    }

    #[test]
    fn a_namespace_without_processes_is_doubted() {
        assert_eq!(doubt_namespace(own()), None);
        if namespace::is_initial() == Some(true) {
            let doubt = doubt_namespace(NsInum(u32::MAX));
            assert!(doubt.is_some_and(|doubt| doubt.contains("no process is in")));
        }
    }

    #[test]
    fn a_pid_of_no_process_or_of_a_thread_is_doubted() {
        let own = std::process::id();
        assert_eq!(doubt_pid(HostPid(own)), None);
        if namespace::is_initial() != Some(true) {
            return;
        }
        assert!(doubt_pid(HostPid(LAST_PID)).is_some_and(|doubt| doubt.contains("no such process")));
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert_ne!(thread, own, "a test runs in a thread of its own");
        assert!(doubt_pid(HostPid(thread)).is_some_and(|doubt| doubt.contains(&format!("is --pid {own}"))));
    }
}
