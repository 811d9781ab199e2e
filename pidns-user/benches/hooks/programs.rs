//! Loads the programs for comparison, and reads the kernel's run times of programs.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Btf, Ebpf,
    maps::{MapData, RingBuf},
    programs::{BtfTracePoint, loaded_programs},
};
use pidns_ebpf::abi::names;
use pidns_user::kernel::object;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A hook, and the programs on it.
pub(crate) struct Hook {
    pub(crate) tracepoint: &'static str,
    /// The empty program.
    pub(crate) empty: &'static str,
    /// Our programs. The one that fits the kernel is loaded.
    ours: &'static [&'static str],
}

/// The hook that every fork passes.
pub(crate) const FORK: &str = "sched_process_fork";
/// The hook that every system call passes.
pub(crate) const SYSCALL: &str = "sys_exit";
/// The programs that send a record, on the fork hook.
const RESERVE_SUBMIT: &str = "reserve_submit";
const RESERVE_QUIET: &str = "reserve_quiet";

pub(crate) const HOOKS: [Hook; 6] = [
    Hook { tracepoint: FORK, empty: "empty_fork", ours: &[names::PROGRAM_FORK] },
    Hook { tracepoint: "sched_process_exec", empty: "empty_exec", ours: &[names::PROGRAM_EXEC] },
    Hook {
        tracepoint: "sched_process_exit",
        empty: "empty_exit",
        ours: &[names::PROGRAM_EXIT_GROUP_DEAD, names::PROGRAM_EXIT_LIVE],
    },
    Hook { tracepoint: "sched_process_free", empty: "empty_free", ours: &[names::PROGRAM_FREE] },
    Hook { tracepoint: "signal_generate", empty: "empty_signal", ours: &[names::PROGRAM_SIGNAL] },
    Hook { tracepoint: SYSCALL, empty: "empty_sys_exit", ours: &[names::PROGRAM_SYSCALL] },
];

/// Places with programs of ours and without an empty one: functions, and a tracepoint with few events.
const OTHERS: [(&str, &str); 12] = [
    ("fentry release_task", names::PROGRAM_RELEASE),
    ("fentry proc_free_inum", names::PROGRAM_FREE_INUM),
    ("fentry zap_pid_ns_processes", names::PROGRAM_ZAP_BEGIN),
    ("fexit zap_pid_ns_processes", names::PROGRAM_ZAP_END),
    ("fentry reboot_pid_ns", names::PROGRAM_REBOOT),
    ("fexit copy_pid_ns", names::PROGRAM_COPY_PID_NS),
    ("fexit alloc_pid", names::PROGRAM_ALLOC_PID),
    ("fexit kernel_clone", names::PROGRAM_KERNEL_CLONE),
    ("fexit ksys_unshare", names::PROGRAM_KSYS_UNSHARE),
    ("fexit pidns_install", names::PROGRAM_PIDNS_INSTALL),
    ("fexit __x64_sys_setns", names::PROGRAM_SETNS),
    ("mark_victim", names::PROGRAM_VICTIM),
];

/// All places that may have one of our programs.
pub(crate) fn places() -> impl Iterator<Item = &'static str> {
    HOOKS.iter().map(|hook| hook.tracepoint).chain(OTHERS.iter().map(|(place, _)| *place))
}

/// The kernel keeps 15 characters of a program's name.
fn as_kept(name: &str) -> &str {
    name.get(..15).unwrap_or(name)
}

/// The place of a program with this name, from the bench or from pidns-trace.
fn place(name: &str) -> Option<&'static str> {
    if [RESERVE_SUBMIT, RESERVE_QUIET].contains(&name) {
        return Some(FORK);
    }
    HOOKS
        .iter()
        .find(|hook| hook.empty == name || hook.ours.iter().any(|ours| as_kept(ours) == name))
        .map(|hook| hook.tracepoint)
        .or_else(|| OTHERS.iter().find(|(_, ours)| as_kept(ours) == name).map(|(place, _)| *place))
}

/// Run time and number of runs of a subject's programs, by place.
pub(crate) type RunTimes = BTreeMap<&'static str, (Duration, u64)>;

