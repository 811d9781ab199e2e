//! What the user asked to see: from the options to what the kernel filters and what is left to do here.

use globset::{Glob, GlobMatcher};
use pidns_ebpf::abi::{COMM_LEN, Kind, MAX_LEVEL};

use crate::{
    cli::Filters,
    event::{Body, Filter, Process, Word},
    model::World,
    target::{doubt_namespace, doubt_pid, find_namespace, number_of_namespace},
};

/// The events of the live stream where none is asked for. Process events are of non-initial namespaces then.
const DEFAULT_EVENTS: [&str; 4] = ["namespace.*", "init.*", "fork.failed", "process.{fork,exec,exit}"];
/// Always there: without them a stream cannot be read.
const FRAME: [&str; 6] =
    ["stream.start", "stream.lost", "stream.resync", "stream.end", "snapshot.namespace", "snapshot.process"];
/// Seen by the hook on system calls alone.
const REFUSALS: [&str; 3] = ["namespace.create_failed", "namespace.join_failed", "fork.failed"];

/// An option's value that means nothing.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SelectionError {
    /// No event matches.
    #[error("--event {0:?}: no such event. Events: {list}. Patterns like namespace.* and the word all are allowed too", list = event_list())]
    NoEvent(String),
    /// Only what no choice leaves out.
    #[error("--event {0}: stream.start, stream.lost and stream.end are always there. Events to choose from: {list}", list = event_list())]
    Frame(String),
    /// Only refusals, and nothing that sees them.
    #[error(
        "--event {0}: refusals are seen by the hook on system calls only, which --no-syscall-hooks leaves out"
    )]
    NoRefusals(String),
    /// No name is that long.
    #[error(
        "--comm {pattern}: no name matches: the kernel keeps the first {most} bytes of a name{hint}",
        most = COMM_LEN - 1,
        hint = if cut.is_empty() { String::new() } else { format!("; try '{cut}*'") }
    )]
    LongComm {
        /// What was given.
        pattern: String,
        /// What of it the kernel keeps, up to its first wildcard.
        cut: String,
    },
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
    /// `--no-syscall-hooks`.
    pub no_syscall_hooks: bool,
}

impl Asked {
    /// What these options ask for.
    pub fn of(filters: &Filters, no_syscall_hooks: bool) -> Self {
        let Filters { events, namespaces, pids, comms, levels } = filters.clone();
        Self { events, namespaces, pids, comms, levels, no_syscall_hooks }
    }
}

/// What is to be seen.
#[derive(Debug)]
pub struct Selection {
    /// As `stream.start` tells it.
    pub filter: Filter,
    /// What may well match nothing, in words.
    pub warnings: Vec<String>,
    /// Bit mask by level, of processes.
    pub level_mask: u64,
    /// Bit mask by level, of namespaces' own events.
    namespace_level_mask: u64,
    comms: Vec<GlobMatcher>,
}

impl Selection {
    /// Checks the options; namespaces are looked up in /proc.
    pub fn new(asked: &Asked) -> Result<Self, SelectionError> {
        let mut selection = Self::build(asked, find_namespace)?;
        let doubts = selection.filter.namespaces.iter().filter_map(|&inum| doubt_namespace(inum));
        selection.warnings = doubts.chain(asked.pids.iter().filter_map(|&pid| doubt_pid(pid))).collect();
        Ok(selection)
    }

    /// Checks the options for a recording, whose namespaces are not those of this machine.
    pub fn of_recording(asked: &Asked) -> Result<Self, SelectionError> {
        Self::build(asked, number_of_namespace)
    }

