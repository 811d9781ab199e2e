//! Checked decoding of bytes from the ring buffer to typed records. PIDs and names are not copied. A record that
//! contradicts itself is an error, never a panic.

mod error;

pub use self::error::DecodeError;
use super::{kinds::*, record::*};

/// The kernel's largest errno (`MAX_ERRNO`, include/linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// A process in a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process<'a> {
    /// Everything except its PIDs.
    pub part: ProcessPart,
    pub(super) pids: &'a [u8],
}

impl<'a> Process<'a> {
    /// Its PID at each level, from 0 to the innermost.
    pub fn pids(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        self.pids.chunks_exact(4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// `comm` up to its first NUL.
    pub fn comm(&self) -> &[u8] {
        let end = self.part.comm.iter().position(|&b| b == 0).unwrap_or(COMM_LEN);
        &self.part.comm[..end]
    }
}

/// A decoded record about a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespaced<'a, B> {
    /// The namespace, if it is known.
    pub ns: Option<NamespacePart>,
    /// The process that it happened to, if there is one.
    pub process: Option<Process<'a>>,
    /// The creator or sender, if there is one.
    pub other: Option<Process<'a>>,
    /// The part that depends on the kind.
    pub body: B,
}

/// A decoded refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused<'a> {
    /// The record without the PIDs that the caller chose.
    pub record: Namespaced<'a, RefusalBody>,
    chosen: &'a [u8],
}

impl Refused<'_> {
    /// The PIDs that the caller chose, the innermost first. They can be any numbers.
    pub fn chosen(&self) -> impl ExactSizeIterator<Item = i32> {
        self.chosen.chunks_exact(4).map(|b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
    }
}

