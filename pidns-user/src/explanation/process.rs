//! Facts about a process.

use serde::Serialize;

use super::{Gone, Host, Joiner, Wait, doubts, namespace::Arrival};
use crate::{
    event::container::Container,
    event::identity::{HostPid, NsInum},
    event::snapshot::{Holder, SnapshotProcess},
    model::{Awaited, AwaitedBy, DeadProcess, Reaper},
    procfs::threads::Thread,
};

/// PID and namespace of a process at one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LevelFacts {
    /// The level.
    pub level: usize,
    /// The namespace there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns: Option<NsInum>,
    /// Its PID there.
    pub pid: u32,
}

/// The thread that the TARGET names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadFacts {
    /// Its TID at level 0.
    pub tid: u32,
    /// Its TID at each level.
    pub levels: Vec<LevelFacts>,
}

/// Facts about a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessFacts {
    /// The process.
    pub process: SnapshotProcess,
    /// The thread that the TARGET names, if it is not the main thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<ThreadFacts>,
    /// Its PID at each level, from 0 to its innermost namespace.
    pub levels: Vec<LevelFacts>,
    /// The container of its own cgroup, or else of its namespace's PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// The container of its namespace's PID 1, if that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_container: Option<Container>,
    /// Facts about the container that could not be read or confirmed.
    pub doubts: Vec<String>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotProcess>,
    /// Whether the parent is visible in the process's namespace; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_visible: Option<bool>,
    /// Whether its parent has ended and the new parent is uncertain.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// For an orphan: PID 1 of the old parent's namespace. It is the new parent unless a subreaper among the old
    /// parent's ancestors adopted the orphan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopter: Option<SnapshotProcess>,
    /// Whether it entered its namespace from outside; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<bool>,
    /// Its origin, if it came from outside.
    #[serde(skip)]
    pub joiner: Option<Joiner>,
    /// PID at level 0 of the process that forked it, if it came from outside and an event reported the fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_by: Option<HostPid>,
    /// The process that traces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traced_by: Option<SnapshotProcess>,
    /// For an exiting PID 1: the processes that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Awaited>,
    /// The dying namespace whose end waits for this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaited: Option<AwaitedBy>,
    /// For a PID 1: number of other processes in its namespace and in those nested in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_of: Option<usize>,
    /// For a zombie: its wait for the reaper.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zombie: Option<Wait>,
    /// Its children.
    pub children: Vec<SnapshotProcess>,
    /// The namespace that its children will be born in, if that is not its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_ns: Option<NsInum>,
    /// Its end, if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

impl Host<'_> {
    /// Facts about an existing process.
    pub fn process(&self, process: &SnapshotProcess) -> ProcessFacts {
        let entry = self.world.and_then(|world| world.process(process.pid));
        let reaper = self.world.zip(entry).map(|(world, entry)| world.reaper(entry));
        let children = self.snapshot.processes.iter().filter(|child| child.ppid == Some(process.pid));
        let held = self.snapshot.holders.iter().find_map(|(inum, holder)| match holder {
            Holder::PidForChildren { pid, .. } if *pid == process.pid => Some(*inum),
            _ => None,
        });
        let init_of = process.ns.filter(|_| process.is_init()).map(|ns| {
            let all = self.forest.walk(Some(&[ns])).into_iter().map(|(_, node)| node.members.len());
            all.sum::<usize>().saturating_sub(1)
        });
        ProcessFacts {
            children: children.cloned().collect(),
            children_ns: entry.map_or(held, |entry| entry.children_ns).filter(|&ns| Some(ns) != process.ns),
            init_of,
            zombie: self.wait(process),
            traced_by: self.tracer(process),
            waits_for: process
                .ns
                .filter(|_| process.is_init() && process.exiting)
                .map(|ns| self.forest.awaited_by(ns))
                .unwrap_or_default(),
            awaited: self.forest.awaiting(process),
            orphaned: matches!(reaper, Some(Reaper::InitOrSubreaper { .. })),
            adopter: self.adopter(process.pid),
            ..self.lasting(process)
        }
    }

    /// Facts remembered about a process that is gone.
    pub fn gone_process(&self, gone: &DeadProcess) -> ProcessFacts {
        let (ended_boot_ns, exit) = match &gone.state.ended {
            Some(ended) => (ended.since, ended.exit.clone()),
            None => (None, None),
        };
        let is_over = Gone { ended_boot_ns, exit, reaped_boot_ns: gone.gone_boot_ns };
        ProcessFacts { gone: Some(is_over), ..self.lasting(&gone.as_it_was()) }
    }

    /// The TIDs of a thread of this process, level by level.
    pub(super) fn thread(&self, process: &SnapshotProcess, thread: &Thread) -> ThreadFacts {
        let levels = thread.pids.iter().zip(self.forest.levels(process)).enumerate();
        let levels = levels.map(|(level, (&pid, ns))| LevelFacts { level, ns, pid }).collect();
        ThreadFacts { tid: thread.tid, levels }
    }

    /// Facts that do not change during a process's life, and its parent.
    fn lasting(&self, process: &SnapshotProcess) -> ProcessFacts {
        let pids = if process.pids.is_empty() { std::slice::from_ref(&process.pid.0) } else { &process.pids };
        let levels = pids.iter().zip(self.forest.levels(process)).enumerate();
        let home = self.forest.home(process).and_then(|home| home.container.as_deref());
        let container = process.container.as_deref().or(home);
        let parent = process.ppid.and_then(|ppid| self.process_with_pid(ppid, process.start_boot_ns));
        let joiner = self.joiner(process);
        ProcessFacts {
            thread: None,
            levels: levels.map(|(level, (&pid, ns))| LevelFacts { level, ns, pid }).collect(),
            container: container.cloned(),
            namespace_container: home.filter(|_| process.container.is_some()).cloned(),
            doubts: doubts(container),
            parent_visible: parent.as_ref().and_then(|parent| self.sees(process, parent)),
            parent,
            orphaned: false,
            adopter: None,
            joined: match self.entered(process) {
                Arrival::Born => Some(false),
                Arrival::Joined { .. } => Some(true),
                Arrival::Unknown => None,
            },
            forked_by: joiner.as_ref().and_then(|joiner| joiner.forked_by),
            joiner,
            traced_by: None,
            waits_for: Vec::new(),
            awaited: None,
            init_of: None,
            zombie: None,
            children: Vec::new(),
            children_ns: None,
            gone: None,
            process: process.clone(),
        }
    }

    /// For an orphan whose new parent is uncertain: the process that adopts it unless a subreaper does.
    pub(super) fn adopter(&self, pid: HostPid) -> Option<SnapshotProcess> {
        let world = self.world?;
        match world.reaper(world.process(pid)?) {
            Reaper::InitOrSubreaper { init } => init.and_then(|init| self.forest.process(init)).cloned(),
            Reaper::Parent(_) | Reaper::Unknown => None,
        }
    }

    /// Whether `other` is visible in the namespace of `process`.
    fn sees(&self, process: &SnapshotProcess, other: &SnapshotProcess) -> Option<bool> {
        let ns = process.ns?;
        other.ns?;
        let level = process.level()? as usize;
        Some(self.forest.levels(other).get(level) == Some(&Some(ns)))
    }
}
