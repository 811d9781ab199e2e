//! The processes and namespaces that exist. It begins with a snapshot, or empty, and follows a stream of events. Pure:
//! a live stream and its replay give the same result.
//!
//! The model trusts events. If an event contradicts the model because an earlier one was missed (such as the end of the
//! PID's previous process), the model corrects itself and counts that ([`Inconsistencies`]). It accepts events in any
//! order and never panics.

mod change;
mod family;
mod history;
mod namespace_state;
mod namespaces;
mod process_state;
mod processes;
mod snapshot_pass;

use std::collections::{BTreeMap, BTreeSet, HashMap};

pub use self::history::{DeadNamespace, DeadProcess, History, LIMIT as HISTORY_LIMIT};
use self::snapshot_pass::SnapshotPass;
pub use self::{
    change::{Change, Inconsistencies},
    family::Reaper,
    namespace_state::{NamespaceState, Stage},
    process_state::{Ended, Entered, Observation, ProcessState},
};
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Holder, Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource, Unread},
    event::{Body, Event},
};

/// The model of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    processes: HashMap<HostPid, ProcessState>,
    /// Children by their parent's PID.
    children: HashMap<HostPid, BTreeSet<HostPid>>,
    namespaces: BTreeMap<NsInum, NamespaceState>,
    history: History,
    inconsistencies: Inconsistencies,
    /// The snapshot that is being applied, if any.
    pass: Option<SnapshotPass>,
    /// Whether the stream reports reaps and destructions. Without them, processes end with their exit and namespaces
    /// with their teardown.
    reapings_reported: bool,
    destructions_reported: bool,
    /// Whether the stream reports processes. Without that, the model has those of the last snapshot, and the inits
    /// since.
    processes_reported: bool,
    /// Whether events were lost since the last snapshot.
    has_lost: bool,
    /// When the last snapshot began.
    processes_as_of: BootNs,
    /// Whether snapshots contain the holders of namespaces.
    holders_reported: bool,
    /// When all hooks of the stream were attached. The start of older processes may have been missed.
    began: BootNs,
    boot_ns: BootNs,
}

impl Default for World {
    fn default() -> Self {
        Self::remembering(HISTORY_LIMIT)
    }
}

impl World {
    /// An empty model that remembers at most this many gone processes and this many gone namespaces.
    pub fn remembering(limit: usize) -> Self {
        Self {
            processes: HashMap::new(),
            children: HashMap::new(),
            namespaces: BTreeMap::new(),
            history: History::new(limit),
            inconsistencies: Inconsistencies::default(),
            pass: None,
            reapings_reported: true,
            destructions_reported: true,
            processes_reported: true,
            has_lost: false,
            processes_as_of: BootNs::default(),
            holders_reported: true,
            began: BootNs::default(),
            boot_ns: BootNs::default(),
        }
    }

    /// Makes room for this many processes, so that the model is not moved again and again while it grows.
    pub fn with_room(mut self, processes: usize) -> Self {
        self.processes.reserve(processes);
        self
    }

    /// An empty model with the same limit.
    pub fn cleared(&self) -> Self {
        Self::remembering(self.history.limit())
    }

