//! Takes snapshots with the kernel's task iterator, or from /proc if that is not available.

use std::{
    fmt::{self, Display},
    io,
    time::Duration,
};

use pidns_ebpf::abi::DecodeError;

use crate::{
    event::identity::{BootNs, HostPid},
    event::snapshot::{Snapshot, Unnamed, Unread, WhyUnnamed},
    kernel::{
        capabilities::{self, Uses},
        clock,
        error::LoadError,
        iterator::{TaskIterator, cgroups_of, snapshot_of},
        namespace,
    },
    procfs::{Procfs, ties::Ties},
};

/// Why there is no task iterator.
#[derive(Clone, Debug)]
pub enum NoIterator {
    /// This is not the host's own PID namespace: the iterator's numbers match nothing in this /proc.
    Elsewhere,
    /// A privilege is missing. Nothing is wrong then: /proc shows the user's own processes, and what it does not is counted.
    Unprivileged,
    /// This kernel refuses it, for this reason.
    Refused(String),
}

impl Display for NoIterator {
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

/// What its user should know of a snapshot. Of snapshots that follow each other each kind comes once, and not with each new
/// number.
#[derive(Clone, Debug)]
pub enum Notice {
    /// /proc is read in the iterator's place.
    NoIterator(NoIterator),
    /// What the iterator left out is missing, as /proc cannot be read.
    LeftOut(String),
    /// This was not read for want of a privilege.
    Unread(Unread),
    /// It is not known which namespaces these procs show.
    Unnamed(Vec<Unnamed>),
}

/// A snapshot, and its notices.
#[derive(Debug)]
pub struct Observed {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The notices.
    pub notices: Vec<Notice>,
}

/// Why no snapshot can be taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// /proc cannot be read.
    #[error("read /proc: {0}")]
    Proc(io::Error),
    /// Capabilities cannot be given up.
    #[error("drop the capabilities that are not needed any more: {0}")]
    Capabilities(io::Error),
    /// The thread that takes snapshots is no more.
    #[error("the thread that takes snapshots has ended")]
    ThreadEnded,
}

/// Is called during each snapshot.
pub trait SnapshotWatch: Send {
    /// One is about to be taken.
    fn begins(&mut self);
    /// The pass over all tasks is over.
    fn passed(&mut self, took: Duration);
}

/// Takes snapshots.
pub struct Observer {
    /// None before the first snapshot.
    iterator: Option<Result<TaskIterator, NoIterator>>,
    load: fn(bool) -> Result<TaskIterator, NoIterator>,
    /// Whether the iterators that find what holds namespaces are loaded too, as snapshots with holders are to be expected.
    finds_holders: bool,
    /// Whether the capabilities that a snapshot does not need are dropped before the first one.
    drops_capabilities: bool,
    /// Whether the paths of cgroups are read: a file for each set of cgroups.
    reads_cgroups: bool,
    notices: Vec<Notice>,
    given: Given,
    watch: Option<Box<dyn SnapshotWatch>>,
}

/// The kinds of notices that were given.
#[derive(Debug, Default)]
struct Given {
    unread: [bool; 6],
    unnamed: [bool; 3],
}

impl Observer {
    /// For a command that does nothing but take snapshots: it drops the capabilities that those do not need.
    pub fn new() -> Self {
        Self { drops_capabilities: true, ..Self::before_a_stream() }
    }

    /// For a command that loads a stream afterwards, which takes privileges.
    pub fn before_a_stream() -> Self {
        Self {
            iterator: None,
            load,
            finds_holders: true,
            drops_capabilities: false,
            reads_cgroups: false,
            notices: Vec::new(),
            given: Given::default(),
            watch: None,
        }
    }

    /// Has the processes of its snapshots come with the paths of their cgroups.
    pub fn with_cgroups(self) -> Self {
        Self { reads_cgroups: true, ..self }
    }

    /// For a command that takes no snapshot with holders: it loads less.
    pub fn without_holders(self) -> Self {
        Self { finds_holders: false, ..self }
    }

