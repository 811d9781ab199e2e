//! The forest of namespaces, with their members and holders. (More than one tree where parents may not be read.)

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::world::{Entered, Stage, World};
use crate::event::Process;
use crate::event::container::Container;
use crate::event::identity::{BootNs, HostPid, NsInum, TICK_NS};
use crate::event::snapshot::{Holder, Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource};
use crate::text::Name;

/// A namespace with all that is about it.
#[derive(Debug)]
pub struct Node<'a> {
    /// The namespace.
    pub namespace: &'a SnapshotNamespace,
    /// Namespaces right below it, by inode number.
    pub children: Vec<NsInum>,
    /// Processes whose innermost namespace it is, by PID.
    pub members: Vec<&'a SnapshotProcess>,
    /// What holds it besides.
    pub holders: Vec<&'a Holder>,
    /// How many more hold it.
    pub holders_left_out: u64,
}

impl<'a> Node<'a> {
    /// Its PID 1, zombie or not.
    pub fn init(&self) -> Option<&'a SnapshotProcess> {
        self.members.iter().copied().find(|process| process.is_init())
    }

    /// The containers that members run in by their own cgroup, where the PID 1 does not run in it, and the members of each.
    pub fn other_containers(&self) -> Vec<(&'a Arc<Container>, Vec<&'a SnapshotProcess>)> {
        let mut found: Vec<(&Arc<Container>, Vec<&SnapshotProcess>)> = Vec::new();
        for &process in &self.members {
            let Some(container) = process.container.as_ref().filter(|own| !own.is_unit()) else { continue };
            match found.iter_mut().find(|(known, _)| known.is_same(container)) {
                Some((_, members)) => members.push(process),
                None => found.push((container, vec![process])),
            }
        }
        found
    }

    /// How many of its members are zombies.
    pub fn zombies(&self) -> usize {
        self.members.iter().filter(|process| process.is_zombie()).count()
    }
}

/// How a process got into its namespace: as that was seen, or else as its parent shows it.
///
/// A snapshot knows the parent, which may have adopted the process, and not the process that forked it. Nor can it distinguish a process that came from
/// outside from one that another such process forked inside with CLONE_PARENT: the parent of both is outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// It is PID 1, its parent is in the same namespace, or it was seen to be forked there.
    Born,
    /// It was seen to be forked from outside, after setns or unshare; or its parent is outside.
    Joined {
        /// PID at level 0 of the process that forked it; `None` where that was not seen.
        forked_by: Option<HostPid>,
        /// PID at level 0 of its parent, where that is known.
        parent: Option<HostPid>,
        /// The process that forked it, or else its parent, where it is known.
        origin: Option<Origin<'a>>,
    },
    /// Its namespace, or its parent, is not known.
    Unknown,
}

/// The process that forked another one, which it may not outlive, or that one's parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its PID at level 0.
    pub pid: HostPid,
    /// Its name: of one that is gone, when it forked.
    pub comm: Option<&'a Name>,
    /// Its namespace.
    pub ns: Option<NsInum>,
}

impl<'a> From<&'a SnapshotProcess> for Origin<'a> {
    fn from(process: &'a SnapshotProcess) -> Self {
        Self { pid: process.pid, comm: process.comm.as_ref(), ns: process.ns }
    }
}

impl<'a> From<&'a Process> for Origin<'a> {
    fn from(process: &'a Process) -> Self {
        Self { pid: process.pid, comm: Some(&process.comm), ns: Some(process.ns) }
    }
}

/// All of it.
#[derive(Debug)]
pub struct Forest<'a> {
    nodes: BTreeMap<NsInum, Node<'a>>,
    roots: Vec<NsInum>,
    by_pid: BTreeMap<HostPid, &'a SnapshotProcess>,
    /// Where the processes were read.
    pub(super) source: SnapshotSource,
    /// Namespaces that are gone, of each number the last to go first.
    gone: BTreeMap<NsInum, Vec<&'a SnapshotNamespace>>,
    /// How processes got in whose coming was seen.
    seen: BTreeMap<HostPid, &'a Entered>,
    /// Namespaces whose PID 1 is exiting or has ended.
    pub(super) dying: BTreeSet<NsInum>,
    /// Those of them, of a recording, that lived when a snapshot saw the states of their processes.
    pub(super) ended_since: BTreeSet<NsInum>,
}

