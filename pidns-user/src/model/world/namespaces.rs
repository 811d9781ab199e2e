//! Applies events of namespaces: creation, members, teardown and end.

use super::{
    Change, NamespaceState, Observation, Stage, World,
    namespace_state::{KnownFrom, Which},
};
use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Holder, SnapshotNamespace},
    event::{Namespace, Process},
    model::world::history::DeadNamespace,
};

impl World {
    /// Adds the process's namespace if the model lacks it, and counts the process as a member.
    pub(super) fn ensure_namespace(&mut self, process: &Process, changes: &mut Vec<Change>) {
        if let Some(known) = self.namespaces.get(&process.ns).filter(|known| known.excludes(process)) {
            let is_named = self.pass.as_ref().is_some_and(|snapshot| snapshot.has_named(process.ns));
            if is_named {
                // The snapshot is right. Our entry was about another namespace with this number.
                let (seen, holders) = (known.namespace.clone(), known.holders.clone());
                let holders_left_out = known.holders_left_out;
                self.replace(seen, Stage::Alive, KnownFrom::Snapshot, changes);
                if let Some(entry) = self.namespaces.get_mut(&process.ns) {
                    (entry.holders, entry.holders_left_out) = (holders, holders_left_out);
                }
            } else {
                let level = process.pids.len().saturating_sub(1) as u32;
                let another = SnapshotNamespace::bare(process.ns, level);
                self.replace(another, Stage::Alive, KnownFrom::Mention, changes);
            }
        }
        let entry = self.namespaces.entry(process.ns).or_insert_with(|| {
            changes.push(Change::NamespaceAdded(process.ns));
            let level = process.pids.len().saturating_sub(1) as u32;
            NamespaceState::new(SnapshotNamespace::bare(process.ns, level), Stage::Alive, KnownFrom::Mention)
        });
        entry.members += 1;
        // A late event may be about PID 1 of an earlier namespace with this number. Leave the later one alone.
        let is_newest = entry.init_start.is_none_or(|known| process.start_boot_ns >= known);
        if process.is_init() && (entry.init.is_none() || is_newest) {
            entry.set_init(process);
        }
    }

    /// A member is gone. `at` is the time, if known.
    pub(super) fn leave(
        &mut self,
        inum: NsInum,
        pid: HostPid,
        at: Option<BootNs>,
        changes: &mut Vec<Change>,
    ) {
        let Some(entry) = self.namespaces.get_mut(&inum) else { return };
        entry.members = entry.members.saturating_sub(1);
        let was_init = entry.init == Some(pid);
        if was_init {
            entry.init = None;
        }
        // PID 1 is reaped last.
        let is_over = was_init || matches!(entry.stage, Stage::Dying { torn_down: true, .. });
        if entry.members == 0 && is_over {
            self.emptied(inum, at, changes);
        }
    }

    /// Applies a creation event.
    pub(super) fn on_create(&mut self, ns: &Namespace, changes: &mut Vec<Change>) {
        // A snapshot found this namespace without PID 1. Its PID 1 came from a late event about an earlier namespace.
        if let Some(entry) = self.namespaces.get_mut(&ns.inum)
            && entry.source == KnownFrom::Snapshot
            && entry.namespace.born_boot_ns.is_none()
        {
            (entry.init, entry.init_start) = (None, None);
        }
        let known = self.namespaces.get(&ns.inum);
        match known.map(|entry| entry.compare_created(ns.kernel_id, ns.born_boot_ns)) {
            Some(Which::Earlier) => return,
            Some(Which::This) => self.learn(ns, changes),
            Some(Which::Later) => {
                self.replace(SnapshotNamespace::of(ns), Stage::Empty, KnownFrom::Creation, changes)
            }
            None => self.open(SnapshotNamespace::of(ns), Stage::Empty, KnownFrom::Creation, changes),
        }
        if let Some(entry) = self.namespaces.get_mut(&ns.inum) {
            entry.source = KnownFrom::Creation;
            entry.namespace.born_boot_ns = ns.born_boot_ns;
            if entry.init_start.is_none() {
                // A snapshot cannot tell a namespace that had no process yet from one whose processes are gone.
                entry.stage = Stage::Empty;
            }
        }
    }

