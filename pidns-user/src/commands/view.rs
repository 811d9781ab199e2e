//! Shared by `tree` and `ps`: shows one snapshot, of a recording or of this host, or repeated snapshots.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use super::{
    host_observer::HostObserver,
    notices::Notices,
    readings::sequential_reader,
    recorded::{self, Recorded},
    watch::{self, Frame, Shown},
};
use crate::{
    cli::{Memory, Repeat, SourceArgs},
    commands::failure::Failure,
    event::{finding::Finding, identity::NsInum, snapshot::Snapshot},
    findings::{FindingsWatch, Thresholds, of_snapshot},
    model::Forest,
    pipeline::Consumer,
    target::{
        TargetError, find,
        pinned::{Lookup, PinnedTargets},
        scope::Scope,
    },
};

/// What to show.
pub(super) struct ViewRequest<'a> {
    pub(super) past: &'a SourceArgs,
    pub(super) repeat: Repeat,
    /// Limits the view to these targets; empty: everything.
    pub(super) targets: &'a [String],
    /// Whether to find holders of namespaces.
    pub(super) holders: bool,
    /// Whether to show containers. If not, they are read only if a TARGET may be the name of one.
    pub(super) containers: bool,
    /// Whether to read the paths of cgroups.
    pub(super) cgroups: bool,
    /// Whether to show findings.
    pub(super) findings: bool,
    /// Layout of repeated snapshots.
    pub(super) shown: Shown,
    /// Whether to print only errors.
    pub(super) quiet: bool,
}

/// The data to show.
pub(super) struct Seen<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) forest: &'a Forest<'a>,
    /// The objects that the TARGETs name, if any are given.
    pub(super) scope: Option<&'a Scope>,
    /// Findings; empty unless requested.
    pub(super) findings: &'a [Finding],
}

/// Takes a snapshot and calls `write` to show it.
pub(super) fn show(
    asked: &ViewRequest<'_>,
    write: impl Fn(&Seen<'_>, &mut dyn io::Write) -> io::Result<()>,
) -> Result<ExitCode, Failure> {
    let ViewRequest { past, repeat, targets, holders, containers, cgroups, findings, shown, quiet } = *asked;
    let mut watch = FindingsWatch::recorded(Thresholds::default());
    let mut consumers: Vec<&mut dyn Consumer> = Vec::new();
    if findings {
        consumers.push(&mut watch);
    }
    if let Some(recorded) = recorded::read_with(past, Memory::default(), &mut consumers)? {
        let Recorded { snapshot, world, gone, damage, .. } = recorded;
        if findings {
            watch.detect_at(&world, snapshot.boot_ns);
        }
        let findings: Vec<Finding> = watch.open().filter(|_| findings).cloned().collect();
        let forest = Forest::new(&snapshot).with_entries(&world);
        let scope = |target: &String| {
            find::scope(target, &snapshot, &forest).map_err(|error| match error {
                TargetError::NoMatch(text) if find::is_gone_namespace(target, &gone) => TargetError::NoMatch(
                    format!("{text}: it was gone by then, and `explain` has its history"),
                ),
                error => error,
            })
        };
        let scopes = targets.iter().map(scope).collect::<Result<Vec<Scope>, _>>();
        let from = scopes.map(|scopes| scopes.into_iter().reduce(Scope::with));
        let result = from.map_err(Failure::from).and_then(|scope| {
            let scope = scope.as_ref();
            let seen = Seen { snapshot: &snapshot, forest: &forest, scope, findings: &findings };
            print(|to| write(&seen, to))
        });
        return recorded::with_damage(result, damage);
    }
    let notices = Notices::new(quiet);
    let observer = HostObserver::new(past.runtime_api, notices);
    let observer = if cgroups { observer.with_cgroups() } else { observer };
    let mut observer = if holders { observer } else { observer.without_holders() };
    let mut followed = PinnedTargets::new(targets);
    // Returns a message if the target is gone. A single view is written directly, without a buffer, because it can be
    // megabytes.
    let mut show_frame = |show: &mut Show<'_>| -> Result<Option<String>, Failure> {
        let (mut snapshot, notices) = observer.snapshot_and_notices(holders)?;
        if containers {
            observer.name_containers(&mut snapshot)?;
        } else {
            followed.text().try_for_each(|text| observer.name_containers_for(Some(text), &mut snapshot))?;
        }
        let forest = Forest::new(&snapshot);
        let found = followed.find(&snapshot, &forest);
        let shows = |shown: &dyn Fn(&Lookup) -> bool| holders && found.as_ref().is_ok_and(shown);
        let shows_all = shows(&|found| matches!(found, Lookup::All));
        observer.notify(notices, shows(&|found| shows_holders(found, &forest)), shows_all);
        let from = match found? {
            Lookup::All => None,
            Lookup::Scope(scope) => Some(scope),
            Lookup::Gone(inum) => return Ok(Some(format!("namespace {inum} is gone"))),
        };
        let found = if findings {
            of_snapshot(&snapshot, &forest, Thresholds::default(), sequential_reader(observer.take_cgroups()))
                .0
        } else {
            Vec::new()
        };
        let seen = Seen { snapshot: &snapshot, forest: &forest, scope: from.as_ref(), findings: &found };
        show(&|to| write(&seen, to))?;
        Ok(None)
    };
    let Some(interval) = repeat.watch else {
        show_frame(&mut |write| print(write).map(drop))?;
        return Ok(ExitCode::SUCCESS);
    };
    watch::repeat(interval, shown, notices, || {
        let mut text = Vec::new();
        let gone = show_frame(&mut |write| {
            write(&mut text).map_err(|error| Failure::Io { what: "write to memory", error })
        })?;
        Ok(gone.map_or(Frame::Seen(text), Frame::Gone))
    })
}

