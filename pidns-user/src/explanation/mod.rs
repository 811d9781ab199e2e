//! Gathers all facts about one namespace, process or container into one value. Pure: the input is a snapshot, or the
//! model that a recording yields.

mod namespace;
mod process;
mod timeline;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

pub use self::{
    namespace::{Below, EarlierNamespace, Joiner, NamespaceFacts, OtherContainer, State},
    process::{LevelFacts, ProcessFacts, ThreadFacts},
    timeline::{Counts, FIRST_LINES, LAST_LINES, Subject, Timeline},
};
use crate::{
    event::Exit,
    event::container::Container,
    event::finding::Finding,
    event::identity::{BootNs, HostPid, NamespaceKey, NsInum, ProcessKey},
    event::snapshot::{Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource, Unread},
    model::{DeadProcess, Forest, World},
    procfs::threads::Thread,
};

/// The state of the host, and its sources.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// The processes and namespaces that exist.
    pub snapshot: &'a Snapshot,
    /// The same as a forest. For a recording it includes the namespaces that are gone.
    pub forest: &'a Forest<'a>,
    /// The model of a recording; `None` for the running host.
    pub world: Option<&'a World>,
}

/// The kind of the TARGET.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A namespace.
    Namespace,
    /// A process.
    Process,
    /// A container. It is shown together with its namespace.
    Container,
}

/// The facts about a namespace or a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Facts {
    /// About a namespace.
    Namespace(Box<NamespaceFacts>),
    /// About a process.
    Process(Box<ProcessFacts>),
}

impl Facts {
    /// Whether holders are listed, so that unread files bear on it. The host's namespace exists anyway.
    pub fn lists_holders(&self) -> bool {
        match self {
            Self::Namespace(facts) => {
                facts.ns.level > 0 && (facts.processes == 0 || !facts.holders.is_empty())
            }
            Self::Process(_) => false,
        }
    }
}

/// The output of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Source of the processes.
    pub source: SnapshotSource,
    /// The time that the explanation describes.
    pub boot_ns: BootNs,
    /// The same on the wall clock.
    pub time: Timestamp,
    /// The kind of the TARGET.
    pub about: About,
    /// The facts.
    #[serde(flatten)]
    pub facts: Facts,
    /// Findings about it, the most severe first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Its history, if read from a recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<Timeline>,
    /// Information that could not be read.
    pub unread: Unread,
}

impl Explanation {
    /// Converts to wall clock time. Uses the offset between the two clocks at `boot_ns`.
    pub fn wall_clock(&self, boot_ns: BootNs) -> Timestamp {
        let since = SignedDuration::from_nanos_i128(i128::from(boot_ns.0) - i128::from(self.boot_ns.0));
        self.time.saturating_add(since).unwrap_or(self.time)
    }
}

/// A process that has ended and is not reaped yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zombie {
    /// The process.
    pub process: SnapshotProcess,
    /// Its wait for the reaper.
    #[serde(flatten)]
    pub wait: Wait,
}

/// The wait of a zombie: its start, and the process that should reap it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wait {
    /// Start of the wait, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_boot_ns: Option<BootNs>,
    /// How it ended, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Its parent, which must wait for it; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaper: Option<SnapshotProcess>,
    /// For an orphan whose new parent is uncertain: the process that must wait for it, unless a subreaper has adopted
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopter: Option<SnapshotProcess>,
    /// Its tracer, if that is not its parent. The parent cannot reap it until the tracer waits for it, detaches or ends
    /// (`wait_consider_task()`, kernel/exit.c).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracer: Option<SnapshotProcess>,
    /// Whether it is unknown if there is a tracer: some recordings do not contain that.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tracer_unknown: bool,
}

/// A process that no longer exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// When it ended, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_boot_ns: Option<BootNs>,
    /// How it ended, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// When it was reaped, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reaped_boot_ns: Option<BootNs>,
}

