//! The wire format: what was written is read back; what is damaged is refused, never a panic.

use pidns_ebpf::abi::*;
use proptest::prelude::*;

/// The bytes of a wire record.
fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: a wire record: repr(C), integers and byte arrays, no implicit padding (record.rs asserts the sizes).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
}

fn header(kind: Kind, pids: usize, other_pids: usize) -> Header {
    Header {
        boot_ns: 77,
        size: 0,
        kind: kind as u8,
        flags: 0,
        pids: pids as u8,
        other_pids: other_pids as u8,
    }
}

/// Appends the tail and sets the size.
fn finish(mut record: Vec<u8>, tails: &[&[u32]], bytes: &[u8]) -> Vec<u8> {
    record.extend(tails.iter().flat_map(|pids| pids.iter().flat_map(|pid| pid.to_ne_bytes())));
    record.extend_from_slice(bytes);
    let size = (record.len() as u32).to_ne_bytes();
    record[8..12].copy_from_slice(&size);
    record
}

fn part(pids: &[u32]) -> ProcessPart {
    ProcessPart {
        start_boot_ns: 5,
        pid: pids[0],
        parent_pid: 3,
        uid: 1000,
        ns_inum: 4026532000,
        comm: *b"na\xffme\0\0\0\0\0\0\0\0\0\0\0",
    }
}

const NO_PROCESS: ProcessPart =
    ProcessPart { start_boot_ns: 0, pid: 0, parent_pid: 0, uid: 0, ns_inum: 0, comm: [0; COMM_LEN] };

fn namespace() -> NamespacePart {
    NamespacePart {
        kernel_id: 9,
        init_start_boot_ns: 4,
        inum: 4026532000,
        level: 2,
        parent_inum: 4026531836,
        user_ns_inum: 4026531837,
        owner_uid: 0,
        reserved: 0,
    }
}

fn namespaced<B: Copy>(kind: Kind, process: &[u32], other: &[u32], body: B) -> Vec<u8>
where
    NamespaceRecord<B>: Copy,
{
    let describe = |pids: &[u32]| if pids.is_empty() { NO_PROCESS } else { part(pids) };
    let record = NamespaceRecord {
        header: header(kind, process.len(), other.len()),
        ns: namespace(),
        process: describe(process),
        other: describe(other),
        body,
    };
    finish(bytes_of(&record), &[process, other], &[])
}

/// A valid record of each kind, of processes with these PIDs.
fn valid(kind: Kind, pids: &[u32], other: &[u32], name: &[u8]) -> Vec<u8> {
    let refusal =
        RefusalBody { errno: 12, via: Via::Clone3 as u32, reason: Reason::NamespaceDead as u32, reserved: 0 };
    match kind {
        Kind::NamespaceCreate => {
            namespaced(kind, pids, &[], CreateBody { via: Via::Unshare as u32, reserved: 0 })
        }
        Kind::NamespaceInit => namespaced(
            kind,
            pids,
            other,
            InitBody { via: Via::Clone as u32, creation: Creation::WithInit as u32 },
        ),
        Kind::NamespaceJoin => namespaced(kind, pids, &[], JoinBody { from_inum: 8, reserved: 0 }),
        Kind::NamespaceInitExit => namespaced(
            kind,
            pids,
            &[],
            InitExitBody { wait_status: 9, members: 6, reboot_signal: 0, cascade_inum: 0 },
        ),
        Kind::NamespaceTeardown => {
            namespaced(kind, &[], &[], TeardownBody { began_boot_ns: 70, killed: 6, reserved: 0 })
        }
        Kind::InitSignal => namespaced(
            kind,
            pids,
            other,
            SignalBody { signal: 15, code: 0, fate: 1, origin: Origin::Ancestor as u32 },
        ),
        Kind::NamespaceCreateFailed | Kind::NamespaceJoinFailed | Kind::ForkFailed => {
            namespaced(kind, pids, &[], refusal)
        }
        Kind::ProcessFork => {
            let record = ForkRecord {
                header: header(kind, pids.len(), other.len()),
                process: part(pids),
                parent: part(other),
            };
            finish(bytes_of(&record), &[pids, other], &[])
        }
        Kind::ProcessExec => {
            let record = ExecRecord {
                header: header(kind, pids.len(), 0),
                process: part(pids),
                filename_len: name.len() as u32,
                args_len: name.len() as u32,
            };
            finish(bytes_of(&record), &[pids], &[name, name].concat())
        }
        Kind::ProcessExit => {
            let record = ExitRecord {
                header: header(kind, pids.len(), 0),
                process: part(pids),
                parent_start_boot_ns: 2,
                wait_status: 0x0700,
                peak_threads: 3,
                cascade_inum: 0,
                reserved: 0,
            };
            finish(bytes_of(&record), &[pids], &[])
        }
        Kind::ProcessReap => {
            let record =
                ReapRecord { header: header(kind, pids.len(), 0), process: part(pids), exit_boot_ns: 60 };
            finish(bytes_of(&record), &[pids], &[])
        }
    }
}

fn chain() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1u32..5_000_000, 1..=MAX_PIDS)
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL)
}

