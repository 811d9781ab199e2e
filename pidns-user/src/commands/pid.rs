//! `pidns-trace pid`: one process's PID at every level.

use std::process::ExitCode;

use super::{
    find::{self, Named},
    look::{self, Eyes},
    recorded::{self, Recorded},
};
use crate::{
    cli::{PidArgs, SnapshotOutput},
    failure::Failure,
    model::Forest,
    output::levels,
    snapshot::{Process, Snapshot},
};

/// Takes a snapshot and translates.
pub fn run(args: &PidArgs) -> Result<ExitCode, Failure> {
    if let Some(recorded) = recorded::look(&args.past)? {
        return of_recording(args, recorded);
    }
    let PidArgs { pid, target, .. } = args;
    let mut eyes = Eyes::new(args.past.runtime_api)?;
    let mut snapshot = eyes.snapshot(false)?;
    eyes.name_containers_for(target.as_deref(), &mut snapshot);
    let model = Forest::new(&snapshot);
    let process = match target {
        None => model.process(*pid).ok_or_else(|| find::no_process(*pid, &snapshot))?,
        Some(target) => {
            let inum = find::namespace(target, &snapshot, &model)?;
            *model
                .with_pid(*pid, inum)
                .first()
                .ok_or_else(|| Failure::NoMatch(nobody_in(*pid, inum, &model)))?
        }
    };
    print(args, &snapshot, &model, process)
}

/// The same for a recording, which remembers the dead: the last of them to have had the number.
fn of_recording(args: &PidArgs, recorded: Recorded) -> Result<ExitCode, Failure> {
    let Recorded { snapshot, dead, gone, damage, .. } = recorded;
    let PidArgs { pid, target, .. } = args;
    let model = Forest::new(&snapshot).with_gone(&gone);
    let of_number = |pid| dead.iter().find(move |process: &&Process| process.pid == pid);
    let (living, dead_one) = match target {
        None => (model.process(*pid), of_number(*pid)),
        Some(target) => {
            // The namespace may be gone too.
            let inum = match find::name(target, &snapshot, &gone)? {
                Named::Namespace(inum) | Named::Container(inum) | Named::GoneContainer { inum, .. } => inum,
                Named::Process(pid) => model
                    .process(pid)
                    .or(of_number(pid))
                    .and_then(|process| process.ns)
                    .ok_or_else(|| find::no_process(pid, &snapshot))?,
            };
            let living = model.with_pid(*pid, inum).first().copied();
            (living, dead.iter().find(|dead| model.has_pid(dead, *pid, inum)))
        }
    };
    let Some(process) = living.or(dead_one) else {
        return Err(damage.unwrap_or_else(|| find::no_process(*pid, &snapshot)));
    };
    if living.is_none() {
        eprintln!("pidns-trace: that process was gone by then");
    }
    let code = print(args, &snapshot, &model, process)?;
    damage.map_or(Ok(code), Err)
}

fn print(
    args: &PidArgs,
    snapshot: &Snapshot,
    model: &Forest<'_>,
    process: &Process,
) -> Result<ExitCode, Failure> {
    let PidArgs { pid: _, target: _, fields, output, no_headers, past: _ } = args;
    let levels = model.levels(process);
    look::print(|to| match output {
        SnapshotOutput::Table => {
            levels::table(process, &levels, &fields.clone().unwrap_or_default(), !no_headers, to)
        }
        SnapshotOutput::Json => levels::json(snapshot.source, process, &levels, fields.as_ref(), to),
    })
}

/// Says what the number is elsewhere, where it is mostly taken for.
fn nobody_in(pid: u32, inum: u32, forest: &Forest<'_>) -> String {
    let words = format!("no process has PID {pid} in namespace {inum}");
    let Some(process) = forest.process(pid) else { return words };
    let ns = process.ns.map_or_else(|| "another namespace".to_owned(), |ns| format!("namespace {ns}"));
    let levels = forest.levels(process);
    let at = levels.iter().position(|level| *level == Some(inum));
    let comm = process.name();
    match at.and_then(|level| process.pids.get(level)) {
        Some(inside) => format!("{words}: {pid} is the host's number for {comm}, which is {inside} there"),
        None => format!(
            "{words}: the host's {pid} ({comm}) is in {ns}, which is not that one nor below it, and so is invisible there"
        ),
    }
}
