//! What the user asked to see: from the options to what the kernel filters and what is left to do here.

mod matches;
mod parse;

use std::sync::OnceLock;

use globset::GlobMatcher;
use pidns_ebpf::abi::{Kind, MAX_LEVEL};

use self::parse::{check_comm, mask, matcher, parse_levels, select_events};
pub use self::{matches::inner_namespace, parse::SelectionError};
use crate::{
    cli::Filters,
    event::Filter,
    event::snapshot,
    target::{doubt_namespace, doubt_pid, find_namespace, number_of_namespace},
};

/// The options as given.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `--event`.
    pub events: Vec<String>,
    /// `--ns`.
    pub namespaces: Vec<String>,
    /// `--container`.
    pub containers: Vec<String>,
    /// `--pid`.
    pub pids: Vec<u32>,
    /// `--comm`.
    pub comms: Vec<String>,
    /// `--level`.
    pub levels: Vec<String>,
    /// `--snapshot`: what exists already.
    pub existing: bool,
    /// `--no-syscall-hooks`.
    pub no_syscall_hooks: bool,
}

impl Asked {
    /// What these options ask for.
    pub fn of(filters: &Filters, no_syscall_hooks: bool) -> Self {
        let Filters { events, namespaces, containers, pids, comms, levels, snapshot: existing } =
            filters.clone();
        Self { events, namespaces, containers, pids, comms, levels, existing, no_syscall_hooks }
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
    /// Whether what exists already is to be seen too.
    existing: bool,
    /// The namespaces asked for, as they were when they were met first; none of a recording, in which all are meant that ever
    /// had the number.
    met: Option<Vec<OnceLock<snapshot::Namespace>>>,
}

impl Selection {
    /// Everything there is.
    pub fn everything() -> Result<Self, SelectionError> {
        Self::new(&Asked { events: vec!["all".to_owned()], existing: true, ..Asked::default() })
    }

    /// Checks the options; namespaces are looked up in /proc.
    pub fn new(asked: &Asked) -> Result<Self, SelectionError> {
        let mut selection = Self::build(asked, find_namespace)?;
        let doubts = selection.filter.namespaces.iter().filter_map(|&inum| doubt_namespace(inum));
        selection.met = Some(vec![OnceLock::new(); selection.filter.namespaces.len()]);
        selection.warnings = doubts.chain(asked.pids.iter().filter_map(|&pid| doubt_pid(pid))).collect();
        Ok(selection)
    }

    /// Checks the options for a recording, whose namespaces are not those of this machine.
    pub fn of_recording(asked: &Asked) -> Result<Self, SelectionError> {
        Self::build(asked, number_of_namespace)
    }

    fn build(asked: &Asked, find: fn(&str) -> Result<u32, String>) -> Result<Self, SelectionError> {
        let Asked { events, namespaces, containers, pids, comms, levels, existing, no_syscall_hooks } = asked;
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
        if containers.iter().any(String::is_empty) {
            return Err(SelectionError::NoContainer);
        }
        Ok(Self {
            warnings: Vec::new(),
            level_mask,
            namespace_level_mask: if levels.is_empty() { all_levels } else { level_mask },
            comms: comms.iter().map(|glob| matcher("--comm", glob)).collect::<Result<_, _>>()?,
            existing: *existing,
            met: None,
            filter: Filter {
                events: selected,
                namespaces,
                containers: containers.clone(),
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
