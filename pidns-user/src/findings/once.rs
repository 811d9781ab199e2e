//! Findings from a single snapshot, without earlier events.

use jiff::Timestamp;

use super::{FindingsWatch, Thresholds, readings::Reader};
use crate::{
    event::{Event, finding::Finding, snapshot::Snapshot},
    model::{Forest, World},
    pipeline::snapshot_events,
};

/// The findings from a snapshot, and the model made from it. Problems that only an event shows are not found. Problems
/// that must last for some time are only found if the snapshot or /proc shows their start.
pub fn of_snapshot(
    snapshot: &Snapshot,
    forest: &Forest<'_>,
    thresholds: Thresholds,
    reader: Box<dyn Reader>,
) -> (Vec<Finding>, World) {
    let mut world = World::remembering(0).with_room(snapshot.processes.len());
    let mut watch = FindingsWatch::once(thresholds, reader);
    for body in snapshot_events::seeds(snapshot, forest) {
        let (time, boot_ns) = (Timestamp::UNIX_EPOCH, snapshot.boot_ns);
        let event = Event { seq: 0, time, boot_ns, exact: true, body };
        let changes = world.apply(&event);
        watch.learn(&event, &changes, &world);
    }
    world.settle();
    watch.add_empty_procs(snapshot);
    watch.detect_once(&world, snapshot.boot_ns);
    (watch.open().cloned().collect(), world)
}

#[cfg(test)]
mod tests {
    use super::{
        super::readings::{ReadRequest, Readings},
        *,
    };
    use crate::{
        event::{
            INITIAL_NS,
            finding::Diagnosis,
            identity::{BootNs, HostPid, NsInum},
            snapshot::{SnapshotNamespace, SnapshotProcess, SnapshotSource},
        },
        procfs::activity::ProcessActivity,
    };

    const NS: NsInum = NsInum(4026532001);
    const INIT: u32 = 50;
    const NOW: f64 = 100.0;

    /// Reports every process as a zombie.
    #[derive(Default)]
    struct AllZombies(Option<ReadRequest>);

    impl Reader for AllZombies {
        fn ask(&mut self, request: ReadRequest) {
            self.0 = Some(request);
        }

        fn take(&mut self) -> Option<Readings> {
            let zombie = ProcessActivity {
                state: 'Z',
                ppid: HostPid(INIT),
                tracer: None,
                frozen: false,
                wchan: None,
                threads: 1,
            };
            let activity = self.0.take()?.activity.into_iter().map(|key| (key, Ok(zombie.clone())));
            Some(Readings { activity: activity.collect(), ..Readings::default() })
        }
    }

    fn seconds(seconds: f64) -> BootNs {
        BootNs((seconds * 1e9) as u64)
    }

    fn process(pids: &[u32], ppid: u32) -> SnapshotProcess {
        SnapshotProcess {
            pids: pids.to_vec(),
            comm: Some("sh".into()),
            start_boot_ns: Some(seconds(1.0)),
            ppid: Some(HostPid(ppid)),
            uid: Some(0),
            ns: Some(if pids.len() > 1 { NS } else { INITIAL_NS }),
            state: Some('S'),
            threads: Some(1),
            ..SnapshotProcess::bare(HostPid(pids[0]))
        }
    }

    /// The findings if PID 1 has zombies of these ages; `None`: the age is unknown.
    fn found(ages: &[Option<f64>]) -> Vec<Diagnosis> {
        let mut snapshot = Snapshot::empty(SnapshotSource::Iterator, seconds(NOW));
        snapshot.processes = vec![process(&[1], 0), process(&[INIT, 1], 1)];
        snapshot.processes.extend(ages.iter().zip(2..).map(|(age, number)| SnapshotProcess {
            state: Some('Z'),
            zombie_since_boot_ns: age.map(|age| seconds(NOW - age)),
            ..process(&[INIT + number, number], INIT)
        }));
        let inner = SnapshotNamespace { parent: Some(INITIAL_NS), ..SnapshotNamespace::bare(NS, 1) };
        snapshot.namespaces = [(INITIAL_NS, SnapshotNamespace::bare(INITIAL_NS, 0)), (NS, inner)].into();
        let (found, _) = of_snapshot(
            &snapshot,
            &Forest::new(&snapshot),
            Thresholds::default(),
            Box::new(AllZombies::default()),
        );
        found.into_iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn namespace_is_leaked_only_after_its_pid_1_was_a_zombie_for_long() {
        let ended = |age| {
            let mut snapshot = Snapshot::empty(SnapshotSource::Iterator, seconds(NOW));
            let init = SnapshotProcess {
                state: Some('Z'),
                zombie_since_boot_ns: Some(seconds(NOW - age)),
                ..process(&[INIT, 1], 1)
            };
            snapshot.processes = vec![process(&[1], 0), init];
            let inner =
                SnapshotNamespace { parent: Some(INITIAL_NS), dying: true, ..SnapshotNamespace::bare(NS, 1) };
            snapshot.namespaces = [(INITIAL_NS, SnapshotNamespace::bare(INITIAL_NS, 0)), (NS, inner)].into();
            let (found, _) = of_snapshot(
                &snapshot,
                &Forest::new(&snapshot),
                Thresholds::default(),
                Box::new(AllZombies::default()),
            );
            found.into_iter().map(|finding| finding.id).collect::<Vec<_>>()
        };
        assert_eq!(ended(1.5), [], "its parent may be about to wait for it");
        assert_eq!(ended(60.0), [Diagnosis::NamespaceLeaked]);
    }

    #[test]
    fn snapshot_alone_shows_old_zombies() {
        assert_eq!(found(&[Some(20.0), Some(3.0)]), [Diagnosis::ZombiesNotReaped]);
        assert_eq!(found(&[Some(0.5), None]), [], "they may be reaped at once");
        assert_eq!(found(&[]), []);
    }
}