    /// Applies an event and returns what it changed.
    pub fn apply(&mut self, event: &Event) -> Vec<Change> {
        let at = event.boot_ns;
        self.boot_ns = self.boot_ns.max(at);
        let mut changes = Vec::new();
        if !matches!(event.body, Body::SnapshotNamespace { .. } | Body::SnapshotProcess { .. }) {
            self.settle_into(&mut changes);
        }
        match &event.body {
            Body::StreamStart { hooks, hooked_boot_ns, filter, .. } => {
                self.began = hooked_boot_ns.map_or(at, |hooked| hooked.max(at));
                self.reports(hooks, |name| filter.events.iter().any(|event| event == name));
                self.pass = Some(SnapshotPass::default());
            }
            Body::StreamResync { .. } => {
                // A snapshot that has only processes cannot show that a namespace is gone.
                let expected = self.namespaces.keys().filter(|_| self.holders_reported).copied();
                self.pass =
                    Some(SnapshotPass::of(self.processes.keys().copied(), expected, self.holders_reported));
            }
            Body::SnapshotNamespace { ns, holders, holders_left_out } => {
                self.on_snapshot_namespace(ns, (holders, *holders_left_out), &mut changes);
            }
            Body::SnapshotProcess {
                process,
                state,
                threads,
                threads_live,
                exiting,
                frozen,
                freezer,
                tracer,
                subreaper,
                cgroup_id,
                cgroup,
                zombie_since_boot_ns,
                last_ran_boot_ns,
                wchan,
                joined,
            } => {
                let observed = Observation {
                    state: *state,
                    threads: *threads,
                    threads_live: *threads_live,
                    exiting: *exiting,
                    frozen: *frozen,
                    freezer: *freezer,
                    tracer: *tracer,
                    subreaper: *subreaper,
                    cgroup_id: *cgroup_id,
                    cgroup: cgroup.clone(),
                    last_ran: *last_ran_boot_ns,
                    wchan: wchan.clone(),
                };
                self.on_snapshot_process(process, observed, *zombie_since_boot_ns, *joined, &mut changes);
            }
            Body::NamespaceCreate { ns, creator, via } => {
                self.on_mention(creator, &mut changes);
                self.on_create(ns, &mut changes);
                if via.as_deref() == Some("unshare") {
                    self.children_go_to(creator, ns.inum, "unshare", &mut changes);
                }
            }
            Body::NamespaceInit { ns, process } => {
                self.on_init(ns, process, &mut changes);
                if !self.processes_reported {
                    self.on_birth(process, Entered::Born, &mut changes);
                }
            }
            Body::NamespaceJoin { ns, process, .. } => {
                self.on_namespace(ns, &mut changes);
                self.children_go_to(process, ns.inum, "setns", &mut changes);
            }
            Body::NamespaceInitExit { ns, process, cause, exit, .. } => {
                if self.processes_reported {
                    self.on_mention(process, &mut changes);
                } else {
                    self.on_exit(process, exit, at, &mut changes);
                }
                if self.on_namespace(ns, &mut changes)
                    && let Some(entry) = self.namespaces.get_mut(&ns.inum)
                {
                    entry.stage =
                        Stage::Dying { since: Some(at), cause: Some(cause.clone()), torn_down: false };
                    changes.push(Change::NamespaceUpdated(ns.inum));
                }
            }
            Body::NamespaceTeardown { ns, .. } => self.on_teardown(ns, at, &mut changes),
            Body::NamespaceDestroy { ns, .. } => self.on_destroy(ns, at, &mut changes),
            Body::ProcessFork { process, parent, crosses, .. } => {
                self.on_mention(parent, &mut changes);
                self.on_fork(process, parent, *crosses, &mut changes);
            }
            Body::ProcessExec { process, .. } => self.on_process(process, &mut changes),
            Body::ProcessExit { process, exit, .. } => self.on_exit(process, exit, at, &mut changes),
            Body::ProcessReap { process, .. } => self.on_reap(process, at, &mut changes),
            Body::InitSignal { process, sender, .. } => {
                self.on_mention(process, &mut changes);
                if let Some(sender) = sender {
                    self.on_mention(sender, &mut changes);
                }
            }
            Body::ForkFailed { process, .. }
            | Body::NamespaceCreateFailed { creator: process, .. }
            | Body::NamespaceJoinFailed { process, .. } => self.on_mention(process, &mut changes),
            Body::StreamLost { .. } => self.has_lost = true,
            Body::StreamEnd { .. } | Body::Finding { .. } => {}
        }
        changes
    }

    /// Announces that all events will be applied, even if the filter in `stream.start` removes some from the stream.
    /// `hooks` are those of `stream.start`.
    pub fn follow_everything(&mut self, hooks: &BTreeMap<String, String>) {
        self.reports(hooks, |_| true);
    }

    /// Announces that only events of namespaces and their inits will be applied. Processes come from snapshots: a
    /// member forked since the last one is missing, and one that has ended since is still listed. `hooks` are those of
    /// `stream.start`. If none of them reports destructions, a namespace ends with its teardown; if something still
    /// holds it, the next snapshot adds it again.
    pub fn follow_namespaces(&mut self, hooks: &BTreeMap<String, String>) {
        self.reports(hooks, |_| true);
        self.processes_reported = false;
    }

    /// Whether events report processes. Otherwise the model has those of the last snapshot, and the inits since.
    pub fn follows_processes(&self) -> bool {
        self.processes_reported
    }

    /// Sets the time at which the next snapshot began.
    pub fn processes_are_as_of(&mut self, boot_ns: BootNs) {
        self.processes_as_of = boot_ns;
    }

    /// Sets whether the next snapshots contain the holders of namespaces. Without holders, a snapshot leaves the known
    /// holders unchanged, and also namespaces that it does not list.
    pub fn set_snapshots_have_holders(&mut self, have: bool) {
        self.holders_reported = have;
    }

    /// Whether events report destructions. Without that, a held namespace ends with its last process.
    pub fn sees_destructions(&self) -> bool {
        self.destructions_reported
    }

    /// Time of the last snapshot if no events report processes; 0 before the first one. `None` if events report
    /// processes.
    pub fn processes_as_of(&self) -> Option<BootNs> {
        (!self.processes_reported).then_some(self.processes_as_of)
    }

    fn reports(&mut self, hooks: &BTreeMap<String, String>, is_among: impl Fn(&str) -> bool) {
        self.reapings_reported = is_among("process.reap");
        self.destructions_reported = is_among("namespace.destroy")
            && hooks.get("proc_free_inum").is_some_and(|form| !form.starts_with("off"));
    }

    /// Time of the last event.
    pub fn boot_ns(&self) -> BootNs {
        self.boot_ns
    }

