//! Data that findings need from /proc and cgroups. It is read in parallel with the stream and arrives a little later.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use crate::{
    event::{
        Process, ReachedLimit,
        identity::{BootNs, HostPid, NsInum, ProcessKey},
        snapshot::{Holder, ProcMount, Snapshot, SnapshotNamespace, WhyUnnamed},
    },
    procfs::activity::ProcessActivity,
    text::Name,
};

/// From this usage on, in percent, findings consider how fast the usage grows and which processes cause it.
pub(super) const HALF: u8 = 50;
/// Interval between two kept usages of a limit, and how long they are kept.
const USAGE_EVERY_NS: u64 = 10_000_000_000;
pub(super) const MINUTE_NS: u64 = 60_000_000_000;
/// Maximum number of processes of one namespace to read.
pub const MAX_MEMBERS: usize = 64;

/// The state of one process, or why it could not be read.
pub type ActivityResult = Result<ProcessActivity, String>;

/// A request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadRequest {
    /// Processes whose state is needed.
    pub activity: BTreeSet<ProcessKey>,
    /// Namespaces whose limits on PIDs are needed, each with its PID 1.
    pub limits: BTreeMap<NsInum, HostPid>,
    /// Namespaces whose holders are needed.
    pub holders: BTreeMap<NsInum, SnapshotNamespace>,
    /// Known holders to check: whether any of them still holds the namespace.
    pub still_held: BTreeMap<NsInum, Vec<Holder>>,
    /// Whether mounted procs without processes are needed.
    pub empty_procs: bool,
    /// Known ones to check: whether they are still mounted.
    pub still_mounted: Vec<ProcMount>,
    /// Processes whose /proc is to be checked. For each: the outer namespaces that its /proc may show, and a process in
    /// each of these (`None`: this program itself).
    pub proc: BTreeMap<ProcessKey, Vec<(NsInum, Option<HostPid>)>>,
}

impl ReadRequest {
    /// Whether it requests nothing.
    pub fn is_empty(&self) -> bool {
        let Self { activity, limits, holders, still_held, empty_procs, still_mounted, proc } = self;
        let is_none = activity.is_empty() && limits.is_empty() && proc.is_empty();
        is_none && holders.is_empty() && still_held.is_empty() && !empty_procs && still_mounted.is_empty()
    }

    /// Removes requests that are already answered.
    pub fn leave_out(&mut self, read: &Readings) {
        let Self { activity, limits, holders, still_held, empty_procs, still_mounted, proc } = self;
        activity.retain(|key| !read.activity.contains_key(key) && !read.gone.contains(key));
        limits.retain(|inum, _| !read.limits.contains_key(inum));
        holders.retain(|_, ns| read.holders_of(ns).is_none());
        still_held.clear();
        *empty_procs &= read.empty_procs.is_none();
        still_mounted.clear();
        proc.retain(|key, _| !read.proc.contains_key(key));
    }
}

/// The mounted procs in a snapshot whose namespaces have no process.
pub fn empty_procs(snapshot: &Snapshot) -> BTreeMap<ProcMount, BootNs> {
    let unnamed = snapshot.unnamed.iter().filter(|unnamed| unnamed.why == WhyUnnamed::NoProcess);
    unnamed.map(|unnamed| (unnamed.mount.clone(), snapshot.boot_ns)).collect()
}

/// The holders of a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// When they were read.
    pub at: BootNs,
    /// The holders, up to a bound.
    pub holders: Vec<Holder>,
    /// Number of further holders.
    pub left_out: u64,
    /// Number of processes that could not be read.
    pub unread: u64,
}

/// The limits of a namespace's PID 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitChain {
    /// That PID 1. It distinguishes the namespace from others that had the same inode number.
    pub init: HostPid,
    /// When they were read.
    pub at: BootNs,
    /// Number of tasks on the host at that time.
    pub tasks: u64,
    /// From the host's limits to that of the innermost cgroup.
    pub limits: Vec<ReachedLimit>,
    /// Number of limits that could not be read.
    pub unread: u64,
}

/// The namespace that a process's /proc shows, if it is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcShows {
    /// The namespace.
    pub ns: NsInum,
    /// Its mount point.
    pub path: Name,
}

/// How much of the limits of a namespace was in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// When it was read.
    pub at: BootNs,
    /// Number of tasks that counted against each limit, in the order of [`LimitChain::limits`].
    pub current: Vec<Option<u64>>,
}

/// The answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// When they were read.
    pub at: BootNs,
    /// Number of tasks on the host.
    pub tasks: u64,
    /// State by process, or why it could not be read.
    pub activity: BTreeMap<ProcessKey, ActivityResult>,
    /// Requested processes that no longer exist.
    pub gone: BTreeSet<ProcessKey>,
    /// The parents of those that are zombies, and the tracers of those that are zombies or stopped, by PID.
    pub keepers: BTreeMap<HostPid, Process>,
    /// Earlier usage of the limits of a namespace of which one is at least half used. The latest is the last one.
    pub usage: BTreeMap<NsInum, VecDeque<Usage>>,
    /// Limits by namespace.
    pub limits: BTreeMap<NsInum, LimitChain>,
    /// Holders by namespace: with the namespace for which they were read, because another one can get its number.
    pub holders: BTreeMap<NsInum, (SnapshotNamespace, Holders)>,
    /// Mounted procs whose namespace has no process, with the time when each was first found. The kernel does not show
    /// which namespace that is. `None` if they were not read.
    pub empty_procs: Option<BTreeMap<ProcMount, BootNs>>,
    /// Procs that are no longer mounted.
    pub unmounted: BTreeSet<ProcMount>,
    /// Namespaces whose known holders no longer hold them.
    pub let_go: BTreeSet<NsInum>,
    /// CPU time for reading holders, if they were read.
    pub holders_took: Duration,
    /// Namespace shown by /proc, by process; `None` if it is the process's own.
    pub proc: BTreeMap<ProcessKey, Option<ProcShows>>,
}

