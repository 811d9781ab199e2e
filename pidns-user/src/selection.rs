//! What the user asked to see: from the options to what the kernel filters and what is left to do here.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use globset::{Glob, GlobMatcher};
use pidns_ebpf::abi::{Kind, MAX_LEVEL};

use crate::event::{Body, Filter, Process};

/// The events of the live stream where none is asked for. Process events are of non-initial namespaces then.
const DEFAULT_EVENTS: [&str; 4] = ["namespace.*", "init.*", "fork.failed", "process.{fork,exec,exit}"];
/// Always there: without them a stream cannot be read.
const FRAME: [&str; 3] = ["stream.start", "stream.lost", "stream.end"];
/// Where /proc begins to number namespaces (`PROC_DYNAMIC_FIRST`, fs/proc/generic.c, and the initial ones below).
const FIRST_INUM: u32 = 0xeffffff8;

/// An option's value that means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectionError {
    /// No event matches.
    #[error("--event {0}: no such event. Events: {list}. Patterns like namespace.* and the word all are allowed too", list = event_list())]
    NoEvent(String),
    /// Not a pattern.
    #[error("{option} {value}: {error}")]
    BadGlob {
        /// Which option.
        option: &'static str,
        /// What it was given.
        value: String,
        /// What is wrong.
        error: String,
    },
    /// Not a level, or a range of them.
    #[error(
        "--level {0}: a level is a number from 0 (the host) to {MAX_LEVEL}, or a range of them: 1, 1-3, 2+"
    )]
    BadLevel(String),
    /// Not a namespace.
    #[error(
        "--ns {value}: {error}. Give an inode number (4026532847 or pid:[4026532847], as `lsns -t pid` prints it), a PID, or the path of a namespace file"
    )]
    NoNamespace {
        /// What was given.
        value: String,
        /// What is wrong.
        error: String,
    },
    /// More than the kernel's maps hold.
    #[error("{option}: at most {most} are possible")]
    TooMany {
        /// Which option.
        option: &'static str,
        /// How many there can be.
        most: u32,
    },
}

fn event_list() -> String {
    Body::NAMES.iter().filter(|name| !FRAME.contains(name)).copied().collect::<Vec<_>>().join(", ")
}

/// The options as given.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `--event`.
    pub events: Vec<String>,
    /// `--ns`.
    pub namespaces: Vec<String>,
    /// `--pid`.
    pub pids: Vec<u32>,
    /// `--comm`.
    pub comms: Vec<String>,
    /// `--level`.
    pub levels: Vec<String>,
}

/// What is to be seen.
#[derive(Debug)]
pub struct Selection {
    /// As `stream.start` tells it.
    pub filter: Filter,
    /// Bit mask by level, of processes.
    pub level_mask: u64,
    /// Bit mask by level, of namespaces' own events.
    namespace_level_mask: u64,
    comms: Vec<GlobMatcher>,
}

impl Selection {
    /// Checks the options; namespaces are looked up in /proc.
    pub fn new(asked: &Asked) -> Result<Self, SelectionError> {
        let Asked { events, namespaces, pids, comms, levels } = asked;
        let selected = select_events(events)?;
        let all_levels = mask(0, MAX_LEVEL);
        let level_mask = if levels.is_empty() {
            // Asking for events by name asks for them everywhere; the default leaves the host's processes out.
            if events.is_empty() { all_levels & !1 } else { all_levels }
        } else {
            parse_levels(levels)?
        };
        let most = pidns_ebpf::abi::names::FILTER_ENTRIES;
        for (option, count) in [("--ns", namespaces.len()), ("--pid", pids.len())] {
            if count > most as usize {
                return Err(SelectionError::TooMany { option, most });
            }
        }
        let namespaces = namespaces.iter().map(|target| find_namespace(target)).collect::<Result<_, _>>()?;
        Ok(Self {
            level_mask,
            namespace_level_mask: if levels.is_empty() { all_levels } else { level_mask },
            comms: comms.iter().map(|glob| matcher("--comm", glob)).collect::<Result<_, _>>()?,
            filter: Filter {
                events: selected,
                namespaces,
                pids: pids.clone(),
                comms: comms.clone(),
                levels: levels.clone(),
            },
        })
    }

    /// Bit mask by record kind of what the kernel is to send. It always sends what namespaces' identity and the
    /// causes of their ends are made of.
    pub fn event_mask(&self) -> u32 {
        Kind::ALL
            .iter()
            .filter(|kind| match record_event(**kind) {
                "init.signal" => self.has("init.signal") || self.has("namespace.init_exit"),
                name if name.starts_with("namespace.") => true,
                // Whether a process was orphaned is told by its fork.
                "process.fork" => self.has("process.fork") || self.has("process.exit"),
                name => self.has(name),
            })
            .fold(0, |mask, kind| mask | 1 << *kind as u32)
    }

