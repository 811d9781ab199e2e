//! `pidns-trace pid`: one process's PID at every level, or in another namespace.

mod errors;
mod place;

use std::{process::ExitCode, sync::Arc, time::Duration};

use self::place::PidPlace;
use super::{
    host_observer::HostObserver,
    notices::Notices,
    recorded::{self, Recorded},
    terminal, view,
};
use crate::{
    cli::{PidArgs, SnapshotOutput},
    commands::failure::Failure,
    event::container::Container,
    event::identity::{BootNs, HostPid, NamespaceKey},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    model::Forest,
    output::{
        JsonForm,
        levels::{self, Field, Level},
    },
    procfs::{Procfs, threads::Thread},
    target::find::{self, Target},
};

/// What the PID is looked up in.
struct PidTable<'a> {
    snapshot: &'a Snapshot,
    model: Forest<'a>,
    /// Processes that were gone by then, the last to go first; none but of a recording.
    dead: &'a [SnapshotProcess],
    /// Where threads are found; none of a recording.
    threads: Option<Procfs>,
}

/// Who has the PID that was asked for.
struct Owner<'a> {
    process: &'a SnapshotProcess,
    /// Where the number is that of a thread, and not of its process.
    thread: Option<Thread>,
}

impl<'a> Owner<'a> {
    fn process(process: &'a SnapshotProcess) -> Self {
        Self { process, thread: None }
    }

    /// The process, or in its place the thread, with its own numbers.
    fn task(&self) -> SnapshotProcess {
        match &self.thread {
            Some(Thread { tid, process: _, pids }) => {
                SnapshotProcess { pid: HostPid(*tid), pids: pids.clone(), ..self.process.clone() }
            }
            None => self.process.clone(),
        }
    }
}

impl PidTable<'_> {
    /// Those that exist, then those that did.
    fn processes(&self) -> impl Iterator<Item = &SnapshotProcess> {
        self.snapshot.processes.iter().chain(self.dead)
    }

    /// The process of this PID on the host: the one that has it, or the last that had.
    fn of_number(&self, pid: HostPid) -> Option<&SnapshotProcess> {
        self.processes().find(|process| process.pid == pid)
    }

    /// Who has this PID there, or had it.
    fn in_place(&self, pid: u32, place: PidPlace) -> Option<&SnapshotProcess> {
        self.processes().find(|process| {
            let pids =
                if process.pids.is_empty() { std::slice::from_ref(&process.pid.0) } else { &process.pids };
            // First by what costs nothing.
            pids.contains(&pid)
                && place
                    .level_of(process, &self.model.levels(process))
                    .is_some_and(|level| pids.get(level) == Some(&pid))
        })
    }

    /// The thread of this number on the host.
    fn thread_of_number(&self, tid: u32) -> Option<Owner<'_>> {
        let thread = self.threads.as_ref()?.thread(tid)?;
        let process = self.of_number(thread.process)?;
        Some(Owner { process, thread: Some(thread) })
    }

    /// The thread that has this number there.
    fn thread_in_place(&self, tid: u32, place: PidPlace) -> Option<Owner<'_>> {
        let procfs = self.threads.as_ref()?;
        self.snapshot.processes.iter().filter(|process| process.threads != Some(1)).find_map(|process| {
            let level = place.level_of(process, &self.model.levels(process))?;
            let threads = procfs.threads_of(process.pid);
            let thread = threads.into_iter().find(|thread| thread.pids.get(level) == Some(&tid))?;
            Some(Owner { process, thread: Some(thread) })
        })
    }

    fn is_dead(&self, process: &SnapshotProcess) -> bool {
        self.dead.iter().any(|dead| std::ptr::eq(dead, process))
    }

    fn how_far_that_is_known(&self) -> &'static str {
        match self.snapshot.source {
            SnapshotSource::Recording => ", as far as the recording shows",
            SnapshotSource::Iterator | SnapshotSource::Proc => "",
        }
    }
}

/// Takes a snapshot, or reads a recording, and translates.
pub fn run(args: &PidArgs) -> Result<ExitCode, Failure> {
    match recorded::read(&args.past, args.memory)? {
        Some(recorded) => of_recording(args, recorded),
        None => live(args),
    }
}

