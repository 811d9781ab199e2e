//! A kernel in small, with processes and namespaces, that tells what happens. It follows kernel/exit.c.

use std::collections::BTreeSet;

use super::{HOST, as_looked_at, event, exit, fork, look_at, namespace, process, reap};
use crate::{
    event::{Body, Cause, Event, Exit, Namespace, Process},
    text::Name,
};

/// What it can do, and how often: numbers to be drawn.
pub(super) const ACTS: u8 = 12;

pub(super) struct Kernel {
    pub(super) clock: u64,
    next_pid: u32,
    next_inum: u32,
    /// Their `ppid` is who their parent is now.
    pub(super) living: Vec<Process>,
    pub(super) zombies: Vec<Process>,
    pub(super) namespaces: Vec<Namespace>,
    /// Nobody is told of them.
    subreapers: BTreeSet<u32>,
    pub(super) told: Vec<Event>,
}

impl Kernel {
    pub(super) fn new() -> Self {
        let init = process(&[1], 1, None, HOST);
        let host = namespace(HOST, 0, 0, 1);
        let mut kernel = Self {
            clock: 10,
            next_pid: 2,
            next_inum: HOST + 1,
            living: vec![init.clone()],
            zombies: Vec::new(),
            namespaces: vec![host.clone()],
            subreapers: BTreeSet::new(),
            told: Vec::new(),
        };
        kernel.tell(Body::SnapshotNamespace { ns: as_looked_at(&host), holders: Vec::new() });
        kernel.tell(look_at(&init, 'S'));
        kernel
    }

    fn tell(&mut self, body: Body) {
        self.clock += 1;
        self.told.push(event(self.clock, body));
    }

    /// Does what these numbers mean, if there is somebody to do it to.
    pub(super) fn act(&mut self, what: u8, whom: usize) {
        let living = self.living[whom % self.living.len()].clone();
        match what % ACTS {
            0..4 => self.fork(&living, living.ns, None),
            4 => self.fork_into_a_new_one(&living),
            5 => self.fork_into_one_below(&living, whom),
            6 => {
                self.subreapers.insert(living.pid);
            }
            7 => self.tell(Body::ProcessExec {
                process: living,
                filename: Name::from("/bin/x"),
                args: None,
                args_truncated: false,
            }),
            // The machine's init does not exit.
            8..10 if living.pid != 1 => self.exit(&living),
            10.. if !self.zombies.is_empty() => {
                let zombie = self.zombies[whom % self.zombies.len()].clone();
                self.reap(&zombie);
            }
            _ => {}
        }
    }

    /// `parent` forks a child into this namespace, which is its own or below, as PID 1 where it is a new one.
    fn fork(&mut self, parent: &Process, ns: u32, created: Option<Namespace>) {
        let pid = self.next_pid;
        self.next_pid += 1;
        let level = self.namespaces.iter().find(|known| known.inum == ns).map_or(0, |ns| ns.level);
        let mut pids = vec![pid; level as usize + 1];
        if created.is_some() {
            pids.push(1);
        }
        let ns = created.as_ref().map_or(ns, |created| created.inum);
        let child = process(&pids, self.clock, Some(parent.pid), ns);
        if let Some(ns) = created {
            self.tell(Body::NamespaceCreate {
                ns: ns.clone(),
                via: Some("clone".into()),
                creator: parent.clone(),
            });
            self.tell(Body::NamespaceInit { ns: ns.clone(), process: child.clone() });
            self.namespaces.push(ns);
        }
        self.tell(fork(&child, parent));
        self.living.push(child);
    }

    fn fork_into_a_new_one(&mut self, parent: &Process) {
        if parent.pids.len() > 30 {
            return;
        }
        let ns = namespace(self.next_inum, parent.pids.len() as u32, parent.ns, self.clock);
        self.next_inum += 1;
        self.fork(parent, parent.ns, Some(ns));
    }

    /// As after setns.
    fn fork_into_one_below(&mut self, parent: &Process, which: usize) {
        let alive = |ns: &&Namespace| self.living.iter().any(|init| init.ns == ns.inum && is_init(init));
        let below: Vec<u32> = self
            .namespaces
            .iter()
            .filter(|ns| ns.inum != parent.ns && self.is_within(ns.inum, parent.ns))
            .filter(alive)
            .map(|ns| ns.inum)
            .collect();
        if !below.is_empty() {
            self.fork(parent, below[which % below.len()], None);
        }
    }

    fn is_within(&self, inum: u32, top: u32) -> bool {
        let parent = |inum| self.namespaces.iter().find(|ns| ns.inum == inum).and_then(|ns| ns.parent);
        std::iter::successors(Some(inum), |&inum| parent(inum)).any(|inum| inum == top)
    }

    fn exit(&mut self, process: &Process) {
        if is_init(process) {
            let ns = self.namespaces.iter().find(|ns| ns.inum == process.ns).cloned();
            self.tell(Body::NamespaceInitExit {
                ns: ns.expect("it is in one"),
                process: process.clone(),
                exit: Exit::Code { code: 0 },
                cause: Cause::Exited,
                members: 0,
            });
        }
        self.tell(exit(process));
        self.living.retain(|living| living.pid != process.pid);
        self.zombies.push(process.clone());
        if is_init(process) {
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

    /// `zap_pid_ns_processes()`: all that is in the namespace is killed, and reaped.
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
        let ns = self.namespaces.iter().find(|ns| ns.inum == init.ns).cloned();
        let ns = ns.expect("its init has not been reaped");
        self.tell(Body::NamespaceTeardown { ns, killed: 0, nested: Vec::new(), duration_ns: 1 });
    }

    /// `find_new_reaper()`.
    fn new_reaper(&self, father: &Process) -> u32 {
        let find = |pid: u32| self.living.iter().chain(&self.zombies).find(move |process| process.pid == pid);
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
    pub(super) fn child_reaper(&self, ns: u32) -> u32 {
        let mut all = self.living.iter().chain(&self.zombies);
        all.find(|process| process.ns == ns && is_init(process)).map(|init| init.pid).expect("a PID 1")
    }

    pub(super) fn is_subreaper(&self, pid: u32) -> bool {
        self.subreapers.contains(&pid)
    }

    fn reap(&mut self, zombie: &Process) {
        self.zombies.retain(|process| process.pid != zombie.pid);
        self.tell(reap(zombie));
        // Those above it, which it may have been the last to hold, too.
        while let Some(unused) = self.namespaces.iter().position(|ns| !self.is_used(ns)) {
            let ns = self.namespaces.remove(unused);
            self.tell(Body::NamespaceDestroy { ns, lived_ns: None });
        }
    }

    fn is_used(&self, ns: &Namespace) -> bool {
        self.living.iter().chain(&self.zombies).any(|process| process.ns == ns.inum)
            || self.namespaces.iter().any(|below| below.parent == Some(ns.inum))
    }

    /// What exists, as a look tells it.
    pub(super) fn look(&self) -> Vec<Event> {
        let namespaces = self
            .namespaces
            .iter()
            .map(|ns| Body::SnapshotNamespace { ns: as_looked_at(ns), holders: Vec::new() });
        let living = self.living.iter().map(|process| look_at(process, 'S'));
        let zombies = self.zombies.iter().map(|process| look_at(process, 'Z'));
        namespaces.chain(living).chain(zombies).map(|body| event(self.clock, body)).collect()
    }
}

fn is_init(process: &Process) -> bool {
    process.pids.last() == Some(&1)
}