    fn has(&self, name: &str) -> bool {
        self.filter.events.contains(&name)
    }

    /// Whether the event is to be shown. What the kernel has filtered already is not asked again.
    pub fn shows(&self, body: &Body) -> bool {
        if !self.has(body.name()) {
            return false;
        }
        let (process, other, level) = subjects(body);
        let pids = &self.filter.pids;
        let among = |process: Option<&Process>| process.is_some_and(|process| pids.contains(&process.pid));
        if !pids.is_empty() && !among(process) && !among(other) {
            return false;
        }
        if !self.comms.is_empty()
            && !process.or(other).is_some_and(|process| {
                let comm = process.comm.for_json().to_string();
                self.comms.iter().any(|glob| glob.is_match(&comm))
            })
        {
            return false;
        }
        level.is_none_or(|level| self.namespace_level_mask & (1 << level) != 0)
    }
}

/// The process that an event is about, the other one in it, and the level of its namespace, where it has those.
fn subjects(body: &Body) -> (Option<&Process>, Option<&Process>, Option<u32>) {
    let depth = |process: &Process| process.pids.len().saturating_sub(1) as u32;
    match body {
        Body::NamespaceCreate { ns, creator, .. } => (Some(creator), None, Some(ns.level)),
        Body::NamespaceCreateFailed { creator, .. } => (Some(creator), None, Some(depth(creator))),
        Body::NamespaceInit { ns, process }
        | Body::NamespaceJoin { ns, process, .. }
        | Body::NamespaceInitExit { ns, process, .. } => (Some(process), None, Some(ns.level)),
        Body::NamespaceJoinFailed { ns, process, .. } | Body::ForkFailed { ns, process, .. } => {
            (Some(process), None, Some(ns.as_ref().map_or(depth(process), |ns| ns.level)))
        }
        Body::NamespaceTeardown { ns, .. } | Body::NamespaceDestroy { ns, .. } => {
            (None, None, Some(ns.level))
        }
        Body::InitSignal { ns, process, sender, .. } => (Some(process), sender.as_ref(), Some(ns.level)),
        Body::ProcessFork { process, parent, .. } => (Some(process), Some(parent), None),
        Body::ProcessExec { process, .. }
        | Body::ProcessExit { process, .. }
        | Body::ProcessReap { process, .. } => (Some(process), None, None),
        Body::StreamStart { .. } | Body::StreamLost { .. } | Body::StreamEnd { .. } => (None, None, None),
    }
}

/// The event that a record becomes (namespace.init's may also tell of a creation).
pub fn record_event(kind: Kind) -> &'static str {
    match kind {
        Kind::NamespaceCreate => "namespace.create",
        Kind::NamespaceCreateFailed => "namespace.create_failed",
        Kind::NamespaceInit => "namespace.init",
        Kind::NamespaceJoin => "namespace.join",
        Kind::NamespaceJoinFailed => "namespace.join_failed",
        Kind::NamespaceInitExit => "namespace.init_exit",
        Kind::NamespaceTeardown => "namespace.teardown",
        Kind::NamespaceDestroy => "namespace.destroy",
        Kind::InitSignal => "init.signal",
        Kind::ForkFailed => "fork.failed",
        Kind::ProcessFork => "process.fork",
        Kind::ProcessExec => "process.exec",
        Kind::ProcessExit => "process.exit",
        Kind::ProcessReap => "process.reap",
    }
}

fn matcher(option: &'static str, glob: &str) -> Result<GlobMatcher, SelectionError> {
    match Glob::new(glob) {
        Ok(glob) => Ok(glob.compile_matcher()),
        Err(error) => {
            Err(SelectionError::BadGlob { option, value: glob.to_owned(), error: error.kind().to_string() })
        }
    }
}

fn select_events(asked: &[String]) -> Result<Vec<&'static str>, SelectionError> {
    let mut chosen = vec![false; Body::NAMES.len()];
    let defaults: Vec<String> = DEFAULT_EVENTS.map(str::to_owned).to_vec();
    for pattern in if asked.is_empty() { &defaults } else { asked } {
        let glob = matcher("--event", if pattern == "all" { "*" } else { pattern })?;
        let mut any = false;
        for (name, chosen) in Body::NAMES.iter().zip(&mut chosen) {
            if !FRAME.contains(name) && glob.is_match(name) {
                *chosen = true;
                any = true;
            }
        }
        if !any {
            return Err(SelectionError::NoEvent(pattern.clone()));
        }
    }
    Ok(Body::NAMES.iter().zip(chosen).filter_map(|(name, chosen)| chosen.then_some(*name)).collect())
}

fn mask(from: u32, to: u32) -> u64 {
    (from..=to).fold(0, |mask, level| mask | 1 << level)
}

