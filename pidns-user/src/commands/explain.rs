//! `pidns-trace explain`: all that is known about one namespace, process or container.

use std::{path::Path, process::ExitCode};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    host_observer::HostObserver,
    look,
    notices::Notices,
    recorded::{self, Recorded},
};
use crate::{
    cli::{ExplainArgs, ExplainOutput},
    commands::failure::Failure,
    event::identity::{HostPid, NamespaceKey},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotSource},
    explanation::{About, Explanation, Host, Subject},
    kernel::clock,
    model::Forest,
    output::explain,
    procfs::{Procfs, threads::Thread},
    target::find::{self, Target},
};

/// Takes a snapshot, or reads a recording, and tells.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.past.from {
        refuse_what_is_read_once(file)?;
        if let Some(recorded) = recorded::look(&args.past, args.memory)? {
            return of_recording(args, file, recorded);
        }
    }
    let mut observer = HostObserver::new(args.past.runtime_api, Notices::new(args.quiet));
    let mut snapshot = observer.snapshot(true)?;
    observer.name_containers(&mut snapshot)?;
    let time = Timestamp::from_nanosecond(i128::from(snapshot.boot_ns.0) + clock::wall_offset_ns());
    let time = time.unwrap_or_default();
    let forest = Forest::new(&snapshot);
    let host = Host { snapshot: &snapshot, forest: &forest, world: None };
    let (explanation, _) = explain(&args.target, host, &[], time)?;
    print(args, &explanation)
}

/// The same of a recording, with what happened and with what is gone.
fn of_recording(args: &ExplainArgs, file: &Path, recorded: Recorded) -> Result<ExitCode, Failure> {
    let Recorded { snapshot, dead: _, gone, world, time, stream, damage } = recorded;
    let forest = Forest::new(&snapshot).with_gone(&gone).with_entries(&world);
    let host = Host { snapshot: &snapshot, forest: &forest, world: Some(&world) };
    let told = explain(&args.target, host, &gone, time.unwrap_or_default());
    let told = told.and_then(|(mut explanation, subject)| {
        explanation.history = Some(recorded::timeline(file, subject, stream, snapshot.boot_ns)?);
        print(args, &explanation)
    });
    recorded::with_damage(recorded::with_the_forgotten(told, &world), damage)
}

fn explain(
    target: &str,
    host: Host<'_>,
    gone: &[SnapshotNamespace],
    time: Timestamp,
) -> Result<(Explanation, Subject), Failure> {
    let snapshot = host.snapshot;
    let named = find::name(target, snapshot, gone)?;
    let (about, found) = match named {
        Target::Namespace(inum) => (About::Namespace, host.explain_namespace(inum)),
        Target::Container(inum) => (About::Container, host.explain_namespace(inum)),
        Target::GoneContainer(key) => (About::Container, host.explain_gone_namespace(key)),
        Target::Process(pid) => {
            let found = host.explain_process(pid);
            (About::Process, found.or_else(|| host.explain_thread(&thread(pid, snapshot)?)))
        }
    };
    let (facts, subject) = found.ok_or_else(|| match named {
        Target::Namespace(inum)
        | Target::Container(inum)
        | Target::GoneContainer(NamespaceKey { inum, .. }) => find::no_namespace(inum, snapshot),
        Target::Process(pid) => find::no_process(pid, snapshot),
    })?;
    let explanation = Explanation {
        source: snapshot.source,
        boot_ns: snapshot.boot_ns,
        time,
        about,
        facts,
        history: None,
        unread: snapshot.unread,
    };
    Ok((explanation, subject))
}

/// The thread of this number, which a recording does not know.
fn thread(tid: HostPid, snapshot: &Snapshot) -> Option<Thread> {
    match snapshot.source {
        SnapshotSource::Recording => None,
        SnapshotSource::Iterator | SnapshotSource::Proc => Procfs::default().thread(tid.0),
    }
}

fn print(args: &ExplainArgs, explanation: &Explanation) -> Result<ExitCode, Failure> {
    look::print(|to| match args.output {
        ExplainOutput::Text => explain::text(explanation, &TimeZone::system(), to),
        ExplainOutput::Json => explain::json(explanation, to),
    })
}

/// Whom a recording is to be searched for is known at its end.
fn refuse_what_is_read_once(file: &Path) -> Result<(), Failure> {
    let is_read_once =
        file == "-" || std::fs::metadata(file).is_ok_and(|file| !file.is_file() && !file.is_dir());
    if is_read_once {
        return Err(Failure::Usage(format!(
            "explain reads a recording twice: {} is no file that can be read again",
            file.display()
        )));
    }
    Ok(())
}
