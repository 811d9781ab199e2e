//! All that is known about one namespace, process or container, gathered into one value. Pure: it takes a snapshot, or what
//! a recording makes of one, and returns the facts to show.

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
    /// The same, as a forest; for a recording including the namespaces that are gone.
    pub forest: &'a Forest<'a>,
    /// The model of a recording; `None` for the running host.
    pub world: Option<&'a World>,
}

/// What a TARGET was taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// A namespace.
    Namespace,
    /// A process.
    Process,
    /// A container, which is shown with its namespace.
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

/// The answer of `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Where the processes were read.
    pub source: SnapshotSource,
    /// The moment.
    pub boot_ns: BootNs,
    /// The same by the wall clock.
    pub time: Timestamp,
    /// What the TARGET was taken for.
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
    /// What could not be read.
    pub unread: Unread,
}

impl Explanation {
    /// Converts to wall clock time, by the difference of the two clocks at this moment.
    pub fn wall_clock(&self, boot_ns: BootNs) -> Timestamp {
        let since = SignedDuration::from_nanos_i128(i128::from(boot_ns.0) - i128::from(self.boot_ns.0));
        self.time.saturating_add(since).unwrap_or(self.time)
    }
}

/// A process that has ended and was not reaped yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Zombie {
    /// The process.
    pub process: SnapshotProcess,
    /// What it waits for.
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

/// A process that is gone by the moment.
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

    /// What is known about the namespace of this number: the one that exists, or else the last that did.
    pub fn explain_namespace(&self, inum: NsInum) -> Option<(Facts, Subject)> {
        match self.namespace(inum) {
            Some(facts) => Some(of_namespace(facts, None)),
            None => self.last_of(|ns| ns.inum == inum),
        }
    }

    /// What is known about the namespace of this identity, which is gone.
    pub fn explain_gone_namespace(&self, key: NamespaceKey) -> Option<(Facts, Subject)> {
        self.last_of(|ns| ns.key() == key)
    }

    fn last_of(&self, is_it: impl Fn(&SnapshotNamespace) -> bool) -> Option<(Facts, Subject)> {
        let dead = self.world?.history().namespaces().find(|gone| is_it(&gone.state.namespace))?;
        Some(of_namespace(self.namespace_that_was(dead), dead.gone_boot_ns))
    }

    /// What is known about the process of this PID: the one that exists, or else the last that did.
    pub fn explain_process(&self, pid: HostPid) -> Option<(Facts, Subject)> {
        let (facts, gone) = match self.forest.process(pid) {
            Some(process) => (self.process(process), None),
            None => {
                let dead = self.world?.history().processes().find(|gone| gone.state.process.pid == pid)?;
                (self.process_that_was(dead), dead.gone_boot_ns)
            }
        };
        let key = ProcessKey { pid, start: facts.process.start_boot_ns.unwrap_or_default() };
        Some((Facts::Process(Box::new(facts)), Subject::Process { key, gone }))
    }

    /// What is known about the process of this thread, and what the thread's numbers are.
    pub fn explain_thread(&self, thread: &Thread) -> Option<(Facts, Subject)> {
        let (mut facts, subject) = self.explain_process(thread.process)?;
        if let Facts::Process(process) = &mut facts {
            process.thread = Some(self.thread(&process.process, thread));
        }
        Some((facts, subject))
    }

    /// Who had this PID at this time.
    fn who_had(&self, pid: HostPid, at: Option<BootNs>) -> Option<SnapshotProcess> {
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

    /// What this process waits for, if it is a zombie.
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

    /// The process that traces this one.
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
