//! Shows which processes the end of a namespace waits for.
//!
//! An exiting PID 1 kills all other processes of its namespace and of nested ones. Then it waits until each has ended
//! and was reaped (`zap_pid_ns_processes()`, kernel/pid_namespace.c). Until then it is neither alive nor a zombie.

use serde::Serialize;

use super::Forest;
use crate::{
    event::identity::{HostPid, NsInum},
    event::objects::is_false,
    event::snapshot::{Freezer, SnapshotProcess},
    text::Name,
};

/// Why a process of a dying namespace still exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// It is a zombie, and its parent outside has not waited for it; PID 1 cannot reap it.
    NotReaped {
        /// The parent's PID at level 0; absent if unknown.
        #[serde(skip_serializing_if = "Option::is_none")]
        pid: Option<HostPid>,
        /// The parent's name.
        #[serde(skip_serializing_if = "Option::is_none")]
        comm: Option<Name>,
        /// True if another process may trace it, which would have to reap it first. Some recordings do not show that.
        #[serde(skip_serializing_if = "is_false")]
        tracer_unknown: bool,
    },
    /// Another process traces it. It is a zombie that the tracer has not waited for, or the tracer has stopped it.
    Traced {
        /// The tracer's PID at level 0.
        pid: HostPid,
        /// The tracer's name.
        #[serde(skip_serializing_if = "Option::is_none")]
        comm: Option<Name>,
    },
    /// It is frozen. It receives a signal only after it is thawed.
    Frozen,
    /// It is in a sleep that no signal ends.
    Uninterruptible,
    /// It is PID 1 of a nested namespace, and waits for the processes there.
    OwnNamespace,
    /// Nothing blocks it: it was killed, or it is a zombie that will be reaped next.
    Ending,
}

/// A process that the end of a namespace waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Awaited {
    /// The process.
    pub process: SnapshotProcess,
    /// Why it still exists; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
}

/// A namespace whose end waits for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AwaitedBy {
    /// The namespace.
    pub ns: NsInum,
    /// Why the process still exists; absent if unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<Reason>,
}

