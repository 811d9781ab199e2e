//! What snapshots are taken with: the kernel's task iterator, or where that cannot be had /proc; and what names containers.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use crate::{
    commands::failure::Failure,
    commands::{notices::Notices, unread::UnreadNotices},
    container::{self, Api, ContainerCache, Roots},
    event::container::Container,
    event::snapshot::{Process, Snapshot},
    kernel::{
        capabilities::{self, Uses},
        clock,
        iterator::TaskIterator,
        load::LoadError,
        namespace,
    },
    procfs::Procfs,
    target::ParsedTarget,
};

/// Why there is no task iterator.
#[derive(Debug)]
pub(crate) enum Without {
    /// This is not the host's own PID namespace: the iterator's numbers match nothing in this /proc.
    Elsewhere,
    /// A privilege is missing. Nothing is wrong then: /proc shows the user's own processes, and what it does not is told.
    Unprivileged,
    /// This kernel refuses it.
    Refused(LoadError),
}

impl Display for Without {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => f.write_str(
                "this is not the host's own PID namespace: PIDs and levels are counted from the namespace of this /proc, \
                 and what is outside of it is not seen",
            ),
            Self::Unprivileged => f.write_str("a privilege is missing: reading /proc"),
            Self::Refused(error) => {
                write!(f, "{error}: reading /proc in its place, where starts are rounded down to 10 ms")
            }
        }
    }
}

/// What snapshots are taken with.
pub(crate) struct Observer {
    /// None before the first snapshot.
    iterator: Option<Result<TaskIterator, Without>>,
    load: fn() -> Result<TaskIterator, Without>,
    /// Whether what looking does not take of privileges is given up before the first look.
    gives_up: bool,
    notices: Notices,
    unread_notices: UnreadNotices,
    /// Whether daemons are asked for the names of containers.
    runtime_api: bool,
    /// The containers that were seen, so that each is looked up once.
    names: Option<ContainerCache>,
}

impl Observer {
    /// Those of a command that does nothing but look: it gives up all other privileges.
    pub(crate) fn new(runtime_api: bool, notices: Notices) -> Self {
        Self { gives_up: true, ..Self::before_a_stream(runtime_api, notices) }
    }

    /// Those that look before a stream is loaded, which takes privileges.
    pub(crate) fn before_a_stream(runtime_api: bool, notices: Notices) -> Self {
        Self {
            iterator: None,
            load,
            gives_up: false,
            notices,
            unread_notices: UnreadNotices::default(),
            runtime_api,
            names: None,
        }
    }

    /// Takes a snapshot.
    pub(crate) fn snapshot(&mut self, holders: bool) -> Result<Snapshot, Failure> {
        self.open()?;
        let procfs = Procfs::default();
        let boot_ns = clock::boottime_ns();
        let mut snapshot = match self.iterate(boot_ns) {
            Some(mut snapshot) => {
                if let Err(error) = procfs.add_left_out(&mut snapshot) {
                    self.notices.notify(format_args!(
                        "cannot read /proc: {error}: what the task iterator left out is missing"
                    ));
                }
                snapshot
            }
            None => procfs.snapshot(boot_ns).map_err(|error| Failure::Io { what: "read /proc", error })?,
        };
        if holders {
            procfs.add_holders(&mut snapshot);
        }
        let root = rustix::process::geteuid().is_root();
        for words in self.unread_notices.about(&snapshot, root) {
            self.notices.notify(words);
        }
        Ok(snapshot)
    }

    /// Why the last snapshot was not the iterator's.
    pub(crate) fn without(&self) -> Option<&Without> {
        self.iterator.as_ref()?.as_ref().err()
    }

