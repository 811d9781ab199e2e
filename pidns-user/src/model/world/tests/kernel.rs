//! A simulated kernel that emits events. It follows kernel/exit.c, reuses numbers at once, and fills in only fields
//! that the tracer could know.

use std::collections::{BTreeMap, BTreeSet};

use super::{HOST, event, exit, fork, process, reap, snapshot_of, start};
use crate::event::snapshot::SnapshotNamespace;
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::Holder,
    event::{Body, Cause, Event, Exit, Namespace, Process},
    text::Name,
};

/// Number of action codes; `act` gives frequent actions several codes.
pub(super) const ACTIONS: u8 = 17;

/// Capabilities that differ between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Whether namespaces have ids that are never reused.
    pub(super) ids: bool,
    /// Whether it reports the ends of namespaces.
    pub(super) destructions: bool,
}

/// A namespace of the simulated kernel.
#[derive(Clone, Debug)]
pub(super) struct SimulatedNamespace {
    pub(super) inum: NsInum,
    level: u32,
    parent: Option<NsInum>,
    pub(super) kernel_id: Option<u64>,
    created: BootNs,
    /// Whether the creation was reported, and its event not lost.
    pub(super) creation_known: bool,
    pub(super) init_start: Option<BootNs>,
    /// Whether a process has it open.
    held: bool,
}

impl SimulatedNamespace {
    /// As an event would show it.
    fn as_event_shows(&self) -> Namespace {
        let born_boot_ns = if self.creation_known { Some(self.created) } else { self.init_start };
        let Self { inum, level, parent, kernel_id, .. } = *self;
        Namespace { inum, level, parent, born_boot_ns, kernel_id, user_ns: 1, owner_uid: 0, container: None }
    }
}

pub(super) struct SimulatedKernel {
    capabilities: Capabilities,
    pub(super) clock: u64,
    next_id: u64,
    /// A reparented process gets its new `ppid` here; zombies do, too.
    pub(super) living: Vec<Process>,
    pub(super) zombies: Vec<Process>,
    pub(super) namespaces: Vec<SimulatedNamespace>,
    /// The namespace of future children, for processes that have unshared or joined.
    pid_for_children: BTreeMap<HostPid, NsInum>,
    /// No event shows which processes are subreapers.
    subreapers: BTreeSet<HostPid>,
    pub(super) emitted: Vec<Event>,
}

impl SimulatedKernel {
    pub(super) fn new(capabilities: Capabilities) -> Self {
        let init = process(&[1], 1, None, HOST.0);
        let host = SimulatedNamespace {
            inum: HOST,
            level: 0,
            parent: None,
            kernel_id: capabilities.ids.then_some(1),
            created: BootNs(0),
            creation_known: false,
            init_start: Some(BootNs(1)),
            held: false,
        };
        let mut kernel = Self {
            capabilities,
            clock: 10,
            next_id: 2,
            living: vec![init.clone()],
            zombies: Vec::new(),
            namespaces: vec![host],
            pid_for_children: BTreeMap::new(),
            subreapers: BTreeSet::new(),
            emitted: Vec::new(),
        };
        kernel.emit(start(capabilities.destructions));
        kernel.emitted.extend(kernel.snapshot());
        kernel
    }

    fn emit(&mut self, body: Body) {
        self.clock += 1;
        self.emitted.push(event(self.clock, body));
    }

    /// Performs this action. `number` selects the process, zombie or namespace; if there is none, nothing happens.
    pub(super) fn act(&mut self, action: u8, number: usize) {
        let living = self.living[number % self.living.len()].clone();
        match action % ACTIONS {
            0..4 => self.fork(&living),
            4 => self.clone_newpid(&living),
            5 => self.unshare(&living),
            6 => self.setns(&living, number),
            7 => {
                self.subreapers.insert(living.pid);
            }
            8 => self.emit(Body::ProcessExec {
                process: living,
                filename: Name::from("/bin/x"),
                args: None,
                args_truncated: false,
            }),
            9 => {
                let index = number % self.namespaces.len();
                self.namespaces[index].held ^= true;
            }
            // The machine's init does not exit.
            10..13 if living.pid.0 != 1 => self.exit(&living),
            13.. if !self.zombies.is_empty() => {
                let zombie = self.zombies[number % self.zombies.len()].clone();
                self.reap(&zombie);
            }
            _ => {}
        }
        self.destroy_unused();
    }

    /// The namespace in which this process's children are born, if not its own.
    pub(super) fn pid_for_children(&self, process: &Process) -> Option<NsInum> {
        self.pid_for_children.get(&process.pid).copied()
    }

    /// Marks the creations in these lost events as unknown to the tracer.
    pub(super) fn lose_creations(&mut self, lost: &[Event]) {
        for event in lost {
            if let Body::NamespaceCreate { ns, .. } = &event.body
                && let Some(namespace) =
                    self.namespaces.iter_mut().find(|namespace| namespace.inum == ns.inum)
            {
                namespace.creation_known = false;
            }
        }
    }

