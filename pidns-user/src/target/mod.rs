//! Resolves namespaces and PIDs on the command line, with the help of /proc.

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

/// The smallest inode number of a namespace. The initial ones come first, then `PROC_DYNAMIC_FIRST`
/// (fs/proc/generic.c).
const FIRST_INUM: NsInum = NsInum(0xeffffff8);
/// The largest PID of a 64-bit kernel (one below `PID_MAX_LIMIT`, include/linux/threads.h).
pub const LAST_PID: u32 = (4 << 20) - 1;

/// The forms of a TARGET, for messages. A number from 4026531832 on is the inode number of a namespace, because /proc
/// numbers namespaces from there on. A smaller number is a PID.
pub const FORMS: &str = "a namespace's inode number (4026532847 or pid:[4026532847]), a PID, the path of a namespace \
                         file like /proc/PID/ns/pid, or a container's name, pod or id";

/// The forms in a recording. It contains no files of the machine.
pub const RECORDED_FORMS: &str = "the inode number of a namespace that existed then (4026532847 or pid:[4026532847]), \
                                  a PID of the host, or a container's name, pod or id";

/// Why a TARGET cannot be resolved in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// The named object does not exist, or not in this snapshot.
    #[error("{0}")]
    NoMatch(String),
    /// It has no valid form, is ambiguous, or cannot be read.
    #[error("{0}")]
    Usage(String),
}

/// Why the namespace of a TARGET was not found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotFound {
    /// It has no valid form.
    Meaningless(String),
    /// The named object does not exist.
    Nothing(String),
    /// The named object cannot be read.
    Unreadable(String),
}

/// A TARGET by its form. It need not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedTarget<'a> {
    /// The namespace with this inode number.
    Namespace(NsInum),
    /// The process with this PID on the host.
    Pid(HostPid),
    /// The namespace of this file.
    Path(&'a str),
    /// The name, pod or id of a container. (Relative paths have the same form.)
    Name(&'a str),
}

impl<'a> ParsedTarget<'a> {
    /// Parses a TARGET.
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
            Err(_) => match other_type(target) {
                Some(kind) => Err(NotFound::Meaningless(format!(
                    "this is a namespace of another type ({kind}); only PID namespaces can be shown"
                ))),
                None => Ok(Self::Name(target)),
            },
        }
    }
}

/// The type in the name of a namespace of another type, as the links in /proc/PID/ns show it: `mnt:[4026531832]`.
fn other_type(target: &str) -> Option<&str> {
    let (kind, rest) = target.split_once(":[")?;
    let number = rest.strip_suffix(']')?;
    let is_kind = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    (is_kind && number.parse::<u32>().is_ok()).then_some(kind)
}

/// The inode number of a TARGET, without a lookup in /proc. Otherwise the error names the option to use.
pub fn number_of_namespace(target: &str) -> Result<NsInum, String> {
    let number = "here --ns takes an inode number (4026532847 or pid:[4026532847]), as `pidns-trace tree --from FILE` prints it";
    match ParsedTarget::of(target) {
        Ok(ParsedTarget::Namespace(inum)) => Ok(inum),
        Ok(ParsedTarget::Pid(pid)) => Err(format!(
            "{number}. `pidns-trace pid {pid} --from FILE` prints those of a process, and -p {pid} shows its events"
        )),
        Ok(ParsedTarget::Name(name)) if !name.is_empty() => {
            Err(format!("{number}. For a container, give its name, pod or id to -c"))
        }
        Ok(ParsedTarget::Path(_) | ParsedTarget::Name(_)) => Err(number.to_owned()),
        Err(NotFound::Meaningless(text) | NotFound::Nothing(text) | NotFound::Unreadable(text)) => {
            Err(format!("{text}: {number}"))
        }
    }
}

/// The inode number of a TARGET's namespace, or the reason why there is none.
pub fn find_namespace(target: &str) -> Result<NsInum, String> {
    look_up_namespace(target).map_err(|error| match error {
        NotFound::Meaningless(text) | NotFound::Nothing(text) | NotFound::Unreadable(text) => format!(
            "{text}. Give an inode number (4026532847 or pid:[4026532847], as `lsns -t pid` prints it), a PID, or the path of a \
             namespace file"
        ),
    })
}