fn live(args: &PidArgs) -> Result<ExitCode, Failure> {
    let mut observer = HostObserver::new(args.past.runtime_api, Notices::new(args.quiet)).without_holders();
    let mut snapshot = observer.snapshot(false)?;
    for target in [&args.target, &args.to] {
        observer.name_containers_for(target.as_deref(), &mut snapshot)?;
    }
    let model = Forest::new(&snapshot);
    let host = PidTable { snapshot: &snapshot, model, dead: &[], threads: Some(Procfs::default()) };
    let wants_containers = args.fields.as_ref().is_none_or(|fields| fields.has(Field::Container));
    each(args, |pid, is_first| {
        let (owner, asked) = search(pid, args, &host, |target| {
            Ok(PidPlace::of_number(find::namespace(target, &snapshot, &host.model)?))
        })?;
        let mut failure = None;
        let container = |ns: &SnapshotNamespace| {
            let found = wants_containers.then(|| observer.container_of(&snapshot, ns.inum)).transpose();
            found.unwrap_or_else(|error| {
                failure.get_or_insert(error);
                None
            })?
        };
        if let Some(thread) = &owner.thread {
            let process = owner.process;
            Notices::new(args.quiet).notify(format_args!(
                "{} is a thread of {}[{}]: these are the numbers of the thread",
                thread.tid,
                process.name(),
                process.pid
            ));
        }
        let printed = print((pid, is_first), args, &host, &owner, asked, container);
        failure.map_or(printed, Err)
    })
}

/// Translates one PID after the other. What is found is printed; of what is not, all but the last failure is printed here.
fn each(
    args: &PidArgs,
    mut translate: impl FnMut(u32, bool) -> Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    let mut failed: Option<Failure> = None;
    let mut is_first = true;
    for &pid in &args.pids {
        match translate(pid, is_first) {
            Ok(_) => is_first = false,
            Err(failure @ Failure::NoMatch(_)) => {
                if let Some(earlier) = failed.replace(failure) {
                    Notices::new(false).notify(earlier);
                }
            }
            Err(failure) => return Err(failure),
        }
    }
    failed.map_or(Ok(ExitCode::SUCCESS), Err)
}

/// The same of a recording, which remembers the dead: the last of them to have had the number.
fn of_recording(args: &PidArgs, recorded: Recorded) -> Result<ExitCode, Failure> {
    let Recorded { snapshot, dead, gone, world, damage, time, .. } = recorded;
    let wall_clock = |at: BootNs| {
        let ago = Duration::from_nanos(snapshot.boot_ns.saturating_since(at));
        time.unwrap_or_default().checked_sub(ago).unwrap_or_default()
    };
    let model = Forest::new(&snapshot).with_gone(&gone);
    let host = PidTable { snapshot: &snapshot, model, dead: &dead, threads: None };
    let place = |target: &str| {
        Ok(match find::name(target, &snapshot, &gone)? {
            // By its number alone it may be gone too, and another one's by now.
            Target::Namespace(inum) => match host.model.node(inum).is_some() {
                false if gone.iter().all(|gone| gone.inum != inum) => {
                    return Err(find::no_namespace(inum, &snapshot).into());
                }
                _ => PidPlace::of_number(inum),
            },
            Target::Container(inum) => PidPlace::of_living(inum, &world),
            Target::GoneContainer(key) => PidPlace::of_key(key, &world),
            Target::Sharing(found) => PidPlace::of_living(found.ns, &world),
            Target::Pod(found) => PidPlace::of_living(find::one_namespace(target, &found)?, &world),
            Target::Process(pid) => {
                let process = host.of_number(pid).ok_or_else(|| find::no_process(pid, &snapshot))?;
                let inum = process.ns.ok_or_else(|| find::no_process(pid, &snapshot))?;
                match host.model.ancestry(inum, process.start_boot_ns).first() {
                    Some(own) => PidPlace::of_key(NamespaceKey { inum, ..own.key() }, &world),
                    None => PidPlace::of_number(inum),
                }
            }
        })
    };
    let result = each(args, |pid, is_first| {
        let (owner, asked) = search(pid, args, &host, place)?;
        for target in [&args.target, &args.to].into_iter().flatten() {
            if let Ok(Target::Namespace(inum)) = find::name(target, &snapshot, &gone) {
                let all = world.namespace(inum).map(|it| &it.namespace).into_iter().chain(&gone);
                let all: Vec<_> = all.filter(|ns| ns.inum == inum).collect();
                let meant =
                    host.model.ancestry(owner.process.ns.unwrap_or(inum), owner.process.start_boot_ns);
                let meant = meant.into_iter().find(|ns| ns.inum == inum);
                if let Some(notice) = errors::others_of_number(&all, meant, wall_clock) {
                    Notices::new(args.quiet).notify(notice);
                }
            }
        }
        if host.is_dead(owner.process) {
            Notices::new(args.quiet).notify(format_args!("process {} was gone by then", owner.process.pid));
        }
        print((pid, is_first), args, &host, &owner, asked, |ns| ns.container.clone())
    });
    recorded::with_damage(recorded::with_the_forgotten(result, &world), damage)
}