    /// The lowest free number from `from` up.
    fn free_number(from: u32, used: impl Fn(u32) -> bool) -> u32 {
        (from..).find(|&number| !used(number)).expect("few numbers are in use")
    }

    fn namespace(&self, inum: NsInum) -> &SimulatedNamespace {
        self.namespaces.iter().find(|namespace| namespace.inum == inum).expect("the namespace exists")
    }

    fn namespace_mut(&mut self, inum: NsInum) -> &mut SimulatedNamespace {
        self.namespaces.iter_mut().find(|namespace| namespace.inum == inum).expect("the namespace exists")
    }

    fn all_processes(&self) -> impl Iterator<Item = &Process> {
        self.living.iter().chain(&self.zombies)
    }

    /// Makes a process that starts in this namespace now.
    fn new_process(&mut self, parent: &Process, ns: NsInum) -> Process {
        self.clock += 1;
        let pid = Self::free_number(2, |pid| self.all_processes().any(|process| process.pid.0 == pid));
        let namespace = self.namespace(ns);
        let mut pids = vec![pid; namespace.level as usize + 1];
        if namespace.init_start.is_none() {
            *pids.last_mut().expect("a level") = 1;
        }
        process(&pids, self.clock, Some(parent.pid.0), ns.0)
    }

    fn make_namespace(&mut self, parent: NsInum) -> NsInum {
        self.clock += 1;
        let inum = Self::free_number(HOST.0 + 1, |inum| {
            self.namespaces.iter().any(|namespace| namespace.inum.0 == inum)
        });
        let inum = NsInum(inum);
        let level = self.namespace(parent).level + 1;
        self.namespaces.push(SimulatedNamespace {
            inum,
            level,
            parent: Some(parent),
            kernel_id: self.capabilities.ids.then_some(self.next_id),
            created: BootNs(self.clock),
            creation_known: true,
            init_start: None,
            held: false,
        });
        self.next_id += 1;
        inum
    }

    /// Forks into `parent`'s pid_for_children. The first process there is PID 1.
    fn fork(&mut self, parent: &Process) {
        let ns = self.pid_for_children.get(&parent.pid).copied().unwrap_or(parent.ns);
        if self.namespace(ns).init_start.is_some() && self.living_init(ns).is_none() {
            return; // ENOMEM: the namespace's init has exited.
        }
        let child = self.new_process(parent, ns);
        if child.is_init() {
            self.namespace_mut(ns).init_start = Some(child.start_boot_ns);
            let ns = self.namespace(ns).as_event_shows();
            self.emit(Body::NamespaceInit { ns, process: child.clone() });
        }
        self.emit(fork(&child, parent));
        self.living.push(child);
    }

    /// clone(CLONE_NEWPID). The creation is reported after the child exists.
    fn clone_newpid(&mut self, parent: &Process) {
        if parent.pids.len() > 30
            || self.living_init(parent.ns).is_none()
            || self.pid_for_children.contains_key(&parent.pid)
        {
            return;
        }
        let inum = self.make_namespace(parent.ns);
        let child = self.new_process(parent, inum);
        self.clock += 1;
        let created = BootNs(self.clock);
        let namespace = self.namespace_mut(inum);
        (namespace.init_start, namespace.created) = (Some(child.start_boot_ns), created);
        let ns = namespace.as_event_shows();
        self.emit(Body::NamespaceCreate {
            ns: ns.clone(),
            via: Some("clone".into()),
            creator: parent.clone(),
        });
        self.emit(Body::NamespaceInit { ns, process: child.clone() });
        self.emit(fork(&child, parent));
        self.living.push(child);
    }

    fn unshare(&mut self, process: &Process) {
        if process.pids.len() > 30
            || self.living_init(process.ns).is_none()
            || self.pid_for_children.contains_key(&process.pid)
        {
            return;
        }
        let inum = self.make_namespace(process.ns);
        self.pid_for_children.insert(process.pid, inum);
        let ns = self.namespace(inum).as_event_shows();
        self.emit(Body::NamespaceCreate { ns, via: Some("unshare".into()), creator: process.clone() });
    }

    /// setns into its own namespace or one below.
    fn setns(&mut self, process: &Process, number: usize) {
        let targets: Vec<NsInum> = self
            .namespaces
            .iter()
            .filter(|namespace| self.is_within(namespace.inum, process.ns))
            .map(|namespace| namespace.inum)
            .collect();
        let inum = targets[number % targets.len()];
        if inum == process.ns {
            self.pid_for_children.remove(&process.pid);
        } else {
            self.pid_for_children.insert(process.pid, inum);
        }
        let ns = self.namespace(inum).as_event_shows();
        self.emit(Body::NamespaceJoin { ns, process: process.clone(), from: None });
    }

    fn is_within(&self, inum: NsInum, top: NsInum) -> bool {
        let parent = |inum| {
            self.namespaces
                .iter()
                .find(|namespace| namespace.inum == inum)
                .and_then(|namespace| namespace.parent)
        };
        std::iter::successors(Some(inum), |&inum| parent(inum)).any(|inum| inum == top)
    }