    /// Once: loads the iterator, then gives up what is not needed any more, then starts what asks daemons: a thread has the
    /// privileges of who starts it, and loading wants no other thread.
    fn open(&mut self) -> Result<(), Failure> {
        if self.iterator.is_some() {
            return Ok(());
        }
        let iterator = self.iterator.insert((self.load)());
        if let Err(without @ (Without::Elsewhere | Without::Refused(_))) = iterator {
            self.notices.notify(without);
        }
        if self.gives_up {
            let uses = if iterator.is_ok() { Uses::BpfAndProc } else { Uses::Proc };
            capabilities::drop_all_but(uses).map_err(|error| Failure::Io {
                what: "drop the capabilities that are not needed any more",
                error,
            })?;
        }
        self.names = Some(names(self.runtime_api)?);
        Ok(())
    }

    /// Adds the containers: what the PID 1 of each namespace but the host's own runs in.
    pub(crate) fn name_containers(&mut self, snapshot: &mut Snapshot) {
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
    pub(crate) fn container_of(&mut self, snapshot: &Snapshot, inum: u32) -> Option<Arc<Container>> {
        let is_it =
            |process: &&Process| process.ns == Some(inum) && process.is_init() && process.level() > Some(0);
        self.container_of_init(snapshot.processes.iter().find(is_it)?)
    }

    fn container_of_init(&mut self, init: &Process) -> Option<Arc<Container>> {
        let names = self.names.get_or_insert_with(|| ContainerCache::new(Roots::host()));
        names.find(container::Process { pid: init.pid, start_boot_ns: init.start_boot_ns? })
    }

    /// Adds the containers where the TARGET may be the name of one.
    pub(crate) fn name_containers_for(&mut self, target: Option<&str>, snapshot: &mut Snapshot) {
        if target.is_some_and(|target| matches!(ParsedTarget::of(target), Ok(ParsedTarget::Name(_)))) {
            self.name_containers(snapshot);
        }
    }

    /// What the iterator tells; `None` where there is none, which is unread_notices once.
    fn iterate(&mut self, boot_ns: u64) -> Option<Snapshot> {
        let iterator = self.iterator.as_mut()?.as_mut().ok()?;
        let read = iterator.read().and_then(|records| {
            Snapshot::from_records(boot_ns, &records).map_err(|error| LoadError::Iterator(error.to_string()))
        });
        match read {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                let without = Without::Refused(error);
                self.notices.notify(&without);
                self.iterator = Some(Err(without));
                None
            }
        }
    }
}

/// What names the containers of this machine; with the daemons' help where that is wanted.
pub(crate) fn names(runtime_api: bool) -> Result<ContainerCache, Failure> {
    let roots = Roots::host();
    if !runtime_api {
        return Ok(ContainerCache::new(roots));
    }
    let api =
        Api::new(&roots).map_err(|error| Failure::Io { what: "start a thread to ask daemons", error })?;
    Ok(ContainerCache::asking(roots, api))
}

fn load() -> Result<TaskIterator, Without> {
    if namespace::is_initial() != Some(true) {
        return Err(Without::Elsewhere);
    }
    TaskIterator::load().map_err(|error| match error {
        LoadError::Privilege(_) | LoadError::UserNamespace => Without::Unprivileged,
        error => Without::Refused(error),
    })
}

#[cfg(test)]
impl Observer {
    /// Those that a kernel refuses its iterator to.
    pub(crate) fn refused(why: fn() -> Result<TaskIterator, Without>) -> Self {
        Self { load: why, ..Self::before_a_stream(false, Notices::new(true)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::snapshot::Source;

    #[test]
    fn where_the_iterator_is_refused_proc_is_read_and_the_reason_kept() {
        let mut observer =
            Observer::refused(|| Err(Without::Refused(LoadError::Iterator("no such thing".to_owned()))));
        assert!(observer.without().is_none(), "nothing was tried yet");
        let snapshot = observer.snapshot(false).unwrap();
        assert_eq!(snapshot.source, Source::Proc);
        assert!(snapshot.processes.iter().any(|process| process.pid == std::process::id()));
        let words = observer.without().expect("a reason").to_string();
        for part in ["task iterator", "no such thing", "rounded"] {
            assert!(words.contains(part), "{part}: {words}");
        }
        assert!(!words.contains("--hooks"), "that is about the stream: {words}");
    }
}
