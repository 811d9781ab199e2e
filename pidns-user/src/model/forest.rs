//! The forest of namespaces, with their members and holders. (There is more than one tree if the parents of some
//! namespaces cannot be read.)

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

/// A namespace with its children, members and holders.
#[derive(Debug)]
pub struct Node<'a> {
    /// The namespace.
    pub namespace: &'a SnapshotNamespace,
    /// Namespaces directly below it, by inode number.
    pub children: Vec<NsInum>,
    /// Processes whose innermost namespace is this one, by PID.
    pub members: Vec<&'a SnapshotProcess>,
    /// Its holders, apart from members.
    pub holders: Vec<&'a Holder>,
    /// Number of holders that are not in `holders`.
    pub holders_left_out: u64,
}

impl<'a> Node<'a> {
    /// Its PID 1, zombie or not.
    pub fn init(&self) -> Option<&'a SnapshotProcess> {
        self.members.iter().copied().find(|process| process.is_init())
    }

    /// Containers of members, other than the namespace's own container, with their members in this namespace.
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

    /// Number of zombies among its members.
    pub fn zombies(&self) -> usize {
        self.members.iter().filter(|process| process.is_zombie()).count()
    }
}

/// The way in which a process entered its namespace: from events if they show it, otherwise from its parent.
///
/// A snapshot shows the parent, which may have adopted the process, not the process that forked it. It also cannot
/// distinguish a process that came from outside from one that such a process forked inside with CLONE_PARENT: both have
/// their parent outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// It is PID 1, its parent is in the same namespace, or an event shows that it was forked there.
    Born,
    /// An event shows that it was forked from outside, after setns or unshare; or its parent is outside.
    Joined {
        /// PID at level 0 of the process that forked it; `None` if no event shows that.
        forked_by: Option<HostPid>,
        /// PID at level 0 of its parent, if known.
        parent: Option<HostPid>,
        /// The process that forked it, or otherwise its parent, if known.
        origin: Option<Origin<'a>>,
    },
    /// Its namespace or its parent is unknown.
    Unknown,
}

/// The process that forked another one, or that one's parent. It may be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// Its PID at level 0.
    pub pid: HostPid,
    /// Its name. If it is gone, its name when it forked.
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

/// The whole forest.
#[derive(Debug)]
pub struct Forest<'a> {
    nodes: BTreeMap<NsInum, Node<'a>>,
    roots: Vec<NsInum>,
    by_pid: BTreeMap<HostPid, &'a SnapshotProcess>,
    /// The source of the processes.
    pub(super) source: SnapshotSource,
    /// Namespaces that are gone, by inode number, the latest first.
    gone: BTreeMap<NsInum, Vec<&'a SnapshotNamespace>>,
    /// Entries of processes, if events show them.
    seen: BTreeMap<HostPid, &'a Entered>,
    /// Namespaces whose PID 1 is exiting or has ended.
    pub(super) dying: BTreeSet<NsInum>,
    /// For recordings: dying namespaces that were alive when a snapshot recorded their processes' states.
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
            // A parent at the same or a deeper level would make a cycle. The numbers are wrong then.
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

    /// Adds namespaces that are gone, the latest first. Processes that are gone had their PIDs in these.
    pub fn with_gone(mut self, gone: impl IntoIterator<Item = &'a SnapshotNamespace>) -> Self {
        for namespace in gone {
            self.gone.entry(namespace.inum).or_default().push(namespace);
        }
        self
    }

    /// Adds how processes entered, from events. These also name forking processes that are gone.
    pub fn with_entries(mut self, world: &'a World) -> Self {
        let seen = world.processes().filter(|entry| entry.entered != Entered::Unseen);
        self.seen = seen.map(|entry| (entry.process.pid, &entry.entered)).collect();
        let ended =
            world.namespaces().filter(|known| matches!(known.stage, Stage::Dying { since: Some(_), .. }));
        self.ended_since = ended.map(|known| known.namespace.inum).collect();
        self
    }

    /// The namespace with this inode number.
    pub fn node(&self, inum: NsInum) -> Option<&Node<'a>> {
        self.nodes.get(&inum)
    }

    /// The process with this PID at level 0.
    pub fn process(&self, pid: HostPid) -> Option<&'a SnapshotProcess> {
        self.by_pid.get(&pid).copied()
    }

    /// These namespaces (or the outermost ones, if `None`) and all below them, in depth-first order, each with its
    /// depth below the start.
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

    /// The namespaces from this one up to the outermost known, innermost first. Inode numbers are reused, so this takes
    /// those that existed at this time.
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

    /// The namespace that a process is in, or was in while it existed.
    pub fn home(&self, process: &SnapshotProcess) -> Option<&'a SnapshotNamespace> {
        self.namespace_at(process.ns?, process.start_boot_ns)
    }

    /// The namespace that had this number at this time: the one that was born last before it.
    fn namespace_at(&self, inum: NsInum, at: Option<BootNs>) -> Option<&'a SnapshotNamespace> {
        let existing = self.nodes.get(&inum).map(|node| node.namespace);
        let known = || existing.into_iter().chain(self.gone.get(&inum).into_iter().flatten().copied());
        let had_been_born = |namespace: &&SnapshotNamespace| match (namespace.born_boot_ns, at) {
            (Some(born), Some(at)) => born <= at.saturating_add(TICK_NS),
            _ => true,
        };
        known().find(had_been_born).or_else(|| known().next())
    }

    /// The process's namespace at each level, from 0 to the innermost, if known.
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
        // The namespace at level 0 is known even if the process's PIDs cannot be read.
        if levels.is_empty() {
            levels.push(None);
        }
        // Every reader sees only one outermost namespace.
        if let (Some(first @ None), [root]) = (levels.first_mut(), self.outermost().as_slice()) {
            *first = Some(*root);
        }
        levels
    }

    fn outermost(&self) -> Vec<NsInum> {
        self.nodes.values().filter(|node| node.namespace.level == 0).map(|node| node.namespace.inum).collect()
    }

    /// The process that forked another one according to an event: as it is now or, if it is gone, as it was then.
    fn forker(&self, forker: &'a Process) -> Origin<'a> {
        let is_it = |now: &&SnapshotProcess| now.key().is_some_and(|key| key.is_same(forker.key()));
        self.process(forker.pid).filter(is_it).map_or_else(|| forker.into(), Origin::from)
    }

    /// The way in which a process entered its namespace.
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
            // This /proc does not show the parent: it is outside, or the process has none (kernel threads).
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

    /// Inode numbers of this namespace and all below it.
    pub fn below(&self, inum: NsInum) -> BTreeSet<NsInum> {
        self.walk(Some(&[inum])).into_iter().map(|(_, node)| node.namespace.inum).collect()
    }
}

/// Whether `parent` started before `child`. The parent of an ended process may be gone, and its PID reused.
fn was_there(parent: &SnapshotProcess, child: &SnapshotProcess) -> bool {
    match (parent.start_boot_ns, child.start_boot_ns) {
        (Some(parent), Some(child)) => parent <= child.saturating_add(TICK_NS),
        _ => true,
    }
}

#[cfg(test)]
mod tests;