impl Readings {
    /// Number of known answers.
    pub fn count(&self) -> usize {
        let Self {
            at: _,
            tasks: _,
            activity,
            gone,
            keepers: _,
            usage: _,
            limits,
            holders,
            empty_procs,
            unmounted: _,
            let_go: _,
            holders_took: _,
            proc,
        } = self;
        let procs = usize::from(empty_procs.is_some());
        activity.len() + gone.len() + limits.len() + holders.len() + procs + proc.len()
    }

    /// Adds newer answers.
    pub fn merge(&mut self, newer: Self) {
        let Self {
            at,
            tasks,
            activity,
            gone,
            keepers,
            usage: _,
            limits,
            holders,
            empty_procs,
            unmounted,
            let_go,
            holders_took,
            proc,
        } = newer;
        (self.at, self.tasks) = (at, tasks);
        self.holders.retain(|inum, _| !let_go.contains(inum));
        if let Some(newer) = empty_procs {
            let known = self.empty_procs.take().unwrap_or_default();
            let since = |(mount, at): (ProcMount, BootNs)| {
                let since = known.get(&mount).copied().unwrap_or(at);
                (mount, since)
            };
            self.empty_procs = Some(newer.into_iter().map(since).collect());
        }
        if let Some(known) = &mut self.empty_procs {
            known.retain(|mount, _| !unmounted.contains(mount));
        }
        self.holders_took = if holders.is_empty() { self.holders_took } else { holders_took };
        self.activity.retain(|key, _| !gone.contains(key));
        self.gone.retain(|key| !activity.contains_key(key));
        self.activity.extend(activity);
        self.gone.extend(gone);
        self.keepers.extend(keepers);
        let read = self.activity.values().filter_map(|read| read.as_ref().ok());
        let needed: BTreeSet<HostPid> = read.flat_map(ProcessActivity::keepers).collect();
        self.keepers.retain(|pid, _| needed.contains(pid));
        for (&inum, chain) in &limits {
            self.keep_usage(inum, chain);
        }
        self.limits.extend(limits);
        self.holders.extend(holders);
        self.proc.extend(proc);
    }
}

impl Readings {
    /// The holders of this namespace, if they were read. Another namespace may have had its number when they were.
    pub(super) fn holders_of(&self, ns: &SnapshotNamespace) -> Option<&Holders> {
        let (of, holders) = self.holders.get(&ns.inum)?;
        (!of.differs_from(ns)).then_some(holders)
    }

    /// Keeps what was in use: every ten seconds, for about a minute.
    fn keep_usage(&mut self, inum: NsInum, chain: &LimitChain) {
        let is_half_used =
            chain.limits.iter().filter_map(ReachedLimit::percent).any(|percent| percent >= HALF);
        if !is_half_used {
            self.usage.remove(&inum);
            return;
        }
        let is_same = |(a, b): (&ReachedLimit, &ReachedLimit)| (&a.kind, &a.cgroup) == (&b.kind, &b.cgroup);
        let are_same = self.limits.get(&inum).is_some_and(|before| {
            before.init == chain.init
                && before.limits.len() == chain.limits.len()
                && before.limits.iter().zip(&chain.limits).all(is_same)
        });
        let usage = self.usage.entry(inum).or_default();
        if !are_same {
            usage.clear();
        }
        if usage.back().is_none_or(|last| chain.at.saturating_since(last.at) >= USAGE_EVERY_NS) {
            let current = chain.limits.iter().map(|limit| limit.current).collect();
            usage.push_back(Usage { at: chain.at, current });
        }
        while usage.get(1).is_some_and(|second| chain.at.saturating_since(second.at) >= MINUTE_NS) {
            usage.pop_front();
        }
    }

    /// How much more of a limit was used in the last minute, or since it is known; `None` if it is known for less than
    /// ten seconds. 0 if less is used. `number` is its place in the namespace's chain.
    pub(super) fn growth_per_minute(&self, inum: NsInum, number: usize) -> Option<u64> {
        let chain = self.limits.get(&inum)?;
        let Usage { at, current: before } = self.usage.get(&inum)?.front()?;
        let age = chain.at.saturating_since(*at);
        let (before, now) = ((*before.get(number)?)?, chain.limits.get(number)?.current?);
        let growth = u128::from(now.saturating_sub(before)) * u128::from(MINUTE_NS);
        (age >= USAGE_EVERY_NS).then(|| u64::try_from(growth / u128::from(age)).unwrap_or(u64::MAX))
    }
}

/// Reads requested data in parallel with the stream.
pub trait Reader: Send {
    /// Starts to read. Ignored if the last request is not answered yet.
    fn ask(&mut self, request: ReadRequest);
    /// The answers since the last call, if they are ready.
    fn take(&mut self) -> Option<Readings>;
}