/// Whether holders are shown: only namespaces without processes are shown with theirs.
fn shows_holders(found: &Lookup, forest: &Forest<'_>) -> bool {
    let is_empty =
        |roots: Option<&[NsInum]>| forest.walk(roots).iter().any(|(_, node)| node.members.is_empty());
    match found {
        Lookup::All => is_empty(None),
        Lookup::Scope(scope) => is_empty(Some(&scope.roots(forest))),
        Lookup::Gone(_) => false,
    }
}

/// Shows the output of the given function.
type Show<'a> = dyn FnMut(&dyn Fn(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> + 'a;

/// Prints the output of `write`. A closed pipe is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
    /// The output for thousands of namespaces has megabytes.
    const BUFFER: usize = 64 << 10;
    // The standard library's writer would look for the last line feed of each piece, and write what follows separately.
    let out = io::stdout().as_fd().try_clone_to_owned();
    let printed = out.and_then(|out| {
        let mut out = io::BufWriter::with_capacity(BUFFER, File::from(out));
        write(&mut out).and_then(|()| out.flush())
    });
    match printed {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Io { what: "write to standard output", error })
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::identity::{BootNs, HostPid},
        event::snapshot::{Holder, SnapshotNamespace, SnapshotProcess, SnapshotSource},
        explanation::Host,
    };

    const HOST: NsInum = NsInum(4026531836);
    const LIVING: NsInum = NsInum(4026532001);
    const EMPTY: NsInum = NsInum(4026532002);

    /// The host with one living namespace, and with one that has no process if `has_empty`.
    fn snapshot(has_empty: bool) -> Snapshot {
        let below = |inum| SnapshotNamespace { parent: Some(HOST), ..SnapshotNamespace::bare(inum, 1) };
        let mut namespaces = vec![SnapshotNamespace::bare(HOST, 0), below(LIVING)];
        namespaces.extend(has_empty.then(|| below(EMPTY)));
        let process = |pid, pids: &[u32], ns| SnapshotProcess {
            pids: pids.to_vec(),
            ns: Some(ns),
            ..SnapshotProcess::bare(HostPid(pid))
        };
        Snapshot {
            namespaces: namespaces.into_iter().map(|ns| (ns.inum, ns)).collect(),
            processes: vec![process(1, &[1], HOST), process(100, &[100, 1], LIVING)],
            ..Snapshot::empty(SnapshotSource::Iterator, BootNs(0))
        }
    }

    #[test]
    fn unread_files_matter_only_for_a_namespace_without_processes() {
        for (has_empty, target, expected) in [
            (false, None, false),
            (true, None, true),
            (true, Some(LIVING), false),
            (true, Some(HOST), true),
            (true, Some(EMPTY), true),
        ] {
            let snapshot = snapshot(has_empty);
            let forest = Forest::new(&snapshot);
            let found = target.map_or(Lookup::All, |inum| Lookup::Scope(Scope::of_namespace(inum)));
            assert_eq!(shows_holders(&found, &forest), expected, "{has_empty} {target:?}");
        }
        let snapshot = snapshot(true);
        assert!(!shows_holders(&Lookup::Gone(EMPTY), &Forest::new(&snapshot)));
    }

    #[test]
    fn explain_lists_holders_of_a_namespace_that_they_keep() {
        let mut snapshot = snapshot(true);
        let lists_holders = |snapshot: &Snapshot, inum| {
            let forest = Forest::new(snapshot);
            let (facts, _) =
                Host { snapshot, forest: &forest, world: None }.explain_namespace(inum).expect("facts");
            facts.lists_holders()
        };
        for (inum, expected) in [(HOST, false), (LIVING, false), (EMPTY, true)] {
            assert_eq!(lists_holders(&snapshot, inum), expected, "{inum}");
        }
        let holder = |inum| (inum, Holder::Child { ns: EMPTY });
        snapshot.holders = vec![holder(HOST), holder(LIVING)];
        for (inum, expected) in [(HOST, false), (LIVING, true), (EMPTY, true)] {
            assert_eq!(lists_holders(&snapshot, inum), expected, "{inum}");
        }
        let forest = Forest::new(&snapshot);
        let host = Host { snapshot: &snapshot, forest: &forest, world: None };
        assert!(!host.explain_process(HostPid(100)).expect("facts").0.lists_holders());
    }
}
