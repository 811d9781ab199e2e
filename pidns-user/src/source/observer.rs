//! Takes snapshots with the kernel's task iterator, or from /proc if that is not available.

use std::{
    fmt::{self, Display},
    io,
    time::Duration,
};

use pidns_ebpf::abi::DecodeError;

use crate::{
    event::identity::BootNs,
    event::snapshot::{Snapshot, Unnamed, Unread, WhyUnnamed},
    kernel::{
        capabilities::{self, Uses},
        clock,
        error::LoadError,
        iterator::{TaskIterator, snapshot_of},
        namespace,
    },
    procfs::{Procfs, kernel_holders::KernelHolders},
};

/// Why there is no task iterator.
#[derive(Clone, Debug)]
pub enum NoIterator {
    /// This is not the host's PID namespace: the iterator's PIDs match nothing in this /proc.
    Elsewhere,
    /// A privilege is missing. This is normal: /proc shows the user's own processes, and unreadable ones are counted.
    Unprivileged,
    /// This kernel refuses it for this reason.
    Refused(String),
}

impl Display for NoIterator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Elsewhere => f.write_str(
                "this is not the host's PID namespace: PIDs and levels are counted from the namespace of this /proc, \
                 and processes outside it are missing",
            ),
            Self::Unprivileged => f.write_str("a privilege is missing: reading /proc"),
            Self::Refused(error) => {
                write!(f, "{error}: reading /proc instead, where start times are rounded down to 10 ms")
            }
        }
    }
}

/// A fact about a snapshot that users should know. An observer reports each kind of unread or unnamed item once, and
/// not again if a later snapshot has another number of them.
#[derive(Clone, Debug)]
pub enum Notice {
    /// /proc is read instead of the iterator.
    NoIterator(NoIterator),
    /// Processes that the iterator omits are missing, because /proc cannot be read. This is the error.
    LeftOut(String),
    /// This could not be read because a privilege is missing.
    Unread(Unread),
    /// The namespaces that these proc mounts show are unknown.
    Unnamed(Vec<Unnamed>),
}

/// A snapshot with its notices.
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
    /// Capabilities cannot be dropped.
    #[error("drop the capabilities that are not needed any more: {0}")]
    Capabilities(io::Error),
    /// The thread that takes snapshots has ended.
    #[error("the thread that takes snapshots has ended")]
    ThreadEnded,
}

/// Called during each snapshot.
pub trait SnapshotWatch: Send {
    /// A snapshot is about to be taken.
    fn begins(&mut self);
    /// All tasks were read, which took this long.
    fn passed(&mut self, took: Duration);
}

/// Takes snapshots.
pub struct Observer {
    /// `None` before the first snapshot.
    iterator: Option<Result<TaskIterator, NoIterator>>,
    load: fn(bool) -> Result<TaskIterator, NoIterator>,
    /// Whether the iterators that find holders are loaded too, for snapshots with holders.
    finds_holders: bool,
    /// Whether to drop the capabilities that a snapshot does not need before the first one.
    drops_capabilities: bool,
    /// Whether to read the paths of cgroups: one file for each set of cgroups.
    reads_cgroups: bool,
    notices: Vec<Notice>,
    given: ReportedKinds,
    watch: Option<Box<dyn SnapshotWatch>>,
}

/// Kinds of notices that were already given.
#[derive(Debug, Default)]
struct ReportedKinds {
    unread: [bool; 6],
    unnamed: [bool; 3],
}

impl Observer {
    /// For a command that only takes snapshots. It drops the capabilities that those do not need.
    pub fn new() -> Self {
        Self { drops_capabilities: true, ..Self::before_a_stream() }
    }

    /// For a command that loads a stream afterwards, which needs more privileges.
    pub fn before_a_stream() -> Self {
        Self {
            iterator: None,
            load,
            finds_holders: true,
            drops_capabilities: false,
            reads_cgroups: false,
            notices: Vec::new(),
            given: ReportedKinds::default(),
            watch: None,
        }
    }

    /// Adds the paths of cgroups to the processes of its snapshots.
    pub fn with_cgroups(self) -> Self {
        Self { reads_cgroups: true, ..self }
    }

    /// For a command that takes no snapshots with holders. It loads fewer programs.
    pub fn without_holders(self) -> Self {
        Self { finds_holders: false, ..self }
    }

