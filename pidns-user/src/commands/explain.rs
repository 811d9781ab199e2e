//! `pidns-trace explain`: all that is known about one namespace, process or container.

use std::{path::Path, process::ExitCode};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    look,
    recorded::{self, Recorded},
    voice::Voice,
};
use crate::{
    cli::{ExplainArgs, ExplainOutput},
    commands::failure::Failure,
    event::snapshot::Namespace,
    explanation::{About, Explanation, Scene, Subject},
    kernel::clock,
    model::Forest,
    output::explain,
    source::observer::Eyes,
    target::find::{self, Named},
};

/// Takes a snapshot, or reads a recording, and tells.
pub fn run(args: &ExplainArgs) -> Result<ExitCode, Failure> {
    if let Some(file) = &args.past.from {
        refuse_what_is_read_once(file)?;
        if let Some(recorded) = recorded::look(&args.past, args.memory)? {
            return of_recording(args, file, recorded);
        }
    }
    let mut eyes = Eyes::new(args.past.runtime_api, Voice::new(args.quiet));
    let mut snapshot = eyes.snapshot(true)?;
    eyes.name_containers(&mut snapshot);
    let time = Timestamp::from_nanosecond(i128::from(snapshot.boot_ns) + clock::wall_offset_ns());
    let time = time.unwrap_or_default();
    let forest = Forest::new(&snapshot);
    let scene = Scene { snapshot: &snapshot, forest: &forest, world: None };
    let (explanation, _) = explain(&args.target, scene, &[], time)?;
    print(args, &explanation)
}

/// The same of a recording, with what happened and with what is gone.
fn of_recording(args: &ExplainArgs, file: &Path, recorded: Recorded) -> Result<ExitCode, Failure> {
    let Recorded { snapshot, dead: _, gone, world, time, stream, damage } = recorded;
    let forest = Forest::new(&snapshot).with_gone(&gone);
    let scene = Scene { snapshot: &snapshot, forest: &forest, world: Some(&world) };
    let told = explain(&args.target, scene, &gone, time.unwrap_or_default());
    let told = told.and_then(|(mut explanation, subject)| {
        explanation.history = Some(recorded::history(file, subject, stream, snapshot.boot_ns)?);
        print(args, &explanation)
    });
    recorded::with_damage(recorded::with_the_forgotten(told, &world), damage)
}

fn explain(
    target: &str,
    scene: Scene<'_>,
    gone: &[Namespace],
    time: Timestamp,
) -> Result<(Explanation, Subject), Failure> {
    let snapshot = scene.snapshot;
    let named = find::name(target, snapshot, gone)?;
    let (about, found) = match named {
        Named::Namespace(inum) => (About::Namespace, scene.explain_namespace(inum)),
        Named::Container(inum) => (About::Container, scene.explain_namespace(inum)),
        Named::GoneContainer { inum, born_boot_ns } => {
            (About::Container, scene.explain_gone_namespace(inum, born_boot_ns))
        }
        Named::Process(pid) => (About::Process, scene.explain_process(pid)),
    };
    let (facts, subject) = found.ok_or_else(|| match named {
        Named::Namespace(inum) | Named::Container(inum) | Named::GoneContainer { inum, .. } => {
            find::no_namespace(inum, snapshot)
        }
        Named::Process(pid) => find::no_process(pid, snapshot),
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