/// Whom the command asks for, and where: what `--in` and `--to` name.
fn search<'a>(
    pid: u32,
    args: &PidArgs,
    host: &'a PidTable<'_>,
    place: impl Fn(&str) -> Result<PidPlace, Failure>,
) -> Result<(Owner<'a>, Request), Failure> {
    let PidArgs { target, to, .. } = args;
    let seen_in = target.as_deref().map(&place).transpose()?;
    let to = to.as_deref().map(&place).transpose()?;
    let owner = match seen_in {
        Some(place) => host
            .in_place(pid, place)
            .map(Owner::process)
            .or_else(|| host.thread_in_place(pid, place))
            .ok_or_else(|| errors::no_process_in(pid, place, host))?,
        None => host
            .of_number(HostPid(pid))
            .map(Owner::process)
            .or_else(|| host.thread_of_number(pid))
            .ok_or_else(|| match errors::elsewhere(pid, host) {
                Some(elsewhere) => Failure::NoMatch(format!(
                    "no process of the host has PID {pid}{}, but {elsewhere}: ask with --in",
                    host.how_far_that_is_known()
                )),
                None => find::no_process(HostPid(pid), host.snapshot).into(),
            })?,
    };
    Ok((owner, Request { seen_in, to }))
}

/// Where the PID was given, and where it is asked for.
struct Request {
    seen_in: Option<PidPlace>,
    to: Option<PidPlace>,
}

/// Prints the levels of one PID; a blank line stands between two tables.
fn print(
    (pid, is_first): (u32, bool),
    args: &PidArgs,
    host: &PidTable<'_>,
    owner: &Owner<'_>,
    Request { seen_in, to }: Request,
    container: impl FnMut(&SnapshotNamespace) -> Option<Arc<Container>>,
) -> Result<ExitCode, Failure> {
    let PidArgs { pids, fields, output, no_headers, screen, .. } = args;
    let task = owner.task();
    let mut levels = levels(&host.model, &task, container);
    if let Some(to) = to {
        let at = to.level_of(&task, &host.model.levels(&task));
        let at = at.ok_or_else(|| errors::invisible((pid, seen_in), &task, to, host))?;
        levels = levels.into_iter().skip(at).take(1).collect();
    }
    let is_all = to.is_some() || !task.pids.is_empty();
    view::print(|to| match output {
        SnapshotOutput::Table => {
            if !is_first {
                writeln!(to)?;
            }
            let fields = fields.clone().unwrap_or_default();
            levels::table(&levels, is_all, &fields, !no_headers, terminal::screen(screen), to)
        }
        SnapshotOutput::Json => {
            let thread = owner.thread.as_ref().map(|thread| thread.tid);
            let form = if pids.len() > 1 { JsonForm::Line } else { JsonForm::Indented };
            levels::json((host.snapshot.source, owner.process, thread), &levels, fields.as_ref(), form, to)
        }
    })
}

/// The process at each level; where its PIDs may not be read, at level 0 alone.
fn levels(
    model: &Forest<'_>,
    process: &SnapshotProcess,
    mut container: impl FnMut(&SnapshotNamespace) -> Option<Arc<Container>>,
) -> Vec<Level> {
    let pids = if process.pids.is_empty() { std::slice::from_ref(&process.pid.0) } else { &process.pids };
    let around = process.ns.map(|ns| model.ancestry(ns, process.start_boot_ns)).unwrap_or_default();
    let levels = pids.iter().zip(model.levels(process)).enumerate();
    let levels = levels.map(|(level, (&pid, ns))| {
        let known = around.iter().find(|known| known.level as usize == level && Some(known.inum) == ns);
        Level { level, ns, container: known.and_then(|ns| container(ns)), pid }
    });
    levels.collect()
}
