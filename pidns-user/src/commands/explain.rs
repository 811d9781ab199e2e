//! `pidns-trace explain`: shows everything that is known about one namespace, process or container.

use std::{collections::BTreeSet, path::Path, process::ExitCode};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    finding_filter::{FindingFilter, about},
    host_observer::HostObserver,
    notices::Notices,
    readings::sequential_reader,
    recorded::{self, Recorded},
    terminal, view,
};
use crate::{
    cli::{ExplainArgs, ExplainOutput},
    commands::failure::Failure,
    event::identity::{HostPid, NsInum},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotSource},
    event::{Process, finding::Finding},
    explanation::{About, Explanation, Facts, Host, Subject},
    findings::{FindingsWatch, Thresholds, of_snapshot},
    kernel::clock,
    model::{Forest, World},
    output::explain,
    procfs::{Procfs, threads::Thread},
    target::{
        TargetError,
        find::{self, Target},
    },
};

/// Takes a snapshot or reads a recording, and explains the TARGET.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.past.from {
        refuse_what_is_read_once(file)?;
        let mut watch = FindingsWatch::recorded(Thresholds::default());
        if let Some(recorded) = recorded::read_with(&args.past, args.memory, &mut [&mut watch])? {
            watch.detect_at(&recorded.world, recorded.snapshot.boot_ns);
            let findings: Vec<Finding> = watch.open().cloned().collect();
            return of_recording(args, file, recorded, &findings);
        }
    }
    let notices = Notices::new(args.quiet);
    let mut observer = HostObserver::new(args.past.runtime_api, notices).with_cgroups();
    let (mut snapshot, notices) = observer.snapshot_and_notices(true)?;
    observer.name_containers(&mut snapshot)?;
    let time = Timestamp::from_nanosecond(i128::from(snapshot.boot_ns.0) + clock::wall_offset_ns());
    let time = time.unwrap_or_default();
    let forest = Forest::new(&snapshot);
    let host = Host { snapshot: &snapshot, forest: &forest, world: None };
    let (findings, world) =
        of_snapshot(&snapshot, &forest, Thresholds::default(), sequential_reader(observer.take_cgroups()));
    let wrong = FindingSource { findings: &findings, world: &world };
    let explanations = explain(&args.target, host, &wrong, &[], time);
    let shows_holders = |(explanation, _): &(Explanation, Subject)| explanation.facts.lists_holders();
    observer.notify(notices, explanations.as_ref().is_ok_and(|all| all.iter().any(shows_holders)), false);
    let explanations = explanations?;
    print(args, explanations.into_iter().map(|(explanation, _)| explanation).collect())
}

/// Explains from a recording, with the history and with objects that are gone.
fn of_recording(
    args: &ExplainArgs,
    file: &Path,
    recorded: Recorded,
    findings: &[Finding],
) -> Result<ExitCode, Failure> {
    let Recorded { file: opened, snapshot, dead: _, gone, world, time, stream, damage } = recorded;
    let forest = Forest::new(&snapshot).with_gone(&gone).with_entries(&world);
    let host = Host { snapshot: &snapshot, forest: &forest, world: Some(&world) };
    let wrong = FindingSource { findings, world: &world };
    let result = explain(&args.target, host, &wrong, &gone, time.unwrap_or_default());
    let result = result.and_then(|explanations| {
        let with_history = |(mut explanation, subject): (Explanation, Subject)| {
            explanation.history = Some(recorded::timeline(file, &opened, subject, stream, snapshot.boot_ns)?);
            Ok(explanation)
        };
        print(args, explanations.into_iter().map(with_history).collect::<Result<_, Failure>>()?)
    });
    recorded::with_damage(recorded::noting_forgotten(result, &world), damage)
}

/// Findings now, or at the moment of a recording.
struct FindingSource<'a> {
    findings: &'a [Finding],
    world: &'a World,
}

