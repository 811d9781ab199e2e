//! The events that bring the contents of a snapshot into the model.

use crate::{
    event::{
        Body, Process,
        snapshot::{Snapshot, SnapshotProcess},
    },
    model::{Entry, Forest, World},
};

/// The events from which an empty model learns the contents of a snapshot, and nothing else.
pub fn seeds<'a>(snapshot: &'a Snapshot, forest: &'a Forest<'a>) -> impl Iterator<Item = Body> + 'a {
    let resync = Body::StreamResync { added: 0, removed: 0, changed: 0 };
    [resync].into_iter().chain(bodies(snapshot, forest))
}

/// The events of a snapshot.
pub(super) fn bodies<'a>(snapshot: &'a Snapshot, forest: &'a Forest<'a>) -> impl Iterator<Item = Body> + 'a {
    let namespaces = snapshot.namespaces.values().map(move |ns| Body::SnapshotNamespace {
        ns: ns.clone(),
        holders: forest
            .node(ns.inum)
            .map(|node| node.holders.iter().copied().cloned().collect())
            .unwrap_or_default(),
        holders_left_out: snapshot.holders_left_out.get(&ns.inum).copied().unwrap_or(0),
    });
    let processes = snapshot.processes.iter().filter_map(move |process| {
        let SnapshotProcess {
            pid,
            pids,
            comm,
            start_boot_ns,
            ppid,
            uid,
            ns,
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
            cgroup_set: _,
            zombie_since_boot_ns,
            last_ran_boot_ns,
            wchan,
            container,
        } = process;
        Some(Body::SnapshotProcess {
            // An unreadable process has no identity to compare.
            process: Process {
                pid: *pid,
                pids: (!pids.is_empty()).then(|| pids.clone())?,
                comm: comm.clone()?,
                start_boot_ns: (*start_boot_ns)?,
                ppid: *ppid,
                uid: (*uid)?,
                ns: (*ns)?,
                container: container.clone(),
            },
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
            zombie_since_boot_ns: *zombie_since_boot_ns,
            last_ran_boot_ns: *last_ran_boot_ns,
            wchan: wchan.clone(),
            joined: match forest.entry(process) {
                Entry::Born => Some(false),
                Entry::Joined { .. } => Some(true),
                Entry::Unknown => None,
            },
        })
    });
    namespaces.chain(processes)
}

/// Counts how the model differs from the snapshot.
pub(super) fn corrections(world: &World, snapshot: &Snapshot, with_holders: bool) -> Body {
    let (mut added, mut changed, mut kept) = (0, 0, 0);
    // If no events report processes, every change since the last snapshot would count as a correction.
    let processes = if world.follows_processes() { &snapshot.processes[..] } else { &[] };
    for process in processes.iter().filter(|process| process.ns.is_some()) {
        match world.process(process.pid) {
            Some(known) if process.start_boot_ns.is_some_and(|start| known.has_started(start)) => {
                kept += 1;
                // An exiting PID 1 has ended according to events, but is not a zombie yet.
                let has_ended = process.is_zombie() || process.exiting;
                let is_the_same = known.ended.is_some() == has_ended
                    && Some(known.process.ns) == process.ns
                    && (known.orphaned || known.parent == process.ppid);
                changed += u64::from(!is_the_same);
            }
            _ => added += 1,
        }
    }
    let mut known_namespaces = 0;
    for ns in snapshot.namespaces.values() {
        match world.namespace(ns.inum).is_some_and(|known| known.is(ns)) {
            true => known_namespaces += 1,
            false => added += 1,
        }
    }
    kept += known_namespaces;
    let processes = if world.follows_processes() { world.processes().count() } else { 0 };
    // A snapshot without holders does not show which namespaces are gone.
    let namespaces = if with_holders { world.namespaces().count() as u64 } else { known_namespaces };
    let thought = processes as u64 + namespaces;
    Body::StreamResync { added, removed: thought.saturating_sub(kept), changed }
}