    fn build(asked: &Asked, find: fn(&str) -> Result<u32, String>) -> Result<Self, SelectionError> {
        let Asked { events, namespaces, pids, comms, levels, no_syscall_hooks } = asked;
        let selected = select_events(events, *no_syscall_hooks)?;
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
        let find = |value: &String| {
            find(value).map_err(|error| SelectionError::NoNamespace { value: value.clone(), error })
        };
        let namespaces = namespaces.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        comms.iter().try_for_each(|pattern| check_comm(pattern))?;
        Ok(Self {
            warnings: Vec::new(),
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
        self.filter.events.iter().any(|event| event == name)
    }

    /// Whether an event of a recording is to be shown: everything is in it, so that all is asked here. What is below what
    /// the events so far tell.
    pub fn shows_recorded(&self, body: &Body, world: &World) -> bool {
        if matches!(body, Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. }) {
            return false;
        }
        if FRAME.contains(&body.name()) {
            return true;
        }
        let (process, _, level) = subjects(body);
        let is_wanted = |inum: u32| self.filter.namespaces.iter().any(|&top| world.is_within(inum, top));
        let depth = |process: &Process| process.pids.len().saturating_sub(1) as u32;
        let own = namespace(body).or(process.map(|process| process.ns));
        self.shows(body)
            && (level.is_some() || process.is_none_or(|process| self.level_mask & (1 << depth(process)) != 0))
            && (self.filter.namespaces.is_empty() || own.is_some_and(is_wanted))
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

/// The namespace that an event is about, where it is about one.
fn namespace(body: &Body) -> Option<u32> {
    match body {
        Body::NamespaceCreate { ns, .. }
        | Body::NamespaceInit { ns, .. }
        | Body::NamespaceJoin { ns, .. }
        | Body::NamespaceInitExit { ns, .. }
        | Body::NamespaceTeardown { ns, .. }
        | Body::NamespaceDestroy { ns, .. }
        | Body::InitSignal { ns, .. } => Some(ns.inum),
        Body::NamespaceJoinFailed { ns, .. } | Body::ForkFailed { ns, .. } => ns.as_ref().map(|ns| ns.inum),
        Body::NamespaceCreateFailed { .. }
        | Body::ProcessFork { .. }
        | Body::ProcessExec { .. }
        | Body::ProcessExit { .. }
        | Body::ProcessReap { .. }
        | Body::StreamStart { .. }
        | Body::StreamLost { .. }
        | Body::StreamResync { .. }
        | Body::StreamEnd { .. }
        | Body::SnapshotNamespace { .. }
        | Body::SnapshotProcess { .. } => None,
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
        Body::StreamStart { .. }
        | Body::StreamLost { .. }
        | Body::StreamResync { .. }
        | Body::StreamEnd { .. }
        | Body::SnapshotNamespace { .. }
        | Body::SnapshotProcess { .. } => (None, None, None),
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

fn select_events(asked: &[String], no_syscall_hooks: bool) -> Result<Vec<Word>, SelectionError> {
    let mut chosen = vec![false; Body::NAMES.len()];
    let given: Vec<&str> = asked.iter().flat_map(|patterns| split_at_commas(patterns)).collect();
    for &pattern in if asked.is_empty() { &DEFAULT_EVENTS[..] } else { &given } {
        let glob = matcher("--event", if pattern == "all" { "*" } else { pattern })?;
        let (mut any, mut frame, mut only_refusals) = (false, false, true);
        for (name, chosen) in Body::NAMES.iter().zip(&mut chosen).filter(|(name, _)| glob.is_match(name)) {
            if FRAME.contains(name) {
                frame = true;
            } else {
                *chosen = true;
                any = true;
                only_refusals &= REFUSALS.contains(name);
            }
        }
        match (any, frame) {
            (false, true) => return Err(SelectionError::Frame(pattern.to_owned())),
            (false, false) => return Err(SelectionError::NoEvent(pattern.to_owned())),
            // The default is made for whatever hooks there are.
            (true, _) if only_refusals && no_syscall_hooks && !asked.is_empty() => {
                return Err(SelectionError::NoRefusals(pattern.to_owned()));
            }
            (true, _) => {}
        }
    }
    Ok(Body::NAMES.iter().zip(chosen).filter_map(|(&name, chosen)| chosen.then_some(name.into())).collect())
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

/// `--event`'s values: patterns with commas between them, which in braces and brackets belong to the pattern.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut braces, mut class, mut from, mut parts) = (0_u32, false, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '[' => class = true,
            ']' => class = false,
            '{' if !class => braces += 1,
            '}' if !class => braces = braces.saturating_sub(1),
            ',' if !class && braces == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

/// Least bytes of a text that the pattern, which is a valid one, matches.
fn least_bytes(pattern: &mut impl Iterator<Item = char>) -> usize {
    let (mut least, mut bytes) = (usize::MAX, 0);
    while let Some(c) = pattern.next() {
        bytes += match c {
            '*' => 0,
            '?' => 1,
            '[' => {
                // The first of a class, behind its `!`, is one of its characters, whatever it is.
                if matches!(pattern.next(), Some('!' | '^')) {
                    pattern.next();
                }
                let _ = pattern.find(|&c| c == ']');
                1
            }
            '{' => least_bytes(pattern),
            // At the top level, where these mean themselves, the longer text is the one that counts.
            ',' => {
                least = least.min(bytes);
                bytes = 0;
                continue;
            }
            '}' => break,
            c => c.len_utf8(),
        };
    }
    least.min(bytes)
}

/// A `--comm` that no name can match is refused. One with a backslash may be about bytes that are shown as four.
fn check_comm(pattern: &str) -> Result<(), SelectionError> {
    const MOST: usize = COMM_LEN - 1;
    if pattern.contains('\\') || least_bytes(&mut pattern.chars()) <= MOST {
        return Ok(());
    }
    let cut: String = pattern
        .char_indices()
        .take_while(|(at, c)| at + c.len_utf8() <= MOST && !"*?[{".contains(*c))
        .map(|(_, c)| c)
        .collect();
    Err(SelectionError::LongComm { pattern: pattern.to_owned(), cut })
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
    fn events_may_stand_together_behind_commas() {
        let chosen = |events: &[&str]| asked(events, &[]).map(|selection| selection.filter.events);
        assert_eq!(chosen(&["process.exit,fork.failed"]), chosen(&["process.exit", "fork.failed"]));
        assert_eq!(
            chosen(&["process.{fork,exit},init.*"]),
            chosen(&["process.fork", "process.exit", "init.*"])
        );
        assert_eq!(chosen(&["process.exit,nonsense"]), Err(SelectionError::NoEvent("nonsense".to_owned())));
    }

    #[test]
    fn what_frames_a_stream_is_not_for_choice() {
        for events in ["stream.*", "stream.lost", "process.exit,stream.end"] {
            let error = asked(&[events], &[]).unwrap_err().to_string();
            assert!(error.contains("always there") && error.contains("process.exit"), "{error}");
        }
    }

    #[test]
    fn refusals_without_the_hook_that_sees_them_are_refused() {
        let chosen = |event: &str| {
            let events = vec![event.to_owned()];
            Selection::new(&Asked { events, no_syscall_hooks: true, ..Asked::default() }).map(drop)
        };
        for event in ["fork.failed", "*failed", "process.exit,namespace.join_failed"] {
            let error = chosen(event).unwrap_err().to_string();
            assert!(error.contains("--no-syscall-hooks"), "{error}");
        }
        for event in ["namespace.*", "all", "process.exit"] {
            assert_eq!(chosen(event), Ok(()), "{event} has others too");
        }
        Selection::new(&Asked { no_syscall_hooks: true, ..Asked::default() }).unwrap();
    }

    #[test]
    fn names_longer_than_the_kernel_keeps_are_refused() {
        let comm = |pattern: &str| {
            Selection::new(&Asked { comms: vec![pattern.to_owned()], ..Asked::default() }).map(drop)
        };
        for good in [
            "a-name-of-15-by",
            "kworker/u8:*",
            "*-of-15-bytes*",
            "{a-name-that-is-too-long,short}",
            "[!]abcdefghijklmnopqrs]*",
            "???????????????",
            "a\\\\xff\\\\xff\\\\xff\\\\xff",
            "",
        ] {
            assert_eq!(comm(good), Ok(()), "{good}");
        }
        let error = comm("nginx-worker-process").unwrap_err().to_string();
        assert!(error.contains("15 bytes") && error.contains("'nginx-worker-pr*'"), "{error}");
        for bad in ["*worker-process-1", "????????????????", "sixteen-bytes-{a,bc}c", "ääääääää"] {
            assert!(matches!(comm(bad), Err(SelectionError::LongComm { .. })), "{bad}");
        }
    }

    #[test]
    fn what_may_match_later_is_a_warning() {
        let pids = vec![crate::target::LAST_PID, std::process::id()];
        let selection = Selection::new(&Asked { pids, ..Asked::default() }).unwrap();
        let expected = usize::from(crate::kernel::namespace::is_initial() == Some(true));
        assert_eq!(selection.warnings.len(), expected, "{:?}", selection.warnings);
    }
}