impl FindingSource<'_> {
    /// Findings about a namespace and those nested in it, or about a process; the most severe first. `sharing`: the
    /// requested containers, if they share their namespace.
    fn about(&self, facts: &Facts, sharing: Option<&FindingFilter>) -> Vec<Finding> {
        let findings = self.findings.iter();
        match facts {
            Facts::Namespace(facts) => {
                let own = FindingFilter::of_namespace(&facts.ns);
                about(findings, Some(sharing.unwrap_or(&own)), self.world)
            }
            Facts::Process(facts) => {
                let key = facts.process.key();
                let is_it = |process: &Process| key.is_some_and(|key| key.is_same(process.key()));
                let names_it = |finding: &&Finding| {
                    let named = finding.evidence.iter().flat_map(|evidence| evidence.fact.processes());
                    named.chain(&finding.process).any(is_it)
                };
                about(findings.filter(names_it), None, self.world)
            }
        }
    }
}

/// The explanations of a TARGET. For a pod, one for each namespace of its containers.
fn explain(
    target: &str,
    host: Host<'_>,
    wrong: &FindingSource<'_>,
    gone: &[SnapshotNamespace],
    time: Timestamp,
) -> Result<Vec<(Explanation, Subject)>, Failure> {
    let snapshot = host.snapshot;
    let of_namespace = |about, inum| {
        let found = host.explain_namespace(inum).ok_or_else(|| find::no_namespace(inum, snapshot))?;
        Ok((about, found))
    };
    let target_is = find::name(target, snapshot, gone)?;
    let sharing = match target_is {
        Target::Sharing(_) => Some(FindingFilter::of(target, snapshot, host.forest)?),
        _ => None,
    };
    let found = match target_is {
        Target::Namespace(inum) => vec![of_namespace(About::Namespace, inum)],
        Target::Container(inum) => vec![of_namespace(About::Container, inum)],
        // Other containers share this namespace, so explain the namespace of its PID 1.
        Target::Sharing(found) => vec![of_namespace(About::Container, found.ns)],
        Target::Pod(found) => {
            let namespaces: BTreeSet<NsInum> = found.into_iter().map(|found| found.ns).collect();
            namespaces.into_iter().map(|inum| of_namespace(About::Container, inum)).collect()
        }
        Target::GoneContainer(key) => {
            let found = host.explain_gone_namespace(key);
            vec![
                found
                    .map(|found| (About::Container, found))
                    .ok_or_else(|| find::no_namespace(key.inum, snapshot)),
            ]
        }
        Target::Process(pid) => {
            let found = host.explain_process(pid).or_else(|| host.explain_thread(&thread(pid, snapshot)?));
            vec![found.map(|found| (About::Process, found)).ok_or_else(|| find::no_process(pid, snapshot))]
        }
    };
    let explanation = |found: Result<(About, (Facts, Subject)), TargetError>| {
        let (about, (facts, subject)) = found?;
        let explanation = Explanation {
            source: snapshot.source,
            boot_ns: snapshot.boot_ns,
            time,
            about,
            findings: wrong.about(&facts, sharing.as_ref()),
            facts,
            history: None,
            unread: snapshot.unread,
        };
        Ok((explanation, subject))
    };
    found.into_iter().map(explanation).collect()
}

/// The thread with this TID. Recordings do not contain threads.
fn thread(tid: HostPid, snapshot: &Snapshot) -> Option<Thread> {
    match snapshot.source {
        SnapshotSource::Recording => None,
        SnapshotSource::Iterator | SnapshotSource::Proc => Procfs::default().thread(tid.0),
    }
}

fn print(args: &ExplainArgs, explanations: Vec<Explanation>) -> Result<ExitCode, Failure> {
    let screen = terminal::screen(&args.screen);
    view::print(|to| {
        for (index, explanation) in explanations.iter().enumerate() {
            match args.output {
                ExplainOutput::Text if index > 0 => {
                    writeln!(to)?;
                    explain::text(explanation, &TimeZone::system(), screen, to)?;
                }
                ExplainOutput::Text => explain::text(explanation, &TimeZone::system(), screen, to)?,
                ExplainOutput::Json => explain::json(explanation, to)?,
            }
        }
        Ok(())
    })
}

/// The subject of the history is known only after a first pass over the recording.
fn refuse_what_is_read_once(file: &Path) -> Result<(), Failure> {
    let is_read_once =
        file == "-" || std::fs::metadata(file).is_ok_and(|file| !file.is_file() && !file.is_dir());
    if is_read_once {
        return Err(Failure::Usage(format!(
            "explain reads a recording twice: {} can be read only once",
            file.display()
        )));
    }
    Ok(())
}
