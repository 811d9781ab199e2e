//! Facts about a namespace.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Host, Zombie, doubts};
use crate::{
    event::container::Container,
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Holder, SnapshotNamespace, SnapshotProcess},
    event::{Cause, objects::is_zero},
    model::{Awaited, DeadNamespace, Entry, Stage},
};

/// Stage in a namespace's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum State {
    /// It has had no process yet.
    Empty,
    /// Its PID 1 is alive.
    Alive,
    /// Its PID 1, or the PID 1 of an outer namespace, is exiting or has exited. No process can fork into it any more.
    Dying {
        /// Since when, if an event reported it.
        #[serde(skip_serializing_if = "Option::is_none")]
        since_boot_ns: Option<BootNs>,
        /// Why, if an event reported it.
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<Cause>,
    },
    /// All its processes are gone, and a holder keeps it.
    Held {
        /// Since when.
        since_boot_ns: BootNs,
    },
    /// All its processes are gone. We do not know whether a holder keeps it, because the hook for its end was missing.
    Ended {
        /// Since when.
        since_boot_ns: BootNs,
    },
    /// It no longer exists.
    Gone {
        /// Since when, if an event reported it.
        #[serde(skip_serializing_if = "Option::is_none")]
        since_boot_ns: Option<BootNs>,
    },
}

/// A process that entered from outside, or whose parent is outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Joiner {
    /// The process.
    pub process: SnapshotProcess,
    /// PID of its parent at level 0, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<HostPid>,
    /// PID at level 0 of the process that forked it; absent if no event reported the fork.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forked_by: Option<HostPid>,
    /// The process that forked it, or else its parent; `None` if unknown.
    #[serde(skip)]
    pub origin: Option<SnapshotProcess>,
    /// The namespace of `origin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<NsInum>,
}

/// A namespace that had the same number before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EarlierNamespace {
    /// The namespace.
    pub ns: SnapshotNamespace,
    /// When it lost the number, if an event reported it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone_boot_ns: Option<BootNs>,
}

/// A container that shares the namespace with the container of its PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherContainer {
    /// The container.
    pub container: Container,
    /// Its processes.
    pub processes: Vec<SnapshotProcess>,
}

/// A nested namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Below {
    /// The namespace.
    pub ns: SnapshotNamespace,
    /// Number of its processes, without those of namespaces nested in it.
    pub processes: usize,
    /// Its PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<SnapshotProcess>,
}

/// Facts about a namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamespaceFacts {
    /// The namespace.
    pub ns: SnapshotNamespace,
    /// Its stage; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// From a recording: earlier namespaces with this inode number, the latest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierNamespace>,
    /// Its ancestors, the parent first.
    pub lineage: Vec<SnapshotNamespace>,
    /// Facts about the container that could not be read or confirmed.
    pub doubts: Vec<String>,
    /// Its PID 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<SnapshotProcess>,
    /// Number of processes for which it is the innermost namespace.
    pub processes: usize,
    /// Number of these processes by state; processes with an unknown state are not counted.
    pub states: BTreeMap<char, usize>,
    /// Processes that have ended and wait to be reaped.
    pub zombies: Vec<Zombie>,
    /// Containers that share it with the container of its PID 1.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_containers: Vec<OtherContainer>,
    /// Processes that came from outside.
    pub joined: Vec<Joiner>,
    /// If its PID 1 is exiting: the processes that PID 1 waits for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub waits_for: Vec<Awaited>,
    /// Nested namespaces, each after its parent.
    pub below: Vec<Below>,
    /// Holders that keep it alive, besides its processes.
    pub holders: Vec<Holder>,
    /// Number of further holders that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub holders_left_out: u64,
}

