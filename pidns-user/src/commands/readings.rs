//! Reads what findings need of /proc, in a thread of its own; in the caller's where none can be started.

use std::{
    collections::BTreeMap,
    sync::mpsc::{self, Receiver, SyncSender, TrySendError},
    thread,
    time::Duration,
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::{
    event::{
        ReachedLimit,
        identity::{BootNs, HostPid, NsInum},
        snapshot::Snapshot,
    },
    findings::readings::{Holders, LimitChain, ProcShows, Reader, Readings, Wanted},
    kernel::clock,
    procfs::{
        Procfs,
        doing::DoingReader,
        limits::{Limit, LimitReader},
        ties::Ties,
    },
};

/// What reads /proc for findings.
pub(super) fn reader() -> Box<dyn Reader> {
    let (ask, asked) = mpsc::sync_channel::<Wanted>(1);
    let (give, taken) = mpsc::channel();
    let work = move || {
        for wanted in asked {
            if give.send(read(&wanted)).is_err() {
                return;
            }
        }
    };
    match thread::Builder::new().name("findings".to_owned()).spawn(work) {
        Ok(_) => Box::new(Beside { ask, taken }),
        Err(_) => Box::new(InTurn(None)),
    }
}

/// What reads /proc for findings in the caller's thread.
pub(super) fn reader_in_turn() -> Box<dyn Reader> {
    Box::new(InTurn(None))
}

/// In a thread that ends with this.
struct Beside {
    ask: SyncSender<Wanted>,
    taken: Receiver<Readings>,
}

impl Reader for Beside {
    fn ask(&mut self, wanted: Wanted) {
        match self.ask.try_send(wanted) {
            // It is still at the last, and is asked anew at the next detection.
            Ok(()) | Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {}
        }
    }

    fn take(&mut self) -> Option<Readings> {
        self.taken.try_recv().ok()
    }
}

/// In the caller's thread.
struct InTurn(Option<Readings>);

impl Reader for InTurn {
    fn ask(&mut self, wanted: Wanted) {
        self.0 = Some(read(&wanted));
    }

    fn take(&mut self) -> Option<Readings> {
        self.0.take()
    }
}

fn read(wanted: &Wanted) -> Readings {
    let procfs = Procfs::default();
    let Wanted { doing, limits, holders, still_held, proc } = wanted;
    let tasks = procfs.tasks().unwrap_or(0);
    let mut read = Readings { at: clock::boottime_ns(), tasks, ..Readings::default() };
    let reader = DoingReader::new(&procfs);
    for &key in doing {
        match reader.doing(key.pid) {
            Ok(Some(found)) => drop(read.doing.insert(key, Ok(found))),
            Err(why) => drop(read.doing.insert(key, Err(why))),
            Ok(None) => drop(read.gone.insert(key)),
        }
    }
    if !limits.is_empty() {
        read.limits = read_limits(&procfs, limits, read.at, tasks);
    }
    if !holders.is_empty()
        && let Ok(mut snapshot) = procfs.snapshot(read.at, &mut || {})
    {
        let before = cpu_time();
        procfs.add_holders(&mut snapshot, Ties::default(), &mut || {});
        let at = read.at;
        read.holders = holders.iter().map(|&inum| (inum, holders_of(inum, at, &snapshot))).collect();
        read.holders_took = cpu_time().saturating_sub(before);
    }
    for (&inum, holders) in still_held {
        if !holders.iter().any(|holder| procfs.still_holds(holder, inum)) {
            read.let_go.insert(inum);
        }
    }
    for (&key, around) in proc {
        // What may not be read is not claimed.
        let own = procfs.device_of_proc(Some(key.pid)).ok().flatten();
        let shown = own.and_then(|own| {
            let is_shown = |pid| procfs.device_of_proc(pid).ok().flatten() == Some(own);
            around.iter().find(|(_, pid)| is_shown(*pid))
        });
        let shown = shown.map(|&(ns, _)| ProcShows { ns, path: "/proc".into() });
        read.proc.insert(key, shown);
    }
    read
}

/// What this thread has used of a CPU. (On a busy machine reading takes many times as long, and costs no more.)
fn cpu_time() -> Duration {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(tv_sec.try_into().unwrap_or(0), tv_nsec.try_into().unwrap_or(0))
}

fn read_limits(
    procfs: &Procfs,
    wanted: &BTreeMap<NsInum, HostPid>,
    at: BootNs,
    tasks: u64,
) -> BTreeMap<NsInum, LimitChain> {
    let Ok(mut reader) = LimitReader::new(procfs) else { return BTreeMap::new() };
    let mut found = BTreeMap::new();
    for (&inum, &init) in wanted {
        let before = reader.unread();
        let chain = match reader.chain(init) {
            Ok(limits) => LimitChain {
                at,
                tasks,
                limits: limits.into_iter().map(reached).collect(),
                unread: reader.unread() - before,
            },
            Err(_) => LimitChain { at, tasks, limits: Vec::new(), unread: 1 },
        };
        found.insert(inum, chain);
    }
    found
}

fn reached(Limit { kind, current, limit, cgroup }: Limit) -> ReachedLimit {
    ReachedLimit {
        kind: kind.name().into(),
        value: Some(limit),
        current: Some(current),
        cgroup,
        cgroup_id: None,
        uid: None,
        ns: None,
        user_ns: None,
    }
}

fn holders_of(inum: NsInum, at: BootNs, snapshot: &Snapshot) -> Holders {
    Holders {
        at,
        holders: snapshot
            .holders
            .iter()
            .filter(|(ns, _)| *ns == inum)
            .map(|(_, holder)| holder.clone())
            .collect(),
        left_out: snapshot.holders_left_out.get(&inum).copied().unwrap_or(0),
        unread: snapshot.unread.files,
    }
}
