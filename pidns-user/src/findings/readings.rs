//! What findings need of /proc and cgroups: it is read beside the stream, and comes a little later than it was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::{
    event::{
        ReachedLimit,
        identity::{BootNs, HostPid, NsInum, ProcessKey},
        snapshot::Holder,
    },
    procfs::doing::Doing,
    text::Name,
};

/// Most processes of one namespace that are read.
pub const MOST_MEMBERS: usize = 64;

/// What was read of one process.
pub type DoingOrWhyNot = Result<Doing, String>;

/// What is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What these processes are doing.
    pub doing: BTreeSet<ProcessKey>,
    /// The limits on PIDs of these namespaces, each by its PID 1.
    pub limits: BTreeMap<NsInum, HostPid>,
    /// Whether to read the holders of namespaces: these.
    pub holders: BTreeSet<NsInum>,
    /// Whether any of these holds the namespace still.
    pub still_held: BTreeMap<NsInum, Vec<Holder>>,
    /// Which namespace the /proc of these processes shows: its own, or one of those around it, each with a process that is in it
    /// (`None`: this program itself).
    pub proc: BTreeMap<ProcessKey, Vec<(NsInum, Option<HostPid>)>>,
}

impl Wanted {
    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        let Self { doing, limits, holders, still_held, proc } = self;
        let is_none = doing.is_empty() && limits.is_empty() && proc.is_empty();
        is_none && holders.is_empty() && still_held.is_empty()
    }

    /// Leaves out what was read.
    pub fn leave_out(&mut self, read: &Readings) {
        let Self { doing, limits, holders, still_held, proc } = self;
        doing.retain(|key| !read.doing.contains_key(key) && !read.gone.contains(key));
        limits.retain(|inum, _| !read.limits.contains_key(inum));
        holders.retain(|inum| !read.holders.contains_key(inum));
        still_held.clear();
        proc.retain(|key, _| !read.proc.contains_key(key));
    }
}

/// What holds a namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holders {
    /// When they were read.
    pub at: BootNs,
    /// Each that was found, up to a bound.
    pub holders: Vec<Holder>,
    /// How many more.
    pub left_out: u64,
    /// How many processes could not be read.
    pub unread: u64,
}

/// The limits of a namespace's PID 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitChain {
    /// When they were read.
    pub at: BootNs,
    /// How many tasks the machine had then.
    pub tasks: u64,
    /// From the machine's own to the innermost cgroup's.
    pub limits: Vec<ReachedLimit>,
    /// How many could not be read.
    pub unread: u64,
}

/// Which namespace a process's /proc shows, where that is not its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcShows {
    /// The namespace.
    pub ns: NsInum,
    /// Where it is mounted.
    pub path: Name,
}

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// When.
    pub at: BootNs,
    /// How many tasks the machine has.
    pub tasks: u64,
    /// By process; why it could not be read, where that is so.
    pub doing: BTreeMap<ProcessKey, DoingOrWhyNot>,
    /// The processes that were to be read and are no more.
    pub gone: BTreeSet<ProcessKey>,
    /// By namespace.
    pub limits: BTreeMap<NsInum, LimitChain>,
    /// By namespace.
    pub holders: BTreeMap<NsInum, Holders>,
    /// The namespaces that nothing holds any more of what did.
    pub let_go: BTreeSet<NsInum>,
    /// How long it took to read holders, where that was done.
    pub holders_took: Duration,
    /// By process; `None` where it shows the process's own.
    pub proc: BTreeMap<ProcessKey, Option<ProcShows>>,
}

impl Readings {
    /// Of how many processes and namespaces something is known.
    pub fn count(&self) -> usize {
        let Self { at: _, tasks: _, doing, gone, limits, holders, let_go: _, holders_took: _, proc } = self;
        doing.len() + gone.len() + limits.len() + holders.len() + proc.len()
    }

    /// Takes what is newer.
    pub fn merge(&mut self, newer: Self) {
        let Self { at, tasks, doing, gone, limits, holders, let_go, holders_took, proc } = newer;
        (self.at, self.tasks) = (at, tasks);
        self.holders.retain(|inum, _| !let_go.contains(inum));
        self.holders_took = if holders.is_empty() { self.holders_took } else { holders_took };
        self.doing.extend(doing);
        self.gone.extend(gone);
        self.limits.extend(limits);
        self.holders.extend(holders);
        self.proc.extend(proc);
    }
}

/// Reads what is wanted, beside the stream.
pub trait Reader: Send {
    /// Begins to read this; one that is still at the last is not asked again.
    fn ask(&mut self, wanted: Wanted);
    /// What was read since it was asked, where it is done.
    fn take(&mut self) -> Option<Readings>;
}
