//! Tests the wire format: written records are read back, and damaged records are refused without a panic.

mod holders;
mod records;
mod snapshots;

use pidns_ebpf::abi::*;
use proptest::prelude::*;

use crate::records::*;

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
            oom: 0,
        },
    )) = decode(&bytes)
    else {
        panic!("another record than was written");
    };
    assert_eq!(process.pids().collect::<Vec<_>>(), [500, 7, 1]);
    assert_eq!(process.comm(), b"na\xffme");
}

#[test]
fn a_free_names_the_process_by_its_pid_and_start() {
    let key = ProcessKey::new(7, 50);
    let record = |pids| {
        let mut bytes =
            finish(bytes_of(&FreeRecord { header: header(Kind::ProcessReap, 0, 0), key }), &[], &[]);
        bytes[14] = pids;
        bytes
    };
    assert_eq!(decode(&record(0)).unwrap().1, Record::ProcessFree(key));
    assert!(decode(&record(1)).is_err(), "without the PIDs that a released process has");
    let mut unnumbered = record(0);
    put(&mut unnumbered, 24, 0);
    assert_eq!(decode(&unnumbered).unwrap_err(), DecodeError::Inconsistent { field: "process" });
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
    assert_eq!(
        decode(&bytes),
        Err(DecodeError::Unknown { field: "record kind", number: Kind::ALL.len() as u32 })
    );
    let mut bytes = valid(Kind::ProcessReap, &[9], &[], b"");
    bytes[13] = !FLAGS;
    assert_eq!(decode(&bytes), Err(DecodeError::Inconsistent { field: "flags" }));
    let mut bytes = valid(Kind::InitSignal, &[9, 1], &[8], b"");
    let fate = size_of::<NamespaceRecord<SignalBody>>() - 8;
    bytes[fate] = 5;
    assert_eq!(decode(&bytes), Err(DecodeError::Inconsistent { field: "signal fate" }));
}

/// Checks that a valid record of this kind is refused after the change, because this field is inconsistent.
fn refuses(kind: Kind, field: &'static str, what: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = valid(kind, &[900, 7], &[800], b"/bin/sh");
    assert!(decode(&bytes).is_ok(), "{kind:?} without the change");
    change(&mut bytes);
    let found = decode(&bytes).map(|(header, _)| header);
    assert_eq!(found, Err(DecodeError::Inconsistent { field }), "{kind:?}, {what}");
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
}

/// Offsets of the parts of a record about a namespace.
const NS: usize = size_of::<Header>();
const PROCESS: usize = NS + size_of::<NamespacePart>();
const BODY: usize = PROCESS + 2 * size_of::<ProcessPart>();

#[test]
fn a_process_that_is_there_in_part_is_refused() {
    refuses(Kind::ProcessExit, "PID", "a PID of 0 at level 1", |bytes| {
        put(bytes, size_of::<ExitRecord>() + 4, 0);
    });
    refuses(Kind::NamespaceTeardown, "process without PIDs", "a comm and no PIDs", |bytes| {
        bytes[PROCESS + 24] = b'x';
    });
    let cut = valid(Kind::ProcessExit, &[900, 7], &[], b"");
    let mut without_process = cut[..cut.len() - 8].to_vec();
    without_process[14] = 0;
    without_process[NS..NS + size_of::<ProcessPart>()].fill(0);
    let size = without_process.len() as u32;
    put(&mut without_process, 8, size);
    assert_eq!(
        decode(&without_process).map(|(header, _)| header),
        Err(DecodeError::Inconsistent { field: "PID count" }),
        "an exit without a process"
    );
}

#[test]
fn a_namespace_that_is_there_in_part_is_refused() {
    refuses(Kind::NamespaceJoinFailed, "namespace without a number", "no number, but a parent", |bytes| {
        put(bytes, NS + 16, 0);
    });
    for kind in [Kind::NamespaceCreate, Kind::NamespaceTeardown, Kind::NamespaceDestroy] {
        refuses(kind, "namespace", "the initial one", |bytes| put(bytes, NS + 20, 0));
    }
}

#[test]
fn an_init_is_pid_1_of_its_namespace() {
    for kind in [Kind::NamespaceInit, Kind::NamespaceInitExit, Kind::InitSignal] {
        refuses(kind, "init", "a namespace one deeper", |bytes| put(bytes, NS + 20, 3));
        refuses(kind, "init", "another namespace", |bytes| put(bytes, PROCESS + 20, 4026531836));
    }
    refuses(Kind::NamespaceInitExit, "init", "PID 2", |bytes| {
        let innermost = bytes.len() - 4;
        put(bytes, innermost, 2);
    });
}

#[test]
fn a_call_that_cannot_have_done_it_is_refused() {
    for (kind, via) in [
        (Kind::NamespaceCreate, Via::Setns),
        (Kind::NamespaceCreate, Via::Clone),
        (Kind::NamespaceInit, Via::Fork),
        (Kind::NamespaceCreateFailed, Via::Vfork),
        (Kind::NamespaceJoinFailed, Via::Unshare),
        (Kind::ForkFailed, Via::Setns),
    ] {
        // It is the second number in the body of a refusal, and the first in the other bodies.
        let at = if matches!(kind, Kind::NamespaceCreate | Kind::NamespaceInit) { BODY } else { BODY + 4 };
        refuses(kind, "via", &format!("via {via:?}"), |bytes| put(bytes, at, via as u32));
    }
}

#[test]
fn a_refusal_without_an_errno_is_refused() {
    for errno in [0, 4096, u32::MAX] {
        refuses(Kind::ForkFailed, "errno", &format!("errno {errno}"), |bytes| put(bytes, BODY, errno));
    }
}

