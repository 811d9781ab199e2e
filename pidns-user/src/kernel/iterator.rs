//! Reads all processes with the kernel's task iterator.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, Read as _},
};

use aya::{Ebpf, Endianness, VerifierLogLevel, programs::Iter};
use pidns_ebpf::abi::{
    DecodeError, ProcessPart, names,
    snapshot::{self, SnapshotRecord, decode_snapshot},
    symbols,
};

use super::{
    btf::{Btf, BtfError},
    error::{LoadError, with_causes},
    fill_in::Object,
    holders::HolderReader,
    kfuncs::Kfuncs,
    layout::SnapshotLayout,
    load::{check_privileges, loader_without_btf, raise_memlock, read_btf},
    namespace_part::namespace_of,
    object,
};

use crate::{
    event::identity::{BootNs, HostPid, NsInum},
    event::snapshot::{Freezer, Snapshot, SnapshotNamespace, SnapshotProcess, SnapshotSource},
    procfs::kernel_holders::KernelHolders,
    text::Name,
};

/// Attach point of the program for processes: `int bpf_iter_task(struct bpf_iter_meta *meta, struct task_struct
/// *task)`.
pub(super) const FUNCTION: &str = "bpf_iter_task";
/// Attach point of the program for open files (5.8 and later): `int bpf_iter_task_file(struct bpf_iter_meta *meta,
/// struct task_struct *task, u32 fd, struct file *file)`.
pub(super) const FILE_FUNCTION: &str = "bpf_iter_task_file";

/// The loaded iterators. Dropping this unloads them.
pub struct TaskIterator {
    ebpf: Ebpf,
    /// Whether the iterators that find holders of namespaces are loaded, or why not.
    holders: Result<(), String>,
}

impl TaskIterator {
    /// Loads only the iterator of processes.
    pub fn load() -> Result<Self, LoadError> {
        Self::load_all(false)
    }

    /// Also loads the iterators that find holders of namespaces, if the kernel accepts them.
    pub fn load_with_holders() -> Result<Self, LoadError> {
        Self::load_all(true)
    }

    fn load_all(with_holders: bool) -> Result<Self, LoadError> {
        check_privileges()?;
        if object::SNAPSHOT.is_empty() {
            return Err(LoadError::NoObject);
        }
        raise_memlock();
        let LookedUp { layout, attach_points, has_files } = look_up()?;
        let mut loader = loader_without_btf();
        loader.verifier_log_level(VerifierLogLevel::DEBUG);
        let probe_numbers = (symbols::PROBE_NUMBERS, u32::from(layout.probe_numbers));
        let numbers = layout.offsets.iter().copied().chain([probe_numbers]);
        let bytes = object::SNAPSHOT
            .read()
            .map_err(|error| LoadError::Io { what: "read the embedded eBPF programs", error })?;
        let object = Object::with(&bytes, Kfuncs::default(), numbers);
        let holders = Err("they were not requested".to_owned());
        let mut iterators = Self { ebpf: loader.load(object.bytes())?, holders };
        iterators.load_one(names::PROGRAM_SNAPSHOT, "task", &attach_points)?;
        if with_holders {
            iterators.holders = if !has_files {
                Err("this kernel has no iterator of open files".to_owned())
            } else if !layout.has_holders() {
                Err("the kernel's structures are not known".to_owned())
            } else {
                let tasks = iterators.load_one(names::PROGRAM_TASK_HOLDERS, "task", &attach_points);
                let files = tasks.and_then(|()| {
                    iterators.load_one(names::PROGRAM_FILE_HOLDERS, "task_file", &attach_points)
                });
                files.map_err(|error| error.to_string())
            };
        }
        Ok(iterators)
    }

    fn load_one(&mut self, name: &str, of: &str, attach_points: &aya::Btf) -> Result<(), LoadError> {
        self.program(name)?.load(of, attach_points).map_err(|error| refused(&error))
    }

    fn program(&mut self, name: &str) -> Result<&mut Iter, LoadError> {
        let program = self.ebpf.program_mut(name).ok_or(LoadError::NoObject)?;
        program.try_into().map_err(|error| refused(&error))
    }

    /// Whether holders of namespaces can be read, or why not.
    pub fn holders_loaded(&self) -> Result<(), &str> {
        self.holders.as_ref().copied().map_err(String::as_str)
    }