/// Like [`find_namespace`], with a typed error.
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

/// Warnings about namespaces (by inode number) and processes in a filter.
pub fn warnings(namespaces: &[NsInum], pids: &[HostPid]) -> Vec<String> {
    let of_namespaces = namespaces.iter().filter_map(|&inum| doubt_namespace(inum));
    of_namespaces.chain(pids.iter().filter_map(|&pid| doubt_pid(pid))).collect()
}

/// Warns if no process is in this namespace now.
fn doubt_namespace(inum: NsInum) -> Option<String> {
    let hidden = match hidden_if_nobody_is_in(inum)? {
        (0, _) => String::new(),
        (1, pid) => format!(", but the namespace of PID {pid} cannot be read (permission denied)"),
        (more, pid) => format!(
            ", but the namespaces of {} cannot be read (permission denied), for example of PID {pid}",
            Count(more, "process", "processes")
        ),
    };
    Some(format!(
        "--ns {inum}: no process is in this namespace now{hidden}; a later namespace with this number is shown"
    ))
}

/// Warns if there is no process with this PID now, or if it is the id of a thread.
fn doubt_pid(pid: HostPid) -> Option<String> {
    if namespace::is_initial() != Some(true) {
        // This /proc has the PIDs of another namespace.
        return None;
    }
    let number = i32::try_from(pid.0).ok().and_then(Pid::from_raw)?;
    if test_kill_process(number) == Err(Errno::SRCH) {
        return Some(format!(
            "--pid {pid}: there is no such process now; a later process with this PID is shown"
        ));
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let leader = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim();
    (leader != pid.to_string()).then(|| {
        format!(
            "--pid {pid}: this is a thread, but events are about processes: its process is --pid {leader}"
        )
    })
}

/// Searches for a process that is in this namespace, or whose children will be. If there is none, returns the number of
/// processes whose namespace cannot be read, and the PID of one.
fn hidden_if_nobody_is_in(inum: NsInum) -> Option<(u64, u32)> {
    if namespace::is_initial() != Some(true) {
        // This /proc does not show all processes.
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
            format!("{error}: for a process of another user this needs CAP_SYS_PTRACE")
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
            ("/etc/passwd", "not a namespace file"),
            ("/proc/self/ns/net", "another type"),
            ("/nowhere/at/all", "No such file"),
            ("", "names no namespace"),
            ("mnt:[4026531832]", "another type (mnt)"),
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
        let found =
            answer.recv_timeout(Duration::from_secs(20)).expect("an answer: it must not wait for a writer");
        assert!(found.unwrap_err().contains("not a namespace file"));
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
            // No namespace has such a large number, so it is the beginning of an id.
            ("402653217812", ParsedTarget::Name("402653217812")),
        ] {
            assert_eq!(ParsedTarget::of(target), Ok(text), "{target}");
        }
        for nonsense in
            ["pid:[12]", "pid:[web]", "pid:[]", "mnt:[4026531832]", "pid_for_children:[4026531836]"]
        {
            assert!(matches!(ParsedTarget::of(nonsense), Err(NotFound::Meaningless(_))), "{nonsense}");
        }
    }

    #[test]
    fn a_recording_takes_a_number_and_names_the_option_for_the_rest() {
        assert_eq!(number_of_namespace("4026532178"), Ok(NsInum(4026532178)));
        assert_eq!(number_of_namespace("pid:[4026532178]"), Ok(NsInum(4026532178)));
        for (target, advice) in [
            ("web", "give its name, pod or id to -c"),
            ("999", "`pidns-trace pid 999 --from FILE`"),
            ("/proc/1/ns/pid", "tree --from FILE"),
            ("", "tree --from FILE"),
            ("pid:[12]", "small number: here --ns takes"),
        ] {
            let error = number_of_namespace(target).unwrap_err();
            assert!(error.contains(advice) && error.contains("takes an inode number"), "{target}: {error}");
            assert!(!error.contains("lsns"), "that is about this machine: {error}");
        }
        assert!(find_namespace("web").unwrap_err().contains("lsns"));
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
