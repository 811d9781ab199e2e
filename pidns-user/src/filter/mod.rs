//! The user's filter: checks the options, and splits them between the kernel and this program.

mod matches;
mod parse;

use std::sync::OnceLock;

use globset::GlobMatcher;

use self::parse::{check_comm, mask, matcher, parse_levels, select_events};
pub use self::{
    matches::inner_namespace,
    parse::{FilterError, choosable_events},
};
use crate::{
    event::identity::{HostPid, NsInum},
    event::snapshot::SnapshotNamespace,
    event::{MAX_LEVEL, StreamFilter},
};

/// Largest number of namespaces, and of PIDs, in a filter. The kernel side has room for as many.
pub const MAX_PER_KIND: u32 = 1024;

/// The options as given.
#[derive(Clone, Debug, Default)]
pub struct FilterArgs {
    /// `--event`.
    pub events: Vec<String>,
    /// `--ns`.
    pub namespaces: Vec<String>,
    /// `--container`.
    pub containers: Vec<String>,
    /// `--pid`.
    pub pids: Vec<HostPid>,
    /// `--comm`.
    pub comms: Vec<String>,
    /// `--level`.
    pub levels: Vec<String>,
    /// `--snapshot`: existing objects.
    pub existing: bool,
    /// `--findings`.
    pub findings: bool,
    /// `--no-syscall-hooks`.
    pub no_syscall_hooks: bool,
}

/// The checked filter.
#[derive(Debug)]
pub struct Filter {
    /// The form in which `stream.start` shows it.
    pub filter: StreamFilter,
    /// Levels of processes, as a bit mask.
    pub level_mask: u64,
    /// Levels for events about namespaces themselves, as a bit mask.
    namespace_level_mask: u64,
    comms: Vec<GlobMatcher>,
    /// Whether to show existing objects.
    existing: bool,
    /// The requested namespaces, as they were when first seen. `None` for a recording: there, all namespaces match that
    /// ever had the number.
    pinned: Option<Vec<OnceLock<SnapshotNamespace>>>,
}

impl Filter {
    /// A filter that shows everything.
    pub fn everything() -> Result<Self, FilterError> {
        let all = FilterArgs { events: vec!["all".to_owned()], existing: true, ..FilterArgs::default() };
        Self::of_recording(&all, |_| Err("no lookup".to_owned()))
    }

    /// Checks the options. `find` looks up namespaces. A later one with the same number is not shown.
    pub fn new(
        args: &FilterArgs,
        find: impl Fn(&str) -> Result<NsInum, String>,
    ) -> Result<Self, FilterError> {
        let mut filter = Self::of_recording(args, find)?;
        filter.pinned = Some(vec![OnceLock::new(); filter.filter.namespaces.len()]);
        Ok(filter)
    }

    /// Checks the options for a recording. Its namespaces are not on this machine, so `find` only parses numbers.
    pub fn of_recording(
        args: &FilterArgs,
        find: impl Fn(&str) -> Result<NsInum, String>,
    ) -> Result<Self, FilterError> {
        let FilterArgs {
            events,
            namespaces,
            containers,
            pids,
            comms,
            levels,
            existing,
            findings,
            no_syscall_hooks,
        } = args;
        let mut selected = select_events(events, *no_syscall_hooks)?;
        if *findings && !selected.iter().any(|name| name == "finding") {
            selected.push("finding".into());
        }
        let all_levels = mask(0, MAX_LEVEL);
        let level_mask = if levels.is_empty() {
            // Events requested by name are shown at all levels, and a container can share the host's namespace. The
            // default omits the host's processes.
            if events.is_empty() && containers.is_empty() { all_levels & !1 } else { all_levels }
        } else {
            parse_levels(levels)?
        };
        let most = MAX_PER_KIND;
        for (option, count) in [("--ns", namespaces.len()), ("--pid", pids.len())] {
            if count > most as usize {
                return Err(FilterError::TooMany { option, most });
            }
        }
        let find = |value: &String| {
            find(value).map_err(|error| FilterError::NoNamespace { value: value.clone(), error })
        };
        let namespaces = namespaces.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        comms.iter().try_for_each(|pattern| check_comm(pattern))?;
        if containers.iter().any(String::is_empty) {
            return Err(FilterError::NoContainer);
        }
        Ok(Self {
            level_mask,
            namespace_level_mask: if levels.is_empty() { all_levels } else { level_mask },
            comms: comms.iter().map(|glob| matcher("--comm", glob)).collect::<Result<_, _>>()?,
            existing: *existing,
            pinned: None,
            filter: StreamFilter {
                events: selected,
                namespaces,
                containers: containers.clone(),
                pids: pids.clone(),
                comms: comms.clone(),
                levels: levels.clone(),
            },
        })
    }