#[test]
fn an_exit_is_read_back_field_by_field() {
    let (header, record) = decode(&valid(Kind::ProcessExit, &[500, 7, 1], &[], b""))
        .map(|(h, r)| (h, format!("{r:?}")))
        .unwrap();
    assert_eq!(header.boot_ns, 77);
    assert!(record.contains("wait_status: 1792"), "{record}");
    let bytes = valid(Kind::ProcessExit, &[500, 7, 1], &[], b"");
    let Ok((
        _,
        Record::ProcessExit {
            process,
            parent_start_boot_ns: 2,
            wait_status: 0x0700,
            peak_threads: 3,
            cascade_inum: 0,
        },
    )) = decode(&bytes)
    else {
        panic!("another record than was written");
    };
    assert_eq!(process.pids().collect::<Vec<_>>(), [500, 7, 1]);
    assert_eq!(process.comm(), b"na\xffme");
}

#[test]
fn records_are_as_long_as_their_processes_are_deep() {
    let size = |level: usize| valid(Kind::ProcessFork, &vec![9; level + 1], &vec![8; level + 1], b"").len();
    assert_eq!(size(0), 104);
    assert_eq!(size(1) - size(0), 8, "4 bytes a level for each of the two processes");
    assert_eq!(size(32), 104 + 32 * 8);
}

#[test]
fn a_process_deeper_than_the_kernel_allows_is_refused() {
    let bytes = valid(Kind::ProcessReap, &[9; MAX_PIDS + 1], &[], b"");
    assert_eq!(decode(&bytes), Err(DecodeError::Inconsistent { field: "PID count" }));
}

#[test]
fn numbers_that_stand_for_nothing_are_refused() {
    let mut bytes = valid(Kind::ProcessReap, &[9], &[], b"");
    bytes[12] = Kind::ALL.len() as u8;
    assert_eq!(decode(&bytes), Err(DecodeError::Unknown { field: "record kind", number: 13 }));
    let mut bytes = valid(Kind::ProcessReap, &[9], &[], b"");
    bytes[13] = !FLAGS;
    assert_eq!(decode(&bytes), Err(DecodeError::Inconsistent { field: "flags" }));
    let mut bytes = valid(Kind::InitSignal, &[9, 1], &[8], b"");
    let fate = size_of::<NamespaceRecord<SignalBody>>() - 8;
    bytes[fate] = 5;
    assert_eq!(decode(&bytes), Err(DecodeError::Inconsistent { field: "signal fate" }));
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(kind in kind(), pids in chain(), other in chain(), name in proptest::collection::vec(any::<u8>(), 0..100)) {
        let bytes = valid(kind, &pids, &other, &name);
        let (header, record) = decode(&bytes).unwrap();
        prop_assert_eq!(header.kind, kind as u8);
        prop_assert_eq!(header.size as usize, bytes.len());
        let read = |process: &Process<'_>| process.pids().collect::<Vec<_>>();
        match record {
            Record::ProcessFork { process, parent } => {
                prop_assert_eq!(read(&process), pids);
                prop_assert_eq!(read(&parent), other);
            }
            Record::ProcessExec { process, filename, args } => {
                prop_assert_eq!(read(&process), pids);
                prop_assert_eq!((filename, args), (&name[..], &name[..]));
            }
            Record::InitSignal(record) => {
                prop_assert_eq!(record.ns, Some(namespace()));
                prop_assert_eq!(read(&record.process.unwrap()), pids);
                prop_assert_eq!(read(&record.other.unwrap()), other);
            }
            _ => {}
        }
    }

    #[test]
    fn every_truncated_record_is_refused(kind in kind(), pids in chain(), other in chain()) {
        let bytes = valid(kind, &pids, &other, b"/bin/sh");
        for len in 0..bytes.len() {
            prop_assert!(decode(&bytes[..len]).is_err(), "{kind:?} cut to {len} of {} bytes", bytes.len());
            // Nor does a header that fits the cut make it whole.
            let mut cut = bytes[..len].to_vec();
            if let Some(size) = cut.get_mut(8..12) {
                size.copy_from_slice(&(len as u32).to_ne_bytes());
                prop_assert!(decode(&cut).is_err(), "{kind:?} cut to {len} of {} bytes, resized", bytes.len());
            }
        }
        let mut longer = bytes.clone();
        longer.push(0);
        prop_assert!(decode(&longer).is_err());
        let size = (longer.len() as u32).to_ne_bytes();
        longer[8..12].copy_from_slice(&size);
        prop_assert!(decode(&longer).is_err());
    }

    #[test]
    fn a_corrupted_frame_is_refused(kind in kind(), pids in chain(), other in chain(), at in 8usize..16, bit in 0u8..8) {
        // Size, kind, flags and PID counts: nothing that follows can be read with one of them wrong.
        let bytes = valid(kind, &pids, &other, b"/bin/sh");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        let harmless = at == 13 && (1 << bit) & FLAGS != 0;
        match decode(&damaged) {
            Err(_) => prop_assert!(!harmless),
            // Another kind of the same shape is a valid record; the flags have no wrong combination.
            Ok((header, _)) => prop_assert!(harmless || at == 12 && header.kind != kind as u8),
        }
    }

    #[test]
    fn any_corruption_is_an_error_or_a_record_never_a_panic(
        kind in kind(), pids in chain(), other in chain(), damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = valid(kind, &pids, &other, b"/bin/sh");
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok((_, record)) = decode(&bytes) {
            let _ = format!("{record:?}");
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&bytes);
    }
}