fn parse_levels(levels: &[String]) -> Result<u64, SelectionError> {
    levels.iter().try_fold(0, |all, text| {
        let bad = || SelectionError::BadLevel(text.clone());
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|&level| level <= MAX_LEVEL).ok_or_else(bad);
        let (from, to) = match (text.strip_suffix('+'), text.split_once('-')) {
            (Some(from), _) => (number(from)?, MAX_LEVEL),
            (None, Some((from, to))) => (number(from)?, number(to)?),
            (None, None) => (number(text)?, number(text)?),
        };
        if from > to { Err(bad()) } else { Ok(all | mask(from, to)) }
    })
}

/// The inode number that a TARGET stands for.
fn find_namespace(target: &str) -> Result<u32, SelectionError> {
    let fail = |error: String| SelectionError::NoNamespace { value: target.to_owned(), error };
    let digits = target.strip_prefix("pid:[").and_then(|rest| rest.strip_suffix(']')).unwrap_or(target);
    match digits.parse::<u32>() {
        Ok(inum) if inum >= FIRST_INUM => Ok(inum),
        Ok(_) if digits.len() != target.len() => Err(fail("no namespace has such a small number".to_owned())),
        Ok(pid) => inode(Path::new(&format!("/proc/{pid}/ns/pid")))
            .map_err(|error| fail(format!("cannot look up the namespace of PID {pid}: {error}"))),
        Err(_) if target.contains('/') => inode(Path::new(target)).map_err(|error| fail(error.to_string())),
        Err(_) => Err(fail("this names no namespace".to_owned())),
    }
}

fn inode(path: &Path) -> std::io::Result<u32> {
    /// f_type of nsfs (include/uapi/linux/magic.h).
    const NSFS_MAGIC: i64 = 0x6e73_6673;
    let file = fs::File::open(path)?;
    if rustix::fs::fstatfs(&file)?.f_type as i64 != NSFS_MAGIC {
        return Err(std::io::Error::other("this is no namespace file"));
    }
    u32::try_from(file.metadata()?.ino()).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(events: &[&str], levels: &[&str]) -> Result<Selection, SelectionError> {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        Selection::new(&Asked { events: strings(events), levels: strings(levels), ..Asked::default() })
    }

    #[test]
    fn the_default_leaves_the_hosts_processes_and_reaps_out() {
        let selection = asked(&[], &[]).unwrap();
        assert_eq!(selection.level_mask & 1, 0);
        assert!(selection.has("process.exit") && !selection.has("process.reap"));
        assert_eq!(selection.event_mask() & (1 << Kind::ProcessReap as u32), 0);
        assert!(asked(&["process.*"], &[]).unwrap().level_mask & 1 != 0, "asked for by name, they are shown");
    }

    #[test]
    fn names_and_causes_need_records_that_nobody_asked_for() {
        let selection = asked(&["namespace.init_exit"], &[]).unwrap();
        assert_ne!(selection.event_mask() & (1 << Kind::InitSignal as u32), 0);
        assert_ne!(selection.event_mask() & (1 << Kind::NamespaceCreate as u32), 0);
        assert_eq!(selection.event_mask() & (1 << Kind::ProcessFork as u32), 0);
        let exits = asked(&["process.exit"], &[]).unwrap();
        assert_ne!(exits.event_mask() & (1 << Kind::ProcessFork as u32), 0, "orphans are told by their fork");
    }

    #[test]
    fn a_bad_event_is_told_what_there_is() {
        let error = asked(&["nonsense"], &[]).unwrap_err().to_string();
        assert!(error.contains("nonsense") && error.contains("process.fork"), "{error}");
        assert!(!error.contains("stream.start"), "{error}");
        assert!(matches!(asked(&["namespace.[a"], &[]), Err(SelectionError::BadGlob { .. })));
    }

    #[test]
    fn levels_are_numbers_and_ranges() {
        let levels = |list: &[&str]| asked(&[], list).map(|selection| selection.level_mask);
        assert_eq!(levels(&["1"]), Ok(0b10));
        assert_eq!(levels(&["0", "2-3"]), Ok(0b1101));
        assert_eq!(levels(&["31+"]), Ok(0b11 << 31));
        for bad in ["33", "-1", "2-1", "x", "", "+", "1-", "1-40"] {
            assert_eq!(levels(&[bad]), Err(SelectionError::BadLevel(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn a_namespace_is_found_by_number_pid_and_path() {
        let own = fs::metadata("/proc/self/ns/pid").unwrap().ino() as u32;
        let found = |target: &str| find_namespace(target);
        assert_eq!(found(&own.to_string()), Ok(own));
        assert_eq!(found(&format!("pid:[{own}]")), Ok(own));
        assert_eq!(found(&std::process::id().to_string()), Ok(own));
        assert_eq!(found("/proc/self/ns/pid"), Ok(own));
        for bad in ["4194305", "web", "pid:[12]", "/etc/passwd", "/nowhere/at/all", ""] {
            assert!(matches!(found(bad), Err(SelectionError::NoNamespace { .. })), "{bad}");
        }
    }
}