    /// Applies an event's description. Returns false if its namespace is already gone.
    pub(super) fn on_namespace(&mut self, ns: &Namespace, changes: &mut Vec<Change>) -> bool {
        let known = self.namespaces.get(&ns.inum);
        match known.map(|entry| entry.which(ns.kernel_id, ns.born_boot_ns)) {
            Some(Which::Earlier) => return false,
            Some(Which::This) => self.learn(ns, changes),
            Some(Which::Later) => {
                self.replace(SnapshotNamespace::of(ns), Stage::Alive, KnownFrom::Mention, changes)
            }
            None => match self.is_over(ns) {
                // If no event reports ends, events of a held namespace can arrive after we have closed it.
                Some(had_init) if had_init => return false,
                Some(_) => self.open(SnapshotNamespace::of(ns), Stage::Empty, KnownFrom::Creation, changes),
                None => self.open(SnapshotNamespace::of(ns), Stage::Alive, KnownFrom::Mention, changes),
            },
        }
        true
    }

    /// Applies the event of a new PID 1. If nothing else distinguishes namespaces with the same number, their PID 1s
    /// do.
    pub(super) fn on_init(&mut self, ns: &Namespace, init: &Process, changes: &mut Vec<Change>) {
        if !self.on_namespace(ns, changes) {
            return;
        }
        if let Some(entry) = self.namespaces.get(&ns.inum)
            && entry.namespace.kernel_id.is_none()
            && let Some(start) = entry.init_start
            && !start.is_same(init.start_boot_ns)
        {
            if init.start_boot_ns < start {
                return;
            }
            self.replace(SnapshotNamespace::of(ns), Stage::Alive, KnownFrom::Mention, changes);
        }
        let is_there = self.processes.get(&init.pid).is_none_or(|known| known.is(init));
        if let Some(entry) = self.namespaces.get_mut(&ns.inum) {
            entry.set_init(init);
            if !is_there {
                // This PID 1 is already gone, and another process has its PID.
                entry.init = None;
            }
        }
    }

    /// Applies a namespace record of a snapshot.
    pub(super) fn on_snapshot_namespace(
        &mut self,
        ns: &SnapshotNamespace,
        (holders, holders_left_out): (&[Holder], u64),
        changes: &mut Vec<Change>,
    ) {
        if let Some(snapshot) = &mut self.pass {
            snapshot.on_namespace(ns.inum, holders, holders_left_out);
        }
        // `stage` stores `dying`.
        let (dying, ns) = (ns.dying, &SnapshotNamespace { dying: false, ..ns.clone() });
        match self.namespaces.get(&ns.inum) {
            Some(entry) if entry.is(ns) && !entry.had_another_init(ns) => self.fill_in(ns, changes),
            Some(_) => self.replace(ns.clone(), Stage::Alive, KnownFrom::Snapshot, changes),
            None => self.open(ns.clone(), Stage::Alive, KnownFrom::Snapshot, changes),
        }
        if let Some(entry) = self.namespaces.get_mut(&ns.inum) {
            if self.holders_reported {
                entry.holders = holders.to_vec();
                entry.holders_left_out = holders_left_out;
            }
            if entry.source == KnownFrom::Mention {
                entry.source = KnownFrom::Snapshot;
            }
            if dying && entry.mark_dying(false) {
                changes.push(Change::NamespaceUpdated(ns.inum));
            }
        }
    }

    /// Applies a PID 1's record of a snapshot. If it is exiting or has ended, its namespace is dying.
    pub(super) fn on_snapshot_init(
        &mut self,
        init: &Process,
        observed: &Observation,
        changes: &mut Vec<Change>,
    ) {
        let torn_down = observed.is_zombie();
        let Some(entry) = self.namespaces.get_mut(&init.ns).filter(|entry| entry.init == Some(init.pid))
        else {
            return;
        };
        if init.pids.len() > 1 && (torn_down || observed.exiting) && entry.mark_dying(torn_down) {
            changes.push(Change::NamespaceUpdated(init.ns));
        }
    }

