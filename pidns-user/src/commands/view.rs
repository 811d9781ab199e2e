//! What `tree` and `ps` have in common: one snapshot, of a recording or of this machine, or one after the other.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use super::{
    host_observer::HostObserver,
    notices::Notices,
    readings::reader_in_turn,
    recorded::{self, Recorded},
    watch::{self, Frame, Shown},
};
use crate::{
    cli::{Memory, Repeat, SourceArgs},
    commands::failure::Failure,
    event::{finding::Finding, snapshot::Snapshot},
    findings::{FindingsWatch, Thresholds, of_snapshot},
    model::Forest,
    pipeline::Consumer,
    target::{
        TargetError, find,
        pinned::{Lookup, PinnedTargets},
        scope::Scope,
    },
};

/// What to show, and how.
pub(super) struct ViewRequest<'a> {
    pub(super) past: &'a SourceArgs,
    pub(super) repeat: Repeat,
    /// What it is limited to: everything where there is none.
    pub(super) targets: &'a [String],
    /// Whether what holds namespaces is to be found.
    pub(super) holders: bool,
    /// Whether the containers are shown: otherwise they are read only where TARGET may be the name of one.
    pub(super) containers: bool,
    /// Whether the paths of cgroups are.
    pub(super) cgroups: bool,
    /// Whether what is wrong is shown.
    pub(super) findings: bool,
    /// How snapshots follow each other.
    pub(super) shown: Shown,
    /// Whether only errors are printed.
    pub(super) quiet: bool,
}

/// What there is to show.
pub(super) struct Seen<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) forest: &'a Forest<'a>,
    /// What the TARGET stands for, where one is given.
    pub(super) scope: Option<&'a Scope>,
    /// What is wrong, where that was asked for.
    pub(super) findings: &'a [Finding],
}

/// Takes a snapshot, and has `write` write it from the TARGET down.
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
                TargetError::NoMatch(text) if find::was_there(target, &gone) => TargetError::NoMatch(
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
    // Whether it is gone. What is shown once is written as it comes, as it can be megabytes.
    let mut show_frame = |show: &mut Show<'_>| -> Result<Option<String>, Failure> {
        let (mut snapshot, notices) = observer.snapshot_and_notices(holders)?;
        if containers {
            observer.name_containers(&mut snapshot)?;
        } else {
            followed.text().try_for_each(|text| observer.name_containers_for(Some(text), &mut snapshot))?;
        }
        let forest = Forest::new(&snapshot);
        let found = followed.find(&snapshot, &forest);
        // What holds a namespace is shown of those without processes.
        let shows_holders = holders
            && match &found {
                Ok(Lookup::Scope(scope)) => {
                    let walk = forest.walk(Some(&scope.roots(&forest)));
                    walk.iter().any(|(_, node)| node.members.is_empty())
                }
                Ok(Lookup::All | Lookup::Gone(_)) | Err(_) => true,
            };
        observer.notify(notices, shows_holders);
        let from = match found? {
            Lookup::All => None,
            Lookup::Scope(scope) => Some(scope),
            Lookup::Gone(inum) => return Ok(Some(format!("namespace {inum} is gone"))),
        };
        let found = if findings {
            of_snapshot(&snapshot, Thresholds::default(), reader_in_turn()).0
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

/// Shows what is written with this.
type Show<'a> = dyn FnMut(&dyn Fn(&mut dyn io::Write) -> io::Result<()>) -> Result<(), Failure> + 'a;

/// Prints what `write` writes; a reader that has gone is no failure.
pub(super) fn print(write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Io { what: "write to standard output", error })
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}