/// The kernel's counters so far for the programs with these ids. The kernel counts while statistics are enabled.
pub(crate) fn run_times(ids: &[u32]) -> RunTimes {
    // A program that was unloaded during the listing gives an error. It is none of ours, so skip it.
    loaded_programs()
        .flatten()
        .filter(|program| ids.contains(&program.id()))
        .filter_map(|program| {
            Some((place(program.name_as_str()?)?, (program.run_time(), program.run_count())))
        })
        .collect()
}

/// Whether programs of pidns-trace or this bench with other ids are loaded. They belong to another running instance,
/// whose cost would count too.
pub(crate) fn others_are_loaded(ids: &[u32]) -> bool {
    loaded_programs()
        .flatten()
        .filter(|program| !ids.contains(&program.id()))
        .any(|program| program.name_as_str().is_some_and(|name| place(name).is_some()))
}

/// Waits until none of these programs is loaded. The kernel frees programs some time after they are detached, and
/// that work must not count in a measurement.
pub(crate) fn await_gone(ids: &[u32]) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while loaded_programs().flatten().any(|program| ids.contains(&program.id())) {
        ensure!(Instant::now() < deadline, "eBPF programs stay loaded after they were detached");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The bench's own attached programs. Dropping this detaches them.
pub(crate) struct Programs {
    ebpf: Ebpf,
    pub(crate) ids: Vec<u32>,
    consumer: Option<Consumer>,
}

impl Programs {
    /// Attaches empty programs to these tracepoints.
    pub(crate) fn empty(tracepoints: &[&str]) -> Result<Self> {
        let programs: Vec<_> = HOOKS
            .iter()
            .filter(|hook| tracepoints.contains(&hook.tracepoint))
            .map(|hook| (hook.empty, hook.tracepoint))
            .collect();
        ensure!(programs.len() == tracepoints.len(), "no empty program for one of {tracepoints:?}");
        Self::load(&programs, false)
    }

    /// Attaches the program that sends a record for each fork, and starts a reader. The reader is woken for records,
    /// or polls from time to time.
    pub(crate) fn reserve_submit(wake: bool) -> Result<Self> {
        Self::load(&[(if wake { RESERVE_SUBMIT } else { RESERVE_QUIET }, FORK)], true)
    }

    fn load(programs: &[(&str, &str)], consume: bool) -> Result<Self> {
        ensure!(!object::BENCH.is_empty(), "built without eBPF (AYA_BUILD_SKIP): run `cargo xtask bench`");
        let btf = Btf::from_sys_fs().context("read the kernel's BTF")?;
        let mut ebpf = Ebpf::load(&object::BENCH.read()?).context("load the bench's eBPF object")?;
        let consumer = if consume {
            let map = ebpf.take_map("RECORDS").context("the bench's object has no RECORDS")?;
            Some(Consumer::start(RingBuf::try_from(map)?))
        } else {
            None
        };
        let mut ids = Vec::new();
        for (name, tracepoint) in programs {
            let program: &mut BtfTracePoint = ebpf
                .program_mut(name)
                .with_context(|| format!("the bench's object has no {name}"))?
                .try_into()?;
            program.load(tracepoint, &btf).with_context(|| format!("load {name}"))?;
            program.attach().with_context(|| format!("attach {name} to {tracepoint}"))?;
            ids.push(program.info()?.id());
        }
        Ok(Self { ebpf, ids, consumer })
    }

    /// Detaches the programs.
    pub(crate) fn finish(self) {
        let Self { ebpf, ids: _, consumer } = self;
        drop(ebpf);
        if let Some(consumer) = consumer {
            consumer.finish();
        }
    }
}

/// Reads the ring buffer like pidns-trace: after a wake-up it waits 4 ms for more, so that few forks cost a wake-up.
struct Consumer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Consumer {
    fn start(mut ring: RingBuf<MapData>) -> Self {
        const GATHER: Duration = Duration::from_millis(4);
        const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            loop {
                let last = stopped.load(Ordering::Acquire);
                while ring.next().is_some() {}
                if last {
                    return;
                }
                // An interrupted poll does no harm, because the loop reads again.
                let _ = poll(&mut [PollFd::new(&ring, PollFlags::IN)], Some(&POLL));
                thread::sleep(GATHER);
            }
        });
        Self { stop, thread }
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.join().expect("the consumer does nothing that panics")
    }
}
