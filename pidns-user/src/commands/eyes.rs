//! What snapshots are taken with: the kernel's task iterator, or where that cannot be had /proc; and what names containers.

use std::sync::Arc;

use super::unread::{words_about, words_about_procs};
use crate::{
    container::{self, Api, Container, Names, Roots},
    failure::Failure,
    kernel::{clock, iterator::TaskIterator, load::LoadError, namespace},
    procfs::Procfs,
    snapshot::{Process, Snapshot, Unnamed, Unread},
    target::Words,
};

/// What snapshots are taken with: the kernel's task iterator, or where that cannot be had /proc.
#[derive(Default)]
pub(super) struct Eyes {
    /// None before the first snapshot; then the iterator, if it can be had.
    iterator: Option<Option<TaskIterator>>,
    /// Whether nothing is to be said of what could not be read.
    quiet: bool,
    /// What was said last to be unread.
    said: Unread,
    /// The mounted procs that were said last to show what nothing tells.
    said_unnamed: Vec<Unnamed>,
    /// The containers that were seen, so that each is looked up once.
    names: Option<Names>,
}

impl Eyes {
    /// Takes a snapshot.
    pub(super) fn snapshot(&mut self, holders: bool) -> Result<Snapshot, Failure> {
        let procfs = Procfs::default();
        let boot_ns = clock::boottime_ns();
        let mut snapshot = match self.iterate(boot_ns) {
            Some(mut snapshot) => {
                if let Err(error) = procfs.add_left_out(&mut snapshot) {
                    eprintln!(
                        "pidns-trace: cannot read /proc: {error}: what the task iterator left out is missing"
                    );
                }
                snapshot
            }
            None => procfs.snapshot(boot_ns).map_err(|error| Failure::Io { what: "read /proc", error })?,
        };
        if holders {
            procfs.add_holders(&mut snapshot);
        }
        if !self.quiet {
            self.say_what_is_unknown(&snapshot);
        }
        Ok(snapshot)
    }

    fn say_what_is_unknown(&mut self, snapshot: &Snapshot) {
        if snapshot.unread != self.said {
            self.said = snapshot.unread;
            if let Some(words) = words_about(&snapshot.unread, rustix::process::geteuid().is_root()) {
                eprintln!("pidns-trace: {words}");
            }
        }
        if snapshot.unnamed != self.said_unnamed {
            self.said_unnamed.clone_from(&snapshot.unnamed);
            words_about_procs(&snapshot.unnamed).iter().for_each(|words| eprintln!("pidns-trace: {words}"));
        }
    }

    /// Those that say nothing of what they could not read, if that is wanted.
    pub(super) fn quiet(quiet: bool) -> Self {
        Self { quiet, ..Self::default() }
    }

    /// Those that name containers with the daemons' help, where that is wanted.
    pub(super) fn new(runtime_api: bool) -> Result<Self, Failure> {
        Ok(Self { names: Some(names(runtime_api)?), ..Self::default() })
    }

    /// Adds the containers: what the PID 1 of each namespace but the host's own runs in.
    pub(super) fn name_containers(&mut self, snapshot: &mut Snapshot) {
        let inits =
            snapshot.processes.iter().filter(|process| process.is_init() && process.level() > Some(0));
        for process in inits {
            let Some(ns) = process.ns else { continue };
            if let Some(namespace) = snapshot.namespaces.get_mut(&ns) {
                namespace.container = self.container_of_init(process);
            }
        }
    }

    /// The container of one namespace: what its PID 1 runs in; of the host's own none.
    pub(super) fn container_of(&mut self, snapshot: &Snapshot, inum: u32) -> Option<Arc<Container>> {
        let is_it =
            |process: &&Process| process.ns == Some(inum) && process.is_init() && process.level() > Some(0);
        self.container_of_init(snapshot.processes.iter().find(is_it)?)
    }

    fn container_of_init(&mut self, init: &Process) -> Option<Arc<Container>> {
        let names = self.names.get_or_insert_with(|| Names::new(Roots::host()));
        names.find(container::Process { pid: init.pid, start_boot_ns: init.start_boot_ns? })
    }

    /// Adds the containers where the TARGET may be the name of one.
    pub(super) fn name_containers_for(&mut self, target: Option<&str>, snapshot: &mut Snapshot) {
        if target.is_some_and(|target| matches!(Words::of(target), Ok(Words::Name(_)))) {
            self.name_containers(snapshot);
        }
    }

    /// What the iterator tells; `None` where there is none, which is said once.
    fn iterate(&mut self, boot_ns: u64) -> Option<Snapshot> {
        let iterator = self.iterator.get_or_insert_with(load);
        let read = iterator.as_mut()?.read().and_then(|records| {
            Snapshot::from_records(boot_ns, &records)
                .map_err(|error| LoadError::Hook { hook: "iter/task", error: error.to_string() })
        });
        match read {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                say_without_iterator(&error);
                *iterator = None;
                None
            }
        }
    }
}

/// What names the containers of this machine; with the daemons' help where that is wanted.
pub(super) fn names(runtime_api: bool) -> Result<Names, Failure> {
    let roots = Roots::host();
    if !runtime_api {
        return Ok(Names::new(roots));
    }
    let api =
        Api::new(&roots).map_err(|error| Failure::Io { what: "start a thread to ask daemons", error })?;
    Ok(Names::asking(roots, api))
}

fn load() -> Option<TaskIterator> {
    if namespace::is_initial() != Some(true) {
        eprintln!(
            "pidns-trace: this is not the host's own PID namespace: PIDs and levels are counted from the namespace of \
             this /proc, and what is outside of it is not seen"
        );
        return None;
    }
    match TaskIterator::load() {
        Ok(iterator) => Some(iterator),
        // Nothing is wrong then: /proc shows the user's own processes, and what it does not is told.
        Err(LoadError::Privilege(_) | LoadError::UserNamespace) => None,
        Err(error) => {
            say_without_iterator(&error);
            None
        }
    }
}

fn say_without_iterator(error: &LoadError) {
    eprintln!("pidns-trace: reading /proc instead of the kernel's task iterator: {error}");
}