impl Host<'_> {
    /// Facts about the existing namespace with this inode number.
    pub fn namespace(&self, inum: NsInum) -> Option<NamespaceFacts> {
        let node = self.forest.node(inum)?;
        let container = self.container(inum);
        let mut states = BTreeMap::new();
        for state in node.members.iter().filter_map(|process| process.state) {
            *states.entry(state).or_default() += 1;
        }
        let zombies = node
            .members
            .iter()
            .filter_map(|&process| Some(Zombie { process: process.clone(), wait: self.wait(process)? }));
        let below = self.forest.walk(Some(&[inum])).into_iter().skip(1);
        let below = below.map(|(_, node)| Below {
            ns: node.namespace.clone(),
            processes: node.members.len(),
            init: node.init().cloned(),
        });
        Some(NamespaceFacts {
            ns: node.namespace.clone(),
            state: self.state(inum),
            earlier: self.earlier(node.namespace),
            lineage: self.lineage(node.namespace),
            doubts: doubts(container),
            init: node.init().cloned(),
            processes: node.members.len(),
            states,
            zombies: zombies.collect(),
            other_containers: node
                .other_containers()
                .into_iter()
                .map(|(container, members)| OtherContainer {
                    container: (**container).clone(),
                    processes: members.into_iter().cloned().collect(),
                })
                .collect(),
            joined: node.members.iter().filter_map(|process| self.joiner(process)).collect(),
            waits_for: self.forest.awaited_by(inum),
            below: below.collect(),
            holders: node.holders.iter().map(|&holder| holder.clone()).collect(),
            holders_left_out: node.holders_left_out,
        })
    }

    /// Facts about a namespace that is gone, from the model's history.
    pub fn gone_namespace(&self, gone: &DeadNamespace) -> NamespaceFacts {
        let ns = gone.state.namespace.clone();
        let state = match gone.gone_boot_ns {
            Some(since_boot_ns) if !gone.destroyed => State::Ended { since_boot_ns },
            since_boot_ns => State::Gone { since_boot_ns },
        };
        NamespaceFacts {
            state: Some(state),
            earlier: self.earlier(&ns),
            lineage: self.lineage(&ns),
            doubts: Vec::new(),
            init: None,
            processes: 0,
            states: BTreeMap::new(),
            zombies: Vec::new(),
            other_containers: Vec::new(),
            joined: Vec::new(),
            waits_for: Vec::new(),
            below: Vec::new(),
            holders: Vec::new(),
            holders_left_out: 0,
            ns,
        }
    }

    /// Earlier namespaces with the same inode number, the latest first.
    fn earlier(&self, ns: &SnapshotNamespace) -> Vec<EarlierNamespace> {
        let gone = self.world.into_iter().flat_map(|world| world.history().namespaces());
        // The history lists the last one first, and `ns` itself may be in it.
        let others = gone.filter(|gone| gone.state.namespace.inum == ns.inum);
        let others: Vec<&DeadNamespace> = others.collect();
        let own = others.iter().position(|gone| gone.state.namespace.key() == ns.key());
        let earlier = others.into_iter().skip(own.map_or(0, |own| own + 1));
        earlier
            .map(|gone| EarlierNamespace {
                ns: gone.state.namespace.clone(),
                gone_boot_ns: gone.gone_boot_ns,
            })
            .collect()
    }

    fn lineage(&self, ns: &SnapshotNamespace) -> Vec<SnapshotNamespace> {
        let outer = ns.parent.map(|parent| self.forest.ancestry(parent, ns.born_boot_ns)).unwrap_or_default();
        outer.into_iter().filter(|outer| outer.level < ns.level).cloned().collect()
    }

    fn state(&self, inum: NsInum) -> Option<State> {
        if let Some(entry) = self.world.and_then(|world| world.namespace(inum)) {
            return match &entry.stage {
                Stage::Empty => Some(State::Empty),
                Stage::Dying { since, cause, torn_down: _ } => {
                    Some(State::Dying { since_boot_ns: *since, cause: cause.clone() })
                }
                Stage::Held { since } => Some(State::Held { since_boot_ns: *since }),
                // A snapshot does not show whether a namespace is dying, so look at its processes.
                Stage::Alive => self.state_from_processes(inum),
            };
        }
        self.state_from_processes(inum)
    }

    /// Derives the state from its processes. If there are none, we do not know whether it ever had any.
    fn state_from_processes(&self, inum: NsInum) -> Option<State> {
        let node = self.forest.node(inum)?;
        let all_is_seen = self.snapshot.unread.processes == 0
            && self.snapshot.unread.namespaces == 0
            && !self.snapshot.unread.hidden;
        let dying = State::Dying { since_boot_ns: None, cause: None };
        match (self.forest.ends_with(inum), node.init()) {
            (Some(ending), _) if ending == inum => Some(dying),
            // The kernel has killed this PID 1 together with all members of the outer namespace.
            (Some(outer), _) => {
                Some(State::Dying { since_boot_ns: None, cause: Some(Cause::Cascade { ns: outer }) })
            }
            (None, Some(_)) => Some(State::Alive),
            (None, None) if !node.members.is_empty() && node.namespace.level > 0 && all_is_seen => {
                Some(dying)
            }
            (None, None) => None,
        }
    }

    /// Describes the process as a joiner if it came from outside or its parent is outside.
    pub(super) fn joiner(&self, process: &SnapshotProcess) -> Option<Joiner> {
        match self.entered(process) {
            Arrival::Joined { forked_by, origin } => {
                let origin = origin.map(|origin| *origin);
                let (parent, from) = (process.ppid, origin.as_ref().and_then(|origin| origin.ns));
                Some(Joiner { process: process.clone(), parent, forked_by, origin, from })
            }
            Arrival::Born | Arrival::Unknown => None,
        }
    }

    /// How a process entered its namespace: from an event, or else derived from its parent.
    pub(super) fn entered(&self, process: &SnapshotProcess) -> Arrival {
        use crate::model::Entered as Seen;
        let entry = self.world.and_then(|world| {
            let living = world.process(process.pid);
            let gone = || world.history().processes().map(|gone| &gone.state);
            let is_it = |entry: &&crate::model::ProcessState| {
                Some(entry.process.start_boot_ns) == process.start_boot_ns && entry.process.pid == process.pid
            };
            living.filter(is_it).or_else(|| gone().find(is_it))
        });
        match entry.map(|entry| &entry.entered) {
            Some(Seen::Born) => return Arrival::Born,
            Some(Seen::Joined { forker }) => {
                let is_it = |had: &SnapshotProcess| had.key().is_some_and(|key| key.is_same(forker.key()));
                let had = self.process_with_pid(forker.pid, process.start_boot_ns).filter(is_it);
                let origin = had.unwrap_or_else(|| SnapshotProcess::of(forker));
                return Arrival::Joined { forked_by: Some(forker.pid), origin: Some(Box::new(origin)) };
            }
            Some(Seen::ParentOutside { parent }) => {
                let parent = process.ppid.unwrap_or(*parent);
                return Arrival::Joined {
                    forked_by: None,
                    origin: self.process_with_pid(parent, process.start_boot_ns).map(Box::new),
                };
            }
            Some(Seen::Unseen) | None => {}
        }
        match self.forest.entry(process) {
            Entry::Born => Arrival::Born,
            Entry::Joined { forked_by, origin, .. } => {
                let origin = origin.and_then(|origin| self.forest.process(origin.pid));
                Arrival::Joined { forked_by, origin: origin.cloned().map(Box::new) }
            }
            Entry::Unknown => Arrival::Unknown,
        }
    }
}

/// How a process entered its namespace.
pub(super) enum Arrival {
    /// Forked by a member, or the first process of the namespace.
    Born,
    /// Forked by a process of another namespace, or its parent is in another namespace.
    Joined {
        /// PID at level 0 of the process that forked it, if known.
        forked_by: Option<HostPid>,
        /// The forker, or else the parent; `None` if unknown.
        origin: Option<Box<SnapshotProcess>>,
    },
    /// Unknown.
    Unknown,
}