    /// Applies a teardown: all members except PID 1 have been killed and reaped.
    pub(super) fn on_teardown(&mut self, ns: &Namespace, at: BootNs, changes: &mut Vec<Change>) {
        if !self.is_known(ns) {
            return;
        }
        if !self.processes_reported {
            self.members_are_gone(ns.inum, changes);
            if !self.destructions_reported {
                self.close(ns.inum, Some(at), false, changes);
                return;
            }
        }
        let Some(entry) = self.namespaces.get_mut(&ns.inum) else { return };
        changes.push(Change::NamespaceUpdated(ns.inum));
        entry.mark_dying(true);
        if entry.members == 0 {
            self.emptied(ns.inum, Some(at), changes);
        }
    }

    /// Removes the members except PID 1. The kernel killed and reaped them, and no events reported that.
    fn members_are_gone(&mut self, inum: NsInum, changes: &mut Vec<Change>) {
        let has_others = |entry: &&NamespaceState| entry.members > u32::from(entry.init.is_some());
        let Some(entry) = self.namespaces.get(&inum).filter(has_others) else { return };
        let init = entry.init;
        let members = self.processes.values().filter(|entry| entry.process.ns == inum);
        let pids: Vec<HostPid> =
            members.map(|entry| entry.process.pid).filter(|pid| Some(*pid) != init).collect();
        for pid in pids {
            self.remove(pid, None, changes);
        }
    }

    /// Applies a destruction: the last reference is gone.
    pub(super) fn on_destroy(&mut self, ns: &Namespace, at: BootNs, changes: &mut Vec<Change>) {
        if self.is_known(ns) {
            self.close(ns.inum, Some(at), true, changes);
        }
    }

    /// Closes a namespace that has never had a process, if it has become unreachable: no process's pid_for_children is
    /// this namespace any more. Only needed if no hook reports destructions.
    pub(super) fn let_go(&mut self, inum: NsInum, at: BootNs, changes: &mut Vec<Change>) {
        if self.is_new(inum) && !self.destructions_reported && !self.awaits_its_init(inum) {
            self.close(inum, Some(at), false, changes);
        }
    }

    /// Whether the model knows better than a snapshot which namespaces have had no process yet. The kernel shows such a
    /// namespace nowhere (`pidns_for_children_get()`, kernel/pid_namespace.c). A snapshot repairs a loss; those that come
    /// all the time add nothing to what events report.
    pub(super) fn knows_new_namespaces(&self) -> bool {
        !self.processes_reported && !self.has_lost
    }

    /// Whether a namespace has had no process yet.
    fn is_new(&self, inum: NsInum) -> bool {
        self.namespaces.get(&inum).is_some_and(|entry| entry.stage == Stage::Empty && entry.members == 0)
    }

    /// Whether a namespace has had no process yet, and the first child of some process will be its PID 1.
    pub(super) fn awaits_its_init(&self, inum: NsInum) -> bool {
        self.is_new(inum) && self.processes.values().any(|entry| entry.children_ns == Some(inum))
    }

    /// Whether this record is about the existing namespace with its number.
    fn is_known(&self, ns: &Namespace) -> bool {
        let known = self.namespaces.get(&ns.inum);
        known.is_some_and(|entry| entry.which(ns.kernel_id, ns.born_boot_ns) == Which::This)
    }

    /// Whether it was closed without a destruction event; if so, whether it had a PID 1.
    fn is_over(&self, ns: &Namespace) -> Option<bool> {
        if self.destructions_reported {
            return None;
        }
        let gone = self.history.namespaces().find(|gone| gone.state.namespace.inum == ns.inum)?;
        let is_it =
            gone.gone_boot_ns.is_some() && gone.state.which(ns.kernel_id, ns.born_boot_ns) == Which::This;
        is_it.then_some(gone.state.init_start.is_some())
    }