    /// Reads the records of all processes that this process's PID namespace can see; `abi::snapshot` decodes them. It
    /// can be called repeatedly. It calls `between` every few hundred processes.
    pub fn read(&mut self, between: &mut dyn FnMut()) -> Result<Vec<u8>, LoadError> {
        let mut records = Vec::with_capacity(64 << 10);
        self.run(names::PROGRAM_SNAPSHOT, between, |bytes| {
            records.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(records)
    }

    /// Reads the holders of namespaces among the processes of this snapshot. `between` as above.
    pub fn read_holders(
        &mut self,
        snapshot: &Snapshot,
        between: &mut dyn FnMut(),
    ) -> Result<KernelHolders, LoadError> {
        self.holders_loaded().map_err(|why| LoadError::Iterator(why.to_owned()))?;
        let mut reader = HolderReader::new(HostPid(std::process::id()), snapshot);
        // The second program reports files only for processes that the first one found.
        for program in [names::PROGRAM_TASK_HOLDERS, names::PROGRAM_FILE_HOLDERS] {
            self.run(program, between, |bytes| reader.take(bytes).map_err(|error| damaged(&error)))?;
        }
        reader.finish().map_err(|error| damaged(&error))
    }

    /// Runs a program over all tasks or files. It passes on each piece of output at once, because there can be very
    /// many files.
    fn run(
        &mut self,
        program: &str,
        between: &mut dyn FnMut(),
        mut take: impl FnMut(&[u8]) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        let program = self.program(program)?;
        let link = program.attach().map_err(|error| refused(&error))?;
        let link = program.take_link(link).map_err(|error| refused(&error))?;
        let mut file = link.into_file().map_err(|error| refused(&error))?;
        // The kernel fills 32 KiB at a time.
        let mut buffer = vec![0; 64 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => take(buffer.get(..count).unwrap_or_default())?,
                // EAGAIN: the program wrote nothing for a million files, or wants to see a task again. Reading
                // continues there.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(LoadError::Iterator(format!("read it: {error}"))),
            }
            between();
        }
    }
}

/// The facts that the iterators need from BTF.
struct LookedUp {
    layout: SnapshotLayout,
    /// BTF with the attach points of the programs.
    attach_points: aya::Btf,
    /// Whether `attach_points` has the iterator of open files.
    has_files: bool,
}

/// Looks up the offsets and attach points. It reads no other part of BTF.
fn look_up() -> Result<LookedUp, LoadError> {
    let bytes = read_btf()?;
    let mut names = SnapshotLayout::types();
    names.extend([FUNCTION, FILE_FUNCTION]);
    let btf = Btf::parse_for(&bytes, &names)?;
    let layout = SnapshotLayout::resolve(&btf)?;
    let function = btf.function(FUNCTION);
    let id = function.map_err(|_| refused(&io::Error::other("this kernel has no iterator of tasks")))?;
    let mut points = vec![(id, FUNCTION.to_owned())];
    points.extend(btf.function(FILE_FUNCTION).ok().map(|id| (id, FILE_FUNCTION.to_owned())));
    let projected = btf.project(&points)?;
    let attach_points = aya::Btf::parse(&projected, Endianness::default())
        .map_err(|_| BtfError::Unexpected("the iterators' attach points".to_owned()))?;
    Ok(LookedUp { layout, attach_points, has_files: points.len() > 1 })
}

fn refused(error: &(dyn std::error::Error + 'static)) -> LoadError {
    LoadError::Iterator(with_causes(error))
}

fn damaged(error: &DecodeError) -> LoadError {
    LoadError::Iterator(error.to_string())
}

/// Decodes a snapshot that the task iterator wrote between `boot_ns` and `until`.
pub fn snapshot_of(boot_ns: BootNs, until: BootNs, bytes: &[u8]) -> Result<Snapshot, DecodeError> {
    let clock = SchedulerClock::of(until, bytes)?;
    let mut bytes = bytes;
    let mut processes = Vec::new();
    let mut namespaces = BTreeMap::new();
    while !bytes.is_empty() {
        let (found, rest) = decode_snapshot(bytes)?;
        bytes = rest;
        let snapshot::SnapshotProcess { record, process } = found;
        let SnapshotRecord {
            size: _,
            pids: _,
            process: part,
            ns,
            state,
            exit_state,
            threads,
            tracer,
            cgroup_id,
            threads_live,
            task_flags,
            ns_dying,
            subreaper,
            jobctl,
            reserved: _,
            cgroups,
            last_arrival,
            last_ran,
        } = record;
        let ProcessPart { start_boot_ns, pid, parent_pid, uid, ns_inum, comm: _ } = part;
        let pids: Vec<u32> = process.pids().collect();
        if pids.contains(&0) || ns_inum == 0 {
            // The machine's idle task, or a task that is being reaped and has lost its PIDs.
            continue;
        }
        let namespace = namespaces.entry(NsInum(ns.inum)).or_insert_with(|| namespace_of(&ns));
        let is_zombie = exit_state != 0 && threads <= 1;
        let state_letter = letter(state, exit_state);
        let freezer = frozen_by(state, task_flags, jobctl, state_letter);
        let exiting = threads_live == 0 && !is_zombie;
        let last_ran = clock.end_of_run(last_arrival, last_ran).map(|end| end.min(boot_ns));
        let process = SnapshotProcess {
            pid: HostPid(pid),
            pids,
            comm: Some(Name::from(process.comm())),
            start_boot_ns: Some(BootNs(start_boot_ns)),
            ppid: HostPid::known(parent_pid),
            uid: Some(uid),
            ns: Some(NsInum(ns_inum)),
            state: Some(state_letter),
            threads: Some(threads),
            threads_live: Some(threads_live),
            exiting,
            frozen: freezer.is_some(),
            freezer,
            tracer: HostPid::known(tracer),
            subreaper: match subreaper {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
            cgroup_id: (cgroup_id != 0).then_some(cgroup_id),
            cgroup: None,
            cgroup_set: (cgroups != 0).then_some(cgroups),
            zombie_since_boot_ns: last_ran.filter(|_| is_zombie),
            last_ran_boot_ns: last_ran.filter(|_| exiting),
            wchan: None,
            container: None,
        };
        if process.is_init() && !process.is_zombie() {
            // An exiting init that waits for its members can no longer be found from the kernel's record of the
            // namespace.
            namespace.born_boot_ns = process.start_boot_ns;
        }
        namespace.dying |= ns_dying != 0 || (process.is_init() && process.exiting);
        processes.push(process);
    }
    // Parents without processes of their own.
    let parents = namespaces.values().filter_map(|ns| Some((ns.parent?, ns.level.checked_sub(1)?)));
    for (inum, level) in parents.collect::<Vec<_>>() {
        namespaces.entry(inum).or_insert_with(|| SnapshotNamespace::bare(inum, level));
    }
    processes.sort_by_key(|process| process.pid);
    Ok(Snapshot { processes, namespaces, ..Snapshot::empty(SnapshotSource::Iterator, boot_ns) })
}

/// The clock by which the scheduler dates tasks (`rq_clock()`, kernel/sched/sched.h). It starts about at boot, stands
/// still while the machine is suspended, and no program can read it.
#[derive(Clone, Copy, Debug)]
struct SchedulerClock {
    /// The latest time at which a task came to a CPU. It is assumed to be the time `until`, because at least the reader
    /// came to a CPU just before that. The longer before it was, the later are the times derived from it.
    latest: u64,
    until: BootNs,
}

impl SchedulerClock {
    fn of(until: BootNs, mut records: &[u8]) -> Result<Self, DecodeError> {
        let mut latest = 0;
        while !records.is_empty() {
            let (found, rest) = decode_snapshot(records)?;
            latest = latest.max(found.record.last_arrival);
            records = rest;
        }
        Ok(Self { latest, until })
    }

    /// When a thread stopped running, if it came to a CPU at `arrival` and ran for `ran` ns. `None` if this kernel does
    /// not report that. (For real-time threads `ran` begins at an earlier arrival, so the result is too late.)
    fn end_of_run(self, arrival: u64, ran: u64) -> Option<BootNs> {
        let ago = self.latest.checked_sub(arrival).filter(|_| arrival != 0)?;
        Some(self.until.saturating_sub(ago.saturating_sub(ran)))
    }
}

/// `TASK_FROZEN`, include/linux/sched.h (6.1 and later; earlier kernels had it above all other states).
const FROZEN: u32 = 0x8000;

/// The freezer of a task, if it is frozen; `letter` is the letter of its state.
///
/// A v1 cgroup or a suspending machine puts tasks into the refrigerator (kernel/freezer.c); then only a thaw wakes
/// them. A v2 cgroup asks each task to stop where it would take a signal, and SIGKILL still works
/// (kernel/cgroup/freezer.c). A task in uninterruptible sleep (D) freezes only after it wakes.
fn frozen_by(state: u32, flags: u32, jobctl: u32, letter: char) -> Option<Freezer> {
    /// Before 6.1 (include/linux/sched.h). Since then, this bit means something else for kernel threads.
    const PF_FROZEN: u32 = 0x0001_0000;
    const PF_KTHREAD: u32 = 0x0020_0000;
    /// `JOBCTL_TRAP_FREEZE`, include/linux/sched/jobctl.h.
    const TRAP_FREEZE: u32 = 1 << 23;
    if state & FROZEN != 0 || flags & (PF_FROZEN | PF_KTHREAD) == PF_FROZEN {
        Some(Freezer::CgroupV1OrSuspend)
    } else if jobctl & TRAP_FREEZE != 0 && matches!(letter, 'S' | 'T' | 't') {
        Some(Freezer::CgroupV2)
    } else {
        None
    }
}

/// The letter that /proc shows for a task in this state (`task_state_index()`, include/linux/sched.h).
fn letter(state: u32, exit_state: u32) -> char {
    /// `TASK_REPORT`: the states that /proc distinguishes.
    const REPORT: u32 = 0x7f;
    const UNINTERRUPTIBLE: u32 = 0x2;
    const NOLOAD: u32 = 0x400;
    const RTLOCK_WAIT: u32 = 0x1000;
    if state & (UNINTERRUPTIBLE | NOLOAD) == UNINTERRUPTIBLE | NOLOAD {
        return 'I';
    }
    let state = if state & (RTLOCK_WAIT | FROZEN) != 0 { UNINTERRUPTIBLE } else { state };
    let reported = (state | exit_state) & REPORT;
    let index = u32::BITS - reported.leading_zeros();
    ['R', 'S', 'D', 'T', 't', 'X', 'Z', 'P'].get(index as usize).copied().unwrap_or('?')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_ends_with_its_last_run() {
        let clock = SchedulerClock { latest: 900, until: BootNs(5_000) };
        assert_eq!(clock.end_of_run(800, 30), Some(BootNs(4_930)));
        assert_eq!(clock.end_of_run(900, 0), Some(BootNs(5_000)));
        assert_eq!(clock.end_of_run(800, 300), Some(BootNs(5_000)), "a run cannot end in the future");
        assert_eq!(clock.end_of_run(0, 0), None);
    }

    #[test]
    fn states_have_the_same_letters_as_in_proc() {
        let cases = [
            (0, 0, 'R'),
            (1, 0, 'S'),
            (2, 0, 'D'),
            (0x402, 0, 'I'),
            (0x104, 0, 'T'),
            (8, 0, 't'),
            (0x80, 0x20, 'Z'),
            (0x80, 0x10, 'X'),
            (0x40, 0, 'P'),
            (0x8000, 0, 'D'),
            // Sleeps in a freezable way.
            (0x2001, 0, 'S'),
        ];
        for (state, exit_state, expected) in cases {
            assert_eq!(letter(state, exit_state), expected, "{state:#x} {exit_state:#x}");
        }
    }

    #[test]
    fn a_frozen_task_is_in_the_refrigerator_or_stopped_by_its_cgroup() {
        const TRAP_FREEZE: u32 = 1 << 23;
        let (v1, v2) = (Some(Freezer::CgroupV1OrSuspend), Some(Freezer::CgroupV2));
        let cases = [
            (0x8000, 0, 0, v1),
            (2, 0x0001_0000, 0, v1),
            (1, 0x0021_0000, 0, None),
            (2, 0x0040_0000, 0, None),
            (0x2001, 0, TRAP_FREEZE, v2),
            (0x104, 0, TRAP_FREEZE, v2),
            // Not frozen yet: in these states it takes no signals either.
            (2, 0, TRAP_FREEZE, None),
            (0, 0, TRAP_FREEZE, None),
            (1, 0, 0, None),
        ];
        for (state, flags, jobctl, expected) in cases {
            let found = frozen_by(state, flags, jobctl, letter(state, 0));
            assert_eq!(found, expected, "{state:#x} {flags:#x} {jobctl:#x}");
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        assert!(snapshot_of(BootNs(0), BootNs(0), &[1; 20]).is_err());
        assert!(snapshot_of(BootNs(0), BootNs(0), &[0xff; 200]).is_err());
        assert_eq!(snapshot_of(BootNs(7), BootNs(8), &[]).map(|snapshot| snapshot.processes.len()), Ok(0));
    }
}
