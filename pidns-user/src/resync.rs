//! What a recording begins with, and what mends it after a loss: a look at all that exists, told as events.

use std::time::{Duration, Instant};

use crate::{
    event::{Body, Process},
    failure::Failure,
    model::{Entry, Forest, World},
    snapshot::{self, Snapshot},
};

/// Looks at all that exists.
pub type Look = Box<dyn FnMut() -> Result<Snapshot, Failure> + Send>;

/// Least time between two looks; and ten times as long as the last one took, so that looking is not all it does.
const PAUSE: Duration = Duration::from_secs(1);

/// What exists by the events so far, and the means to look.
pub struct Existing {
    look: Look,
    world: World,
    /// Whether events were lost since the last look.
    doubtful: bool,
    looked: Option<Instant>,
    took: Duration,
}

impl Existing {
    /// Nothing is known yet.
    pub fn new(look: Look) -> Self {
        Self { look, world: World::default(), doubtful: false, looked: None, took: Duration::ZERO }
    }

    /// What the events so far make.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// Events were lost: the next look will say what of it matters.
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Whether it is time to look again: at the end at once, before that not too often.
    pub fn is_due(&self, at_the_end: bool) -> bool {
        let rested = self.looked.is_none_or(|looked| looked.elapsed() >= PAUSE.max(10 * self.took));
        self.doubtful && (at_the_end || rested)
    }

    /// Looks, and tells what there is: the first time as it is, later with what had been thought before it.
    pub fn tell(&mut self) -> Result<Vec<Body>, Failure> {
        let first = self.looked.is_none();
        let began = Instant::now();
        let snapshot = (self.look)()?;
        self.took = began.elapsed();
        self.looked = Some(Instant::now());
        self.doubtful = false;
        let corrections = (!first).then(|| corrections(&self.world, &snapshot));
        Ok(corrections.into_iter().chain(bodies(&snapshot)).collect())
    }
}

/// The snapshot as events.
fn bodies(snapshot: &Snapshot) -> Vec<Body> {
    let forest = Forest::new(snapshot);
    let namespaces = snapshot.namespaces.values().map(|ns| Body::SnapshotNamespace {
        ns: ns.clone(),
        holders: forest
            .node(ns.inum)
            .map(|node| node.holders.iter().copied().cloned().collect())
            .unwrap_or_default(),
    });
    let processes = snapshot.processes.iter().filter_map(|process| {
        let snapshot::Process { pid, pids, comm, start_boot_ns, ppid, uid, ns, state, threads } = process;
        Some(Body::SnapshotProcess {
            // One that may not be looked at has no identity to be told by.
            process: Process {
                pid: *pid,
                pids: (!pids.is_empty()).then(|| pids.clone())?,
                comm: comm.clone()?,
                start_boot_ns: (*start_boot_ns)?,
                ppid: *ppid,
                uid: (*uid)?,
                ns: (*ns)?,
            },
            state: *state,
            threads: *threads,
            zombie_since_boot_ns: None,
            joined: match forest.entry(process) {
                Entry::Born => Some(false),
                Entry::Joined { .. } => Some(true),
                Entry::Unknown => None,
            },
        })
    });
    namespaces.chain(processes).collect()
}

/// How what exists differs from what was thought.
fn corrections(world: &World, snapshot: &Snapshot) -> Body {
    let (mut added, mut changed, mut kept) = (0, 0, 0);
    for process in snapshot.processes.iter().filter(|process| process.ns.is_some()) {
        match world.process(process.pid) {
            Some(known) if Some(known.identity().1) == process.start_boot_ns => {
                kept += 1;
                let is_the_same = known.ended.is_some() == process.is_zombie()
                    && Some(known.process.ns) == process.ns
                    && (known.orphaned || known.parent == process.ppid);
                changed += u64::from(!is_the_same);
            }
            _ => added += 1,
        }
    }
    for inum in snapshot.namespaces.keys() {
        match world.namespace(*inum) {
            Some(_) => kept += 1,
            None => added += 1,
        }
    }
    let thought = world.processes().count() + world.namespaces().count();
    Body::StreamResync { added, removed: (thought as u64).saturating_sub(kept), changed }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;

    use super::*;
    use crate::{
        event::Event,
        snapshot::{Namespace, Source, Unread},
        text::Name,
    };

    fn process(pid: u32, state: char) -> snapshot::Process {
        snapshot::Process {
            pid,
            pids: vec![pid],
            comm: Some(Name::from("x")),
            start_boot_ns: Some(u64::from(pid)),
            ppid: (pid > 1).then_some(1),
            uid: Some(0),
            ns: Some(7),
            state: Some(state),
            threads: Some(1),
        }
    }

    fn snapshot(processes: Vec<snapshot::Process>) -> Snapshot {
        Snapshot {
            source: Source::Iterator,
            boot_ns: 0,
            processes,
            namespaces: [(7, Namespace::bare(7, 0))].into(),
            holders: Vec::new(),
            containers: [].into(),
            unread: Unread::default(),
        }
    }

    #[test]
    fn a_look_after_a_loss_says_what_had_been_missed() {
        let exists = Arc::new(Mutex::new(snapshot(vec![process(1, 'S'), process(2, 'S'), process(3, 'S')])));
        let look = Arc::clone(&exists);
        let mut existing = Existing::new(Box::new(move || Ok(look.lock().unwrap().clone())));
        let tell = |existing: &mut Existing| -> Vec<Body> {
            let bodies = existing.tell().unwrap();
            for body in &bodies {
                let event = Event {
                    seq: 1,
                    time: Timestamp::UNIX_EPOCH,
                    boot_ns: 5,
                    exact: true,
                    body: body.clone(),
                };
                existing.world().apply(&event);
            }
            bodies
        };
        let names: Vec<_> = tell(&mut existing).iter().map(Body::name).collect();
        assert_eq!(names[0], "snapshot.namespace");
        assert_eq!(names[1..], ["snapshot.process"; 3]);
        assert!(!existing.is_due(true), "nothing was lost");

        *exists.lock().unwrap() =
            snapshot(vec![process(1, 'S'), process(2, 'Z'), process(4, 'S'), process(5, 'S')]);
        existing.doubt();
        assert!(existing.is_due(true) && !existing.is_due(false), "not twice within a second");
        let told = tell(&mut existing);
        assert_eq!(told[0], Body::StreamResync { added: 2, removed: 1, changed: 1 });
        assert_eq!(told.len(), 1 + 1 + 4);
        let event = Event {
            seq: 1,
            time: Timestamp::UNIX_EPOCH,
            boot_ns: 6,
            exact: true,
            body: Body::StreamLost { stage: "ring".into(), count: 1 },
        };
        existing.world().apply(&event);
        let mut pids: Vec<_> = existing.world().processes().map(|resident| resident.process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [1, 2, 4, 5]);
    }
}