    /// Its last process is gone, and it can get no other. `at` is the time, if known.
    fn emptied(&mut self, inum: NsInum, at: Option<BootNs>, changes: &mut Vec<Change>) {
        let is_held = self.namespaces.get(&inum).is_some_and(|entry| !entry.holders.is_empty());
        // If only namespace events are followed, it ends with its teardown. If something holds it, the next snapshot
        // with holders adds it again.
        let ends = at.is_some() || !(self.processes_reported || self.holders_reported || is_held);
        if ends && !self.destructions_reported {
            self.close(inum, at, false, changes);
        } else if let Some(entry) = self.namespaces.get_mut(&inum) {
            // If the snapshot omitted the process but listed its namespace, something else holds the namespace.
            entry.stage = Stage::Held { since: at.unwrap_or(self.boot_ns) };
            changes.push(Change::NamespaceUpdated(inum));
        }
    }

    fn open(&mut self, ns: SnapshotNamespace, stage: Stage, source: KnownFrom, changes: &mut Vec<Change>) {
        changes.push(Change::NamespaceAdded(ns.inum));
        self.namespaces.insert(ns.inum, NamespaceState::new(ns, stage, source));
    }

    /// Replaces it by another namespace with the same number. If no hook reports destructions, this may be the first
    /// sign that it is gone.
    fn replace(&mut self, ns: SnapshotNamespace, stage: Stage, source: KnownFrom, changes: &mut Vec<Change>) {
        let was_alive = self.namespaces.get(&ns.inum).is_some_and(|known| known.stage == Stage::Alive);
        if self.destructions_reported || was_alive {
            self.inconsistencies.destructions_unseen += 1;
        }
        self.close(ns.inum, None, false, changes);
        self.open(ns, stage, source, changes);
    }

    /// Updates it from an event's record, except a birth that is known better.
    fn learn(&mut self, ns: &Namespace, changes: &mut Vec<Change>) {
        let Some(entry) = self.namespaces.get_mut(&ns.inum) else { return };
        let mut updated = SnapshotNamespace::of(ns);
        updated.container = updated.container.or(entry.namespace.container.take());
        updated.kernel_id = updated.kernel_id.or(entry.namespace.kernel_id);
        updated.born_boot_ns = entry.namespace.born_boot_ns.or(updated.born_boot_ns);
        updated.pid_max = entry.namespace.pid_max;
        if entry.namespace != updated {
            entry.namespace = updated;
            changes.push(Change::NamespaceUpdated(ns.inum));
        }
    }

    /// Fills in unknown attributes from a snapshot's record.
    fn fill_in(&mut self, ns: &SnapshotNamespace, changes: &mut Vec<Change>) {
        let Some(entry) = self.namespaces.get_mut(&ns.inum) else { return };
        let known = &entry.namespace;
        let filled = SnapshotNamespace {
            inum: ns.inum,
            level: ns.level,
            parent: known.parent.or(ns.parent),
            born_boot_ns: known.born_boot_ns.or(ns.born_boot_ns),
            kernel_id: known.kernel_id.or(ns.kernel_id),
            user_ns: known.user_ns.or(ns.user_ns),
            owner_uid: known.owner_uid.or(ns.owner_uid),
            dying: false,
            pid_max: ns.pid_max,
            // A runtime may write the container's name to its files only after the container has started.
            container: ns.container.clone().or_else(|| known.container.clone()),
        };
        if entry.namespace != filled {
            entry.namespace = filled;
            changes.push(Change::NamespaceUpdated(ns.inum));
        }
    }

    /// Removes it. `at` is the time, if known; `destroyed`: its last reference is known to be gone.
    pub(super) fn close(
        &mut self,
        inum: NsInum,
        at: Option<BootNs>,
        destroyed: bool,
        changes: &mut Vec<Change>,
    ) {
        let Some(mut entry) = self.namespaces.remove(&inum) else { return };
        if entry.members > 0 {
            // A namespace with members cannot end. So they were reaped, and the exits of those that are no zombies were
            // missed.
            let members = self.processes.values().filter(|entry| entry.process.ns == inum);
            let members = members.map(|entry| (entry.process.pid, entry.ended.is_none()));
            for (pid, ended_unseen) in members.collect::<Vec<_>>() {
                self.inconsistencies.ends_unseen += u64::from(ended_unseen);
                self.remove(pid, None, changes);
            }
            (entry.members, entry.init) = (0, None);
        }
        self.history.add_namespace(DeadNamespace { state: entry, gone_boot_ns: at, destroyed });
        changes.push(Change::NamespaceRemoved(inum));
    }
}