    /// The contradictions that missed events have caused.
    pub fn inconsistencies(&self) -> Inconsistencies {
        if self.processes_reported {
            return self.inconsistencies;
        }
        // Between snapshots, processes change without events, so only this one counts.
        let Inconsistencies { destructions_unseen, .. } = self.inconsistencies;
        Inconsistencies { destructions_unseen, ..Inconsistencies::default() }
    }

    /// The existing processes, zombies included.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessState> {
        self.processes.values()
    }

    /// The process with this PID at level 0.
    pub fn process(&self, pid: HostPid) -> Option<&ProcessState> {
        self.processes.get(&pid)
    }

    /// The existing namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceState> {
        self.namespaces.values()
    }

    /// The namespace with this inode number.
    pub fn namespace(&self, inum: NsInum) -> Option<&NamespaceState> {
        self.namespaces.get(&inum)
    }

    /// Whether a namespace is `top` or nested in it.
    pub fn is_within(&self, inum: NsInum, top: NsInum) -> bool {
        let mut next = Some(inum);
        let mut level = u32::MAX;
        while let Some(inum) = next {
            if inum == top {
                return true;
            }
            // A parent at the same or a deeper level would make a cycle.
            next = self.namespaces.get(&inum).map(|entry| &entry.namespace).and_then(|ns| {
                let further_up = ns.level < level;
                level = ns.level;
                ns.parent.filter(|_| further_up)
            });
        }
        false
    }

    /// The processes and namespaces that are gone.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Whether it is a PID 1 that waits for the other processes of its namespace: it has ended but is not a zombie yet
    /// (`zap_pid_ns_processes()`, kernel/pid_namespace.c).
    pub fn is_exiting(&self, entry: &ProcessState) -> bool {
        let stage = || self.namespaces.get(&entry.process.ns).map(|known| &known.stage);
        entry.ended.is_some()
            && entry.is_init()
            && matches!(stage(), Some(Stage::Dying { torn_down: false, .. }))
    }

    /// The existing processes and namespaces in the form of a kernel snapshot.
    pub fn snapshot(&self) -> Snapshot {
        let mut processes: Vec<SnapshotProcess> =
            self.processes.values().map(|entry| entry.as_snapshot(self.is_exiting(entry))).collect();
        processes.sort_by_key(|process| process.pid);
        // Events also report pid_for_children. A process that has ended, or that changed it since, holds nothing.
        let goes_there = |inum, pid: &HostPid| {
            self.process(*pid).is_some_and(|entry| entry.ended.is_none() && entry.children_ns == Some(inum))
        };
        let found = self.namespaces.values().flat_map(|entry| {
            let inum = entry.namespace.inum;
            let holds = move |holder: &&Holder| match holder {
                Holder::PidForChildren { .. } => false,
                Holder::Fd { .. } | Holder::Mount { .. } | Holder::ProcMount(_) | Holder::Child { .. } => {
                    true
                }
            };
            entry.holders.iter().filter(holds).map(move |holder| (inum, holder.clone()))
        });
        let senders = self.processes.values().filter_map(|entry| {
            let (pid, inum) = (entry.process.pid, entry.children_ns?);
            let holder = Holder::PidForChildren { pid, comm: Some(entry.process.comm.clone()) };
            (goes_there(inum, &pid) && self.namespaces.contains_key(&inum)).then_some((inum, holder))
        });
        let mut holders: Vec<(NsInum, Holder)> = found.chain(senders).collect();
        holders.sort();
        Snapshot {
            source: SnapshotSource::Recording,
            boot_ns: self.boot_ns,
            processes,
            namespaces: self
                .namespaces
                .iter()
                .map(|(&inum, entry)| {
                    let dying = matches!(entry.stage, Stage::Dying { .. });
                    (inum, SnapshotNamespace { dying, ..entry.namespace.clone() })
                })
                .collect(),
            holders,
            holders_left_out: self
                .namespaces
                .iter()
                .filter(|(_, entry)| entry.holders_left_out > 0)
                .map(|(&inum, entry)| (inum, entry.holders_left_out))
                .collect(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    /// Whether the last event was part of a snapshot, so that more of it may follow.
    pub fn is_in_snapshot(&self) -> bool {
        self.pass.is_some()
    }

    /// Declares the snapshot complete: objects that it did not list are gone. The next event that is not part of it
    /// does the same.
    pub fn settle(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.settle_into(&mut changes);
        changes
    }

    fn settle_into(&mut self, changes: &mut Vec<Change>) {
        let Some((processes, namespaces)) = self.pass.take().and_then(SnapshotPass::unnamed) else { return };
        for pid in processes {
            self.remove(pid, None, changes);
        }
        for inum in namespaces {
            if !(self.knows_new_namespaces() && self.awaits_its_init(inum)) {
                self.close(inum, None, false, changes);
            }
        }
        self.has_lost = false;
    }
}

#[cfg(test)]
mod tests;