    /// Calls `watch` during each snapshot from now on.
    pub fn watched_by(mut self, watch: Box<dyn SnapshotWatch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// An observer that loads the iterator with this function. For tests of kernels that refuse it.
    #[cfg(any(test, feature = "test-tools"))]
    pub fn refusing(why: fn(bool) -> Result<TaskIterator, NoIterator>) -> Self {
        Self { load: why, ..Self::before_a_stream() }
    }

    /// Takes a snapshot. With holders of namespaces it takes longer. Calls `between` every few milliseconds.
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
            Some(mut snapshot) => {
                if self.reads_cgroups {
                    procfs.add_cgroups(&mut snapshot, between);
                }
                if let Err(error) = procfs.add_left_out(&mut snapshot, between) {
                    self.notices.push(Notice::LeftOut(error.to_string()));
                }
                snapshot
            }
            None => procfs.snapshot(boot_ns, between).map_err(SnapshotError::Proc)?,
        };
        procfs.add_wait_channels(&mut snapshot);
        if let Some(watch) = &mut self.watch {
            let took = clock::boottime_ns().saturating_since(boot_ns);
            watch.passed(Duration::from_nanos(took));
        }
        if with_holders {
            let holders = self.holders(&snapshot, between);
            procfs.add_holders(&mut snapshot, holders, between);
        }
        self.notices.extend(self.given.new_kinds(&snapshot));
        Ok(Observed { snapshot, notices: std::mem::take(&mut self.notices) })
    }

    /// Why the last snapshot did not use the iterator.
    pub fn without_iterator(&self) -> Option<&NoIterator> {
        self.iterator.as_ref()?.as_ref().err()
    }

    /// At the first call, loads the iterator, then drops the capabilities that are no longer needed. There must be no
    /// other thread during loading.
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

    /// Holders that the kernel's iterators report. Empty if the iterators are missing. Then /proc is read, which takes
    /// longer and lacks files of threads with their own file table.
    fn holders(&mut self, snapshot: &Snapshot, between: &mut dyn FnMut()) -> KernelHolders {
        let iterator = self.iterator.as_mut().and_then(|iterator| iterator.as_mut().ok());
        let iterator = iterator.filter(|iterator| iterator.holders_loaded().is_ok());
        iterator.and_then(|iterator| iterator.read_holders(snapshot, between).ok()).unwrap_or_default()
    }

    /// The iterator's snapshot; `None` without an iterator.
    fn iterate(&mut self, boot_ns: BootNs, between: &mut dyn FnMut()) -> Option<Snapshot> {
        let iterator = self.iterator.as_mut()?.as_mut().ok()?;
        let decode = |records: &[u8]| snapshot_of(boot_ns, clock::boottime_ns(), records);
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

impl ReportedKinds {
    /// The notices of this snapshot that no earlier one had.
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

/// Marks these kinds as given. Returns whether one is new.
fn is_new<const N: usize>(given: &mut [bool; N], are: [bool; N]) -> bool {
    let before = *given;
    for (given, is) in given.iter_mut().zip(are) {
        *given |= is;
    }
    *given != before
}

fn load(with_holders: bool) -> Result<TaskIterator, NoIterator> {
    if namespace::is_initial() != Some(true) {
        return Err(NoIterator::Elsewhere);
    }
    let iterator = if with_holders { TaskIterator::load_with_holders() } else { TaskIterator::load() };
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
    fn a_refused_iterator_is_replaced_by_proc_with_a_reason() {
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
        assert!(!reason.contains("--hooks"), "--hooks is only about the stream: {reason}");
    }

    #[test]
    fn each_kind_of_unread_files_gives_one_notice() {
        let mut given = ReportedKinds::default();
        let mut notices = |unread| {
            let snapshot = Snapshot { unread, ..Snapshot::empty(SnapshotSource::Proc, BootNs(0)) };
            given.new_kinds(&snapshot).len()
        };
        let files = |files| Unread { files, ..Unread::default() };
        assert_eq!(notices(Unread::default()), 0);
        assert_eq!(notices(files(2)), 1);
        assert_eq!(notices(files(3)), 0, "the same kind with another number");
        assert_eq!(notices(files(0)), 0);
        assert_eq!(notices(files(4)), 0, "the notice was given before");
        assert_eq!(notices(Unread { mounts: 1, ..files(4) }), 1, "another kind");
    }
}
