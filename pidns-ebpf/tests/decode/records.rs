//! Valid records of each kind, as the kernel side writes them.

use pidns_ebpf::abi::*;
use proptest::prelude::*;

/// The bytes of a wire record.
pub(crate) fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
    // SAFETY: a wire record: repr(C), integers and byte arrays, no implicit padding (record.rs asserts the sizes).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }.to_vec()
}

pub(crate) fn header(kind: Kind, pids: usize, other_pids: usize) -> Header {
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
pub(crate) fn finish(mut record: Vec<u8>, tails: &[&[u32]], bytes: &[u8]) -> Vec<u8> {
    record.extend(tails.iter().flat_map(|pids| pids.iter().flat_map(|pid| pid.to_ne_bytes())));
    record.extend_from_slice(bytes);
    let size = (record.len() as u32).to_ne_bytes();
    record[8..12].copy_from_slice(&size);
    record
}

pub(crate) fn part(pids: &[u32]) -> ProcessPart {
    ProcessPart {
        start_boot_ns: 5,
        pid: pids[0],
        parent_pid: 3,
        uid: 1000,
        ns_inum: 4026532000,
        comm: *b"na\xffme\0\0\0\0\0\0\0\0\0\0\0",
    }
}

pub(crate) const NO_PROCESS: ProcessPart =
    ProcessPart { start_boot_ns: 0, pid: 0, parent_pid: 0, uid: 0, ns_inum: 0, comm: [0; COMM_LEN] };

pub(crate) const NO_NAMESPACE: NamespacePart = NamespacePart {
    kernel_id: 0,
    init_start_boot_ns: 0,
    inum: 0,
    level: 0,
    parent_inum: 0,
    user_ns_inum: 0,
    owner_uid: 0,
    pid_max: 0,
    pids_in_use: 0,
    reserved: 0,
};

pub(crate) fn namespace() -> NamespacePart {
    NamespacePart {
        kernel_id: 9,
        init_start_boot_ns: 4,
        inum: 4026532000,
        level: 2,
        parent_inum: 4026531836,
        user_ns_inum: 4026531837,
        owner_uid: 0,
        pid_max: 0,
        pids_in_use: 0,
        reserved: 0,
    }
}

/// The PIDs of an init. It is one level deeper than `pids` if the kernel allows that, so it is never in the initial
/// namespace.
pub(crate) fn init(pids: &[u32]) -> Vec<u32> {
    [&pids[..pids.len().min(MAX_PIDS - 1)], &[1]].concat()
}

/// A record whose namespace is that of its process.
pub(crate) fn of_init<B: Copy>(kind: Kind, pids: &[u32], other: &[u32], body: B) -> Vec<u8> {
    let pids = init(pids);
    namespaced_in(NamespacePart { level: pids.len() as u32 - 1, ..namespace() }, kind, &pids, other, body)
}

pub(crate) fn namespaced<B: Copy>(kind: Kind, process: &[u32], other: &[u32], body: B) -> Vec<u8> {
    namespaced_in(namespace(), kind, process, other, body)
}

pub(crate) fn namespaced_in<B: Copy>(
    ns: NamespacePart,
    kind: Kind,
    process: &[u32],
    other: &[u32],
    body: B,
) -> Vec<u8> {
    let describe = |pids: &[u32]| if pids.is_empty() { NO_PROCESS } else { part(pids) };
    let record = NamespaceRecord {
        header: header(kind, process.len(), other.len()),
        ns,
        process: describe(process),
        other: describe(other),
        body,
    };
    finish(bytes_of(&record), &[process, other], &[])
}

/// PIDs that a fork chose, as the caller wrote them.
pub(crate) const CHOSEN: [i32; 3] = [12, -1, i32::MAX];

/// The refusal of a fork that chose this number of PIDs.
pub(crate) fn pid_taken(chosen: usize) -> RefusalBody {
    RefusalBody {
        errno: 17,
        via: Via::Clone3 as u32,
        reason: Reason::PidTaken as u32,
        place: 7,
        limit: 0,
        current: 0,
        cgroup: 0,
        detail: PidUse::Thread as u32,
        number: 12,
        chosen: chosen as u32,
        for_chosen: 0,
    }
}

/// The record of a refused fork, with the chosen PIDs and the process that has one of them.
pub(crate) fn not_forked(pids: &[u32], holder: &[u32], chosen: &[i32], body: RefusalBody) -> Vec<u8> {
    let record = namespaced(Kind::ForkFailed, pids, holder, body);
    let chosen: Vec<u32> = chosen.iter().map(|pid| pid.cast_unsigned()).collect();
    finish(record, &[&chosen], &[])
}

/// A valid record of this kind, about processes with these PIDs.
pub(crate) fn valid(kind: Kind, pids: &[u32], other: &[u32], name: &[u8]) -> Vec<u8> {
    let refusal = |via: Via| RefusalBody {
        errno: 12,
        via: via as u32,
        reason: Reason::PidMax as u32,
        place: 7,
        limit: 400,
        current: 101,
        cgroup: 0,
        detail: 0,
        number: 0,
        chosen: 0,
        for_chosen: 0,
    };
    match kind {
        Kind::NamespaceCreate => {
            namespaced(kind, pids, &[], CreateBody { via: Via::Unshare as u32, reserved: 0 })
        }
        Kind::NamespaceInit => of_init(
            kind,
            pids,
            other,
            InitBody { via: Via::Clone as u32, creation: Creation::WithInit as u32 },
        ),
        Kind::NamespaceJoin => namespaced(kind, pids, &[], JoinBody { from_inum: 8, reserved: 0 }),
        Kind::NamespaceInitExit => of_init(
            kind,
            pids,
            &[],
            InitExitBody {
                wait_status: 9,
                members: 6,
                reboot_signal: 0,
                cascade_inum: 0,
                reboot_command: 0,
                oom: 1,
            },
        ),
        Kind::NamespaceTeardown => {
            namespaced(kind, &[], &[], TeardownBody { began_boot_ns: 70, killed: 6, reserved: 0 })
        }
        Kind::NamespaceDestroy => namespaced(kind, &[], &[], ()),
        Kind::InitSignal => of_init(
            kind,
            pids,
            other,
            SignalBody { signal: 15, code: 0, fate: 1, origin: Origin::Ancestor as u32 },
        ),
        Kind::ProcessSignal => namespaced_in(
            NO_NAMESPACE,
            kind,
            pids,
            other,
            SignalBody { signal: 9, code: 0, fate: 0, origin: Origin::Ancestor as u32 },
        ),
        Kind::NamespaceCreateFailed => namespaced(kind, pids, &[], refusal(Via::Clone3)),
        Kind::ForkFailed => not_forked(pids, other, &CHOSEN, pid_taken(CHOSEN.len())),
        Kind::NamespaceJoinFailed => namespaced(kind, pids, &[], refusal(Via::Setns)),
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
                header: Header { flags: FLAG_ARGS, ..header(kind, pids.len(), 0) },
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
                oom: 0,
            };
            finish(bytes_of(&record), &[pids], &[])
        }
        Kind::ProcessReap => {
            let record = ReapRecord { header: header(kind, pids.len(), 0), process: part(pids) };
            finish(bytes_of(&record), &[pids], &[])
        }
    }
}

pub(crate) fn chain() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(1u32..5_000_000, 1..=MAX_PIDS)
}

pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL)
}
