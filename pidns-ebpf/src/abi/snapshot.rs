//! Records of the task iterator (one for each process) and their checked decoding.

use super::{
    decode::{DecodeError, Process},
    record::{MAX_LEVEL, MAX_PIDS, NamespacePart, ProcessPart},
};

/// A process that exists. Tail: its PIDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct SnapshotRecord {
    /// Bytes of the whole record, with its tail.
    pub size: u32,
    /// PIDs in the tail.
    pub pids: u32,
    /// The process.
    pub process: ProcessPart,
    /// Its innermost namespace.
    pub ns: NamespacePart,
    /// `task_struct.__state` of its first thread.
    pub state: u32,
    /// `task_struct.exit_state` of its first thread.
    pub exit_state: u32,
    /// Threads not yet reaped.
    pub threads: u32,
    /// Thread group id at level 0 of the tracer of its first thread; 0: none.
    pub tracer: u32,
    /// The id of its first thread's cgroup in the default hierarchy (v2); 0: unknown on this kernel.
    pub cgroup_id: u64,
    /// Threads not yet exiting (`signal_struct.live`).
    pub threads_live: u32,
    /// `task_struct.flags` of its first thread.
    pub task_flags: u32,
    /// 1: its innermost namespace allocates no more PIDs, because the PID 1 there has ended or is exiting.
    pub ns_dying: u32,
    /// 1: it adopts the orphans among its descendants (PR_SET_CHILD_SUBREAPER). 0: it does not. 2: unknown on this
    /// kernel.
    pub subreaper: u32,
    /// The low 32 bits of `task_struct.jobctl` of the first thread; 0: unknown on this kernel.
    pub jobctl: u32,
    /// Padding, always 0.
    pub reserved: u32,
    /// Opaque id of the first thread's css_set. Two processes with the same id in one pass are in the same cgroups of
    /// all hierarchies. 0: unknown on this kernel.
    pub cgroups: u64,
    /// When its first thread last got a CPU, by the scheduler's clock (`sched_info.last_arrival`); 0: unknown on this
    /// kernel.
    pub last_arrival: u64,
    /// How long it ran since then, in nanoseconds: `se.sum_exec_runtime` minus its value when the thread was last
    /// scheduled in.
    pub last_ran: u64,
}

const _: () = assert!(size_of::<SnapshotRecord>() == 168);

/// A decoded [`SnapshotRecord`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotProcess<'a> {
    /// The fixed part.
    pub record: SnapshotRecord,
    /// The process with its PIDs.
    pub process: Process<'a>,
}

/// Decodes the first record of `bytes`; returns it and the remaining bytes.
pub fn decode_snapshot(bytes: &[u8]) -> Result<(SnapshotProcess<'_>, &[u8]), DecodeError> {
    const FIXED: usize = size_of::<SnapshotRecord>();
    if bytes.len() < FIXED {
        return Err(DecodeError::Truncated { needed: FIXED, found: bytes.len() });
    }
    // SAFETY: `bytes` holds size_of::<SnapshotRecord>() bytes, all fields are integers, and read_unaligned needs no
    // alignment.
    let record = unsafe { bytes.as_ptr().cast::<SnapshotRecord>().read_unaligned() };
    let SnapshotRecord {
        size,
        pids,
        process: part,
        ns,
        state: _,
        exit_state: _,
        threads: _,
        tracer: _,
        cgroup_id: _,
        threads_live: _,
        task_flags: _,
        ns_dying,
        subreaper,
        jobctl: _,
        reserved,
        cgroups: _,
        last_arrival: _,
        last_ran: _,
    } = record;
    let inconsistent = |field| Err(DecodeError::Inconsistent { field });
    if pids == 0 || pids as usize > MAX_PIDS {
        return inconsistent("number of PIDs");
    }
    if size as usize != FIXED + 4 * pids as usize {
        return inconsistent("size");
    }
    let Some((whole, rest)) = bytes.split_at_checked(size as usize) else {
        return Err(DecodeError::Truncated { needed: size as usize, found: bytes.len() });
    };
    if ns.reserved != 0 || reserved != 0 {
        return inconsistent("padding");
    }
    if ns_dying > 1 {
        return inconsistent("namespace's end");
    }
    if subreaper > 2 {
        return inconsistent("subreaper");
    }
    if ns.level > MAX_LEVEL || ns.level + 1 != pids || ns.inum != part.ns_inum {
        return inconsistent("namespace");
    }
    Ok((SnapshotProcess { record, process: Process { part, pids: &whole[FIXED..] } }, rest))
}
