//! `pidns-trace pid`: translates a process's PID to every level, or to another namespace.

mod errors;
mod place;

use std::{process::ExitCode, sync::Arc, time::Duration};

use self::place::PidNamespaceRef;
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

/// The processes in which PIDs are looked up.
struct PidTable<'a> {
    snapshot: &'a Snapshot,
    model: Forest<'a>,
    /// Processes that are gone, the last to go first; empty for the running host.
    dead: &'a [SnapshotProcess],
    /// Finds threads; `None` for a recording.
    threads: Option<Procfs>,
}

/// The process or thread that has the given PID.
struct Owner<'a> {
    process: &'a SnapshotProcess,
    /// The thread, if the number is a TID and not the PID of a process.
    thread: Option<Thread>,
}

impl<'a> Owner<'a> {
    fn process(process: &'a SnapshotProcess) -> Self {
        Self { process, thread: None }
    }

    /// The process, or the thread with its own TIDs.
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
    /// Existing processes, then those that are gone.
    fn processes(&self) -> impl Iterator<Item = &SnapshotProcess> {
        self.snapshot.processes.iter().chain(self.dead)
    }

    /// The process that has this PID on the host, or else the last one that had it.
    fn of_number(&self, pid: HostPid) -> Option<&SnapshotProcess> {
        self.processes().find(|process| process.pid == pid)
    }

    /// The process that has or had this PID in this namespace.
    fn in_place(&self, pid: u32, place: PidNamespaceRef) -> Option<&SnapshotProcess> {
        self.processes().find(|process| {
            let pids =
                if process.pids.is_empty() { std::slice::from_ref(&process.pid.0) } else { &process.pids };
            // Compare PIDs first: that is cheap.
            pids.contains(&pid)
                && place
                    .level_of(process, &self.model.levels(process))
                    .is_some_and(|level| pids.get(level) == Some(&pid))
        })
    }

    /// The thread with this TID on the host.
    fn thread_of_number(&self, tid: u32) -> Option<Owner<'_>> {
        let thread = self.threads.as_ref()?.thread(tid)?;
        let process = self.of_number(thread.process)?;
        Some(Owner { process, thread: Some(thread) })
    }

    /// The thread with this TID in this namespace.
    fn thread_in_place(&self, tid: u32, place: PidNamespaceRef) -> Option<Owner<'_>> {
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

/// Takes a snapshot or reads a recording, and translates the PIDs.
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
    let asked = Request::of(args, |target| {
        Ok(PidNamespaceRef::of_number(find::namespace(target, &snapshot, &host.model)?))
    })?;
    each(args, |pid, is_first| {
        let owner = search(pid, asked, &host)?;
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
                "{} is a thread of {}[{}]: the table shows the thread's TIDs",
                thread.tid,
                process.name(),
                process.pid
            ));
        }
        let printed = print((pid, is_first), args, &host, &owner, asked, container);
        failure.map_or(printed, Err)
    })
}

/// Translates the PIDs one by one and prints the results. Prints all failures but the last, which it returns.
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

/// Translates from a recording, which also contains processes that are gone. If several had a PID, the last one counts.
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
            // The namespace with this number may be gone, and another one may have the number now.
            Target::Namespace(inum) => match host.model.node(inum).is_some() {
                false if gone.iter().all(|gone| gone.inum != inum) => {
                    return Err(find::no_namespace(inum, &snapshot).into());
                }
                _ => PidNamespaceRef::of_number(inum),
            },
            Target::Container(inum) => PidNamespaceRef::of_living(inum, &world),
            Target::GoneContainer(key) => PidNamespaceRef::of_key(key, &world),
            Target::Sharing(found) => PidNamespaceRef::of_living(found.ns, &world),
            Target::Pod(found) => PidNamespaceRef::of_living(find::one_namespace(target, &found)?, &world),
            Target::Process(pid) => {
                let process = host.of_number(pid).ok_or_else(|| find::no_process(pid, &snapshot))?;
                let inum = process.ns.ok_or_else(|| find::no_process(pid, &snapshot))?;
                match host.model.ancestry(inum, process.start_boot_ns).first() {
                    Some(own) => PidNamespaceRef::of_key(NamespaceKey { inum, ..own.key() }, &world),
                    None => PidNamespaceRef::of_number(inum),
                }
            }
        })
    };
    let translate = |asked: Request, pid, is_first| {
        let owner = search(pid, asked, &host)?;
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
    };
    let result = Request::of(args, place)
        .and_then(|asked| each(args, |pid, is_first| translate(asked, pid, is_first)));
    recorded::with_damage(recorded::noting_forgotten(result, &world), damage)
}

/// Finds the process with the PID.
fn search<'a>(pid: u32, asked: Request, host: &'a PidTable<'_>) -> Result<Owner<'a>, Failure> {
    match asked.seen_in {
        Some(place) => host
            .in_place(pid, place)
            .map(Owner::process)
            .or_else(|| host.thread_in_place(pid, place))
            .ok_or_else(|| errors::no_process_in(pid, place, host)),
        None => host
            .of_number(HostPid(pid))
            .map(Owner::process)
            .or_else(|| host.thread_of_number(pid))
            .ok_or_else(|| match errors::elsewhere(pid, host) {
                Some(elsewhere) => Failure::NoMatch(format!(
                    "no process on the host has PID {pid}{}, but {elsewhere}: use --in",
                    host.how_far_that_is_known()
                )),
                None => find::no_process(HostPid(pid), host.snapshot).into(),
            }),
    }
}

/// The namespace in which the PIDs were given, and the one to translate them to.
#[derive(Clone, Copy)]
struct Request {
    seen_in: Option<PidNamespaceRef>,
    to: Option<PidNamespaceRef>,
}

impl Request {
    /// Looks up the namespaces that `--in` and `--to` name: once, so that an error about them is printed once.
    fn of(args: &PidArgs, place: impl Fn(&str) -> Result<PidNamespaceRef, Failure>) -> Result<Self, Failure> {
        let seen_in = args.target.as_deref().map(&place).transpose()?;
        let to = args.to.as_deref().map(&place).transpose()?;
        Ok(Self { seen_in, to })
    }
}

/// Prints the levels of one PID. A blank line separates tables.
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

/// The PID at each level. If the PIDs cannot be read, only at level 0.
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
