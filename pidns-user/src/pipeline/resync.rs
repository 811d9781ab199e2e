//! What exists by the events, and the looks at the kernel that it begins with, is mended by after a loss, and is compared
//! with.

use std::time::{Duration, Instant};

use crate::{
    commands::failure::Failure,
    event::snapshot::{self, Snapshot},
    event::{Body, ModelCount, Process},
    model::{Entry, Forest, World, drift},
};

/// Looks at all that exists; at what holds namespaces too where that is asked for, which takes longer.
pub type Look = Box<dyn FnMut(Holders) -> Result<Snapshot, Failure> + Send>;

/// Whether a look is to find what holds namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// All that holds one.
    Sought,
    /// Only processes are looked at.
    Left,
}

/// Least time between two looks; and ten times as long as the last one took, so that looking is not all it does.
const PAUSE: Duration = Duration::from_secs(1);
/// How long after a look the events up to it are taken to be in: the ring is read every 20 ms, and records wait 2 ms.
const SETTLED_AFTER: Duration = Duration::from_millis(100);
/// How long after a look a difference is still put down to events on their way: a program that is put aside between reserving
/// its place in the ring and filling it (those on functions can be) holds up all behind it, on a busy CPU for as long as others
/// have their turns.
const LATE_UNTIL: Duration = Duration::from_secs(2);

/// A look that waits for the events up to it.
struct Check {
    snapshot: Snapshot,
    /// When it was over.
    taken: Instant,
    /// After how long it is to be compared.
    due: Duration,
}

/// What exists by the events so far, and the means to look.
pub struct Existing {
    look: Look,
    world: World,
    /// Whether events were lost since the last look.
    doubtful: bool,
    looked: Option<Instant>,
    took: Duration,
    /// How often to compare.
    verify: Option<Duration>,
    check: Option<Check>,
    checked: Instant,
    checks: u64,
    drift: u64,
}

impl Existing {
    /// Nothing is known yet. What the events make is compared with the kernel this often.
    pub fn new(look: Look, verify: Option<Duration>) -> Self {
        Self {
            look,
            world: World::default(),
            doubtful: false,
            looked: None,
            took: Duration::ZERO,
            verify,
            check: None,
            checked: Instant::now(),
            checks: 0,
            drift: 0,
        }
    }

    /// What the events so far make.
    pub fn world(&mut self) -> &mut World {
        &mut self.world
    }

    /// Events were lost: the next look will say what of it matters.
    pub fn doubt(&mut self) {
        self.doubtful = true;
        self.check = None;
    }

    /// Looks, and tells what there is: the first time as it is, later with what had been thought before it.
    pub fn tell(&mut self) -> Result<Vec<Body>, Failure> {
        let first = self.looked.is_none();
        let began = Instant::now();
        let snapshot = (self.look)(Holders::Sought)?;
        self.took = began.elapsed();
        self.looked = Some(Instant::now());
        self.doubtful = false;
        self.check = None;
        let corrections = (!first).then(|| corrections(&self.world, &snapshot));
        Ok(corrections.into_iter().chain(bodies(&snapshot)).collect())
    }

    /// Looks again where it is time to, and tells what that corrects: after a loss, at the end at once and before that not
    /// too often; and where a comparison has found a difference.
    pub fn look_again(&mut self, at_the_end: bool) -> Result<Vec<Body>, Failure> {
        if !self.doubtful && !at_the_end {
            self.compare()?;
        }
        let rested = self.looked.is_none_or(|looked| looked.elapsed() >= PAUSE.max(10 * self.took));
        if self.doubtful && (at_the_end || rested) { self.tell() } else { Ok(Vec::new()) }
    }

    /// What there is to say of it at the end.
    pub fn count(&mut self) -> ModelCount {
        self.world.settle();
        let surprises = self.world.surprises();
        let kinds = [
            ("ends_unseen", surprises.ends_unseen),
            ("after_the_end", surprises.after_the_end),
            ("destructions_unseen", surprises.destructions_unseen),
            ("beginnings_unseen", surprises.beginnings_unseen),
        ];
        ModelCount {
            processes: self.world.processes().count() as u64,
            namespaces: self.world.namespaces().count() as u64,
            checks: self.checks,
            drift: self.drift,
            surprises: kinds
                .into_iter()
                .filter(|(_, count)| *count > 0)
                .map(|(kind, count)| (kind.into(), count))
                .collect(),
        }
    }

