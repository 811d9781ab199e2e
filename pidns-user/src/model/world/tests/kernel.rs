//! A toy kernel that emits events. It follows kernel/exit.c, reuses numbers at once, and fills in only fields that the
//! tracer could know.

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
pub(super) const ACTS: u8 = 17;

/// Capabilities that differ between kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    /// Whether namespaces have ids that are never reused.
    pub(super) ids: bool,
    /// Whether it reports the ends of namespaces.
    pub(super) destructions: bool,
}

/// A namespace of the toy kernel.
#[derive(Clone, Debug)]
pub(super) struct Space {
    inum: NsInum,
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

impl Space {
    pub(super) fn inum(&self) -> NsInum {
        self.inum
    }

    /// As an event would show it.
    fn emitted(&self) -> Namespace {
        let born_boot_ns = if self.creation_known { Some(self.created) } else { self.init_start };
        let Self { inum, level, parent, kernel_id, .. } = *self;
        Namespace { inum, level, parent, born_boot_ns, kernel_id, user_ns: 1, owner_uid: 0, container: None }
    }
}

pub(super) struct ModelKernel {
    kind: Kind,
    pub(super) clock: u64,
    next_id: u64,
    /// `ppid` is kept up to date when they are reparented.
    pub(super) living: Vec<Process>,
    pub(super) zombies: Vec<Process>,
    pub(super) namespaces: Vec<Space>,
    /// The namespace of future children, for processes that have unshared or joined.
    pid_for_children: BTreeMap<HostPid, NsInum>,
    /// Not visible in events.
    subreapers: BTreeSet<HostPid>,
    pub(super) emitted: Vec<Event>,
}

impl ModelKernel {
    pub(super) fn new(kind: Kind) -> Self {
        let init = process(&[1], 1, None, HOST.0);
        let host = Space {
            inum: HOST,
            level: 0,
            parent: None,
            kernel_id: kind.ids.then_some(1),
            created: BootNs(0),
            creation_known: false,
            init_start: Some(BootNs(1)),
            held: false,
        };
        let mut kernel = Self {
            kind,
            clock: 10,
            next_id: 2,
            living: vec![init.clone()],
            zombies: Vec::new(),
            namespaces: vec![host],
            pid_for_children: BTreeMap::new(),
            subreapers: BTreeSet::new(),
            emitted: Vec::new(),
        };
        kernel.emit(start(kind.destructions));
        kernel.emitted.extend(kernel.snapshot());
        kernel
    }

    fn emit(&mut self, body: Body) {
        self.clock += 1;
        self.emitted.push(event(self.clock, body));
    }

    /// Performs the action of these numbers, if a process for it exists.
    pub(super) fn act(&mut self, what: u8, whom: usize) {
        let living = self.living[whom % self.living.len()].clone();
        match what % ACTS {
            0..4 => self.fork(&living),
            4 => self.clone_newpid(&living),
            5 => self.unshare(&living),
            6 => self.setns(&living, whom),
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
                let which = whom % self.namespaces.len();
                self.namespaces[which].held ^= true;
            }
            // The machine's init does not exit.
            10..13 if living.pid.0 != 1 => self.exit(&living),
            13.. if !self.zombies.is_empty() => {
                let zombie = self.zombies[whom % self.zombies.len()].clone();
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
                && let Some(space) = self.namespaces.iter_mut().find(|space| space.inum == ns.inum)
            {
                space.creation_known = false;
            }
        }
    }

    /// The lowest free number from `from` up.
    fn free_number(from: u32, used: impl Fn(u32) -> bool) -> u32 {
        (from..).find(|&number| !used(number)).expect("there are few")
    }

    fn space(&self, inum: NsInum) -> &Space {
        self.namespaces.iter().find(|space| space.inum == inum).expect("the namespace exists")
    }

    fn space_mut(&mut self, inum: NsInum) -> &mut Space {
        self.namespaces.iter_mut().find(|space| space.inum == inum).expect("the namespace exists")
    }

    fn all_processes(&self) -> impl Iterator<Item = &Process> {
        self.living.iter().chain(&self.zombies)
    }

    /// Starts a process in this namespace now.
    fn new_process(&mut self, parent: &Process, ns: NsInum) -> Process {
        self.clock += 1;
        let pid = Self::free_number(2, |pid| self.all_processes().any(|process| process.pid.0 == pid));
        let space = self.space(ns);
        let mut pids = vec![pid; space.level as usize + 1];
        if space.init_start.is_none() {
            *pids.last_mut().expect("a level") = 1;
        }
        process(&pids, self.clock, Some(parent.pid.0), ns.0)
    }