#[test]
fn a_refused_fork_has_its_chosen_pids_and_the_holder_of_the_taken_one() {
    let bytes = not_forked(&[900, 7], &[800, 5, 12], &CHOSEN, pid_taken(3));
    let Ok((_, Record::ForkFailed(refused))) = decode(&bytes) else {
        panic!("another record than was written")
    };
    assert_eq!(refused.chosen().collect::<Vec<_>>(), CHOSEN);
    let holder = refused.record.other.expect("a holder");
    assert_eq!(holder.pids().collect::<Vec<_>>(), [800, 5, 12]);
    assert_eq!((refused.record.body.number, refused.record.body.place), (12, 7));
    let of = |chosen: &[i32], body: RefusalBody| {
        decode(&not_forked(&[900, 7], &[], chosen, body)).map(|(header, _)| header.kind)
    };
    assert_eq!(of(&[12], pid_taken(1)), Ok(Kind::ForkFailed as u8), "a holder that is gone");
    for (chosen, body, field) in [
        (&CHOSEN[..], pid_taken(2), "tail"),
        (&[], pid_taken(0), "chosen PIDs"),
        (&[1; MAX_CHOSEN + 1], pid_taken(MAX_CHOSEN + 1), "chosen PIDs"),
        (&[1], RefusalBody { for_chosen: 2, ..pid_taken(1) }, "chosen PIDs"),
        (&[1], RefusalBody { reason: Reason::Other as u32, ..pid_taken(1) }, "detail"),
    ] {
        assert_eq!(of(chosen, body), Err(DecodeError::Inconsistent { field }), "{body:?}");
    }
    let detail = RefusalBody { detail: 4, ..pid_taken(1) };
    assert_eq!(of(&[1], detail), Err(DecodeError::Unknown { field: "use of a PID", number: 4 }));
    let counted = RefusalBody { reason: Reason::CountLimit as u32, detail: 2, ..pid_taken(0) };
    assert_eq!(of(&[], counted), Err(DecodeError::Unknown { field: "limited resource", number: 2 }));
    let joined =
        RefusalBody { via: Via::Setns as u32, reason: Reason::Other as u32, detail: 0, ..pid_taken(1) };
    let record = namespaced(Kind::NamespaceJoinFailed, &[900, 7], &[], joined);
    let bytes = finish(record, &[&[12]], &[]);
    assert_eq!(decode(&bytes).map(|(h, _)| h), Err(DecodeError::Inconsistent { field: "chosen PIDs" }));
}

#[test]
fn flags_of_another_kind_are_refused() {
    refuses(Kind::ProcessExit, "flags", "arguments", |bytes| bytes[13] = FLAG_ARGS);
    refuses(Kind::ProcessFork, "flags", "a thread", |bytes| bytes[13] = FLAG_THREAD);
    refuses(Kind::ForkFailed, "flags", "chosen PIDs", |bytes| bytes[13] = FLAG_RESTORED);
    refuses(Kind::ProcessExec, "arguments", "arguments without their flag", |bytes| bytes[13] = 0);
}

#[test]
fn a_name_that_is_longer_than_the_record_or_ends_within_is_refused() {
    let name = size_of::<ExecRecord>() - 8;
    let mut longer = valid(Kind::ProcessExec, &[900, 7], &[], b"/bin/sh");
    let (needed, found) = (100, longer.len() - size_of::<ExecRecord>() - 8);
    put(&mut longer, name, needed as u32);
    assert_eq!(decode(&longer).map(|(h, _)| h), Err(DecodeError::Truncated { needed, found }));
    refuses(Kind::ProcessExec, "file name length", "more than PATH_MAX", |bytes| {
        put(bytes, name, FILENAME_MAX as u32 + 1);
    });
    refuses(Kind::ProcessExec, "file name", "a NUL", |bytes| {
        bytes[size_of::<ExecRecord>() + 8 + 3] = 0;
    });
}

#[test]
fn a_process_without_a_pid_in_the_namespace_is_refused() {
    let body = CreateBody { via: Via::Unshare as u32, reserved: 0 };
    let create = namespaced(Kind::NamespaceCreate, &[900], &[800], body);
    let end = TeardownBody { began_boot_ns: 70, killed: 6, reserved: 0 };
    let teardown = namespaced(Kind::NamespaceTeardown, &[900], &[], end);
    let signal = SignalBody { signal: 15, code: 0, fate: 1, origin: Origin::Kernel as u32 };
    let signal = of_init(Kind::InitSignal, &[900], &[800], signal);
    for (bytes, field) in [(create, "other process"), (teardown, "process"), (signal, "sender")] {
        assert_eq!(decode(&bytes).map(|(h, _)| h), Err(DecodeError::Inconsistent { field }));
    }
}

proptest! {
    #[test]
    fn written_events_are_read_back(kind in kind(), pids in chain(), other in chain(), name in proptest::collection::vec(1u8.., 0..100)) {
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
                prop_assert_eq!(record.ns.unwrap().inum, namespace().inum);
                prop_assert_eq!(read(&record.process.unwrap()), init(&pids));
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
            // A header with the new size does not make it valid either.
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
        // Size, kind, flags and PID counts. If one of them is wrong, the rest cannot be read.
        let bytes = valid(kind, &pids, &other, b"/bin/sh");
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        let flags = FLAG_INEXACT | match kind {
            Kind::ProcessFork => FLAG_RESTORED,
            Kind::ProcessExec => FLAG_ARGS_CUT,
            Kind::ForkFailed => FLAG_THREAD,
            _ => 0,
        };
        let harmless = at == 13 && (1 << bit) & flags != 0;
        match decode(&damaged) {
            Err(_) => prop_assert!(!harmless),
            // A record of another kind with the same layout is valid.
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