    fn living_init(&self, ns: NsInum) -> Option<&Process> {
        self.living.iter().find(|process| process.ns == ns && process.is_init())
    }

    fn exit(&mut self, process: &Process) {
        if process.is_init() {
            let ns = self.namespace(process.ns).as_event_shows();
            self.emit(Body::NamespaceInitExit {
                ns,
                process: process.clone(),
                exit: Exit::Code { code: 0 },
                cause: Cause::Exited,
                members: 0,
            });
        }
        self.emit(exit(process));
        self.pid_for_children.remove(&process.pid);
        self.living.retain(|living| living.pid != process.pid);
        self.zombies.push(process.clone());
        if process.is_init() {
            self.zap(process);
        } else {
            let reaper = self.new_reaper(process);
            for child in self.living.iter_mut().chain(&mut self.zombies) {
                if child.ppid == Some(process.pid) {
                    child.ppid = Some(reaper);
                }
            }
        }
    }

    /// `zap_pid_ns_processes()`: kills and reaps every member.
    fn zap(&mut self, init: &Process) {
        let is_member = |kernel: &Self, process: &Process| {
            process.pid != init.pid && kernel.is_within(process.ns, init.ns)
        };
        while let Some(member) = self.living.iter().find(|process| is_member(self, process)).cloned() {
            self.exit(&member);
        }
        while let Some(member) = self.zombies.iter().find(|process| is_member(self, process)).cloned() {
            self.reap(&member);
        }
        let ns = self.namespace(init.ns).as_event_shows();
        self.emit(Body::NamespaceTeardown { ns, killed: 0, nested: Vec::new(), duration_ns: 1 });
    }

    /// `find_new_reaper()`, kernel/exit.c.
    fn new_reaper(&self, father: &Process) -> HostPid {
        let find = |pid: HostPid| self.all_processes().find(move |process| process.pid == pid);
        let mut next = father.ppid.and_then(find);
        while let Some(reaper) = next.filter(|reaper| reaper.pids.len() == father.pids.len()) {
            if self.is_subreaper(reaper.pid) && self.living.contains(reaper) {
                return reaper.pid;
            }
            next = reaper.ppid.and_then(find);
        }
        self.child_reaper(father.ns)
    }

    /// PID 1 of a namespace, dying or not.
    pub(super) fn child_reaper(&self, ns: NsInum) -> HostPid {
        let init = self.all_processes().find(|process| process.ns == ns && process.is_init());
        init.map(|init| init.pid).expect("a PID 1")
    }

    pub(super) fn is_subreaper(&self, pid: HostPid) -> bool {
        self.subreapers.contains(&pid)
    }

    fn reap(&mut self, zombie: &Process) {
        self.zombies.retain(|process| process.pid != zombie.pid);
        self.subreapers.remove(&zombie.pid);
        self.emit(reap(zombie));
    }

    fn destroy_unused(&mut self) {
        // A removed namespace may have held the last reference to its parent, so this repeats.
        while let Some(unused) = self.namespaces.iter().position(|namespace| !self.is_used(namespace)) {
            let namespace = self.namespaces.remove(unused);
            if self.capabilities.destructions {
                self.emit(Body::NamespaceDestroy { ns: namespace.as_event_shows(), lived_ns: None });
            }
        }
    }

    fn is_used(&self, namespace: &SimulatedNamespace) -> bool {
        namespace.held
            || self.has_or_will_have_processes(namespace)
            || self.namespaces.iter().any(|below| below.parent == Some(namespace.inum))
            || self.pid_for_children.values().any(|&inum| inum == namespace.inum)
    }

    /// Whether it has processes, or there is a process whose children will be its first ones. The model sees the end of
    /// such a namespace even if no event reports it.
    pub(super) fn has_or_will_have_processes(&self, namespace: &SimulatedNamespace) -> bool {
        self.all_processes().any(|process| process.ns == namespace.inum)
            || (namespace.init_start.is_none()
                && self.pid_for_children.values().any(|&inum| inum == namespace.inum))
    }

    /// A snapshot of the existing processes and namespaces.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let namespaces = self.namespaces.iter().map(|namespace| {
            // A snapshot has no birth for a namespace whose PID 1 has exited.
            let init = self.living_init(namespace.inum);
            let born_boot_ns = init.map(|init| init.start_boot_ns);
            let holders = self.pid_for_children.iter().filter(|(_, inum)| **inum == namespace.inum);
            let holders = holders.map(|(&pid, _)| Holder::PidForChildren { pid, comm: None });
            Body::SnapshotNamespace {
                ns: SnapshotNamespace { born_boot_ns, ..SnapshotNamespace::of(&namespace.as_event_shows()) },
                holders: holders.collect(),
                holders_left_out: 0,
            }
        });
        let living = self.living.iter().map(|process| snapshot_of(process, 'S'));
        let zombies = self.zombies.iter().map(|process| snapshot_of(process, 'Z'));
        namespaces.chain(living).chain(zombies).map(|body| event(self.clock, body)).collect()
    }
}