    /// Calls `watch` during each snapshot from now on.
    pub fn watched_by(mut self, watch: Box<dyn SnapshotWatch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// One that loads its iterator so: for tests of kernels that refuse it.
    #[cfg(any(test, feature = "test-tools"))]
    pub fn refusing(why: fn(bool) -> Result<TaskIterator, NoIterator>) -> Self {
        Self { load: why, ..Self::before_a_stream() }
    }

    /// Takes a snapshot; with what holds namespaces where that is wanted, which takes longer. `between` is called every few
    /// milliseconds.
    pub fn snapshot(
        &mut self,
        with_holders: bool,
        between: &mut dyn FnMut(),
    ) -> Result<Observed, SnapshotError> {
        let procfs = Procfs::default();
        procfs.check().map_err(SnapshotError::Proc)?;
        self.open()?;
        if let Some(watch) = &mut self.watch {
            watch.begins();
        }
        let boot_ns = clock::boottime_ns();
        let mut snapshot = match self.iterate(boot_ns, between) {
            Some((mut snapshot, cgroups)) => {
                procfs.add_cgroups(&mut snapshot, &cgroups, between);
                if let Err(error) = procfs.add_left_out(&mut snapshot, between) {
                    self.notices.push(Notice::LeftOut(error.to_string()));
                }
                snapshot
            }
            None => procfs.snapshot(boot_ns, between).map_err(SnapshotError::Proc)?,
        };
        if let Some(watch) = &mut self.watch {
            let took = clock::boottime_ns().saturating_since(boot_ns);
            watch.passed(Duration::from_nanos(took));
        }
        if with_holders {
            let ties = self.ties(&snapshot, between);
            procfs.add_holders(&mut snapshot, ties, between);
        }
        self.notices.extend(self.given.new_kinds(&snapshot));
        Ok(Observed { snapshot, notices: std::mem::take(&mut self.notices) })
    }

    /// Why the last snapshot was not the iterator's.
    pub fn without_iterator(&self) -> Option<&NoIterator> {
        self.iterator.as_ref()?.as_ref().err()
    }

    /// Once: loads the iterator, then drops what is not needed any more. Loading wants no other thread.
    fn open(&mut self) -> Result<(), SnapshotError> {
        if self.iterator.is_some() {
            return Ok(());
        }
        let iterator = self.iterator.insert((self.load)(self.finds_holders));
        if let Err(why @ (NoIterator::Elsewhere | NoIterator::Refused(_))) = iterator {
            self.notices.push(Notice::NoIterator(why.clone()));
        }
        if self.drops_capabilities {
            let uses = if iterator.is_ok() { Uses::BpfAndProc } else { Uses::Proc };
            capabilities::drop_all_but(uses).map_err(SnapshotError::Capabilities)?;
        }
        Ok(())
    }

    /// What the kernel's iterators report about holders. Nothing where they are missing: /proc has the same then, but for files of
    /// a thread that has its own, and takes longer.
    fn ties(&mut self, snapshot: &Snapshot, between: &mut dyn FnMut()) -> Ties {
        let iterator = self.iterator.as_mut().and_then(|iterator| iterator.as_mut().ok());
        let iterator = iterator.filter(|iterator| iterator.ties().is_ok());
        iterator.and_then(|iterator| iterator.read_ties(snapshot, between).ok()).unwrap_or_default()
    }

    /// The iterator's snapshot, and where paths of cgroups are wanted what stands for those of each process; `None` where there is
    /// no iterator.
    fn iterate(
        &mut self,
        boot_ns: BootNs,
        between: &mut dyn FnMut(),
    ) -> Option<(Snapshot, Vec<(HostPid, u64)>)> {
        let iterator = self.iterator.as_mut()?.as_mut().ok()?;
        let decode = |records: &[u8]| {
            let until = clock::boottime_ns();
            let cgroups = if self.reads_cgroups { cgroups_of(records)? } else { Vec::new() };
            Ok((snapshot_of(boot_ns, until, records)?, cgroups))
        };
        let read = iterator.read(between).and_then(|records| {
            decode(&records).map_err(|error: DecodeError| LoadError::Iterator(error.to_string()))
        });
        match read {
            Ok(snapshot) => Some(snapshot),
            Err(error) => {
                let why = NoIterator::Refused(error.to_string());
                self.notices.push(Notice::NoIterator(why.clone()));
                self.iterator = Some(Err(why));
                None
            }
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

impl Given {
    /// The notices of this snapshot that none before it had.
    fn new_kinds(&mut self, snapshot: &Snapshot) -> Vec<Notice> {
        let Unread { processes, namespaces, files, mounts, hidden, behind_server } = snapshot.unread;
        let are = [processes > 0, namespaces > 0, files > 0, mounts > 0, hidden, behind_server > 0];
        let mut notices = Vec::new();
        if is_new(&mut self.unread, are) {
            notices.push(Notice::Unread(snapshot.unread));
        }
        let is_any = |why| snapshot.unnamed.iter().any(|unnamed| unnamed.why == why);
        let why = [WhyUnnamed::NoProcess, WhyUnnamed::Unreadable, WhyUnnamed::BehindServer];
        if is_new(&mut self.unnamed, why.map(is_any)) {
            notices.push(Notice::Unnamed(snapshot.unnamed.clone()));
        }
        notices
    }
}

/// Whether there is one that was not there before.
fn is_new<const N: usize>(given: &mut [bool; N], are: [bool; N]) -> bool {
    let before = *given;
    for (given, is) in given.iter_mut().zip(are) {
        *given |= is;
    }
    *given != before
}

fn load(with_ties: bool) -> Result<TaskIterator, NoIterator> {
    if namespace::is_initial() != Some(true) {
        return Err(NoIterator::Elsewhere);
    }
    let iterator = if with_ties { TaskIterator::load_with_ties() } else { TaskIterator::load() };
    iterator.map_err(|error| match error {
        LoadError::Privilege(_) | LoadError::UserNamespace => NoIterator::Unprivileged,
        error => NoIterator::Refused(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::identity::HostPid;
    use crate::event::snapshot::SnapshotSource;

    #[test]
    fn a_refused_iterator_is_replaced_by_proc_and_the_reason_given() {
        let refusal =
            |_| Err(NoIterator::Refused(LoadError::Iterator("no such thing".to_owned()).to_string()));
        let mut observer = Observer::refusing(refusal);
        assert!(observer.without_iterator().is_none(), "nothing was tried yet");
        let Observed { snapshot, notices } = observer.snapshot(false, &mut || {}).unwrap();
        assert_eq!(snapshot.source, SnapshotSource::Proc);
        assert!(snapshot.processes.iter().any(|process| process.pid == HostPid(std::process::id())));
        assert!(matches!(notices[0], Notice::NoIterator(_)));
        let reason = observer.without_iterator().expect("a reason").to_string();
        for part in ["task iterator", "no such thing", "rounded"] {
            assert!(reason.contains(part), "{part}: {reason}");
        }
        assert!(!reason.contains("--hooks"), "that is about the stream: {reason}");
    }

    #[test]
    fn each_kind_of_unread_things_is_noticed_once() {
        let mut given = Given::default();
        let mut notices = |unread| {
            let snapshot = Snapshot { unread, ..Snapshot::empty(SnapshotSource::Proc, BootNs(0)) };
            given.new_kinds(&snapshot).len()
        };
        let files = |files| Unread { files, ..Unread::default() };
        assert_eq!(notices(Unread::default()), 0);
        assert_eq!(notices(files(2)), 1);
        assert_eq!(notices(files(3)), 0, "another number of the same");
        assert_eq!(notices(files(0)), 0);
        assert_eq!(notices(files(4)), 0, "as it was noticed before");
        assert_eq!(notices(Unread { mounts: 1, ..files(4) }), 1, "something else");
    }
}