    fn make_space(&mut self, parent: NsInum) -> NsInum {
        self.clock += 1;
        let inum =
            Self::free_number(HOST.0 + 1, |inum| self.namespaces.iter().any(|space| space.inum.0 == inum));
        let inum = NsInum(inum);
        let level = self.space(parent).level + 1;
        self.namespaces.push(Space {
            inum,
            level,
            parent: Some(parent),
            kernel_id: self.kind.ids.then_some(self.next_id),
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
        if self.space(ns).init_start.is_some() && self.living_init(ns).is_none() {
            return; // ENOMEM: it is dead.
        }
        let child = self.new_process(parent, ns);
        if child.is_init() {
            self.space_mut(ns).init_start = Some(child.start_boot_ns);
            let ns = self.space(ns).emitted();
            self.emit(Body::NamespaceInit { ns, process: child.clone() });
        }
        self.emit(fork(&child, parent));
        self.living.push(child);
    }

    /// clone(CLONE_NEWPID). The event comes after the child exists.
    fn clone_newpid(&mut self, parent: &Process) {
        if parent.pids.len() > 30
            || self.living_init(parent.ns).is_none()
            || self.pid_for_children.contains_key(&parent.pid)
        {
            return;
        }
        let inum = self.make_space(parent.ns);
        let child = self.new_process(parent, inum);
        self.clock += 1;
        let created = BootNs(self.clock);
        let space = self.space_mut(inum);
        (space.init_start, space.created) = (Some(child.start_boot_ns), created);
        let ns = space.emitted();
        self.emit(Body::NamespaceCreate {
            ns: ns.clone(),
            via: Some("clone".into()),
            creator: parent.clone(),
        });
        self.emit(Body::NamespaceInit { ns, process: child.clone() });
        self.emit(fork(&child, parent));
        self.living.push(child);
    }

    fn unshare(&mut self, whom: &Process) {
        if whom.pids.len() > 30
            || self.living_init(whom.ns).is_none()
            || self.pid_for_children.contains_key(&whom.pid)
        {
            return;
        }
        let inum = self.make_space(whom.ns);
        self.pid_for_children.insert(whom.pid, inum);
        let ns = self.space(inum).emitted();
        self.emit(Body::NamespaceCreate { ns, via: Some("unshare".into()), creator: whom.clone() });
    }

    /// setns into its own namespace or one below.
    fn setns(&mut self, whom: &Process, which: usize) {
        let targets: Vec<NsInum> = self
            .namespaces
            .iter()
            .filter(|space| self.is_within(space.inum, whom.ns))
            .map(Space::inum)
            .collect();
        let inum = targets[which % targets.len()];
        if inum == whom.ns {
            self.pid_for_children.remove(&whom.pid);
        } else {
            self.pid_for_children.insert(whom.pid, inum);
        }
        let ns = self.space(inum).emitted();
        self.emit(Body::NamespaceJoin { ns, process: whom.clone(), from: None });
    }

    fn is_within(&self, inum: NsInum, top: NsInum) -> bool {
        let parent =
            |inum| self.namespaces.iter().find(|space| space.inum == inum).and_then(|space| space.parent);
        std::iter::successors(Some(inum), |&inum| parent(inum)).any(|inum| inum == top)
    }

    fn living_init(&self, ns: NsInum) -> Option<&Process> {
        self.living.iter().find(|process| process.ns == ns && process.is_init())
    }

    fn exit(&mut self, process: &Process) {
        if process.is_init() {
            let ns = self.space(process.ns).emitted();
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
        let ns = self.space(init.ns).emitted();
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
        // Also its ancestors, if it held their last reference.
        while let Some(unused) = self.namespaces.iter().position(|space| !self.is_used(space)) {
            let space = self.namespaces.remove(unused);
            if self.kind.destructions {
                self.emit(Body::NamespaceDestroy { ns: space.emitted(), lived_ns: None });
            }
        }
    }

    fn is_used(&self, space: &Space) -> bool {
        space.held
            || self.has_or_will_have_processes(space)
            || self.namespaces.iter().any(|below| below.parent == Some(space.inum))
            || self.pid_for_children.values().any(|&inum| inum == space.inum)
    }

    /// Whether it has processes, or has no PID 1 yet and a process whose children will be born in it. The model then
    /// knows when it ends without an event.
    pub(super) fn has_or_will_have_processes(&self, space: &Space) -> bool {
        self.all_processes().any(|process| process.ns == space.inum)
            || (space.init_start.is_none() && self.pid_for_children.values().any(|&inum| inum == space.inum))
    }

    /// A snapshot of the existing processes and namespaces.
    pub(super) fn snapshot(&self) -> Vec<Event> {
        let namespaces = self.namespaces.iter().map(|space| {
            // A snapshot has no birth for a namespace whose PID 1 has exited.
            let init = self.living_init(space.inum);
            let born_boot_ns = init.map(|init| init.start_boot_ns);
            let holders = self.pid_for_children.iter().filter(|(_, inum)| **inum == space.inum);
            let holders = holders.map(|(&pid, _)| Holder::PidForChildren { pid, comm: None });
            Body::SnapshotNamespace {
                ns: SnapshotNamespace { born_boot_ns, ..SnapshotNamespace::of(&space.emitted()) },
                holders: holders.collect(),
                holders_left_out: 0,
            }
        });
        let living = self.living.iter().map(|process| snapshot_of(process, 'S'));
        let zombies = self.zombies.iter().map(|process| snapshot_of(process, 'Z'));
        namespaces.chain(living).chain(zombies).map(|body| event(self.clock, body)).collect()
    }
}