impl<'a> Forest<'a> {
    /// The forest of this snapshot.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let mut nodes: BTreeMap<NsInum, Node<'a>> = snapshot
            .namespaces
            .values()
            .map(|namespace| {
                let node = Node {
                    namespace,
                    children: Vec::new(),
                    members: Vec::new(),
                    holders: Vec::new(),
                    holders_left_out: snapshot.holders_left_out.get(&namespace.inum).copied().unwrap_or(0),
                };
                (namespace.inum, node)
            })
            .collect();
        let mut roots = Vec::new();
        for namespace in snapshot.namespaces.values() {
            // A parent that is no level further up would be a circle: the numbers come from elsewhere.
            let parent = namespace.parent.and_then(|parent| nodes.get_mut(&parent));
            match parent.filter(|parent| parent.namespace.level < namespace.level) {
                Some(parent) => parent.children.push(namespace.inum),
                None => roots.push(namespace.inum),
            }
        }
        for process in &snapshot.processes {
            if let Some(node) = process.ns.and_then(|ns| nodes.get_mut(&ns)) {
                node.members.push(process);
            }
        }
        for (inum, holder) in &snapshot.holders {
            if let Some(node) = nodes.get_mut(inum) {
                node.holders.push(holder);
            }
        }
        let by_pid = snapshot.processes.iter().map(|process| (process.pid, process)).collect();
        let goes_down = |node: &&Node<'_>| {
            let has_ended = |init: &SnapshotProcess| init.exiting || init.is_zombie();
            node.namespace.level > 0 && (node.namespace.dying || node.init().is_some_and(has_ended))
        };
        let dying = nodes.values().filter(goes_down).map(|node| node.namespace.inum).collect();
        let ended_since = BTreeSet::new();
        Self {
            nodes,
            roots,
            by_pid,
            source: snapshot.source,
            gone: BTreeMap::new(),
            seen: BTreeMap::new(),
            dying,
            ended_since,
        }
    }

    /// The same with namespaces that are remembered as gone, the last to go first: processes that are gone too had their
    /// PIDs there.
    pub fn with_gone(mut self, gone: impl IntoIterator<Item = &'a SnapshotNamespace>) -> Self {
        for namespace in gone {
            self.gone.entry(namespace.inum).or_default().push(namespace);
        }
        self
    }

    /// The same with the events of how processes got in: the process that forked them may be gone.
    pub fn with_entries(mut self, world: &'a World) -> Self {
        let seen = world.processes().filter(|entry| entry.entered != Entered::Unseen);
        self.seen = seen.map(|entry| (entry.process.pid, &entry.entered)).collect();
        let ended =
            world.namespaces().filter(|known| matches!(known.stage, Stage::Dying { since: Some(_), .. }));
        self.ended_since = ended.map(|known| known.namespace.inum).collect();
        self
    }

    /// The namespace of this number.
    pub fn node(&self, inum: NsInum) -> Option<&Node<'a>> {
        self.nodes.get(&inum)
    }

    /// The process of this PID at level 0.
    pub fn process(&self, pid: HostPid) -> Option<&'a SnapshotProcess> {
        self.by_pid.get(&pid).copied()
    }

    /// The namespaces from these down, or all: outer ones before inner ones, each right behind its parent, with the
    /// number of steps down to it.
    pub fn walk(&self, from: Option<&[NsInum]>) -> Vec<(u32, &Node<'a>)> {
        let mut found = Vec::with_capacity(self.nodes.len());
        let mut todo: Vec<(u32, NsInum)> = match from {
            Some(from) => from.iter().rev().map(|&inum| (0, inum)).collect(),
            None => self.roots.iter().rev().map(|&inum| (0, inum)).collect(),
        };
        while let Some((depth, inum)) = todo.pop() {
            if let Some(node) = self.nodes.get(&inum) {
                found.push((depth, node));
                todo.extend(node.children.iter().rev().map(|&child| (depth + 1, child)));
            }
        }
        found
    }

    /// The namespaces from the one of this number up to the outermost that is known, innermost first: those that were
    /// there at this time, as numbers are used again.
    pub fn ancestry(&self, inum: NsInum, at: Option<BootNs>) -> Vec<&'a SnapshotNamespace> {
        let mut found: Vec<&SnapshotNamespace> = Vec::new();
        let (mut next, mut at) = (Some(inum), at);
        while let Some(namespace) = next.and_then(|inum| self.namespace_at(inum, at)) {
            if found.last().is_some_and(|below| namespace.level >= below.level) {
                break;
            }
            found.push(namespace);
            next = namespace.parent;
            at = namespace.born_boot_ns.or(at);
        }
        found
    }

    /// The namespace that a process is in, or was in while it was there.
    pub fn home(&self, process: &SnapshotProcess) -> Option<&'a SnapshotNamespace> {
        self.namespace_at(process.ns?, process.start_boot_ns)
    }

    /// The namespace that had this number at this time: of those that were there, the last that was born before.
    fn namespace_at(&self, inum: NsInum, at: Option<BootNs>) -> Option<&'a SnapshotNamespace> {
        let existing = self.nodes.get(&inum).map(|node| node.namespace);
        let known = || existing.into_iter().chain(self.gone.get(&inum).into_iter().flatten().copied());
        let had_been_born = |namespace: &&SnapshotNamespace| match (namespace.born_boot_ns, at) {
            (Some(born), Some(at)) => born <= at.saturating_add(TICK_NS),
            _ => true,
        };
        known().find(had_been_born).or_else(|| known().next())
    }

    /// The process's namespace at each level, from 0 to the innermost, as far as they are known.
    pub fn levels(&self, process: &SnapshotProcess) -> Vec<Option<NsInum>> {
        let mut levels = vec![None; process.pids.len()];
        if let Some(innermost) = levels.last_mut() {
            *innermost = process.ns;
        }
        for namespace in process.ns.map(|ns| self.ancestry(ns, process.start_boot_ns)).unwrap_or_default() {
            if let Some(level) = levels.get_mut(namespace.level as usize) {
                *level = Some(namespace.inum);
            }
        }
        // Where its PIDs may not be read, that at level 0 is known.
        if levels.is_empty() {
            levels.push(None);
        }
        // There is one outermost namespace, for any reader.
        if let (Some(first @ None), [root]) = (levels.first_mut(), self.outermost().as_slice()) {
            *first = Some(*root);
        }
        levels
    }

    fn outermost(&self) -> Vec<NsInum> {
        self.nodes.values().filter(|node| node.namespace.level == 0).map(|node| node.namespace.inum).collect()
    }

    /// The process that was seen to fork another one: as it is now, or, where it is gone, as it was then.
    fn forker(&self, forker: &'a Process) -> Origin<'a> {
        let is_it = |now: &&SnapshotProcess| now.key().is_some_and(|key| key.is_same(forker.key()));
        self.process(forker.pid).filter(is_it).map_or_else(|| forker.into(), Origin::from)
    }

    /// How the process got into its namespace.
    pub fn entry(&self, process: &SnapshotProcess) -> Entry<'a> {
        if process.is_init() {
            return Entry::Born;
        }
        match self.seen.get(&process.pid).copied() {
            Some(Entered::Born) => return Entry::Born,
            Some(Entered::Joined { forker }) => {
                return Entry::Joined {
                    forked_by: Some(forker.pid),
                    parent: process.ppid,
                    origin: Some(self.forker(forker)),
                };
            }
            Some(Entered::ParentOutside { .. }) => {
                let parent = process.ppid.and_then(|parent| self.process(parent));
                let parent = parent.filter(|parent| was_there(parent, process));
                return Entry::Joined {
                    forked_by: None,
                    parent: process.ppid,
                    origin: parent.map(Origin::from),
                };
            }
            Some(Entered::Unseen) | None => {}
        }
        let Some(parent) = process.ppid else {
            // The parent is none that this /proc shows: outside of what can be seen, or there is none (kernel threads).
            let is_outermost = process.level() == Some(0) && process.state.is_some();
            return if is_outermost { Entry::Born } else { Entry::Unknown };
        };
        let is_above = |parent: &SnapshotProcess| Some(parent.level()? < process.level()?);
        let joined = |parent: &'a SnapshotProcess| Entry::Joined {
            forked_by: None,
            parent: Some(parent.pid),
            origin: Some(parent.into()),
        };
        match (self.process(parent).filter(|parent| was_there(parent, process)), process.ns) {
            (Some(parent), _) if is_above(parent) == Some(true) => joined(parent),
            (Some(parent), Some(ns)) if parent.ns == Some(ns) => Entry::Born,
            (Some(parent), Some(_)) if parent.ns.is_some() => joined(parent),
            _ => Entry::Unknown,
        }
    }

    /// The numbers of the namespaces from this one down.
    pub fn below(&self, inum: NsInum) -> BTreeSet<NsInum> {
        self.walk(Some(&[inum])).into_iter().map(|(_, node)| node.namespace.inum).collect()
    }
}

/// Whether one can have been the other's parent: the parent of an ended process may be gone too, and its PID reused.
fn was_there(parent: &SnapshotProcess, child: &SnapshotProcess) -> bool {
    match (parent.start_boot_ns, child.start_boot_ns) {
        (Some(parent), Some(child)) => parent <= child.saturating_add(TICK_NS),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