impl Forest<'_> {
    /// The dying namespace whose PID 1 ends this one: itself, or the nearest enclosing one whose PID 1 is exiting or
    /// has ended.
    pub fn ends_with(&self, inum: NsInum) -> Option<NsInum> {
        self.enclosing(inum).find(|inum| self.dying.contains(inum))
    }

    /// The processes that the end of this namespace waits for. Empty unless its PID 1 is exiting.
    pub fn awaited_by(&self, inum: NsInum) -> Vec<Awaited> {
        if !self.waits(inum) {
            return Vec::new();
        }
        let init = self.node(inum).and_then(|node| node.init()).map(|init| init.pid);
        let members = self.walk(Some(&[inum])).into_iter().flat_map(|(_, node)| node.members.iter().copied());
        let others = members.filter(|process| Some(process.pid) != init);
        others.map(|process| Awaited { process: process.clone(), why: self.why(process, inum) }).collect()
    }

    /// The innermost namespace whose end waits for this process, and why it still exists.
    pub fn awaiting(&self, process: &SnapshotProcess) -> Option<AwaitedBy> {
        if self.dying.is_empty() {
            return None;
        }
        let mut around = self.enclosing(process.ns?);
        if process.is_init() {
            // Its own namespace waits for the other processes.
            around.next();
        }
        let ns = around.find(|&inum| self.waits(inum))?;
        Some(AwaitedBy { ns, why: self.why(process, ns) })
    }

    /// Whether the PID 1 of this namespace is exiting and has not ended.
    fn waits(&self, inum: NsInum) -> bool {
        let is_over = |init: &SnapshotProcess| init.is_zombie();
        self.dying.contains(&inum) && !self.node(inum).and_then(|node| node.init()).is_some_and(is_over)
    }

    /// This namespace and the enclosing ones, innermost first.
    fn enclosing(&self, inum: NsInum) -> impl Iterator<Item = NsInum> {
        std::iter::successors(self.node(inum).map(|node| node.namespace), |inner| {
            // A parent at the same or a deeper level would make a cycle.
            let outer = self.node(inner.parent?)?.namespace;
            (outer.level < inner.level).then_some(outer)
        })
        .map(|namespace| namespace.inum)
    }

    fn why(&self, process: &SnapshotProcess, ending: NsInum) -> Option<Reason> {
        let comm_of = |pid| self.process(pid).and_then(|process| process.comm.clone());
        let traced_by = |pid| Reason::Traced { pid, comm: comm_of(pid) };
        let tracer = process.tracer.filter(|&tracer| Some(tracer) != process.ppid);
        if process.is_zombie() {
            if let Some(tracer) = tracer {
                return Some(traced_by(tracer));
            }
            let parent = process.ppid.and_then(|parent| self.process(parent));
            let is_inside = |ns| self.enclosing(ns).any(|outer| outer == ending);
            let tracer_unknown = !process.knows_tracer(self.source);
            return match parent.and_then(|parent| parent.ns) {
                // PID 1 reaps it next, unless a tracer must reap it first.
                Some(ns) if is_inside(ns) => (!tracer_unknown).then_some(Reason::Ending),
                _ => Some(Reason::NotReaped {
                    pid: process.ppid,
                    comm: process.ppid.and_then(comm_of),
                    tracer_unknown,
                }),
            };
        }
        if process.exiting {
            return Some(if process.is_init() { Reason::OwnNamespace } else { Reason::Ending });
        }
        if self.ended_since.contains(&ending) {
            // The snapshot recorded its state before its namespace began to die.
            return None;
        }
        // SIGKILL also ends a process that its cgroup (version 2) has frozen.
        if process.frozen && process.freezer != Some(Freezer::CgroupV2) {
            return Some(Reason::Frozen);
        }
        match (process.state?, process.tracer) {
            ('t', Some(tracer)) => Some(traced_by(tracer)),
            ('D', _) => Some(Reason::Uninterruptible),
            _ => Some(Reason::Ending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::identity::BootNs,
        event::snapshot::{Snapshot, SnapshotNamespace, SnapshotSource},
    };

    const HOST: NsInum = NsInum(10);
    const OUTER: NsInum = NsInum(20);
    const INNER: NsInum = NsInum(30);

    fn process(pids: &[u32], ppid: u32, ns: NsInum, state: char) -> SnapshotProcess {
        SnapshotProcess {
            pids: pids.to_vec(),
            ppid: Some(HostPid(ppid)),
            ns: Some(ns),
            state: Some(state),
            threads: Some(1),
            ..SnapshotProcess::bare(HostPid(pids[0]))
        }
    }

    /// A namespace whose PID 1 (5) is exiting, with a nested namespace whose PID 1 is 6.
    fn snapshot(others: &[SnapshotProcess]) -> Snapshot {
        let ns = |inum, level, parent, dying| {
            (inum, SnapshotNamespace { parent, dying, ..SnapshotNamespace::bare(inum, level) })
        };
        let known = [
            process(&[1], 0, HOST, 'S'),
            process(&[2], 1, HOST, 'S'),
            SnapshotProcess { exiting: true, ..process(&[5, 1], 1, OUTER, 'S') },
            SnapshotProcess { frozen: true, ..process(&[6, 2, 1], 5, INNER, 'D') },
        ];
        Snapshot {
            processes: known.iter().chain(others).cloned().collect(),
            namespaces: [
                ns(HOST, 0, None, false),
                ns(OUTER, 1, Some(HOST), true),
                ns(INNER, 2, Some(OUTER), false),
            ]
            .into(),
            ..Snapshot::empty(SnapshotSource::Iterator, BootNs(0))
        }
    }

    #[test]
    fn a_namespace_ends_with_the_enclosing_one() {
        let snapshot = snapshot(&[]);
        let forest = Forest::new(&snapshot);
        let ends_with = [HOST, OUTER, INNER].map(|inum| forest.ends_with(inum));
        assert_eq!(ends_with, [None, Some(OUTER), Some(OUTER)]);
        let awaited = forest.awaited_by(OUTER);
        let found: Vec<_> = awaited.iter().map(|other| (other.process.pid, other.why.clone())).collect();
        assert_eq!(found, [(HostPid(6), Some(Reason::Frozen))], "it does not wait for its own PID 1");
        assert!(forest.awaited_by(INNER).is_empty(), "its PID 1 is not exiting yet");
        let awaiting: Vec<_> = snapshot.processes.iter().map(|process| forest.awaiting(process)).collect();
        let by_outer = AwaitedBy { ns: OUTER, why: Some(Reason::Frozen) };
        assert_eq!(awaiting, [None, None, None, Some(by_outer)]);
    }

    #[test]
    fn each_awaited_process_has_a_reason() {
        let not_reaped =
            |pid| Reason::NotReaped { pid: Some(HostPid(pid)), comm: None, tracer_unknown: false };
        let traced = Reason::Traced { pid: HostPid(2), comm: None };
        let by_2 = |process| SnapshotProcess { tracer: Some(HostPid(2)), ..process };
        for (process, expected) in [
            (process(&[7, 3], 2, OUTER, 'Z'), not_reaped(2)),
            (process(&[7, 3], 99, OUTER, 'Z'), not_reaped(99)),
            (process(&[7, 3], 5, OUTER, 'Z'), Reason::Ending),
            (by_2(process(&[7, 3], 5, OUTER, 'Z')), traced.clone()),
            (by_2(process(&[7, 3], 2, OUTER, 'Z')), not_reaped(2)),
            (by_2(process(&[7, 3], 5, OUTER, 't')), traced),
            (process(&[7, 3], 5, OUTER, 'D'), Reason::Uninterruptible),
            (
                SnapshotProcess {
                    frozen: true,
                    freezer: Some(Freezer::CgroupV2),
                    ..process(&[7, 3], 5, OUTER, 'S')
                },
                Reason::Ending,
            ),
            (process(&[7, 3], 5, OUTER, 'R'), Reason::Ending),
            (SnapshotProcess { exiting: true, ..process(&[7, 3, 1], 5, INNER, 'S') }, Reason::OwnNamespace),
        ] {
            let snapshot = snapshot(std::slice::from_ref(&process));
            let found = Forest::new(&snapshot).awaiting(&process);
            assert_eq!(found, Some(AwaitedBy { ns: OUTER, why: Some(expected) }), "{process:?}");
        }
    }

    #[test]
    fn a_recording_without_tracers_leaves_open_whether_a_zombie_is_traced() {
        let without_threads = |process: SnapshotProcess| SnapshotProcess { threads_live: Some(0), ..process };
        let not_reaped =
            |tracer_unknown| Reason::NotReaped { pid: Some(HostPid(2)), comm: None, tracer_unknown };
        for (process, expected) in [
            (process(&[7, 3], 2, OUTER, 'Z'), Some(not_reaped(true))),
            (without_threads(process(&[7, 3], 2, OUTER, 'Z')), Some(not_reaped(false))),
            (process(&[7, 3], 5, OUTER, 'Z'), None),
            (without_threads(process(&[7, 3], 5, OUTER, 'Z')), Some(Reason::Ending)),
        ] {
            let recorded =
                Snapshot { source: SnapshotSource::Recording, ..snapshot(std::slice::from_ref(&process)) };
            let found = Forest::new(&recorded).awaiting(&process);
            assert_eq!(found, Some(AwaitedBy { ns: OUTER, why: expected }), "{process:?}");
        }
    }

    #[test]
    fn a_zombie_pid_1_waits_only_for_its_parent() {
        let mut snapshot = snapshot(&[]);
        snapshot.processes[2] = process(&[5, 1], 1, OUTER, 'Z');
        let forest = Forest::new(&snapshot);
        assert_eq!((forest.ends_with(OUTER), forest.awaited_by(OUTER).len()), (Some(OUTER), 0));
        assert_eq!(forest.awaiting(&snapshot.processes[3]), None);
    }
}
