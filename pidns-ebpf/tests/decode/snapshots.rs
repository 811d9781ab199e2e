//! Records of the task iterator.

use pidns_ebpf::abi::*;
use proptest::prelude::*;

use crate::records::*;

fn snapshot_record(pids: &[u32]) -> Vec<u8> {
    use pidns_ebpf::abi::snapshot::SnapshotRecord;
    let record = SnapshotRecord {
        size: (size_of::<SnapshotRecord>() + 4 * pids.len()) as u32,
        pids: pids.len() as u32,
        process: part(pids),
        ns: NamespacePart { level: pids.len() as u32 - 1, ..namespace() },
        state: 1,
        exit_state: 0,
        threads: 2,
        tracer: 77,
        cgroup_id: 1 << 40,
        threads_live: 1,
        task_flags: 4,
        ns_dying: 1,
        subreaper: 2,
        jobctl: 1 << 23,
        reserved: 0,
        cgroups: 9,
        last_arrival: 11,
        last_ran: 12,
    };
    let tail = pids.iter().flat_map(|pid| pid.to_ne_bytes());
    bytes_of(&record).into_iter().chain(tail).collect()
}

#[test]
fn a_snapshot_is_record_after_record() {
    use pidns_ebpf::abi::snapshot::decode_snapshot;
    let bytes = [snapshot_record(&[10, 2, 1]), snapshot_record(&[11])].concat();
    let (first, rest) = decode_snapshot(&bytes).expect("a record");
    assert_eq!(first.process.pids().collect::<Vec<_>>(), [10, 2, 1]);
    assert_eq!((first.record.threads, first.record.tracer, first.record.cgroup_id), (2, 77, 1 << 40));
    assert_eq!((first.record.threads_live, first.record.task_flags, first.record.ns_dying), (1, 4, 1));
    assert_eq!((first.record.subreaper, first.record.jobctl, first.record.cgroups), (2, 1 << 23, 9));
    assert_eq!((first.record.last_arrival, first.record.last_ran), (11, 12));
    assert_eq!(first.process.comm(), b"na\xffme");
    let (second, rest) = decode_snapshot(rest).expect("a record");
    assert_eq!(second.process.pids().collect::<Vec<_>>(), [11]);
    assert_eq!(rest, []);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    use pidns_ebpf::abi::snapshot::decode_snapshot;
    let whole = snapshot_record(&[10, 2, 1]);
    for length in 0..whole.len() {
        assert!(decode_snapshot(&whole[..length]).is_err(), "cut to {length} bytes");
    }
    // Size, number of PIDs, level, inode number of the namespace, padding, whether the namespace goes down, whether it
    // is a subreaper, padding.
    let places = [
        (0, "size"),
        (4, "PIDs"),
        (68, "level"),
        (64, "inum"),
        (92, "padding"),
        (128, "dying"),
        (132, "subreaper"),
        (140, "padding"),
    ];
    for (place, what) in places {
        let mut bytes = whole.clone();
        bytes[place] ^= 0x40;
        assert!(decode_snapshot(&bytes).is_err(), "{what} at {place}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_snapshot_or_an_error(bytes: Vec<u8>) {
        let mut rest = &bytes[..];
        while let Ok((_, next)) = snapshot::decode_snapshot(rest) {
            prop_assert!(next.len() < rest.len());
            rest = next;
        }
    }
}