    /// Takes a look to compare with, or compares with one that was taken before, when the events up to it are in.
    fn compare(&mut self) -> Result<(), Failure> {
        match &mut self.check {
            Some(check) if check.taken.elapsed() >= check.due => {
                let drift = drift(&self.world, &check.snapshot);
                if drift > 0 && check.due < LATE_UNTIL {
                    check.due = (2 * check.due).min(LATE_UNTIL);
                    return Ok(());
                }
                self.checks += 1;
                self.drift += drift;
                self.doubtful = drift > 0;
                self.check = None;
            }
            Some(_) => {}
            None if self.verify.is_some_and(|every| self.checked.elapsed() >= every) => {
                self.checked = Instant::now();
                let snapshot = (self.look)(Holders::Left)?;
                self.check = Some(Check { snapshot, taken: Instant::now(), due: SETTLED_AFTER });
            }
            None => {}
        }
        Ok(())
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
        holders_left_out: snapshot.holders_left_out.get(&ns.inum).copied().unwrap_or(0),
    });
    let processes = snapshot.processes.iter().filter_map(|process| {
        let snapshot::Process {
            pid,
            pids,
            comm,
            start_boot_ns,
            ppid,
            uid,
            ns,
            state,
            threads,
            tracer: _,
            cgroup_id: _,
            zombie_since_boot_ns,
        } = process;
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
            zombie_since_boot_ns: *zombie_since_boot_ns,
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
            Some(known) if process.start_boot_ns.is_some_and(|start| known.has_started(start)) => {
                kept += 1;
                let is_the_same = known.ended.is_some() == process.is_zombie()
                    && Some(known.process.ns) == process.ns
                    && (known.orphaned || known.parent == process.ppid);
                changed += u64::from(!is_the_same);
            }
            _ => added += 1,
        }
    }
    for ns in snapshot.namespaces.values() {
        match world.namespace(ns.inum).is_some_and(|known| known.is(ns)) {
            true => kept += 1,
            false => added += 1,
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
        event::snapshot::{Namespace, Source, Unread},
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
            tracer: None,
            cgroup_id: None,
            zombie_since_boot_ns: None,
        }
    }

    fn snapshot(processes: Vec<snapshot::Process>) -> Snapshot {
        Snapshot {
            source: Source::Iterator,
            boot_ns: 0,
            processes,
            namespaces: [(7, Namespace::bare(7, 0))].into(),
            holders: Vec::new(),
            holders_left_out: [].into(),
            unnamed: Vec::new(),
            unread: Unread::default(),
        }
    }

    #[test]
    fn a_look_after_a_loss_says_what_had_been_missed() {
        let exists = Arc::new(Mutex::new(snapshot(vec![process(1, 'S'), process(2, 'S'), process(3, 'S')])));
        let look = Arc::clone(&exists);
        let mut existing = Existing::new(Box::new(move |_| Ok(look.lock().unwrap().clone())), None);
        let follow = |existing: &mut Existing, bodies: &[Body]| {
            for body in bodies {
                let event = Event {
                    seq: 1,
                    time: Timestamp::UNIX_EPOCH,
                    boot_ns: 5,
                    exact: true,
                    body: body.clone(),
                };
                existing.world().apply(&event);
            }
        };
        let bodies = existing.tell().unwrap();
        follow(&mut existing, &bodies);
        let names: Vec<_> = bodies.iter().map(Body::name).collect();
        assert_eq!(names[0], "snapshot.namespace");
        assert_eq!(names[1..], ["snapshot.process"; 3]);
        assert_eq!(existing.look_again(true).unwrap(), [], "nothing was lost");

        *exists.lock().unwrap() =
            snapshot(vec![process(1, 'S'), process(2, 'Z'), process(4, 'S'), process(5, 'S')]);
        existing.doubt();
        assert_eq!(existing.look_again(false).unwrap(), [], "not twice within a second");
        let told = existing.look_again(true).unwrap();
        follow(&mut existing, &told);
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
        let mut pids: Vec<_> = existing.world().processes().map(|entry| entry.process.pid).collect();
        pids.sort_unstable();
        assert_eq!(pids, [1, 2, 4, 5]);
    }
}
