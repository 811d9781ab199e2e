//! What is known about a process.

use serde::Serialize;

use super::{Gone, Host, Joiner, Wait, doubts, namespace::Arrival};
use crate::{
    event::container::Container,
    event::identity::{HostPid, NsInum},
    event::snapshot::{Holder, SnapshotProcess},
    model::{Awaited, AwaitedBy, DeadProcess, Reaper},
    procfs::threads::Thread,
};

/// What a process is at one level.
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

/// The thread of a process that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ThreadFacts {
    /// Its number at level 0.
    pub tid: u32,
    /// What it is at each level.
    pub levels: Vec<LevelFacts>,
}

/// What is known about a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessFacts {
    /// The process.
    pub process: SnapshotProcess,
    /// Where the TARGET is one of its threads, and not the first: that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thread: Option<ThreadFacts>,
    /// What it is at each level, from 0 to its innermost namespace.
    pub levels: Vec<LevelFacts>,
    /// What it runs in, by its own cgroup or else by that of the PID 1 of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// What the PID 1 of its namespace runs in, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_container: Option<Container>,
    /// What of that could not be read or was not believed.
    pub doubts: Vec<String>,
    /// Its parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotProcess>,
    /// Whether its namespace can see that one; absent where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_visible: Option<bool>,
    /// Whether its parent has ended, and it is not certain who has it since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub orphaned: bool,
    /// Who has it since then, unless an ancestor of that parent's adopts orphans (a subreaper): PID 1 where that parent was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopter: Option<SnapshotProcess>,
    /// Whether it came into its namespace from outside; absent where unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub joined: Option<bool>,
    /// From where, if it did.
    #[serde(skip)]
    pub joiner: Option<Joiner>,
    /// PID at level 0 of the process that forked it, where it came from outside and that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_by: Option<HostPid>,
    /// The process that traces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traced_by: Option<SnapshotProcess>,
    /// If it is a PID 1 that is exiting: the processes that it waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Awaited>,
    /// The end of a namespace that waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaited: Option<AwaitedBy>,
    /// If it is the PID 1 of its namespace: how many other processes are in that one and those below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_of: Option<usize>,
    /// If it is a zombie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zombie: Option<Wait>,
    /// Its children.
    pub children: Vec<SnapshotProcess>,
    /// The namespace that its children go to, where that is another than its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub children_ns: Option<NsInum>,
    /// If it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
}

impl Host<'_> {
    /// What is known about a process that exists.
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

    /// What is remembered of a process that is gone.
    pub fn process_that_was(&self, gone: &DeadProcess) -> ProcessFacts {
        let (ended_boot_ns, exit) = match &gone.state.ended {
            Some(ended) => (ended.since, ended.exit.clone()),
            None => (None, None),
        };
        let is_over = Gone { ended_boot_ns, exit, reaped_boot_ns: gone.gone_boot_ns };
        ProcessFacts { gone: Some(is_over), ..self.lasting(&gone.as_it_was()) }
    }

    /// What a thread of this process is at each level.
    pub(super) fn thread(&self, process: &SnapshotProcess, thread: &Thread) -> ThreadFacts {
        let levels = thread.pids.iter().zip(self.forest.levels(process)).enumerate();
        let levels = levels.map(|(level, (&pid, ns))| LevelFacts { level, ns, pid }).collect();
        ThreadFacts { tid: thread.tid, levels }
    }

    /// What does not change in a process's life, and its parent.
    fn lasting(&self, process: &SnapshotProcess) -> ProcessFacts {
        let pids = if process.pids.is_empty() { std::slice::from_ref(&process.pid.0) } else { &process.pids };
        let levels = pids.iter().zip(self.forest.levels(process)).enumerate();
        let home = self.forest.home(process).and_then(|home| home.container.as_deref());
        let container = process.container.as_deref().or(home);
        let parent = process.ppid.and_then(|ppid| self.who_had(ppid, process.start_boot_ns));
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

    /// Who has an orphan whose next parent is not certain, unless a subreaper has it.
    pub(super) fn adopter(&self, pid: HostPid) -> Option<SnapshotProcess> {
        let world = self.world?;
        match world.reaper(world.process(pid)?) {
            Reaper::InitOrSubreaper { init } => init.and_then(|init| self.forest.process(init)).cloned(),
            Reaper::Parent(_) | Reaper::Unknown => None,
        }
    }

    /// Whether the namespace of the one sees the other.
    fn sees(&self, process: &SnapshotProcess, other: &SnapshotProcess) -> Option<bool> {
        let ns = process.ns?;
        other.ns?;
        let level = process.level()? as usize;
        Some(self.forest.levels(other).get(level) == Some(&Some(ns)))
    }
}
