//! Programs that list holders of namespaces other than the members: open files, and processes whose children will be
//! born in a namespace. They also list the root directory and mount namespace of each process, to find mounts.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use pidns_ebpf::abi::holders::{HolderRecord, KIND_CHILDREN, KIND_FILE, KIND_ROOT, RootRecord};

use crate::{
    access::{Access as _, Direct, Probed},
    kernel::{File, NsCommon, PidNamespace, Task},
    layout::{Constant, NSPROXY_PID_FOR_CHILDREN, PIDNS_CHILD_REAPER, TASK_FILES, TASK_NSPROXY},
    offsets::{FS_ROOT_ENTRY, FS_ROOT_MOUNT, MOUNT_NS_NS, NSPROXY_MOUNT_NS, TASK_FS},
};

/// `struct bpf_iter__task`: see the program that lists the processes.
#[repr(C)]
struct TaskContext {
    meta: *const *mut seq_file,
    task: *const c_void,
}

/// `struct bpf_iter__task_file` (kernel/bpf/task_iter.c): `{ struct bpf_iter_meta *meta; struct task_struct *task; u32
/// fd; struct file *file; }`. Task and file are null once, at the end. The kernel holds a reference to the file during
/// the call.
/// <https://github.com/torvalds/linux/blob/v6.18/kernel/bpf/task_iter.c#L339>
#[repr(C)]
struct FileContext {
    meta: *const *mut seq_file,
    task: *const c_void,
    fd: u32,
    file: *const c_void,
}

/// The part of a record that describes the holder.
struct Holder {
    kind: u32,
    tgid: u32,
    tid: u32,
    fd: u32,
    start_boot_ns: u64,
    table: u64,
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
extern "C" fn file_holders(context: *const FileContext) -> i32 {
    // SAFETY: the kernel's context, which the verifier knows.
    let (meta, task, fd, file) = unsafe {
        (
            (&raw const (*context).meta).read_volatile(),
            (&raw const (*context).task).read_volatile(),
            (&raw const (*context).fd).read_volatile(),
            (&raw const (*context).file).read_volatile(),
        )
    };
    if task.is_null() || file.is_null() {
        return 0;
    }
    let Some(ns) = File::<Direct>::at(file.cast()).namespace().and_then(NsCommon::pid_namespace) else {
        return 0;
    };
    let task = Task::<Probed>::at(task.cast());
    let (tgid, tid) = (task.tgid(), task.pid());
    let leader = task.group_leader();
    let table: u64 = task.field(TASK_FILES);
    // Kernels before 5.10 list the files of each thread. A thread is skipped if it shares the table of the first
    // thread. If the first thread has ended, the other threads still have the files.
    if tid != tgid && table == leader.field::<u64>(TASK_FILES) {
        return 0;
    }
    let holder = Holder { kind: KIND_FILE, tgid, tid, fd, start_boot_ns: leader.start_boottime(), table };
    // SAFETY: the file that the kernel passed.
    unsafe { write_holder(meta.read_volatile(), &holder, ns) };
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
extern "C" fn task_holders(context: *const TaskContext) -> i32 {
    // SAFETY: the kernel's context, which the verifier knows.
    let (meta, task) = unsafe {
        ((&raw const (*context).meta).read_volatile(), (&raw const (*context).task).read_volatile())
    };
    if task.is_null() {
        return 0;
    }
    // A helper copies everything: the verifier needs half a millisecond for each typed pointer from a task.
    let task = Task::<Probed>::at(task.cast());
    let proxy: *const u8 = task.field(TASK_NSPROXY);
    let fs: *const u8 = task.field(TASK_FS);
    if proxy.is_null() || fs.is_null() {
        // The task has ended.
        return 0;
    }
    let (tgid, tid) = (task.tgid(), task.pid());
    let leader = task.group_leader();
    let children = PidNamespace::<Probed>::at(read(proxy, NSPROXY_PID_FOR_CHILDREN));
    let mount_ns: *const u8 = read(proxy, NSPROXY_MOUNT_NS);
    // SAFETY: the address of a member.
    let mount_ns = NsCommon::<Probed>::at(unsafe { mount_ns.add(MOUNT_NS_NS.offset()) }).inum();
    let (mount, folder): (u64, u64) = (read(fs, FS_ROOT_MOUNT), read(fs, FS_ROOT_ENTRY));
    let (_, own) = task.thread_pid().innermost();
    // Like /proc, this reports pid_for_children only if the namespace has had a first process. The kernel never clears
    // the pointer to that process.
    let has_had_init = children.field::<u64>(PIDNS_CHILD_REAPER) != 0;
    let is_elsewhere = children.address() != own.address() && has_had_init;
    // If the task still has both pointers, they were valid while the program read from them.
    if task.field::<u64>(TASK_NSPROXY) != proxy as u64 || task.field::<u64>(TASK_FS) != fs as u64 {
        return 1;
    }
    // SAFETY: the file that the kernel passed.
    unsafe {
        let seq = meta.read_volatile();
        if is_elsewhere {
            let start_boot_ns = leader.start_boottime();
            let holder = Holder { kind: KIND_CHILDREN, tgid, tid, fd: 0, start_boot_ns, table: 0 };
            write_holder(seq, &holder, children);
        }
        // The first thread reports the process. If that thread has ended, the others do.
        if tid == tgid || leader.field::<u64>(TASK_NSPROXY) == 0 {
            let start_boot_ns = leader.start_boottime();
            let record = RootRecord { kind: KIND_ROOT, tgid, tid, mount_ns, start_boot_ns, mount, folder };
            bpf_seq_write(seq, (&raw const record).cast_mut().cast(), size_of::<RootRecord>() as u32);
        }
    }
    0
}

/// Writes a record of the holder and the namespace.
///
/// # Safety
/// `seq` must be the iterator's file.
#[inline(always)]
unsafe fn write_holder(seq: *mut seq_file, holder: &Holder, ns: PidNamespace<Probed>) {
    let Holder { kind, tgid, tid, fd, start_boot_ns, table } = *holder;
    let mut record = MaybeUninit::<HolderRecord>::uninit();
    let to = record.as_mut_ptr();
    // SAFETY: each field of a record on the stack is written, and it has no padding; the caller's promise for the file.
    unsafe {
        (&raw mut (*to).kind).write(kind);
        (&raw mut (*to).tgid).write(tgid);
        (&raw mut (*to).tid).write(tid);
        (&raw mut (*to).fd).write(fd);
        (&raw mut (*to).start_boot_ns).write(start_boot_ns);
        (&raw mut (*to).table).write(table);
        ns.describe(&raw mut (*to).ns);
        bpf_seq_write(seq, to.cast(), size_of::<HolderRecord>() as u32);
    }
}

#[inline(always)]
fn read<T: Copy>(base: *const u8, offset: impl Constant) -> T {
    // SAFETY: a pointer or an integer; any bytes are a valid value, copied by a helper.
    unsafe { Probed::read(base.add(offset.offset())) }
}