impl<'a> Host<'a> {
    /// The container of this namespace.
    fn container(&self, inum: NsInum) -> Option<&'a Container> {
        self.snapshot.namespaces.get(&inum)?.container.as_deref()
    }

    /// Explains the existing namespace with this inode number, or else the last one that had it.
    pub fn explain_namespace(&self, inum: NsInum) -> Option<(Facts, Subject)> {
        match self.namespace(inum) {
            Some(facts) => Some(of_namespace(facts, None)),
            None => self.last_of(|ns| ns.inum == inum),
        }
    }

    /// Explains the namespace with this identity, which is gone.
    pub fn explain_gone_namespace(&self, key: NamespaceKey) -> Option<(Facts, Subject)> {
        self.last_of(|ns| ns.key() == key)
    }

    fn last_of(&self, is_it: impl Fn(&SnapshotNamespace) -> bool) -> Option<(Facts, Subject)> {
        let dead = self.world?.history().namespaces().find(|gone| is_it(&gone.state.namespace))?;
        Some(of_namespace(self.gone_namespace(dead), dead.gone_boot_ns))
    }

    /// Explains the existing process with this PID, or else the last one that had it.
    pub fn explain_process(&self, pid: HostPid) -> Option<(Facts, Subject)> {
        let (facts, gone) = match self.forest.process(pid) {
            Some(process) => (self.process(process), None),
            None => {
                let dead = self.world?.history().processes().find(|gone| gone.state.process.pid == pid)?;
                (self.gone_process(dead), dead.gone_boot_ns)
            }
        };
        let key = ProcessKey { pid, start: facts.process.start_boot_ns.unwrap_or_default() };
        Some((Facts::Process(Box::new(facts)), Subject::Process { key, gone }))
    }

    /// Explains the process of this thread, with the thread's PIDs.
    pub fn explain_thread(&self, thread: &Thread) -> Option<(Facts, Subject)> {
        let (mut facts, subject) = self.explain_process(thread.process)?;
        if let Facts::Process(process) = &mut facts {
            process.thread = Some(self.thread(&process.process, thread));
        }
        Some((facts, subject))
    }

    /// The process that had this PID at this time.
    fn process_with_pid(&self, pid: HostPid, at: Option<BootNs>) -> Option<SnapshotProcess> {
        let was_there = |process: &SnapshotProcess| match (process.start_boot_ns, at) {
            (Some(start), Some(at)) => start <= at,
            _ => true,
        };
        if let Some(living) = self.forest.process(pid).filter(|process| was_there(process)) {
            return Some(living.clone());
        }
        let gone = self.world?.history().processes().filter(|gone| gone.state.process.pid == pid);
        gone.map(DeadProcess::as_it_was).find(was_there)
    }

    /// The wait of this process, if it is a zombie.
    fn wait(&self, process: &SnapshotProcess) -> Option<Wait> {
        if !process.is_zombie() {
            return None;
        }
        let ended = self.world.and_then(|world| world.process(process.pid)?.ended.clone());
        let (since_boot_ns, exit) =
            ended.map_or((process.zombie_since_boot_ns, None), |ended| (ended.since, ended.exit));
        let reaper = process.ppid.and_then(|ppid| self.forest.process(ppid)).cloned();
        Some(Wait {
            since_boot_ns,
            exit,
            reaper,
            adopter: self.adopter(process.pid),
            tracer: self.tracer(process).filter(|tracer| Some(tracer.pid) != process.ppid),
            tracer_unknown: !process.knows_tracer(self.snapshot.source),
        })
    }

    /// The process that traces this process.
    fn tracer(&self, process: &SnapshotProcess) -> Option<SnapshotProcess> {
        let pid = process.tracer?;
        Some(self.forest.process(pid).cloned().unwrap_or_else(|| SnapshotProcess::bare(pid)))
    }
}

fn of_namespace(facts: NamespaceFacts, gone: Option<BootNs>) -> (Facts, Subject) {
    let subject = Subject::Namespace { ns: facts.ns.clone(), gone };
    (Facts::Namespace(Box::new(facts)), subject)
}

fn doubts(container: Option<&Container>) -> Vec<String> {
    container.map(|container| container.doubts.clone()).unwrap_or_default()
}