    /// Whether events with this name were requested.
    pub fn has(&self, name: &str) -> bool {
        self.filter.events.iter().any(|event| event == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::event::Body;

    fn filter(args: &FilterArgs) -> Result<Filter, FilterError> {
        Filter::new(args, |_| Err("no lookup".to_owned()))
    }

    fn args(events: &[&str], levels: &[&str]) -> Result<Filter, FilterError> {
        let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let args = FilterArgs { events: strings(events), levels: strings(levels), ..FilterArgs::default() };
        filter(&args)
    }

    #[test]
    fn the_default_omits_the_hosts_processes_and_reaps() {
        let filter = args(&[], &[]).unwrap();
        assert_eq!(filter.level_mask & 1, 0);
        assert!(filter.has("process.exit") && !filter.has("process.reap"));
        assert!(args(&["process.*"], &[]).unwrap().level_mask & 1 != 0, "requested by name, they are shown");
    }

    #[test]
    fn a_bad_event_is_refused_with_the_known_ones() {
        let error = args(&["nonsense"], &[]).unwrap_err().to_string();
        assert!(error.contains("nonsense") && error.contains("process.fork"), "{error}");
        assert!(!error.contains("stream.start"), "{error}");
        assert!(matches!(args(&["namespace.[a"], &[]), Err(FilterError::BadGlob { .. })));
    }

    #[test]
    fn levels_are_numbers_and_ranges() {
        let levels = |list: &[&str]| args(&[], list).map(|filter| filter.level_mask);
        assert_eq!(levels(&["1"]), Ok(0b10));
        assert_eq!(levels(&["0", "2-3"]), Ok(0b1101));
        assert_eq!(levels(&["31+"]), Ok(0b11 << 31));
        for bad in ["33", "-1", "2-1", "x", "", "+", "1-", "1-40"] {
            assert_eq!(levels(&[bad]), Err(FilterError::BadLevel(bad.to_owned())), "{bad}");
        }
    }

    #[test]
    fn events_may_be_separated_by_commas() {
        let chosen = |events: &[&str]| args(events, &[]).map(|filter| filter.filter.events);
        assert_eq!(chosen(&["process.exit,fork.failed"]), chosen(&["process.exit", "fork.failed"]));
        assert_eq!(
            chosen(&["process.{fork,exit},init.*"]),
            chosen(&["process.fork", "process.exit", "init.*"])
        );
        let Err(FilterError::NoEvent { pattern, .. }) = chosen(&["process.exit,nonsense"]) else {
            panic!("no error")
        };
        assert_eq!(pattern, "nonsense");
    }

    #[test]
    fn the_names_of_the_table_are_accepted() {
        let chosen = |word: &str| args(&[word], &[]).map(|filter| filter.filter.events);
        for (word, event) in [
            ("fork", "process.fork"),
            ("init", "namespace.init"),
            ("init exit", "namespace.init_exit"),
            ("init-exit", "namespace.init_exit"),
            ("init_exit", "namespace.init_exit"),
            ("Fork Failed", "fork.failed"),
            ("create_failed", "namespace.create_failed"),
            ("reap,exit", "process.{reap,exit}"),
        ] {
            assert_eq!(chosen(word), chosen(event), "{word}");
        }
        for (name, label) in Body::NAMES.iter().zip(Body::LABELS) {
            assert_eq!(
                chosen(label).ok(),
                chosen(name).ok(),
                "{label}: each label of the table means its own event"
            );
        }
    }

    #[test]
    fn an_error_about_an_unknown_event_names_the_nearest() {
        let nearest = |word: &str| match args(&[word], &[]) {
            Err(FilterError::NoEvent { nearest, .. }) => nearest,
            other => panic!("{word}: {other:?}"),
        };
        for (word, event) in [
            ("proces.fork", "process.fork"),
            ("frok", "process.fork"),
            ("namespace", "namespace.*"),
            ("processes", "process.*"),
            ("process.forks", "process.fork"),
            ("name.creat*", "namespace.create"),
            ("signals", "init.signal"),
            ("findings", "finding"),
        ] {
            assert_eq!(nearest(word).as_deref(), Some(event), "{word}");
        }
        for word in ["zombie", "zombies", "oom", "leaked"] {
            assert_eq!(nearest(word).as_deref(), Some("finding"), "{word}");
        }
        for far in ["", "zzz*", "qqqqqq"] {
            assert_eq!(nearest(far), None, "{far:?}");
            let error = args(&[far], &[]).unwrap_err().to_string();
            assert!(error.contains("no such event. Events: namespace.create"), "{far:?}: {error}");
        }
        let error = args(&["proces.fork"], &[]).unwrap_err().to_string();
        assert!(error.contains("did you mean 'process.fork'? Events: "), "{error}");
    }

    #[test]
    fn framing_events_cannot_be_selected() {
        for events in ["stream.*", "stream.lost", "process.exit,stream.end"] {
            let error = args(&[events], &[]).unwrap_err().to_string();
            assert!(error.contains("always there") && error.contains("process.exit"), "{error}");
        }
    }

    #[test]
    fn refusals_without_their_hook_cannot_be_requested() {
        let chosen = |event: &str| {
            let events = vec![event.to_owned()];
            filter(&FilterArgs { events, no_syscall_hooks: true, ..FilterArgs::default() }).map(drop)
        };
        for event in ["fork.failed", "*failed", "process.exit,namespace.join_failed"] {
            let error = chosen(event).unwrap_err().to_string();
            assert!(error.contains("--no-syscall-hooks"), "{error}");
        }
        for event in ["namespace.*", "all", "process.exit"] {
            assert_eq!(chosen(event), Ok(()), "{event} also has other events");
        }
        filter(&FilterArgs { no_syscall_hooks: true, ..FilterArgs::default() }).unwrap();
    }

    #[test]
    fn names_longer_than_the_kernel_keeps_are_refused() {
        let comm = |pattern: &str| {
            filter(&FilterArgs { comms: vec![pattern.to_owned()], ..FilterArgs::default() }).map(drop)
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
            assert!(matches!(comm(bad), Err(FilterError::LongComm { .. })), "{bad}");
        }
    }
}