/// The contents of a record, by kind. The fields are those of the wire record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is its kind, each field that of the wire record of that kind")]
pub enum Record<'a> {
    NamespaceCreate(Namespaced<'a, CreateBody>),
    NamespaceCreateFailed(Refused<'a>),
    NamespaceInit(Namespaced<'a, InitBody>),
    NamespaceJoin(Namespaced<'a, JoinBody>),
    NamespaceJoinFailed(Namespaced<'a, RefusalBody>),
    NamespaceInitExit(Namespaced<'a, InitExitBody>),
    NamespaceTeardown(Namespaced<'a, TeardownBody>),
    NamespaceDestroy(Namespaced<'a, ()>),
    InitSignal(Namespaced<'a, SignalBody>),
    ForkFailed(Refused<'a>),
    ProcessSignal(Namespaced<'a, SignalBody>),
    ProcessFork {
        process: Process<'a>,
        parent: Process<'a>,
    },
    ProcessExec {
        process: Process<'a>,
        filename: &'a [u8],
        args: &'a [u8],
    },
    ProcessExit {
        process: Process<'a>,
        parent_start_boot_ns: u64,
        wait_status: u32,
        peak_threads: u32,
        cascade_inum: u32,
        oom: u32,
    },
    ProcessReap {
        process: Process<'a>,
    },
    /// A process was reaped: the record of its exit describes it.
    ProcessFree(ProcessKey),
}

/// Types for which any bytes are a valid value.
///
/// # Safety
/// The type must be `repr(C)`, consist of integers and byte arrays, and have no implicit padding.
unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => { $(
        // SAFETY: a wire record: repr(C), integers and byte arrays, padding named (record.rs asserts the sizes).
        unsafe impl Plain for $type {}
    )* };
}

plain!(
    Header,
    ForkRecord,
    ExecRecord,
    ExitRecord,
    ReapRecord,
    FreeRecord,
    NamespaceRecord<CreateBody>,
    NamespaceRecord<InitBody>,
    NamespaceRecord<RefusalBody>,
    NamespaceRecord<JoinBody>,
    NamespaceRecord<InitExitBody>,
    NamespaceRecord<TeardownBody>,
    NamespaceRecord<SignalBody>,
    NamespaceRecord<()>,
);

fn split<T: Plain>(bytes: &[u8]) -> Result<(T, &[u8]), DecodeError> {
    let needed = size_of::<T>();
    let Some((head, tail)) = bytes.split_at_checked(needed) else {
        return Err(DecodeError::Truncated { needed, found: bytes.len() });
    };
    // SAFETY: `head` has size_of::<T>() bytes, and any bytes are a T (Plain).
    Ok((unsafe { head.as_ptr().cast::<T>().read_unaligned() }, tail))
}

fn take(bytes: &[u8], needed: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    bytes.split_at_checked(needed).ok_or(DecodeError::Truncated { needed, found: bytes.len() })
}

fn end(tail: &[u8]) -> Result<(), DecodeError> {
    if tail.is_empty() { Ok(()) } else { Err(DecodeError::Inconsistent { field: "tail" }) }
}

fn check(holds: bool, field: &'static str) -> Result<(), DecodeError> {
    if holds { Ok(()) } else { Err(DecodeError::Inconsistent { field }) }
}

fn known<T>(value: Option<T>, field: &'static str, number: u32) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Unknown { field, number })
}

const NO_PROCESS: ProcessPart =
    ProcessPart { start_boot_ns: 0, pid: 0, parent_pid: 0, uid: 0, ns_inum: 0, comm: [0; COMM_LEN] };

const NO_NAMESPACE: NamespacePart = NamespacePart {
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

/// Combines `part` with its `count` PIDs at the start of `tail`. Without PIDs there is no process.
fn process(part: ProcessPart, count: u8, tail: &[u8]) -> Result<(Option<Process<'_>>, &[u8]), DecodeError> {
    check(usize::from(count) <= MAX_PIDS, "PID count")?;
    let (pids, rest) = take(tail, usize::from(count) * 4)?;
    let process = Process { part, pids };
    match process.pids().next() {
        Some(first) => {
            check(first == part.pid, "PID at level 0")?;
            check(process.pids().all(|pid| pid != 0), "PID")?;
        }
        None => check(part == NO_PROCESS, "process without PIDs")?,
    }
    Ok(((count > 0).then_some(process), rest))
}

fn required<'a>(
    part: ProcessPart,
    count: u8,
    tail: &'a [u8],
) -> Result<(Process<'a>, &'a [u8]), DecodeError> {
    let (process, rest) = process(part, count, tail)?;
    Ok((process.ok_or(DecodeError::Inconsistent { field: "PID count" })?, rest))
}

fn namespaced<B>(bytes: &[u8]) -> Result<Namespaced<'_, B>, DecodeError>
where
    NamespaceRecord<B>: Plain,
{
    let (record, tail) = with_tail(bytes)?;
    end(tail)?;
    Ok(record)
}

/// Decodes a record about a namespace. Returns also the bytes after the PIDs of its processes.
fn with_tail<B>(bytes: &[u8]) -> Result<(Namespaced<'_, B>, &[u8]), DecodeError>
where
    NamespaceRecord<B>: Plain,
{
    let (record, tail) = split::<NamespaceRecord<B>>(bytes)?;
    let NamespaceRecord { header, ns, process: part, other: other_part, body } = record;
    check(ns.level <= MAX_LEVEL && ns.reserved == 0, "namespace")?;
    check(ns.inum != 0 || ns == NO_NAMESPACE, "namespace without a number")?;
    let (process, tail) = process(part, header.pids, tail)?;
    let (other, tail) = self::process(other_part, header.other_pids, tail)?;
    Ok((Namespaced { ns: (ns.inum != 0).then_some(ns), process, other, body }, tail))
}

/// Checks that `via` is one of the calls that records of this kind report.
fn via(number: u32, possible: &[Via]) -> Result<(), DecodeError> {
    check(possible.contains(&known(Via::from_number(number), "via", number)?), "via")
}

fn refusal<'a>(bytes: &'a [u8], possible: &[Via]) -> Result<Refused<'a>, DecodeError> {
    let (record, tail) = with_tail::<RefusalBody>(bytes)?;
    let RefusalBody {
        errno,
        via: number,
        reason,
        place: _,
        limit: _,
        current: _,
        cgroup: _,
        detail,
        number: _,
        chosen,
        for_chosen,
    } = record.body;
    via(number, possible)?;
    let reason = known(Reason::from_number(reason), "reason", reason)?;
    check((1..=MAX_ERRNO).contains(&errno), "errno")?;
    check(record.process.is_some(), "process")?;
    check(chosen as usize <= MAX_CHOSEN && for_chosen <= 1, "chosen PIDs")?;
    match reason {
        Reason::PidTaken => {
            known(PidUse::from_number(detail), "use of a PID", detail)?;
            check(chosen > 0, "chosen PIDs")?;
        }
        Reason::CountLimit => {
            known(Resource::from_number(detail), "limited resource", detail)?;
            alone(&record)?;
        }
        _ => {
            check(detail == 0, "detail")?;
            alone(&record)?;
        }
    }
    let (chosen, tail) = take(tail, chosen as usize * 4)?;
    end(tail)?;
    Ok(Refused { record, chosen })
}

/// Decodes a refusal of a call that cannot choose PIDs.
fn plain_refusal<'a>(bytes: &'a [u8], possible: &[Via]) -> Result<Namespaced<'a, RefusalBody>, DecodeError> {
    let Refused { record, chosen } = refusal(bytes, possible)?;
    check(chosen.is_empty(), "chosen PIDs")?;
    Ok(record)
}

fn signal(bytes: &[u8]) -> Result<Namespaced<'_, SignalBody>, DecodeError> {
    let record = namespaced::<SignalBody>(bytes)?;
    let SignalBody { signal, code: _, fate, origin } = record.body;
    let origin = known(Origin::from_number(origin), "signal origin", origin)?;
    check(fate <= 4, "signal fate")?;
    check((1..=64).contains(&signal), "signal number")?;
    check(origin != Origin::Kernel || record.other.is_none(), "sender")?;
    Ok(record)
}

/// Checks that there are a namespace and a process: records of these kinds always have both.
fn complete<B>(record: &Namespaced<'_, B>) -> Result<(), DecodeError> {
    check(record.ns.is_some(), "namespace")?;
    check(record.process.is_some(), "process")
}

/// Checks that there is no other process: records of these kinds have none.
fn alone<B>(record: &Namespaced<'_, B>) -> Result<(), DecodeError> {
    check(record.other.is_none(), "other process")
}

/// Checks that the namespace is not the initial one, which never begins or ends.
fn mortal<B>(record: &Namespaced<'_, B>) -> Result<(), DecodeError> {
    check(record.ns.is_some_and(|ns| ns.level > 0), "namespace")
}

/// Checks that the process is PID 1 of the namespace, and that the namespace is its innermost one.
fn of_init<B>(record: &Namespaced<'_, B>) -> Result<(), DecodeError> {
    complete(record)?;
    mortal(record)?;
    let fits = record.ns.zip(record.process).is_some_and(|(ns, init)| {
        init.pids().len() == ns.level as usize + 1
            && init.pids().last() == Some(1)
            && init.part.ns_inum == ns.inum
    });
    check(fits, "init")
}

/// The flags that a record of this kind may have besides [`FLAG_INEXACT`].
fn own_flags(kind: Kind) -> u8 {
    match kind {
        Kind::ProcessFork => FLAG_RESTORED,
        Kind::ProcessExec => FLAG_ARGS | FLAG_ARGS_CUT,
        Kind::ForkFailed => FLAG_THREAD,
        _ => 0,
    }
}

/// Decodes one record: all of `bytes`, as the ring buffer delivered it.
pub fn decode(bytes: &[u8]) -> Result<(Header, Record<'_>), DecodeError> {
    let (header, _) = split::<Header>(bytes)?;
    let Header { boot_ns: _, size, kind, flags, pids, other_pids } = header;
    if size as usize != bytes.len() {
        return Err(DecodeError::Size { stated: size as usize, found: bytes.len() });
    }
    let kind = known(Kind::from_number(u32::from(kind)), "record kind", u32::from(kind))?;
    check(flags & !(FLAG_INEXACT | own_flags(kind)) == 0, "flags")?;
    let record = match kind {
        Kind::NamespaceCreate => {
            let record = namespaced::<CreateBody>(bytes)?;
            let CreateBody { via: number, reserved } = record.body;
            via(number, &[Via::Unknown, Via::Unshare])?;
            check(reserved == 0, "padding")?;
            complete(&record)?;
            mortal(&record)?;
            alone(&record)?;
            Record::NamespaceCreate(record)
        }
        Kind::NamespaceCreateFailed => Record::NamespaceCreateFailed(refusal(
            bytes,
            &[Via::Unknown, Via::Clone, Via::Clone3, Via::Unshare],
        )?),
        Kind::NamespaceInit => {
            let record = namespaced::<InitBody>(bytes)?;
            let InitBody { via: number, creation } = record.body;
            via(number, &[Via::Unknown, Via::Clone, Via::Clone3, Via::Unshare])?;
            known(Creation::from_number(creation), "creation", creation)?;
            of_init(&record)?;
            check(record.other.is_some(), "parent")?;
            Record::NamespaceInit(record)
        }
        Kind::NamespaceJoin => {
            let record = namespaced::<JoinBody>(bytes)?;
            check(record.body.reserved == 0, "padding")?;
            complete(&record)?;
            Record::NamespaceJoin(record)
        }
        Kind::NamespaceJoinFailed => {
            Record::NamespaceJoinFailed(plain_refusal(bytes, &[Via::Unknown, Via::Setns])?)
        }
        Kind::NamespaceInitExit => {
            let record = namespaced::<InitExitBody>(bytes)?;
            check(record.body.oom <= 1, "out of memory")?;
            of_init(&record)?;
            alone(&record)?;
            Record::NamespaceInitExit(record)
        }
        Kind::NamespaceTeardown => {
            let record = namespaced::<TeardownBody>(bytes)?;
            check(record.body.reserved == 0, "padding")?;
            mortal(&record)?;
            check(record.process.is_none(), "process")?;
            alone(&record)?;
            Record::NamespaceTeardown(record)
        }
        Kind::NamespaceDestroy => {
            let record = namespaced::<()>(bytes)?;
            mortal(&record)?;
            check(record.process.is_none(), "process")?;
            alone(&record)?;
            Record::NamespaceDestroy(record)
        }
        Kind::InitSignal => {
            let record = signal(bytes)?;
            of_init(&record)?;
            Record::InitSignal(record)
        }
        Kind::ProcessSignal => {
            let record = signal(bytes)?;
            check(record.ns.is_none(), "namespace")?;
            check(record.process.is_some(), "process")?;
            Record::ProcessSignal(record)
        }
        Kind::ForkFailed => {
            let calls = [Via::Unknown, Via::Clone, Via::Clone3, Via::Fork, Via::Vfork];
            Record::ForkFailed(refusal(bytes, &calls)?)
        }
        Kind::ProcessFork => {
            let (record, tail) = split::<ForkRecord>(bytes)?;
            let ForkRecord { header: _, process, parent } = record;
            let (process, tail) = required(process, pids, tail)?;
            let (parent, tail) = required(parent, other_pids, tail)?;
            end(tail)?;
            Record::ProcessFork { process, parent }
        }
        Kind::ProcessExec => {
            let (record, tail) = split::<ExecRecord>(bytes)?;
            let ExecRecord { header: _, process, filename_len, args_len } = record;
            check(other_pids == 0, "PID count")?;
            let (process, tail) = required(process, pids, tail)?;
            check(filename_len as usize <= FILENAME_MAX, "file name length")?;
            check(args_len as usize <= ARGS_MAX, "argument length")?;
            let (filename, tail) = take(tail, filename_len as usize)?;
            let (args, tail) = take(tail, args_len as usize)?;
            end(tail)?;
            check(!filename.contains(&0), "file name")?;
            check(flags & FLAG_ARGS != 0 || (args.is_empty() && flags & FLAG_ARGS_CUT == 0), "arguments")?;
            Record::ProcessExec { process, filename, args }
        }
        Kind::ProcessExit => {
            let (record, tail) = split::<ExitRecord>(bytes)?;
            let ExitRecord {
                header: _,
                process,
                parent_start_boot_ns,
                wait_status,
                peak_threads,
                cascade_inum,
                oom,
            } = record;
            check(other_pids == 0, "PID count")?;
            check(oom <= 1, "out of memory")?;
            let (process, tail) = required(process, pids, tail)?;
            end(tail)?;
            Record::ProcessExit {
                process,
                parent_start_boot_ns,
                wait_status,
                peak_threads,
                cascade_inum,
                oom,
            }
        }
        Kind::ProcessReap if pids == 0 => {
            let (FreeRecord { header: _, key }, tail) = split::<FreeRecord>(bytes)?;
            check(other_pids == 0, "PID count")?;
            check(key.pid != 0 && key.reserved == 0, "process")?;
            end(tail)?;
            Record::ProcessFree(key)
        }
        Kind::ProcessReap => {
            let (ReapRecord { header: _, process }, tail) = split::<ReapRecord>(bytes)?;
            check(other_pids == 0, "PID count")?;
            let (process, tail) = required(process, pids, tail)?;
            end(tail)?;
            Record::ProcessReap { process }
        }
    };
    Ok((header, record))
}
